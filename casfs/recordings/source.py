"""The recordings of an archive: how large they are, and what their bytes are made of.

An hour, a day or a span is put together from sample tables when it is asked for the first time, and
kept as `casfs.recordings.spool` says; how large it is is remembered beside the tables. Nothing here
writes to the archive. Everything may be called from any thread and may block; what takes long for
one recording holds up nobody who asks for another.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.digest import digest_of
from casfs.errors import DamagedObjectError, NotFoundError
from casfs.index.rows import BroadcastRow, SealRow
from casfs.index.samples import SAMPLES_VERSION, RecordingSizes, RememberedSpan
from casfs.manifests.record import INIT_TRACKS
from casfs.media.recording import flat_recording
from casfs.media.timeline import split_by_codec
from casfs.recordings.following import Following
from casfs.recordings.inits import Inits
from casfs.recordings.lacking import Lacks
from casfs.recordings.reading import no_frames, read_object
from casfs.recordings.tables import TableSource
from casfs.timestamps import HOUR, NANOSECONDS, format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from casfs.digest import Digest
    from casfs.index.lookup import Lookup
    from casfs.index.rows import GroupRow, TrackRow
    from casfs.index.samples import SampleIndex
    from casfs.media.descriptions import SampleDescription
    from casfs.media.layout import Layout
    from casfs.recordings.lacking import LeftOut
    from casfs.recordings.reading import FramesOf, ObjectSource
    from casfs.recordings.spool import Spool
    from casfs.recordings.tables import Payload

LAYOUT_VERSION: Final = 2
"""Of how recordings are put together: what is kept of another version is not used."""

LOOK_BACK: Final = 30 * NANOSECONDS
"""How long before a clip's begin the group may have come that is shown at it."""

MOST_BUILT_HERE: Final = 4 * HOUR
"""The longest recording that is put together in this process where there is another way."""

_LOG = logging.getLogger(__name__)
MOST_FOLLOWED: Final = 8
"""Timelines that are kept: those that were asked for last."""

_REMEMBERED = 65_536
_NOTES = 100


class RecordingSpan(Struct, frozen=True):
    """What a recording is made of: the media of a broadcast between two instants."""

    broadcast: BroadcastRow
    start: int
    """Nanoseconds since the Unix epoch: the recording's time 0."""
    end: int
    seals: tuple[SealRow, ...] = ()
    """The hours in it and what belongs to each."""
    clip: bool = False
    """Everything that there is belongs to it, and what lies outside is not shown."""
    state: int = 0
    """Of a clip that may still grow: how far it had come."""

    @property
    def name(self) -> Digest:
        """Names what the recording is made of."""
        hours = " ".join(f"{seal.hour}:{seal.through}" for seal in self.seals)
        return digest_of(
            f"{LAYOUT_VERSION} {SAMPLES_VERSION} {self.broadcast.number} {self.broadcast.name}"
            f" {self.start} {self.end} {hours} {self.clip} {self.state}".encode()
        )

    def __str__(self) -> str:
        start, end = (format_time(time)[:19] + "Z" for time in (self.start, self.end))
        return f"{self.broadcast.name} from {start} to {end}"


class _Note(Struct, frozen=True):
    """What was said of a recording."""

    reason: str
    kinds: frozenset[str]


class Recordings:
    """Puts recordings together. Owns ``samples`` and ``spool``; nobody else uses ``lookup``.

    ``closing`` is called at the end.
    """

    def __init__(
        self,
        lookup: Lookup,
        objects: ObjectSource,
        samples: SampleIndex,
        spool: Spool,
        *,
        frames_of: FramesOf = no_frames,
        closing: Callable[[], None] | None = None,
        most_followed: int = MOST_FOLLOWED,
        clock: Callable[[], int] = time.time_ns,
        apart: Callable[[RecordingSpan], RecordingSizes | None] | None = None,
    ) -> None:
        self.now = clock
        """The clock that says whether a day is over, nanoseconds UTC."""
        self._apart = apart
        self._closing = closing
        self._most_followed = most_followed
        self._lookup = lookup
        self._samples = samples
        self._spool = spool
        self._lookups = threading.Lock()
        inits = Inits(lookup, lambda digest: read_object(objects, digest), frames_of)
        self._tables = TableSource(objects, samples, inits, frames_of, self._lookups)
        self._lock = threading.Lock()
        self._known: OrderedDict[Digest, RecordingSizes] = OrderedDict()
        self._building: dict[Digest, threading.Lock] = {}
        self._followed: OrderedDict[tuple[int, int, int], Following] = OrderedDict()
        self._notes: OrderedDict[str, _Note] = OrderedDict()

    def close(self) -> None:
        """Let go of everything."""
        self._samples.close()
        self._spool.close()
        if self._closing is not None:
            self._closing()

    @property
    def notes(self) -> Sequence[str]:
        """Return what was lacking in recordings that were asked for, the latest last."""
        with self._lock:
            return [f"{name}: {note.reason}" for name, note in self._notes.items()]

    def known(self, span: RecordingSpan) -> RecordingSizes | None:
        """Return how large the files of a recording are, if that is known without building it."""
        name = span.name
        with self._lock:
            known = self._known.get(name)
        if known is None and not span.clip:
            known = self._samples.recording(name)
            if known is not None:
                self._remember(name, known)
        return known

    def build(self, span: RecordingSpan) -> RecordingSizes:
        """Return how large the files of a recording are; put it together if that is not known.

        Raises StorageError.
        """
        known = self.known(span)
        if known is not None:
            if known.reason:  # it may have been put together when nobody was here to note it
                self._note(span, known.reason, frozenset({known.reason}))
            return known
        with self._lock_of(span.name):
            return self.known(span) or self._build(span)

    def build_here(self, span: RecordingSpan) -> RecordingSizes:
        """Put a recording together, whatever is known of it; raises StorageError."""
        with self._lock_of(span.name):
            return self._lay_out(span)

    def layout(self, span: RecordingSpan, part: int) -> Layout:
        """Return what the bytes of a recording's file are made of; ``part`` counts from 0.

        Raises NotFoundError if there is no such file, DamagedObjectError if it cannot be what it
        was any more, StorageError.
        """
        sizes = self.build(span).sizes
        if part >= len(sizes):
            raise NotFoundError(f"there is no recording of {span} with so many parts")
        name = f"{span.name}-{part}"
        layout = self._spool.get(name)
        if layout is None:
            with self._lock_of(span.name):
                layout = self._spool.get(name)
                if layout is None:
                    self._build(span, remember=False)
                    layout = self._spool.get(name)
        if layout is None or layout.size != sizes[part]:
            raise DamagedObjectError(
                f"the recording of {span} is not what it was: an object of it is damaged or gone",
                advice="run casfs verify",
            )
        return layout

    def following(self, broadcast: BroadcastRow, start: int, end: int) -> Following:
        """Return the timeline of a broadcast between two instants, to be followed as it grows."""
        key = (broadcast.number, start, end)
        with self._lock:
            found = self._followed.pop(key, None)
            if found is None:
                span = RecordingSpan(broadcast, start, end)
                found = Following(
                    *(self._lookup, self._tables, broadcast, start, end, self._lookups, self.now),
                    note=lambda lacks: self._note(span, str(lacks), lacks.kinds),
                )
            self._followed[key] = found
            while len(self._followed) > self._most_followed:
                self._followed.popitem(last=False)
            return found

    # Putting together

    def _build(self, span: RecordingSpan, *, remember: bool = True) -> RecordingSizes:
        """Have a recording put together, here or elsewhere. The recording's lock is held."""
        if self._apart is not None and span.end - span.start > MOST_BUILT_HERE:
            known = self._apart(span)
            if known is not None:
                self._note(span, known.reason, frozenset({known.reason}))
                if remember:
                    self._remember(span.name, known)
                return known
        return self._lay_out(span, remember=remember)

    def _lay_out(self, span: RecordingSpan, *, remember: bool = True) -> RecordingSizes:
        """Lay out the files of a recording and keep them. The recording's lock is held."""
        descriptions: dict[Digest, SampleDescription] = {}
        left_out: list[LeftOut] = []
        payloads = self._payloads(span, descriptions, left_out)
        lacks = Lacks(left_out)
        reason = str(lacks)
        self._note(span, reason, lacks.kinds)
        sizes: list[int] = []
        if payloads:
            end = span.end if span.clip else None
            for number, part in enumerate(split_by_codec(payloads, descriptions)):
                recording = flat_recording(part, descriptions, start=span.start, end=end)
                self._spool.put(f"{span.name}-{number}", recording.layout)
                sizes.append(recording.layout.size)
        known = RecordingSizes(tuple(sizes), reason)
        if remember:
            self._remember(span.name, known)
            # What damage took may come back: then it is another recording.
            if not span.clip and not any(item.lacking for item in left_out):
                remembered = RememberedSpan(span.broadcast.number, span.start, span.end)
                self._samples.remember(span.name, remembered, known)
        return known

    def _payloads(
        self,
        span: RecordingSpan,
        descriptions: dict[Digest, SampleDescription],
        left_out: list[LeftOut],
    ) -> list[Payload]:
        """Return the groups with samples: epoch by epoch, each track by sequence, as received."""
        with self._lookups:
            tracks = self._lookup.tracks(span.broadcast)
        through = max((seal.through for seal in span.seals), default=None)
        epochs: dict[int, list[list[Payload]]] = {}
        for track in tracks:
            rows = [] if track.name in INIT_TRACKS else self._rows(span, track)
            own: dict[int, list[Payload]] = {}
            for payload in self._tables.payloads(
                span.broadcast, rows, descriptions, left_out, through
            ):
                own.setdefault(payload.epoch, []).append(payload)
            for epoch, stream in own.items():
                epochs.setdefault(epoch, []).append(stream)
        ordered: list[Payload] = []
        for epoch in sorted(epochs):
            ordered += heapq.merge(*epochs[epoch], key=lambda payload: payload.received)
        return ordered

    def _rows(self, span: RecordingSpan, track: TrackRow) -> list[GroupRow]:
        """Return the groups of a track that belong to the recording."""
        rows: list[GroupRow] = []
        if span.clip:
            with self._lookups:
                rows += self._lookup.groups(track, max(0, span.start - LOOK_BACK), span.end)
            before = [row for row in rows if row.received_start <= span.start]
            if not before:
                return rows
            first = max(before, key=lambda row: (row.epoch, row.sequence))
            kept = (first.epoch, first.sequence)
            return [row for row in rows if (row.epoch, row.sequence) >= kept]
        for seal in span.seals:
            with self._lookups:
                rows += self._lookup.sealed(track, seal)
        return rows

    def _note(self, span: RecordingSpan, reason: str, kinds: frozenset[str]) -> None:
        """Note what a recording lacks, and say once what ``kinds`` of things those are."""
        name = str(span)
        with self._lock:
            before = self._notes.pop(name, None)
            if not reason:
                return
            known = kinds if before is not None and before.reason == reason else frozenset()
            known |= frozenset() if before is None else before.kinds
            self._notes[name] = _Note(reason, known | kinds)
            while len(self._notes) > _NOTES:
                self._notes.popitem(last=False)
        if kinds - known:
            _LOG.warning("the recording of %s lacks something: %s", span, reason)

    def _remember(self, name: Digest, known: RecordingSizes) -> None:
        with self._lock:
            self._known[name] = known
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def _lock_of(self, name: Digest) -> threading.Lock:
        with self._lock:
            if len(self._building) > _REMEMBERED:
                self._building = {
                    key: lock for key, lock in self._building.items() if lock.locked()
                }
            return self._building.setdefault(name, threading.Lock())
