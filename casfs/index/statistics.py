"""What an archive holds in numbers: objects, groups, bytes, days. Reads the index, no manifest.

Two passes, both streamed, so that memory grows with the tracks and the days and never with the
groups: one by hour, in the order of an SQL index, and one over the objects in the order of their
hashes. An overlay is merged row by row with the index below it: an object that both know of counts
once, a group that the overlay supersedes does not count.
"""

from __future__ import annotations

import heapq
from operator import itemgetter
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import Digest
from casfs.index.rows import BroadcastRow, TrackRow
from casfs.timestamps import DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from casfs.index.index import Index

_EVERY = 1 << 16
_HOURS_A_DAY = DAY // HOUR


class Totals(Struct, frozen=True):
    """The size of a track, a broadcast or an archive."""

    groups: int
    """Superseded records not counted."""
    objects: int
    """Distinct objects that any record names, superseded ones too."""
    logical_bytes: int
    """The payloads of all groups."""
    stored_bytes: int
    """The objects, each counted once."""
    first: int | None
    """Earliest received-start, nanoseconds UTC; None if there is no group."""
    last: int | None
    """Latest received-start, nanoseconds UTC."""

    @property
    def dedup_ratio(self) -> float:
        """Logical bytes for each stored byte; 1 where nothing is stored."""
        return self.logical_bytes / self.stored_bytes if self.stored_bytes else 1.0


class TrackTotals(Struct, frozen=True):
    """What a track holds."""

    track: TrackRow
    totals: Totals


class BroadcastTotals(Struct, frozen=True):
    """What a broadcast holds; an object that several of its tracks share counts once."""

    broadcast: BroadcastRow
    totals: Totals
    tracks: tuple[TrackTotals, ...]
    """By name."""


class DayTotals(Struct, frozen=True):
    """What came on one UTC day, by received-start."""

    day: int
    """Days since the Unix epoch."""
    groups: int
    logical_bytes: int
    stored_bytes: int
    """Of the objects that came on this day for the first time."""


class ArchiveTotals(Struct, frozen=True):
    """What the archive holds."""

    totals: Totals
    broadcasts: tuple[BroadcastTotals, ...]
    """By number."""
    days: tuple[DayTotals, ...]
    """Those on which anything came, in order."""
    unsized: tuple[Digest, ...]
    """Objects that are needed first by others and hold no group themselves: the manifests do not
    say how large they are, and they are in no total."""


class _Tally:
    """A sum that grows."""

    __slots__ = ("first", "groups", "last", "logical", "objects", "stored")

    def __init__(self) -> None:
        self.groups = self.objects = self.logical = self.stored = 0
        self.first: int | None = None
        self.last: int | None = None

    def span(self, first: int | None, last: int | None) -> None:
        if first is not None and (self.first is None or first < self.first):
            self.first = first
        if last is not None and (self.last is None or last > self.last):
            self.last = last

    def totals(self) -> Totals:
        return Totals(self.groups, self.objects, self.logical, self.stored, self.first, self.last)


def gather(
    indexes: Sequence[Index],
    wanted: Callable[[BroadcastRow], bool] | None = None,
    progress: Callable[[int], None] | None = None,
) -> ArchiveTotals:
    """Add up what an index and its overlay hold; ``wanted`` picks broadcasts.

    ``progress`` is told now and then how many objects were counted. Raises `IndexFault`.
    """
    return _Gathering(indexes, wanted).run(progress)


class _Gathering:
    def __init__(
        self, indexes: Sequence[Index], wanted: Callable[[BroadcastRow], bool] | None
    ) -> None:
        self._indexes = indexes
        self._all = wanted is None
        self._total = _Tally()
        self._broadcasts: dict[int, _Tally] = {}
        self._names: dict[int, BroadcastRow] = {}
        self._tracks: dict[TrackRow, _Tally] = {}
        self._days: dict[int, _Tally] = {}
        self._journals = [self._read_journals(index, wanted) for index in indexes]

    def run(self, progress: Callable[[int], None] | None) -> ArchiveTotals:
        for index, journals in zip(self._indexes, self._journals, strict=True):
            for journal, hour, groups, size in index.select(
                f"select journal, received_start / {HOUR}, sum(groups), sum(size) from groups"
                f" where current and not expired group by journal, received_start / {HOUR}"
            ):
                if journal in journals:
                    self._add_groups(journals[journal], hour // _HOURS_A_DAY, groups, size)
        self._take_back_hidden()
        self._add_objects(progress)
        return self._result()

    def _read_journals(
        self, index: Index, wanted: Callable[[BroadcastRow], bool] | None
    ) -> dict[int, TrackRow]:
        journals: dict[int, TrackRow] = {}
        known = {(track.broadcast.number, track.name): track for track in self._tracks}
        for journal, number, name, track, first_n, first, last in index.select(
            "select id, number, broadcast, track, first_n, first, last from journals"
        ):
            broadcast = BroadcastRow(number, name)
            if wanted is not None and not wanted(broadcast):
                continue
            # A broadcast counts as soon as it was recorded, also while no group has come.
            self._names[number] = broadcast
            tallies = [self._total, self._broadcasts.setdefault(number, _Tally())]
            if track is not None:
                row = known.get((number, track), TrackRow(broadcast, track, first_n))
                journals[journal] = row
                tallies.append(self._tracks.setdefault(row, _Tally()))
            for tally in tallies:
                tally.span(first, last)
        return journals

    # Groups

    def _add_groups(self, track: TrackRow, day: int, groups: int, size: int) -> None:
        for tally in (
            self._total,
            self._broadcasts[track.broadcast.number],
            self._tracks[track],
            self._days.setdefault(day, _Tally()),
        ):
            tally.groups += groups
            tally.logical += size

    def _take_back_hidden(self) -> None:
        if len(self._indexes) == 1:
            return
        base, overlay = self._indexes
        for hidden in overlay.select("select number, n from hidden"):
            for journal, start, groups, size in base.select(
                "select journal, received_start, groups, size from groups"
                " where number = ? and n = ? and current and not expired",
                hidden,
            ):
                track = self._journals[0].get(journal)
                if track is not None:
                    self._add_groups(track, start // DAY, -groups, -size)

    # Objects

    def _add_objects(self, progress: Callable[[int], None] | None) -> None:
        digest: bytes | None = None
        tracks: dict[TrackRow, None] = {}
        size, first, count = 0, 0, 0
        for row_digest, row_size, row_first, track in self._object_rows():
            if row_digest != digest:
                if digest is not None:
                    self._add_object(tracks, size, first)
                    count += 1
                    if progress is not None and count % _EVERY == 0:
                        progress(count)
                digest, size, first, tracks = row_digest, row_size, row_first, {track: None}
                continue
            size, first = max(size, row_size), min(first, row_first)
            tracks[track] = None
        if digest is not None:
            self._add_object(tracks, size, first)

    def _object_rows(self) -> Iterator[tuple[bytes, int, int, TrackRow]]:
        """Yield (hash, bytes it has at least, received-start, track) of each record, by hash."""

        def rows(
            index: Index, journals: dict[int, TrackRow]
        ) -> Iterator[tuple[bytes, int, int, TrackRow]]:
            # The plus keeps SQLite from walking the index on hashes, which would visit the table at
            # random; sorting reads it from end to end, in little memory and a temporary file.
            for digest, journal, size, first in index.select(
                "select hash, journal, offset + size, received_start from groups"
                " where not expired order by +hash"
            ):
                track = journals.get(journal)
                if track is not None:
                    yield digest, size, first, track

        parts = [rows(*part) for part in zip(self._indexes, self._journals, strict=True)]
        return heapq.merge(*parts, key=itemgetter(0))

    def _add_object(self, tracks: Iterable[TrackRow], size: int, first: int) -> None:
        numbers = {track.broadcast.number for track in tracks}
        for tally in (
            self._total,
            *(self._broadcasts[number] for number in numbers),
            *(self._tracks[track] for track in tracks),
        ):
            tally.objects += 1
            tally.stored += size
        self._days.setdefault(first // DAY, _Tally()).stored += size

    def _unsized(self) -> Iterator[Digest]:
        """Yield the objects that are only ever needed first, by leaps over the few there are."""
        if not self._all:
            return
        inits = {
            bytes(row[0])
            for index in self._indexes
            for row in index.select(
                "with recursive leap (init) as ("
                " select min(init) from groups where init is not null and not expired"
                " union all"
                " select (select min(init) from groups where init > leap.init and not expired)"
                " from leap"
                " where leap.init is not null)"
                " select init from leap where init is not null"
            )
        }
        for init in sorted(inits):
            query = "select 1 from groups where hash = ? and not expired limit 1"
            if not any(row for index in self._indexes for row in index.select(query, (init,))):
                yield Digest(init.hex())

    def _result(self) -> ArchiveTotals:
        broadcasts = []
        for number in sorted(self._broadcasts):
            tracks = sorted(
                (track for track in self._tracks if track.broadcast.number == number),
                key=lambda track: track.name,
            )
            broadcasts.append(
                BroadcastTotals(
                    self._names[number],
                    self._broadcasts[number].totals(),
                    tuple(TrackTotals(track, self._tracks[track].totals()) for track in tracks),
                )
            )
        days = [
            DayTotals(day, tally.groups, tally.logical, tally.stored)
            for day, tally in sorted(self._days.items())
            if tally.groups or tally.stored
        ]
        return ArchiveTotals(
            self._total.totals(), tuple(broadcasts), tuple(days), tuple(self._unsized())
        )
