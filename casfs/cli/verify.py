"""``casfs verify``: prove that nothing has rotted."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import click

from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.output import format_bytes, print_json, progress_console, say
from casfs.errors import DamageError
from casfs.verify import GroupName, Progress, Report, verify

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMED = 5
_EVERY = 0.2


@click.command("verify")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.option(
    "--threads", type=click.IntRange(1, 64), default=2, show_default=True, help="Hash in parallel."
)
@pass_roots
def verify_command(flags: RootFlags, *, as_json: bool, threads: int) -> None:
    """Read every manifest line and every object that they need, and report all damage.

    Safe while recorders run; changes nothing; never stops at a first finding. Exit code 3 means
    that something is damaged, missing or broken. Unreferenced objects are no damage: a crash can
    leave some.

    \b
    Example:
      casfs verify
      casfs verify --json | jq '.damaged[].groups[]'
    """
    archive = flags.archive()
    progress = Progress()
    with _Display(progress):
        report = verify(archive, progress=progress, threads=threads)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if not report.sound:
        count = len(report.damaged) + len(report.missing) + len(report.manifest_errors)
        raise DamageError(
            f"{count} finding(s) of damage in the archive",
            advice="docs/operations.md says how to mend it; nothing was changed",
        )


def _print_report(report: Report) -> None:
    for damaged in report.damaged:
        say(f"damaged   {damaged.hash}  {damaged.reason}")
        _print_groups(damaged.groups, damaged.groups_total)
    for missing in report.missing:
        say(f"missing   {missing.hash}")
        _print_groups(missing.groups, missing.groups_total)
    for error in report.manifest_errors:
        place = f"{error.journal}/{error.segment}"
        say(f"manifest  {place} bytes {error.offset}-{error.end}: {error.reason}")
    rate = report.bytes / report.seconds if report.seconds else 0
    say(
        f"{report.objects} objects, {format_bytes(report.bytes)} read and hashed in "
        f"{report.seconds:.1f} s ({format_bytes(rate)}/s); {report.unreferenced} unreferenced"
    )
    if report.sound:
        say("the archive is sound")


def _print_groups(groups: Sequence[GroupName], total: int) -> None:
    for group in groups[:_NAMED]:
        say(
            f"          needed by {group.broadcast} {group.track} "
            f"epoch {group.epoch} sequence {group.sequence}"
        )
    if total > _NAMED:
        say(f"          and by {total - _NAMED} more groups")


class _Display:
    """Shows on stderr how far a verification has come, once it takes over a second."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="casfs-progress", daemon=True)

    def __enter__(self) -> None:
        if progress_console().is_terminal:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        if self._done.wait(1):
            return
        begun = time.monotonic()
        with progress_console().status("reading manifests") as status:
            while not self._done.wait(_EVERY):
                status.update(self._text(time.monotonic() - begun + 1))

    def _text(self, elapsed: float) -> str:
        progress = self._progress
        if progress.stage == "manifests":
            return f"manifests: {progress.lines} lines"
        share = max(progress.shards / 256, 1e-6)
        return (
            f"objects: {progress.shards * 100 // 256} %, {progress.objects} objects, "
            f"{format_bytes(progress.bytes)}, {format_bytes(progress.bytes / elapsed)}/s, "
            f"about {elapsed * (1 - share) / share:.0f} s left, {progress.findings} findings"
        )
