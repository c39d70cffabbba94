"""``casfs ls``: what the archive holds."""

from __future__ import annotations

import contextlib
import fnmatch
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.output import print_json, say
from casfs.errors import NotFoundError
from casfs.quantities import format_bytes
from casfs.timestamps import format_time

if TYPE_CHECKING:
    from casfs.index.rows import TrackSummary

_WIDE = 10_000


@click.command("ls")
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each track.")
@pass_roots
def ls_command(flags: RootFlags, pattern: str, *, as_json: bool) -> None:
    """List broadcasts and tracks; PATTERN is a broadcast's name or a glob.

    With --json each line has broadcast, track, groups, bytes, first and last (times of the first
    and last group, null if there is none).

    \b
    Example:
      casfs ls
      casfs ls 'demo/*' --json | jq -r '[.broadcast, .track, .bytes] | @tsv'
    """
    with contextlib.closing(flags.archive().reader()) as reader:
        summaries = [
            reader.summary(track)
            for broadcast in reader.broadcasts()
            if fnmatch.fnmatchcase(broadcast.name, pattern) or broadcast.name == pattern
            for track in reader.tracks(broadcast)
        ]
    if not summaries and pattern != "*":
        raise NotFoundError(
            f"no broadcast in the archive matches {pattern!r}", advice="casfs ls lists them all"
        )
    if as_json:
        for summary in summaries:
            print_json(_plain(summary))
    elif summaries:
        _print_table(summaries)
    else:
        say("the archive is empty")


def _plain(summary: TrackSummary) -> dict[str, object]:
    return {
        "broadcast": summary.track.broadcast.name,
        "track": summary.track.name,
        "groups": summary.groups,
        "bytes": summary.bytes,
        "first": None if summary.first is None else format_time(summary.first),
        "last": None if summary.last is None else format_time(summary.last),
    }


def _print_table(summaries: list[TrackSummary]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("broadcast", "track"):
        table.add_column(name, overflow="fold")
    for name in ("groups", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("first (UTC)", "last (UTC)"):
        table.add_column(name, no_wrap=True)
    for summary in summaries:
        table.add_row(
            _printable(summary.track.broadcast.name),
            _printable(summary.track.name),
            str(summary.groups),
            format_bytes(summary.bytes),
            _short_time(summary.first),
            _short_time(summary.last),
        )
    # A terminal folds what does not fit; a pipe gets each track on one line.
    width = None if sys.stdout.isatty() else _WIDE
    Console(highlight=False, markup=False, width=width).print(table)


def _printable(name: str) -> str:
    """Return a name for a terminal, which the relay's choice of letters must not steer."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in name)


def _short_time(instant: int | None) -> str:
    return "-" if instant is None else format_time(instant)[:19].replace("T", " ")
