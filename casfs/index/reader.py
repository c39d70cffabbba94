"""Answers lookups from the index on disk and, for what it lacks, from the manifests' tails.

The index is opened read-only; a user who may not write sees the same as one who may. What the
manifests have beyond it goes into an overlay in memory (an index as well, spilled to disk when it
grows), renewed as the index catches up. With no usable index at all the overlay holds everything.
What has expired is as the index has it: until the index knows of an expiry, the groups show.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from casfs.index.blocks import block_hashes
from casfs.index.index import Index, IndexFault
from casfs.index.listing import group_entries
from casfs.index.mirror import HeadOf, catch_up_journal, no_head
from casfs.index.references import references
from casfs.index.rows import TrackSummary
from casfs.index.sealed import sealed_groups
from casfs.index.seals import seals
from casfs.index.statistics import gather
from casfs.manifests.layout import (
    BROADCAST_JOURNAL,
    JournalPlace,
    broadcast_directories,
    expiry_place,
    journal_places,
)
from casfs.names import encode_name
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from casfs.digest import Digest
    from casfs.index.extents import ExtentRow
    from casfs.index.references import References
    from casfs.index.rows import BroadcastRow, GroupEntry, GroupRow, SealRow, TrackRow
    from casfs.index.statistics import ArchiveTotals
    from casfs.manifests.record import Position

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_PAGE = 1000
_HOURS = 1 << 40  # more than any time has
_INDEX = "."  # no journal's place
_FRESH_SECONDS = 0.2
_RETRY_SECONDS = 5.0


class Reader:
    """A `casfs.index.lookup.Lookup` over the manifests below ``root``; close it when done.

    Raises StorageError if a manifest cannot be read; never fails for the index alone.
    """

    def __init__(
        self,
        root: str,
        index_path: str,
        store: str,
        *,
        fold_case: bool = False,
        head_of: HeadOf = no_head,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._index_path = index_path
        self._store = store
        self._fold_case = fold_case
        self._head_of = head_of
        self._clock = clock
        self._base: Index | None = None
        self._newer: Index | None = None
        self._below: dict[JournalPlace, tuple[Position | None, Position | None]] = {}
        self._fresh: dict[str, float] = {}
        self._trouble = ""

    def close(self) -> None:
        """Let go of the index."""
        self._clear_overlay()
        if self._base is not None:
            self._base.close()

    # casfs.index.lookup.Lookup

    def broadcasts(self) -> Sequence[BroadcastRow]:
        """Return every broadcast, by number."""
        rows = self._ask(
            self._all_places,
            lambda indexes: {row.number: row for index in indexes for row in index.broadcasts()},
        )
        return [rows[number] for number in sorted(rows)]

    def tracks(self, broadcast: BroadcastRow) -> Sequence[TrackRow]:
        """Return the broadcast's tracks, by name."""
        directory = encode_name(broadcast.name, fold_case=self._fold_case)
        rows = self._ask(
            lambda: self._broadcast_places(directory),
            lambda indexes: {
                row.name: row
                for index in reversed(indexes)
                for row in index.tracks(broadcast.number)
            },
        )
        return [rows[name] for name in sorted(rows)]

    def track(self, broadcast: str, track: str) -> TrackRow | None:
        """Return the track with these full names, or None."""
        return self._ask(
            lambda: [self._place(broadcast, track)],
            lambda indexes: _first(index.track(broadcast, track) for index in indexes),
        )

    def summary(self, track: TrackRow) -> TrackSummary:
        """Return the track's totals."""
        parts = self._ask_track(track, lambda indexes: [index.summary(track) for index in indexes])
        return TrackSummary(
            track,
            sum(part.groups for part in parts),
            sum(part.bytes for part in parts),
            min((part.first for part in parts if part.first is not None), default=None),
            max((part.last for part in parts if part.last is not None), default=None),
        )

    def seals(self, broadcast: BroadcastRow) -> Sequence[SealRow]:
        """Return the hours of the broadcast that were sealed, in the order in which they were."""
        directory = encode_name(broadcast.name, fold_case=self._fold_case)
        return self._ask(
            lambda: [JournalPlace(directory, BROADCAST_JOURNAL)],
            lambda indexes: [row for index in indexes for row in seals(index, broadcast.number)],
        )

    def hours(self, track: TrackRow) -> Sequence[int]:
        """Return the hours that hold groups by received-start, as hours since the Unix epoch."""
        return self._ask_track(track, partial(_hours, track, ()))

    def groups(
        self, track: TrackRow, start: int, stop: int, *, after: int = 0
    ) -> Iterator[GroupRow]:
        """Yield groups, hour by hour, as `casfs.index.lookup.Lookup` says."""
        for extent in self.extents(track, start, stop, after=after):
            for row in extent.group_rows():
                if start <= row.received_start < stop and row.n > after:
                    yield row

    def sealed(self, track: TrackRow, seal: SealRow) -> Sequence[GroupRow]:
        """Return the groups of a sealed hour, as `casfs.index.lookup.Lookup` says."""
        return self._ask_track(
            track, partial(sealed_groups, track=track, hour=seal.hour, through=seal.through)
        )

    def extents(
        self, track: TrackRow, start: int, stop: int, *, after: int = 0
    ) -> Iterator[ExtentRow]:
        """Yield extents, hour by hour, as `casfs.index.lookup.Lookup` says."""
        # Bounded before the question: a track of years has as many hours as a short one groups.
        bounds = (max(start // HOUR, -_HOURS), min((stop - 1) // HOUR, _HOURS))
        for hour in self._ask_track(track, partial(_hours, track, bounds)):
            for row in self._hour(track, hour, after):
                if row.received_start < stop and row.last_start >= start:
                    yield row

    def group_entries(
        self, track: TrackRow, hour: int, *, after: int, most: int
    ) -> Sequence[GroupEntry]:
        """Return extents of one hour, as `casfs.index.lookup.Lookup` says."""
        number = track.broadcast.number
        while page := self._ask_track(
            track, partial(group_entries, track=track, hour=hour, after=after, most=most)
        ):
            shown = [entry for entry in page if not self._overlay.hides(number, entry.n)]
            if shown:
                return shown
            after = page[-1].n
        return ()

    def newest(self, track: TrackRow) -> GroupRow | None:
        """Return the complete group with the highest (epoch, sequence); if none, an incomplete."""

        def newest(indexes: Sequence[Index]) -> GroupRow | None:
            for complete in (True, False):
                found = [index.newest(track, complete=complete) for index in indexes]
                rows = [row for row in found if row is not None and not self._hidden(row)]
                if rows:
                    return max(rows, key=lambda row: (row.epoch, row.sequence, row.n))
            return None

        return self._ask_track(track, newest)

    def group(self, broadcast_number: int, n: int) -> GroupRow | None:
        """Return the group with this commit number, or None if unknown or superseded."""
        extent = self.extent(broadcast_number, n)
        return None if extent is None else extent.numbered(n)

    def extent(self, broadcast_number: int, n: int) -> ExtentRow | None:
        """Return the extent with that group, or None."""
        find = partial(_find_extent, broadcast_number, n)
        known = self._ask(list, find)
        if known is None:
            # It may have been committed a moment ago, in any broadcast.
            row = self._ask(self._all_places, find)
        else:
            place = self._place(known.broadcast.name, known.track)
            row = self._ask(lambda: [place], find)
        return None if row is None or self._hidden(row) else row

    def find(self, track: TrackRow, epoch: int, sequence: int) -> GroupRow | None:
        """Return the group of this identity, or None."""
        extent = self.extent_of(track, epoch, sequence)
        return None if extent is None else extent.group_of(sequence)

    def extent_of(self, track: TrackRow, epoch: int, sequence: int) -> ExtentRow | None:
        """Return the extent with the group of this identity, or None."""
        return self._ask_track(
            track,
            lambda indexes: _first(
                index.extent_of(track, epoch, sequence) for index in reversed(indexes)
            ),
        )

    def successors(
        self, track: TrackRow, epoch: int, sequence: int, most: int
    ) -> Sequence[ExtentRow]:
        """Return extents one behind the other, as `casfs.index.lookup.Lookup` says."""

        def successors(indexes: Sequence[Index]) -> Sequence[ExtentRow]:
            found: list[ExtentRow] = []
            last = sequence
            while len(found) < most:
                extent = _first(
                    index.extent_of(track, epoch, last + 1) for index in reversed(indexes)
                )
                if extent is None or extent.last_sequence <= last:
                    break
                found.append(extent)
                last = extent.last_sequence
            return found

        return self._ask_track(track, successors)

    def referencing(self, digest: Digest) -> Iterator[GroupRow]:
        """Yield every group whose payload lies in this object."""
        yield from self._ask(
            self._all_places,
            lambda indexes: [row for index in indexes for row in index.referencing(digest)],
        )

    def block_hashes(self, digest: Digest) -> Sequence[Digest]:
        """Return the hash of each block of an object, as `casfs.index.lookup.Lookup` says."""
        return self._ask(self._all_places, partial(block_hashes, digest=digest))

    def epochs(self, track: TrackRow) -> Sequence[int]:
        """Return the epochs in which the track has groups, in order."""
        return self._ask_track(
            track,
            lambda indexes: sorted({epoch for index in indexes for epoch in index.epochs(track)}),
        )

    def neighbours(
        self, track: TrackRow, epoch: int, sequence: int
    ) -> tuple[GroupRow | None, GroupRow | None]:
        """Return the groups of the epoch with the next lower and the next higher sequence."""

        def neighbours(
            indexes: Sequence[Index],
        ) -> tuple[GroupRow | None, GroupRow | None]:
            # The overlay comes first: of two rows of one identity it holds the newer one.
            pairs = [index.neighbours(track, epoch, sequence) for index in reversed(indexes)]
            below = [row for row, _ in pairs if row is not None]
            above = [row for _, row in pairs if row is not None]
            return (
                max(below, key=lambda row: row.sequence, default=None),
                min(above, key=lambda row: row.sequence, default=None),
            )

        return self._ask_track(track, neighbours)

    def references(self, digest: Digest, most: int) -> References:
        """Return who needs an object, with up to ``most`` records listed."""
        return self._ask(self._all_places, lambda indexes: references(indexes, digest, most))

    def statistics(
        self,
        wanted: Callable[[BroadcastRow], bool] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> ArchiveTotals:
        """Add up what the archive holds, as `casfs.index.statistics.gather` says."""
        return self._ask(self._all_places, lambda indexes: gather(indexes, wanted, progress))

    # Asking

    def _ask(
        self, places: Callable[[], Sequence[JournalPlace]], question: Callable[[Sequence[Index]], T]
    ) -> T:
        """Put a question to index and overlay, both as of one instant."""
        if self._base.replaced() if self._base is not None else self._stale(_INDEX):
            self._reopen()
        if self._base is not None:
            base = self._base
            try:
                with base.snapshot():
                    for place in places():
                        self._refresh(place)
                    answer = question([base, self._overlay])
                if not base.immutable or not base.replaced():
                    return answer
                # Someone has begun to write to what we read without locks: once more, with them.
                self._reopen()
                return self._ask(places, question)
            except IndexFault as error:
                if str(error) != self._trouble:
                    _LOG.warning("the index %s cannot be read: %s", self._index_path, error)
                self._trouble = str(error)
                self._drop_base()
                self._fresh[_INDEX] = self._clock() + _RETRY_SECONDS
        for place in places():
            self._refresh(place)
        return question([self._overlay])

    def _ask_track(self, track: TrackRow, question: Callable[[Sequence[Index]], T]) -> T:
        return self._ask(lambda: [self._place(track.broadcast.name, track.name)], question)

    def _hour(self, track: TrackRow, hour: int, after: int) -> Iterator[ExtentRow]:
        while True:
            page = self._ask_track(track, partial(_page, track, hour, after))
            yield from (row for row in page if not self._hidden(row))
            if len(page) < _PAGE:
                return
            after = page[-1].n

    def _hidden(self, row: GroupRow) -> bool:
        return self._overlay.hides(row.broadcast.number, row.n)

    # Staying fresh

    def _all_places(self) -> list[JournalPlace]:
        if not self._stale(""):
            return []
        return [
            place
            for directory in broadcast_directories(self._root)
            for place in self._broadcast_places(directory)
        ]

    def _broadcast_places(self, directory: str) -> list[JournalPlace]:
        return journal_places(self._root, directory) if self._stale(directory) else []

    def _place(self, broadcast: str, track: str) -> JournalPlace:
        return JournalPlace(
            encode_name(broadcast, fold_case=self._fold_case),
            encode_name(track, fold_case=self._fold_case),
        )

    def _refresh(self, place: JournalPlace) -> None:
        expiries = expiry_place(place.broadcast)
        if self._base is not None:
            positions = (self._base.position(place), self._base.position(expiries))
            if self._below.get(place) != positions:
                # The index has gone on: what the overlay has of this journal is in it now, or some
                # of it has expired.
                self._overlay.forget(place)
                self._below[place] = positions
                self._fresh.pop(str(place), None)
        elif self._stale(str(expiries)):
            catch_up_journal(self._overlay, self._root, expiries, sync=False)
        if self._stale(str(place)):
            catch_up_journal(
                self._overlay,
                self._root,
                place,
                below=self._base,
                sync=False,
                trusted=self._head_of(place),
            )

    def _stale(self, scope: str) -> bool:
        now = self._clock()
        last = self._fresh.get(scope)
        if last is not None and now - last < _FRESH_SECONDS:
            return False
        self._fresh[scope] = now
        return True

    def _reopen(self) -> None:
        self._drop_base()
        try:
            base = Index.open_for_reading(self._index_path, self._store)
        except IndexFault as error:
            _LOG.debug("no usable index at %s: %s", self._index_path, error)
            return
        self._base = base
        self._clear_overlay()

    def _drop_base(self) -> None:
        """Go on without the index; the overlay then holds everything."""
        if self._base is not None:
            self._base.close()
            self._base = None
            self._clear_overlay()

    @property
    def _overlay(self) -> Index:
        """What the manifests say and the index does not yet."""
        if self._newer is None:
            self._newer = Index.temporary(self._store, like=self._base)
        return self._newer

    def _clear_overlay(self) -> None:
        if self._newer is not None:
            self._newer.close()
            self._newer = None
        self._below.clear()
        self._fresh.clear()


def _hours(track: TrackRow, bounds: Sequence[int], indexes: Sequence[Index]) -> list[int]:
    """Return the hours that hold groups, of those from the first of the bounds to the second."""
    total: Counter[int] = Counter()
    for index in indexes:
        total.update(index.hours(track, *bounds))
    return sorted(hour for hour, groups in total.items() if groups > 0)


def _page(track: TrackRow, hour: int, after: int, indexes: Sequence[Index]) -> list[ExtentRow]:
    """Return a page of an hour. Commit numbers only rise from the index to the overlay."""
    page: list[ExtentRow] = []
    for index in indexes:
        page += index.extents(track, hour, after, _PAGE - len(page))
    return page


def _find_extent(number: int, n: int, indexes: Sequence[Index]) -> ExtentRow | None:
    return _first(index.extent(number, n) for index in indexes)


def _first(rows: Iterable[T | None]) -> T | None:
    return next((row for row in rows if row is not None), None)
