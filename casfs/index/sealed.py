"""The groups of a sealed hour as they stood when it was sealed.

What stands for a group may change after the seal: one that was cut short comes again, complete. Its
records stay, and so does what a sealed hour is made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.index.extents import EXTENT_COLUMNS, extent_row
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.index.extents import ExtentRow
    from casfs.index.index import Index
    from casfs.index.rows import GroupRow, TrackRow

_FROM = f"select {EXTENT_COLUMNS}, g.current from groups g join journals j on j.id = g.journal"


def sealed_groups(
    indexes: Sequence[Index], track: TrackRow, hour: int, through: int
) -> list[GroupRow]:
    """Return the groups of an hour that stood after commit number ``through``, in rising ``n``.

    What has expired since is not among them. Raises `IndexFault`.
    """
    found: list[GroupRow] = []
    for index in indexes:
        for row in index.select(
            f"{_FROM} where g.journal = (select id from journals where number = ? and track = ?)"
            f" and g.received_start / {HOUR} = ? and g.n <= ? and not g.expired order by g.n",
            (track.broadcast.number, track.name, hour, through),
        ):
            extent, current = extent_row(row), bool(row[-1])
            # A complete group that stands has stood since its record came; one that does not never
            # has. Runs are complete.
            stood = current if extent.complete else not _superseded(indexes, extent, through)
            if stood:
                found += extent.group_rows()
    return found


def _superseded(indexes: Sequence[Index], cut: ExtentRow, through: int) -> bool:
    """Say whether a later record stood for an incomplete group after ``through``."""
    track = (cut.broadcast.number, cut.track)
    for index in indexes:
        standing = index.select(
            f"{_FROM} where j.number = ? and j.track = ? and g.epoch = ?"
            " and g.sequence between ? - j.span and ? and g.last_sequence >= ? and g.current",
            (*track, cut.epoch, cut.sequence, cut.sequence, cut.sequence),
        )
        for row in standing:
            group = extent_row(row).group_of(cut.sequence)
            if group is not None and group.n != cut.n and group.n <= through:
                return True
        between = index.select(
            "select 1 from groups g join journals j on j.id = g.journal"
            " where g.number = ? and g.n > ? and g.n <= ? and j.track = ? and g.epoch = ?"
            " and g.sequence = ? and not g.complete limit 1",
            (cut.broadcast.number, cut.n, through, cut.track, cut.epoch, cut.sequence),
        )
        if next(between, None) is not None:
            return True
    return False
