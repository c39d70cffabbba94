"""``casfs expire``: decide what need not be kept any longer."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from casfs.cli.options import Duration, RootFlags, pass_roots
from casfs.cli.output import print_json, printable, say
from casfs.cli.quantities import Share, Size
from casfs.errors import ConfigError
from casfs.expire import disk_space, expire
from casfs.quantities import format_bytes
from casfs.retention import Policy
from casfs.timestamps import HOUR, NANOSECONDS, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.archive import Archive
    from casfs.retention import Decision

_WIDE = 10_000


class Room(click.ParamType[float]):
    """Space on a disk: a size such as ``500G``, or a share of the disk such as ``10%``.

    Gives bytes, or for a share a negative number: its hundredths.
    """

    name = "room"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return what ``value`` says."""
        if str(value).strip().endswith("%"):
            return -100 * Share().convert(value, param, ctx)
        return Size().convert(value, param, ctx)


class HoursOfDay(click.ParamType[frozenset[int]]):
    """Hours of the day such as ``18-23``: from 18:00 to 23:00; ``22-02`` passes midnight."""

    name = "hours"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[int]:
        """Return the hours, each as 0 to 23."""
        if isinstance(value, frozenset):
            return value
        match = re.fullmatch(r"(?a)(\d\d?)-(\d\d?)", str(value).strip())
        if match is None or not (0 <= int(match[1]) < 24 and 0 < int(match[2]) <= 24):
            self.fail(f"{value!r} is no span of hours such as 18-23", param, ctx)
        first, last = int(match[1]), int(match[2])
        return frozenset(hour % 24 for hour in range(first, last + (24 if last <= first else 0)))


def room_bytes(archive: Archive, room: float | None) -> int | None:
    """Return the bytes that a `Room` stands for on the disk of the archive; None for none."""
    if room is None or room >= 0:
        return None if room is None else int(room)
    return int(disk_space(archive).total * -room / 100)


@click.command("expire")
@click.option("--older-than", type=Duration(), help="What ended so long ago expires, as 30d.")
@click.option("--keep-bytes", type=Size(), help="The oldest expires until this is held, as 2T.")
@click.option(
    "--min-free", type=Room(), help="The oldest expires until so much is free, as 10% or 500G."
)
@click.option(
    "--ahead",
    type=Duration(),
    default="7d",
    show_default=True,
    help="With --min-free: look so far ahead, at the growth of the last week.",
)
@click.option(
    "--broadcast",
    "broadcasts",
    multiple=True,
    metavar="GLOB",
    help="Only these broadcasts; may be given often.",
)
@click.option(
    "--keep-last",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="The newest N hours of each broadcast stay.",
)
@click.option(
    "--keep-daily",
    type=HoursOfDay(),
    multiple=True,
    metavar="HH-HH",
    help="These hours of the day (UTC) stay; may be given often.",
)
@click.option("--yes", is_flag=True, help="Do it. Without, only say what would expire.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def expire_command(
    flags: RootFlags,
    *,
    older_than: float | None,
    keep_bytes: float | None,
    min_free: float | None,
    ahead: float,
    broadcasts: Sequence[str],
    keep_last: int,
    keep_daily: Sequence[frozenset[int]],
    yes: bool,
    as_json: bool,
) -> None:
    """Decide which hours need not be kept any longer; they do not show any more then.

    Nothing is deleted: casfs collect does that later, and casfs restore undoes it until then. Whole
    sealed hours expire, the oldest first; init and catalog groups stay while any media needs them.
    Sizes are those of the payload; objects that groups share count for each. What was collected
    and lies in the trash counts as free. What expires now becomes free a grace period later, so
    --min-free counts what will have come by then. Safe while recorders run.

    \b
    Example:
      casfs expire --older-than 30d
      casfs expire --older-than 30d --keep-daily 18-23 --broadcast 'demo/*' --yes
      casfs expire --min-free 10% --keep-last 24 --yes
    """
    if older_than is None and keep_bytes is None and min_free is None:
        raise ConfigError(
            "nothing says what expires", advice="give --older-than, --keep-bytes or --min-free"
        )
    archive = flags.archive()
    policy = Policy(
        older_than=None if older_than is None else int(older_than * NANOSECONDS),
        keep_bytes=None if keep_bytes is None else int(keep_bytes),
        min_free=room_bytes(archive, min_free),
        ahead=int(ahead * NANOSECONDS),
        broadcasts=tuple(broadcasts),
        keep_last=keep_last,
        keep_daily=frozenset[int]().union(*keep_daily),
    )
    decisions = expire(archive, policy, act=yes)
    if as_json:
        print_json(_plain(decisions, acted=yes))
        return
    if decisions:
        _print_table(decisions)
    total = format_bytes(sum(decision.bytes for decision in decisions))
    say(f"{len(decisions)} hour(s), {total} {'have expired' if yes else 'would expire'}")
    if decisions:
        say("casfs collect takes them off the disk" if yes else "nothing was changed: give --yes")


def _plain(decisions: Sequence[Decision], *, acted: bool) -> dict[str, object]:
    return {
        "acted": acted,
        "groups": sum(decision.groups for decision in decisions),
        "bytes": sum(decision.bytes for decision in decisions),
        "hours": [
            {
                "broadcast": decision.broadcast.name,
                "hour": format_time(decision.hour * HOUR),
                "groups": decision.groups,
                "bytes": decision.bytes,
                "kept": len(decision.expired.keep),
                "reason": decision.reason,
            }
            for decision in decisions
        ],
    }


def _print_table(decisions: Sequence[Decision]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("hour (UTC)", no_wrap=True)
    table.add_column("broadcast", overflow="fold")
    for name in ("groups", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why")
    for decision in decisions:
        table.add_row(
            format_time(decision.hour * HOUR)[:13].replace("T", " "),
            printable(decision.broadcast.name),
            str(decision.groups),
            format_bytes(decision.bytes),
            decision.reason,
        )
    # A terminal folds what does not fit; a pipe gets each hour on one line.
    width = None if sys.stdout.isatty() else _WIDE
    Console(highlight=False, markup=False, width=width).print(table)
