"""A broadcast's timeline between two instants, followed as it grows: see `casfs.media.segments`."""

from __future__ import annotations

import logging
import threading
import time
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.manifests.record import INIT_TRACKS
from casfs.media.moov import write_init
from casfs.media.segments import Segment, Segmenter
from casfs.recordings.tables import Payload
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from casfs.digest import Digest
    from casfs.index.lookup import Lookup
    from casfs.index.rows import BroadcastRow, GroupRow, TrackRow
    from casfs.media.descriptions import SampleDescription
    from casfs.media.layout import Layout
    from casfs.media.timeline import RecordedGroup
    from casfs.recordings.tables import LeftOut, TableSource

_LOG = logging.getLogger(__name__)
_FRESH_SECONDS = 0.3


class Timeline(Struct, frozen=True):
    """What is known of a timeline at one moment."""

    start: int
    """The instant of its time 0, nanoseconds since the Unix epoch."""
    segments: tuple[Segment, ...]
    inits: tuple[bytes, ...]
    """The init segments, in the order in which they come to be needed."""
    init_of: tuple[int, ...]
    """For each segment the index of its init."""
    ended: bool
    """Nothing will be added."""
    modified: int
    """When the newest group came, nanoseconds since the Unix epoch."""


class Following:
    """Follows the groups of a broadcast with ``start <= received < end``. Any thread may ask.

    ``lock`` is held while ``lookup`` is asked; ``now`` tells the time, nanoseconds UTC.
    """

    def __init__(
        self,
        lookup: Lookup,
        tables: TableSource,
        broadcast: BroadcastRow,
        start: int,
        end: int,
        lock: threading.Lock,
        now: Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._lookup = lookup
        self._tables = tables
        self._broadcast = broadcast
        self._start = start
        self._end = end
        self._lookups = lock
        self._clock = clock
        self._lock = threading.Lock()
        self._segmenter = Segmenter(start)
        self._descriptions: dict[Digest, SampleDescription] = {}
        self._last: dict[str, int] = {}
        self._partial: set[tuple[str, int, int]] = set()
        self._inits: dict[object, int] = {}
        self._timeline = Timeline(start, (), (), (), ended=False, modified=start)
        self._fresh_until = 0.0
        self.left_out: list[LeftOut] = []
        """What could not be played."""

    @property
    def timeline(self) -> Timeline:
        """What was known when `refresh` was called last."""
        return self._timeline

    def refresh(self, *, ended: bool) -> Timeline:
        """Look for what is new, and return what is known now; ``ended``: nothing more will come.

        Raises StorageError.
        """
        with self._lock:
            now = self._clock()
            if self._timeline.ended or (now < self._fresh_until and not ended):
                return self._timeline
            # Of what comes while this looks and derives nothing is known: it is not late.
            seen = min(self._now(), self._end)
            rows = self._new_rows()
            payloads: list[Payload] = []
            for own in rows.values():
                payloads += self._tables.payloads(
                    self._broadcast, own, self._descriptions, self.left_out
                )
            ready: list[Segment] = []
            for payload in sorted(payloads, key=attrgetter("received")):
                ready += self._segmenter.add(payload, self._descriptions)
            ready += self._segmenter.wait(seen)
            if ended:
                ready += self._segmenter.flush()
            self._add(ready, rows, ended=ended)
            self._fresh_until = self._clock() + _FRESH_SECONDS
            return self._timeline

    def layout(self, number: int) -> Layout:
        """Return what the segment's bytes are made of; raises DamagedObjectError."""
        segment = self._timeline.segments[number]
        return segment.layout([self._again(member.group) for member in segment.members])

    def _again(self, group: RecordedGroup) -> RecordedGroup:
        assert isinstance(group, Payload)
        return self._tables.again(group)

    def _new_rows(self) -> dict[str, list[GroupRow]]:
        with self._lookups:
            tracks = self._lookup.tracks(self._broadcast)
        return {
            track.name: rows
            for track in tracks
            if track.name not in INIT_TRACKS and (rows := self._new_rows_of(track))
        }

    def _new_rows_of(self, track: TrackRow) -> list[GroupRow]:
        """Return the groups that came since, hour by hour so that nobody waits long."""
        after = self._last.get(track.name, 0)
        rows: list[GroupRow] = []
        for hour in range(self._start // HOUR, -(-self._end // HOUR)):
            with self._lookups:
                start, stop = max(self._start, hour * HOUR), min(self._end, (hour + 1) * HOUR)
                rows += self._lookup.groups(track, start, stop, after=after)
        self._last[track.name] = max([after, *(row.n for row in rows)])
        new = []
        for row in rows:
            identity = (track.name, row.epoch, row.sequence)
            # What was shown of a group that was cut stays as it is when more of it comes.
            if identity not in self._partial:
                new.append(row)
            if not row.complete:
                self._partial.add(identity)
        return new

    def _add(
        self, ready: Sequence[Segment], rows: dict[str, list[GroupRow]], *, ended: bool
    ) -> None:
        before = self._timeline
        inits, init_of = list(before.inits), list(before.init_of)
        for segment in ready:
            if segment.init not in self._inits:
                self._inits[segment.init] = len(inits)
                inits.append(write_init(segment.init))
            init_of.append(self._inits[segment.init])
        arrivals = (row.received_end for own in rows.values() for row in own)
        self._timeline = msgspec.structs.replace(
            before,
            segments=(*before.segments, *ready),
            inits=tuple(inits),
            init_of=tuple(init_of),
            ended=ended,
            modified=max([before.modified, *arrivals]),
        )
