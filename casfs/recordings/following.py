"""A broadcast's timeline between two instants, followed as it grows: see `casfs.media.segments`."""

from __future__ import annotations

import logging
import threading
import time
from operator import attrgetter
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.manifests.record import INIT_TRACKS
from casfs.media.fragmented import FragmentMember, write_fragment
from casfs.media.moov import InitTrack, write_init
from casfs.media.segments import Segment, Segmenter
from casfs.recordings.lacking import Lacks
from casfs.recordings.segmentlist import SegmentList, Segments
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
    from casfs.recordings.lacking import LeftOut
    from casfs.recordings.tables import TableSource

_LOG = logging.getLogger(__name__)
_FRESH_SECONDS = 0.3


class Timeline(Struct, frozen=True):
    """What is known of a timeline at one moment."""

    start: int
    """The instant of its time 0, nanoseconds since the Unix epoch."""
    segments: Segments
    inits: tuple[bytes, ...]
    """The init segments, in the order in which they come to be needed."""
    described: tuple[tuple[InitTrack, ...], ...]
    """What each of them says."""
    ended: bool
    """Nothing will be added."""
    modified: int
    """When the newest group came, nanoseconds since the Unix epoch."""


class Following:
    """Follows the groups of a broadcast with ``start <= received < end``. Any thread may ask.

    ``lock`` is held while ``lookup`` is asked; ``now`` tells the time, nanoseconds UTC. ``note`` is
    told of all that was left out so far, each time that there is more.
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
        note: Callable[[Lacks], None] | None = None,
    ) -> None:
        self._now = now
        self._note = note
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
        self._last: dict[tuple[str, int], int] = {}
        self._partial: set[tuple[str, int, int]] = set()
        self._inits: dict[tuple[InitTrack, ...], int] = {}
        self._segments = SegmentList()
        self._timeline = Timeline(
            start, self._segments.first(0), (), (), ended=False, modified=start
        )
        self._fresh_until = 0.0
        self._refreshed = False
        self._lacks = Lacks()

    @property
    def timeline(self) -> Timeline:
        """What was known when `refresh` was called last."""
        return self._timeline

    @property
    def was_refreshed(self) -> bool:
        """Say whether anything was looked for yet."""
        return self._refreshed

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
            newest = self._timeline.modified
            # Hour by hour, so that the sample tables of a day are never all in memory.
            for hour in range(self._start // HOUR, -(-self._end // HOUR)):
                rows = self._new_rows(hour)
                payloads = self._payloads(rows)
                # Only now: what the disk refused is looked for again.
                for track, own in rows.items():
                    self._remember(track, hour, own)
                self._add(payloads)
                arrivals = (row.received_end for own in rows.values() for row in own)
                newest = max([newest, *arrivals])
            self._keep(self._segmenter.wait(seen))
            if ended:
                self._keep(self._segmenter.flush())
            self._timeline = Timeline(
                self._start,
                self._segments.first(len(self._segments)),
                (
                    *self._timeline.inits,
                    *map(write_init, list(self._inits)[len(self._timeline.inits) :]),
                ),
                tuple(self._inits),
                ended=ended,
                modified=newest,
            )
            self._fresh_until = self._clock() + _FRESH_SECONDS
            self._refreshed = True
            return self._timeline

    def layout(self, number: int) -> Layout:
        """Return what the segment's bytes are made of; raises DamagedObjectError."""
        segments = self._timeline.segments
        members = [
            FragmentMember(self._again(member.group), member.places)
            for member in segments.members(number)
        ]
        return write_fragment(segments[number].number, members)

    def _again(self, group: RecordedGroup) -> RecordedGroup:
        assert isinstance(group, Payload)
        return self._tables.again(group)

    def _new_rows(self, hour: int) -> dict[str, list[GroupRow]]:
        """Return the groups of an hour that came since, by track."""
        with self._lookups:
            tracks = self._lookup.tracks(self._broadcast)
        return {
            track.name: rows
            for track in tracks
            if track.name not in INIT_TRACKS and (rows := self._new_rows_of(track, hour))
        }

    def _new_rows_of(self, track: TrackRow, hour: int) -> list[GroupRow]:
        # What comes to an hour while the next ones are looked at has a lower number than theirs.
        after = self._last.get((track.name, hour), 0)
        start, stop = max(self._start, hour * HOUR), min(self._end, (hour + 1) * HOUR)
        with self._lookups:
            return list(self._lookup.groups(track, start, stop, after=after))

    def _remember(self, track: str, hour: int, rows: Sequence[GroupRow]) -> None:
        """Take these groups for known."""
        self._last[track, hour] = max(row.n for row in rows)
        self._partial |= {_identity(row) for row in rows if not row.complete}

    def _payloads(self, rows: dict[str, list[GroupRow]]) -> list[Payload]:
        """Return what of these groups can be played, as received, and say what cannot."""
        payloads: list[Payload] = []
        left_out: list[LeftOut] = []
        for own in rows.values():
            payloads += self._tables.payloads(
                self._broadcast, self._unshown(own), self._descriptions, left_out
            )
        self._lacks.add(left_out)
        if left_out and self._note is not None:
            self._note(self._lacks)
        return sorted(payloads, key=attrgetter("received"))

    def _unshown(self, rows: Sequence[GroupRow]) -> list[GroupRow]:
        """Return these groups but for those that were cut and of which more has come.

        What was shown of them stays as it is.
        """
        seen = set(self._partial)
        new = []
        for row in rows:
            if _identity(row) not in seen:
                new.append(row)
            if not row.complete:
                seen.add(_identity(row))
        return new

    def _add(self, payloads: Sequence[Payload]) -> None:
        for payload in payloads:
            self._keep(self._segmenter.add(payload, self._descriptions))

    def _keep(self, ready: Sequence[Segment]) -> None:
        for segment in ready:
            self._segments.add(segment, self._inits.setdefault(segment.init, len(self._inits)))


def _identity(row: GroupRow) -> tuple[str, int, int]:
    return row.track, row.epoch, row.sequence
