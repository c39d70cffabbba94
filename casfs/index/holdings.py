"""What a broadcast holds, hour by hour, as far as retention must know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.digest import Digest
from casfs.index.expiring import expired_hours
from casfs.index.rows import BroadcastRow
from casfs.manifests.expiry import ExpiredHour
from casfs.manifests.record import INIT_TRACKS, SealRecord
from casfs.timestamps import HOUR, parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.index.index import Index


class MediaUse(Struct, frozen=True):
    """What media of one hour needs to be played."""

    epoch: int
    init: Digest | None
    last_n: int
    """The highest commit number among its records."""


class HourHolding(Struct, frozen=True):
    """The media of one hour, by received-start."""

    hour: int
    """Since the Unix epoch."""
    records: int
    """Closed groups that are not expired, superseded ones too: those that an expiry would name."""
    groups: int
    """Of these, what shows."""
    bytes: int
    """Their payload."""
    held_bytes: int
    """The payload of all groups of the hour that show, later ones too."""
    uses: tuple[MediaUse, ...]


class SupportGroup(Struct, frozen=True):
    """A record of an init or catalog track."""

    n: int
    hour: int
    epoch: int
    track: str
    hash: Digest
    size: int
    shown: bool
    expired: bool


class Holding(Struct, frozen=True):
    """A broadcast. What is closed: records of hours up to ``sealed`` with ``n`` up to ``through``.

    A seal closes its hour and every hour before it; of these, what came until the newest seal.
    """

    broadcast: BroadcastRow
    sealed: int | None
    """The newest sealed hour since the Unix epoch; None if there is none."""
    through: int
    hours: tuple[HourHolding, ...]
    """In order."""
    supports: tuple[SupportGroup, ...]
    expired: Mapping[int, ExpiredHour]
    """By hour."""


def holdings(index: Index) -> list[Holding]:
    """Return what each broadcast of an index holds; raises `IndexFault`."""
    return [_holding(index, broadcast) for broadcast in index.broadcasts()]


def _holding(index: Index, broadcast: BroadcastRow) -> Holding:
    number = broadcast.number
    seals = [
        msgspec.json.decode(event.body, type=SealRecord) for event in index.events(number, ["seal"])
    ]
    through = max((seal.through for seal in seals), default=0)
    return Holding(
        broadcast=broadcast,
        sealed=max((parse_time(seal.hour) // HOUR for seal in seals), default=None),
        through=through,
        hours=_hours(index, number, through),
        supports=_supports(index, number),
        expired=expired_hours(index, number),
    )


_FROM = "from groups g join journals j on j.id = g.journal where g.number = ? and j.track"
_MARKS = ", ".join("?" * len(INIT_TRACKS))
_SHOWN = "(g.current and not g.expired)"


def _hours(index: Index, number: int, through: int) -> tuple[HourHolding, ...]:
    rows: dict[int, list[Sequence[int]]] = {}
    uses: dict[int, list[MediaUse]] = {}
    for hour, epoch, init, last_n, *sums in index.select(
        f"select g.received_start / {HOUR}, g.epoch, g.init, max(g.n),"
        " sum(g.groups * (not g.expired and g.n <= ?)),"
        f" sum(g.groups * ({_SHOWN} and g.n <= ?)), sum(g.size * ({_SHOWN} and g.n <= ?)),"
        f" sum(g.size * {_SHOWN}) {_FROM} not in ({_MARKS}) group by 1, 2, 3",
        (through, through, through, number, *INIT_TRACKS),
    ):
        rows.setdefault(hour, []).append(sums)
        digest = Digest(init.hex()) if init is not None else None
        uses.setdefault(hour, []).append(MediaUse(epoch, digest, last_n))
    return tuple(HourHolding(hour, *_added(rows[hour]), tuple(uses[hour])) for hour in sorted(rows))


def _added(rows: Sequence[Sequence[int]]) -> tuple[int, int, int, int]:
    records, groups, size, held = (sum(row[at] for row in rows) for at in range(4))
    return records, groups, size, held


def _supports(index: Index, number: int) -> tuple[SupportGroup, ...]:
    return tuple(
        SupportGroup(
            *(n, hour, epoch, track, Digest(digest.hex()), size), bool(shown), bool(expired)
        )
        for n, hour, epoch, track, digest, size, shown, expired in index.select(
            f"select g.n, g.received_start / {HOUR}, g.epoch, j.track, g.hash, g.size, {_SHOWN},"
            f" g.expired {_FROM} in ({_MARKS}) order by g.n",
            (number, *INIT_TRACKS),
        )
    )
