"""``casfs verify``: prove that nothing has rotted."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click
import msgspec

from casfs.cli.options import Duration, Instant, RootFlags, pass_roots
from casfs.cli.output import print_json, printable, progress_console, say
from casfs.cli.quantities import Share, Size
from casfs.cli.watching import Watching
from casfs.durable import replace_file
from casfs.errors import DamageError, UsageError, storage_error
from casfs.quantities import format_bytes
from casfs.verify import (
    GroupName,
    Level,
    Plan,
    Progress,
    Report,
    VerifyState,
    default_directory,
    open_state,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMED = 5


@click.command("verify")
@click.option("--quick", is_flag=True, help="Look at existence and size of objects; read none.")
@click.option("--manifests", is_flag=True, help="Check the manifests alone, no objects.")
@click.option(
    "--max-age",
    type=Duration(),
    metavar="AGE",
    help="Leave out what was found sound within this time, as 30d; oldest first.",
)
@click.option(
    "--max-duration",
    type=Duration(),
    metavar="TIME",
    help="Stop after this time, as 2h; the next such run goes on there.",
)
@click.option(
    "--sample",
    type=Share(),
    metavar="SHARE",
    help="Look at this share of the objects, as 5%; the next run looks at others.",
)
@click.option(
    "--broadcast", metavar="PATTERN", help="Only what these broadcasts need: name or glob."
)
@click.option(
    "--since", type=Instant(), metavar="TIME", help="Only what groups received from then on need."
)
@click.option(
    "--until", type=Instant(), metavar="TIME", help="Only what groups received before then need."
)
@click.option(
    "--from-disk",
    is_flag=True,
    help="Have the page cache drop each object first, so that the disk is read.",
)
@click.option(
    "--bwlimit", type=Size(), metavar="RATE", help="Read at most so much a second, as 50M."
)
@click.option(
    "--threads", type=click.IntRange(1, 64), default=2, show_default=True, help="Hash in parallel."
)
@click.option(
    "--state-dir",
    metavar="DIR",
    help="Where to remember what was found sound, and when.  [default: $STATE_DIRECTORY, else "
    "casfs below $XDG_STATE_HOME or ~/.local/state]",
)
@click.option("--quarantine", is_flag=True, help="Move damaged objects aside; nothing is deleted.")
@click.option(
    "--repair-from",
    metavar="CAS-ROOT",
    multiple=True,
    help="Take good copies of damaged and missing objects from there; may be repeated.",
)
@click.option(
    "--report", "report_file", metavar="FILE", help="Write the JSON report to a file, too."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@pass_roots
def verify_command(
    flags: RootFlags,
    *,
    quick: bool,
    manifests: bool,
    max_age: float | None,
    max_duration: float | None,
    sample: float | None,
    broadcast: str | None,
    since: int | None,
    until: int | None,
    from_disk: bool,
    bwlimit: float | None,
    threads: int,
    state_dir: str | None,
    quarantine: bool,
    repair_from: tuple[str, ...],
    report_file: str | None,
    as_json: bool,
) -> None:
    """Read every manifest line and every object that they need, and report all damage.

    Safe while recorders run; changes nothing unless --quarantine or --repair-from ask for it;
    never stops at a first finding. Exit code 3 means that something is damaged, missing or broken
    and was not repaired. Unreferenced objects are no damage: a crash can leave some. A run that
    --max-duration stopped ends with 0 if it found nothing, and says that it is not complete.

    \b
    Example:
      casfs verify
      casfs verify --from-disk --max-age 30d --max-duration 2h
      casfs verify --quarantine --repair-from /backup/cas
      casfs verify --json | jq '.damaged[].groups[]'
    """
    if quick and manifests:
        raise UsageError("--quick and --manifests are two levels", advice="choose one")
    level: Level = "quick" if quick else "manifests" if manifests else "full"
    plan = Plan(
        level=level,
        from_disk=from_disk,
        bandwidth=bwlimit,
        max_age=max_age,
        max_duration=max_duration,
        sample=sample,
        broadcast=broadcast,
        since=since,
        until=until,
        quarantine=quarantine,
        repair_from=repair_from,
    )
    plan.check()
    archive = flags.archive()
    progress = Progress()
    directory = state_dir or default_directory(os.environ)
    needed = plan.remembers or state_dir is not None
    with (
        open_state(directory, archive.roots, archive.store_id, needed=needed)
        if plan.uses_state
        else VerifyState() as state,
        Watching(progress_console(), ProgressText(progress)),
    ):
        report = verify(archive, plan, state=state, progress=progress, threads=threads)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if report_file is not None:
        _write_report(report_file, report)
    if not report.sound:
        changed = bool(report.repaired) or any(item.quarantined for item in report.damaged)
        advice = "docs/operations.md says how to mend it"
        raise DamageError(
            f"{report.findings} finding(s) of damage in the archive",
            advice=advice if changed else f"{advice}; nothing was changed",
        )


def _write_report(path: str, report: Report) -> None:
    try:
        replace_file(os.path.abspath(path), msgspec.json.encode(report) + b"\n")
    except OSError as error:
        raise storage_error(error, "writing the report", path) from error


def _print_report(report: Report) -> None:
    for damaged in report.damaged:
        say(f"damaged   {damaged.hash}  {damaged.reason}")
        _print_groups(damaged.groups, damaged.groups_total)
        if damaged.quarantined is not None:
            say(f"          moved to {damaged.quarantined}")
    for missing in report.missing:
        say(f"missing   {missing.hash}")
        _print_groups(missing.groups, missing.groups_total)
    for repaired in report.repaired:
        say(f"repaired  {repaired.hash}  from {repaired.source}")
    for unmended in report.unmended:
        say(f"unmended  {unmended.hash}  {unmended.reason}")
    for error in report.manifest_errors:
        place = f"{error.journal}/{error.segment}"
        say(f"manifest  {place} bytes {error.offset}-{error.end}: {error.reason}")
    say(_summary(report))
    if report.sound:
        say("the archive is sound" if _whole(report) else "what was looked at is sound")
    if not report.complete:
        say("not complete: the time was over; the next run with --max-duration goes on there")


def _summary(report: Report) -> str:
    if report.level == "manifests":
        return f"manifests read in {report.seconds:.1f} s"
    parts = [f"{report.objects} objects"]
    if report.level == "quick":
        parts[0] += f" looked up in {report.seconds:.1f} s"
    else:
        rate = report.bytes / report.seconds if report.seconds else 0
        parts[0] += (
            f", {format_bytes(report.bytes)} read and hashed in {report.seconds:.1f} s "
            f"({format_bytes(rate)}/s)"
        )
    if report.skipped:
        parts.append(f"{report.skipped} left out")
    if report.unreferenced is not None:
        parts.append(f"{report.unreferenced} unreferenced")
    return "; ".join(parts)


def _whole(report: Report) -> bool:
    """Say whether each object was read."""
    counted = report.unreferenced is not None
    return report.level == "full" and counted and report.complete and not report.skipped


def _print_groups(groups: Sequence[GroupName], total: int) -> None:
    for group in groups[:_NAMED]:
        say(
            f"          needed by {printable(group.broadcast)} {printable(group.track)} "
            f"epoch {group.epoch} sequence {group.sequence}"
        )
    if total > _NAMED:
        say(f"          and by {total - _NAMED} more groups")


class ProgressText:
    """Says how far a verification has come."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._objects_begun: float | None = None

    def __call__(self) -> str:
        """Return one line. What is left is judged by the shards that are due by their age."""
        progress = self._progress
        if progress.stage == "manifests":
            return f"manifests: {progress.lines} lines, {progress.findings} findings"
        now = time.monotonic()
        if self._objects_begun is None:
            self._objects_begun = now
        elapsed = max(now - self._objects_begun, 0.1)
        share = min(progress.shards / progress.due, 1.0)
        left = f"about {elapsed * (1 - share) / share:.0f} s left, " if share else ""
        return (
            f"objects: {share:.0%}, {progress.objects} objects, {progress.skipped} left out, "
            f"{format_bytes(progress.bytes)}, {format_bytes(progress.bytes / elapsed)}/s, "
            f"{left}{progress.findings} findings"
        )
