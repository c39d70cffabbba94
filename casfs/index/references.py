"""Who needs an object: the records whose payload lies in it, and those that are played after it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.index.extents import EXTENT_COLUMNS, extent_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.digest import Digest
    from casfs.index.index import Index


class Reference(Struct, frozen=True):
    """A group record whose payload lies in the object."""

    broadcast: str
    track: str
    number: int
    """Of the broadcast."""
    n: int
    epoch: int
    sequence: int
    offset: int
    size: int
    received_start: int
    """Nanoseconds UTC."""
    current: bool
    """False if another record of the same identity stands for the group."""


class InitUse(Struct, frozen=True):
    """The groups of one track and epoch that a player can only decode after the object."""

    broadcast: str
    track: str
    number: int
    epoch: int
    groups: int
    """Records, superseded ones too."""
    first: int
    """Lowest sequence."""
    last: int
    """Highest sequence."""


class References(Struct, frozen=True):
    """All who need an object."""

    groups: int
    """How many records hold their payload in it."""
    listed: tuple[Reference, ...]
    """The first of them, in the order of their commits."""
    init_uses: tuple[InitUse, ...]

    @property
    def init_groups(self) -> int:
        """How many records name it as what a player needs first."""
        return sum(use.groups for use in self.init_uses)


def references(indexes: Sequence[Index], digest: Digest, most: int) -> References:
    """Return who needs an object, with up to ``most`` records listed; raises `IndexFault`."""
    raw = bytes.fromhex(digest)
    groups = 0
    listed: list[Reference] = []
    uses: dict[tuple[int, str, int], InitUse] = {}
    for index in indexes:
        for row in index.select(
            "select coalesce(sum(groups), 0) from groups where hash = ? and not expired", (raw,)
        ):
            groups += row[0]
        for row in index.select(
            f"select {EXTENT_COLUMNS}, g.current from groups g join journals j on j.id = g.journal"
            " where g.hash = ? and not g.expired order by g.number, g.n limit ?",
            (raw, most),
        ):
            extent = extent_row(row)
            number = extent.broadcast.number
            hidden = index is not indexes[-1] and indexes[-1].hides(number, extent.n)
            listed += [
                Reference(
                    *(group.broadcast.name, group.track, number, group.n, group.epoch),
                    *(group.sequence, group.offset, group.size, group.received_start),
                    current=bool(row[-1]) and not hidden,
                )
                for group in itertools.islice(extent.group_rows(), most)
            ]
        for row in index.select(
            "select j.broadcast, j.track, g.number, g.epoch, sum(g.groups),"
            " min(g.sequence), max(g.last_sequence)"
            " from groups g join journals j on j.id = g.journal"
            " where g.init = ? and not g.expired group by g.journal, g.epoch",
            (raw,),
        ):
            use = InitUse(*row)
            key = (use.number, use.track, use.epoch)
            uses[key] = _together(uses[key], use) if key in uses else use
    listed.sort(key=lambda reference: (reference.number, reference.n))
    return References(groups, tuple(listed[:most]), tuple(uses[key] for key in sorted(uses)))


def _together(one: InitUse, other: InitUse) -> InitUse:
    return InitUse(
        one.broadcast,
        one.track,
        one.number,
        one.epoch,
        one.groups + other.groups,
        min(one.first, other.first),
        max(one.last, other.last),
    )
