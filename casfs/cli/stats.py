"""``casfs stats``: how much there is, how much of it is the same, and how fast it grows."""

from __future__ import annotations

import contextlib
import fnmatch
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.output import print_json, printable, progress_console, say, warn_of_inodes
from casfs.errors import NotFoundError, ObjectNotFoundError
from casfs.quantities import format_bytes
from casfs.timestamps import DAY, date_of, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.archive import Archive
    from casfs.index.rows import BroadcastRow
    from casfs.index.statistics import ArchiveTotals, DayTotals, Totals

_WIDE = 10_000
_BAR = 30
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@click.command("stats")
@click.argument("pattern", default="*")
@click.option(
    "--days",
    type=click.IntRange(0),
    default=14,
    show_default=True,
    help="Show the growth of the last so many days.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all days.")
@pass_roots
def stats_command(flags: RootFlags, pattern: str, *, days: int, as_json: bool) -> None:
    """Count objects, groups and bytes; PATTERN is a broadcast's name or a glob.

    Logical bytes are the payloads of all groups; stored bytes count each object once. A day's
    stored bytes are those of the objects that came on that day (UTC) for the first time.

    \b
    Example:
      casfs stats
      casfs stats 'demo/*' --json | jq .dedup_ratio
    """
    archive = flags.archive()
    totals = _gather(archive, pattern)
    if pattern != "*" and not totals.broadcasts:
        raise NotFoundError(
            f"no broadcast in the archive matches {pattern!r}", advice="casfs ls lists them all"
        )
    unsized = _sizes(archive, totals)
    if pattern == "*":
        objects, stored = totals.totals.objects, totals.totals.stored_bytes
        warn_of_inodes(archive.roots, stored / objects if objects else None)
    if as_json:
        print_json(_plain(totals, unsized))
        return
    whole = totals.totals
    if not totals.broadcasts:
        say("the archive is empty")
        return
    say(
        f"{whole.objects + len(unsized)} objects of {whole.groups} groups: "
        f"{format_bytes(whole.logical_bytes)} logical, "
        f"{format_bytes(whole.stored_bytes + sum(unsized))} stored, "
        f"dedup {whole.dedup_ratio:.2f}x"
    )
    say()
    _print_table(totals)
    if days and totals.days:
        say()
        _print_days(totals.days, days)


def _gather(archive: Archive, pattern: str) -> ArchiveTotals:
    def wanted(broadcast: BroadcastRow) -> bool:
        return fnmatch.fnmatchcase(broadcast.name, pattern) or broadcast.name == pattern

    console = progress_console()
    with contextlib.closing(archive.reader()) as reader:
        if not console.is_terminal:
            return reader.statistics(wanted if pattern != "*" else None)
        with console.status("counting groups") as status:
            return reader.statistics(
                wanted if pattern != "*" else None,
                lambda count: status.update(f"counting objects: {count}"),
            )


def _sizes(archive: Archive, totals: ArchiveTotals) -> list[int]:
    """Return the sizes of those objects of which only the disk knows."""
    sizes: list[int] = []
    for digest in totals.unsized:
        with contextlib.suppress(ObjectNotFoundError):
            sizes.append(archive.objects.stat(digest).st_size)
    return sizes


def _plain(totals: ArchiveTotals, unsized: Sequence[int]) -> dict[str, object]:
    whole = _plain_totals(totals.totals)
    whole["objects"] = totals.totals.objects + len(unsized)
    whole["stored_bytes"] = totals.totals.stored_bytes + sum(unsized)
    return {
        **whole,
        "broadcasts": [
            {
                "broadcast": part.broadcast.name,
                "number": part.broadcast.number,
                **_plain_totals(part.totals),
                "tracks": [
                    {"track": track.track.name, **_plain_totals(track.totals)}
                    for track in part.tracks
                ],
            }
            for part in totals.broadcasts
        ],
        "days": [
            {
                "date": date_of(day.day * DAY),
                "groups": day.groups,
                "logical_bytes": day.logical_bytes,
                "stored_bytes": day.stored_bytes,
            }
            for day in totals.days
        ],
    }


def _plain_totals(totals: Totals) -> dict[str, object]:
    return {
        "groups": totals.groups,
        "objects": totals.objects,
        "logical_bytes": totals.logical_bytes,
        "stored_bytes": totals.stored_bytes,
        "dedup_ratio": round(totals.dedup_ratio, 4),
        "first": None if totals.first is None else format_time(totals.first),
        "last": None if totals.last is None else format_time(totals.last),
    }


def _print_table(totals: ArchiveTotals) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("broadcast, track", overflow="fold")
    for name in ("groups", "objects", "logical", "stored", "dedup"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in totals.broadcasts:
        _add_row(table, printable(part.broadcast.name), part.totals)
        for track in part.tracks:
            _add_row(table, f"  {printable(track.track.name)}", track.totals)
    _console().print(table)


def _add_row(table: Table, name: str, totals: Totals) -> None:
    table.add_row(
        name,
        str(totals.groups),
        str(totals.objects),
        format_bytes(totals.logical_bytes),
        format_bytes(totals.stored_bytes),
        f"{totals.dedup_ratio:.2f}x",
    )


def _print_days(days: Sequence[DayTotals], most: int) -> None:
    """Print the last days of the archive, also those on which nothing came, with bars."""
    known = {day.day: day for day in days}
    last = days[-1].day
    shown = range(max(days[0].day, last - most + 1), last + 1)
    largest = max((known[day].stored_bytes for day in shown if day in known), default=0)
    table = Table(box=None, pad_edge=False)
    table.add_column("day (UTC)", no_wrap=True)
    for name in ("groups", "logical", "stored"):
        table.add_column(name, justify="right", no_wrap=True)
    bars = sys.stdout.isatty()
    if bars:
        table.add_column("", no_wrap=True)
    for number in shown:
        day = known.get(number)
        groups, logical, stored = (
            (day.groups, day.logical_bytes, day.stored_bytes) if day is not None else (0, 0, 0)
        )
        cells = [date_of(number * DAY), str(groups), format_bytes(logical), format_bytes(stored)]
        table.add_row(*cells, *([bar(stored, largest)] if bars else []))
    _console().print(table)


def bar(value: int, largest: int) -> str:
    """Return a bar of up to 30 columns, to an eighth of one; what is not nothing shows."""
    if value <= 0 or largest <= 0:
        return ""
    eighths = max(1, round(value * _BAR * 8 / largest))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _console() -> Console:
    # A terminal folds what does not fit; a pipe gets each row on one line.
    width = None if sys.stdout.isatty() else _WIDE
    return Console(highlight=False, markup=False, width=width)
