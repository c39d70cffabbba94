"""``casfs index``: the SQLite mirror of the manifests."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click

from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.output import print_json, progress_console, say
from casfs.errors import StorageError
from casfs.heads import KnownHeads
from casfs.index.index import Index, IndexFault
from casfs.index.mirror import rebuild
from casfs.index.samples import SampleIndex
from casfs.manifests.lag import journal_lag
from casfs.manifests.layout import JournalPlace, all_journals

if TYPE_CHECKING:
    from casfs.manifests.record import Position


@click.group("index")
def index_group() -> None:
    """Look after the index, a mirror of the manifests that can always be made anew."""


@index_group.command("rebuild")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def rebuild_command(flags: RootFlags, *, as_json: bool) -> None:
    """Make the index anew from the manifests, also while recorders run.

    \b
    Example:
      casfs index rebuild
    """
    archive = flags.archive()
    console = progress_console()

    def progress(place: JournalPlace, lines: int) -> None:
        if console.is_terminal:
            console.print(f"{place}: {lines} lines")

    try:
        lines = rebuild(
            archive.index_path,
            archive.roots.manifests,
            archive.store_id,
            progress=progress,
            head_of=KnownHeads(archive.roots.cas).of,
        )
    except IndexFault as error:
        raise StorageError(
            f"the index {archive.index_path} cannot be written: {error}",
            advice="check the permissions and the space there, or name another place by --index",
        ) from error
    if as_json:
        print_json({"index": archive.index_path, "lines": lines})
    else:
        say(f"{lines} lines are in {archive.index_path}")


@index_group.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def status_command(flags: RootFlags, *, as_json: bool) -> None:
    """Say how far the index is behind the manifests.

    \b
    Example:
      casfs index status --json | jq .behind_bytes
    """
    archive = flags.archive()
    root = archive.roots.manifests
    places = list(all_journals(root))
    reason = ""
    positions: dict[JournalPlace, Position | None] = {}
    try:
        with contextlib.closing(
            Index.open_for_reading(archive.index_path, archive.store_id)
        ) as index:
            positions = {place: index.position(place) for place in places}
    except IndexFault as error:
        reason = str(error)
    usable, journals = not reason, len(places)
    behind = sum(journal_lag(place.directory(root), positions.get(place)) for place in places)
    size = os.path.getsize(archive.index_path) if usable else 0
    with contextlib.closing(SampleIndex.open_for_reading(archive.index_path)) as index_of_samples:
        samples = index_of_samples.counts()
    if as_json:
        print_json(
            {
                "index": archive.index_path,
                "usable": usable,
                "reason": reason,
                "bytes": size,
                "journals": journals,
                "behind_bytes": behind,
                "samples": samples,
            }
        )
    elif not usable:
        say(f"there is no usable index at {archive.index_path} ({reason})")
        say("readers do without; casfs index rebuild makes one")
    elif behind:
        say(f"the index is {behind} bytes of manifest lines behind, over {journals} journals")
    else:
        say(f"the index mirrors all {journals} journals")
    if not as_json:
        say(f"the sample tables of {samples.payloads} groups or runs are known")
