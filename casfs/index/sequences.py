"""Lookups by epoch and sequence in one index.

The extents of runs may lie within and across each other: groups come out of order. Which ones reach
a sequence is known from the journal's ``span``: none begins further below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.index.extents import EXTENT_COLUMNS, extent_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from casfs.index.extents import ExtentRow
    from casfs.index.index import Index
    from casfs.index.rows import GroupRow, TrackRow

_FROM = f"select {EXTENT_COLUMNS} from groups g join journals j on j.id = g.journal where"


class _Journal(Struct, frozen=True):
    id: int
    span: int


def extent_of(index: Index, track: TrackRow, epoch: int, sequence: int) -> ExtentRow | None:
    """Return the extent that shows the group of this identity."""
    journal = _journal(index, track)
    if journal is None:
        return None
    return next(
        (
            extent
            for extent in _reaching(index, journal, epoch, sequence, sequence)
            if extent.group_of(sequence) is not None
        ),
        None,
    )


def newest(index: Index, track: TrackRow, *, complete: bool) -> GroupRow | None:
    """Return the shown group of the highest epoch and sequence, of the complete ones or others."""
    journal = _journal(index, track)
    if journal is None:
        return None
    chosen = f"g.journal = {journal.id} and g.complete = {complete:d}"
    first = next(
        _extents(index, f"{chosen} and {_SHOWN} order by g.epoch desc, g.sequence desc limit 1"),
        None,
    )
    if first is None:
        return None
    # Another one may begin further below and end further above.
    others = _extents(
        index,
        f"{chosen} and g.epoch = ? and g.sequence >= ? and g.last_sequence > ? and {_SHOWN}",
        first.epoch,
        first.last_sequence - journal.span,
        first.last_sequence,
    )
    highest = max([first, *others], key=lambda extent: extent.last_sequence)
    return highest.group_of(highest.last_sequence)


def neighbours(
    index: Index, track: TrackRow, epoch: int, sequence: int
) -> tuple[GroupRow | None, GroupRow | None]:
    """Return the shown groups of the epoch with the next lower and the next higher sequence."""
    journal = _journal(index, track)
    if journal is None:
        return None, None
    chosen = f"g.journal = {journal.id} and g.epoch = ? and {_SHOWN}"
    below = _groups(
        _extents(
            index,
            f"{chosen} and g.sequence < ? order by g.sequence desc limit 1",
            epoch,
            sequence,
        )
    )
    lower = [row for row in below if row.sequence < sequence]
    if lower and journal.span:
        near = lower[-1].sequence
        lower += [
            row
            for row in _groups(_reaching(index, journal, epoch, near + 1, sequence - 1))
            if row.sequence < sequence
        ]
    above = _groups(
        _extents(index, f"{chosen} and g.sequence > ? order by g.sequence limit 1", epoch, sequence)
    )
    higher = list(above)
    if journal.span:
        higher += [
            row
            for row in _groups(_reaching(index, journal, epoch, sequence + 1, sequence))
            if row.sequence > sequence
        ]
    return (
        max(lower, key=lambda row: row.sequence, default=None),
        min(higher, key=lambda row: row.sequence, default=None),
    )


def epochs(index: Index, track: TrackRow) -> list[int]:
    """Return the epochs in which the track has shown groups, in order."""
    rows = index.select(
        "with recursive leap (epoch) as ("
        " select min(epoch) from groups where journal = ?1 and current and not expired"
        " union all"
        " select (select min(epoch) from groups where journal = ?1 and current and not expired"
        " and epoch > leap.epoch) from leap where leap.epoch is not null)"
        " select epoch from leap where epoch is not null",
        (journal.id if (journal := _journal(index, track)) is not None else 0,),
    )
    return [row[0] for row in rows]


_SHOWN = "g.current and not g.expired"


def _journal(index: Index, track: TrackRow) -> _Journal | None:
    rows = index.select(
        "select id, span from journals where number = ? and track = ?",
        (track.broadcast.number, track.name),
    )
    return next((_Journal(*row) for row in rows), None)


def _reaching(
    index: Index, journal: _Journal, epoch: int, first: int, last: int
) -> Iterator[ExtentRow]:
    """Yield the extents that begin up to ``last`` and end at ``first`` or above."""
    return _extents(
        index,
        "g.journal = ? and g.epoch = ? and g.sequence between ? and ? and g.last_sequence >= ?"
        f" and {_SHOWN}",
        journal.id,
        epoch,
        first - journal.span,
        last,
        first,
    )


def _extents(index: Index, condition: str, *values: int) -> Iterator[ExtentRow]:
    return map(extent_row, index.select(f"{_FROM} {condition}", values))


def _groups(extents: Iterable[ExtentRow]) -> Iterator[GroupRow]:
    for extent in extents:
        yield from extent.group_rows()
