"""Turns received groups into commits: epoch, init, order. Blocking; runs in a worker thread.

The recorder hands over what has come, in batches; when `keep` returns, all of it is durable. If the
disk fails, nothing of the batch counts, and the same deliveries are handed over again. What was
decided about them then stands: deciding anew could take a publisher's last groups for those of the
one that came after it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.archive import BroadcastWriter, Group, Run
from casfs.digest import Digest, digest_of, digest_of_parts
from casfs.errors import ObjectNotFoundError, StorageError
from casfs.groups import runs_of
from casfs.manifests.record import INIT_TRACKS
from casfs.timestamps import parse_time
from ingest.epoch_memory import Seen
from ingest.epochs import Decision, EpochTracker, Verdict
from ingest.media_clock import MediaClock
from ingest.moq.events import GroupReceived
from ingest.recorded_times import restored_times
from ingest.refetching import SKIPPED_AT_MOST

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from casfs.index.reader import Reader
    from casfs.index.rows import GroupRow
    from ingest.state import RecorderState

_LOG = logging.getLogger(__name__)

STILL_OPEN = "still open"
"""Why a group is not complete that still arrives."""

_CUT_REMEMBERED = 4096


class Delivery(Struct, frozen=True):
    """A group as it came, with what the session knows of its track."""

    track: str
    group: GroupReceived
    timescale: int | None
    generation: int
    """Rises each time that all tracks are subscribed to anew, in the life of the process."""
    relay: str
    protocol: str
    small: bool = False
    """It may be committed together with others of its track."""

    @property
    def size(self) -> int:
        """Payload bytes."""
        return sum(map(len, self.group.frames))


class Interruption(Struct, frozen=True):
    """A time in which a track was not received, to be recorded if groups are missing from it."""

    track: str
    epoch: int
    after: int | None
    """The highest sequence recorded before; None if there was none."""
    start: int | None
    """When the last group before it ended, nanoseconds UTC; None if the track never had a group."""
    reason: str


class _Init(Struct, frozen=True, order=True):
    """A group that a player needs before media; the newest one of a track counts."""

    epoch: int
    sequence: int
    size: int
    digest: Digest


class _Decided(Struct, frozen=True):
    """A delivery about which all is decided, to be committed or not."""

    delivery: Delivery
    digest: Digest
    decision: Decision
    init: Digest | None
    """What was the newest init when it came."""


class Keeper:
    """Commits deliveries through ``writer`` and counts them in ``state``.

    Raises StorageError if the archive cannot be read.
    """

    def __init__(self, writer: BroadcastWriter, state: RecorderState) -> None:
        self._writer = writer
        self._state = state
        self._history = _ArchiveHistory(writer)
        self._epochs = EpochTracker(self._history)
        self._clock = MediaClock()
        self._decided: dict[int, _Decided] = {}
        """What is decided and not committed yet, by the identity of the delivery."""
        self._inits: dict[str, _Init] = {}
        self._last_end: dict[str, int] = {}
        self._cut: dict[tuple[str, int, int], int] = {}
        """The size of each incomplete group that is counted."""
        self._refused = False
        self._restore()
        state.epoch = self._noted_epoch = self._epochs.epoch

    @property
    def epoch(self) -> int:
        """The current epoch of the broadcast."""
        return self._epochs.epoch

    def keep(self, deliveries: Sequence[Delivery], held: Collection[int] = ()) -> int:
        """Commit what is new; on return it is durable. Returns how many groups that were.

        Those at the places ``held`` are only decided about, in their turn: hand them over again.
        Raises StorageError: then nothing counts, and the same deliveries must be tried again.
        """
        with contextlib.closing(self._history):
            everything = [self._decide(delivery) for delivery in deliveries]
        decided = [item for at, item in enumerate(everything) if at not in held]
        kept = [item for item in decided if item.decision.verdict is not Verdict.KNOWN]
        if self._epochs.epoch != self._noted_epoch:
            self._writer.note_epoch(self._epochs.epoch, self._epochs.reason)
            self._noted_epoch = self._epochs.epoch
        items = self._items(kept)
        committed = self._writer.commit(items) if items else []
        for item in kept:
            self._count(item)
        self._state.new_bytes += sum(done.record.size for done in committed if done.new)
        for item in decided:
            del self._decided[id(item.delivery)]
            if item.decision.verdict is Verdict.KNOWN:
                self._state.track(item.delivery.track).redelivered += 1
        self._state.epoch = self._epochs.epoch
        return len(kept)

    def interruption(self, track: str, reason: str) -> Interruption:
        """Return the interruption that begins now for a track."""
        start = self._last_end.get(track)
        return Interruption(track, self._epochs.epoch, self._epochs.highest(track), start, reason)

    def settle(self, interruption: Interruption, resumed: int | None, now: int) -> int:
        """Record what an interruption cost, now that redelivery is over; return how many gaps.

        ``resumed``: when the first group after it began, None if none has come (ns UTC). Raises
        StorageError.
        """
        if interruption.start is None:
            # What a publisher skipped before we came is no loss, and looks the same.
            return 0
        end = resumed if resumed is not None else now
        missed = self.missed(interruption, open_end=resumed is None)
        self._writer.note_gaps(
            interruption.track,
            missed,
            epoch=interruption.epoch,
            start=interruption.start,
            end=max(interruption.start, end),
            reason=interruption.reason,
        )
        self._state.track(interruption.track).gaps += len(missed)
        return len(missed)

    def dropped(self, track: str, first: int, last: int, code: int, now: int) -> None:
        """Record groups that the relay said it will not deliver; raises StorageError."""
        missed = self._epochs.missing(track, first, last)
        self._writer.note_gaps(
            track,
            missed,
            epoch=self._epochs.epoch,
            start=min(now, self._last_end.get(track, now)),
            end=now,
            reason=f"dropped by the relay, code {code}",
        )
        self._state.track(track).gaps += len(missed)

    def missed(
        self, interruption: Interruption, *, open_end: bool = False
    ) -> list[tuple[int | None, int | None]]:
        """Return the ranges of sequences that were missed, as it stands; None: it is not known.

        Of a track that never had a group that is what lacks between the groups that came.
        """
        after = interruption.after
        if interruption.start is None:
            return list(self._lacking(interruption))
        if after is None:
            return [(None, None)]
        highest = self._epochs.highest(interruption.track)
        if interruption.epoch != self._epochs.epoch or highest is None:
            return [(after + 1, None)]
        missed: list[tuple[int | None, int | None]] = []
        missed += self._epochs.missing(interruption.track, after + 1, highest)
        if open_end:
            missed.append((max(after, highest) + 1, None))
        return missed

    def _lacking(self, interruption: Interruption) -> Iterator[tuple[int, int]]:
        highest = self._epochs.highest(interruption.track)
        if interruption.epoch == self._epochs.epoch and highest is not None:
            lowest = self._epochs.lowest(interruption.track)
            for first, last in self._epochs.missing(interruption.track, lowest, highest):
                if last - first < SKIPPED_AT_MOST:
                    yield first, last

    # The beginning

    def _restore(self) -> None:
        recent = self._writer.recent_groups()
        self._clock, times = restored_times(self._writer.archive, recent)
        for kept in recent:
            record = kept.record
            track, sequence = record.track or "", int(record.sequence)
            received = parse_time(record.received_start)
            time = times.get((track, record.epoch, sequence))
            seen = Seen(kept.digest, record.size, record.complete, received, time)
            self._epochs.restore(track, record.epoch, sequence, seen)
            if record.complete or record.reason == STILL_OPEN:
                self._note_init(track, _Init(record.epoch, sequence, record.size, record.hash))
            self._note_end(track, parse_time(record.received_end))
        with contextlib.closing(self._history):
            for track, epoch, sequence in self._history.newest():
                self._epochs.restore_highest(track, epoch, sequence)

    # Deciding

    def _decide(self, delivery: Delivery) -> _Decided:
        before = self._decided.get(id(delivery))
        if before is not None:
            return before
        group = delivery.group
        digest = digest_of_parts(group.frames)
        time = self._clock.time(delivery.track, group.frames, group.timestamps, delivery.timescale)
        decision = self._epochs.observe(
            delivery.track,
            group.sequence,
            group.frames,
            Seen(digest, delivery.size, group.complete, group.received_start, time),
            generation=delivery.generation,
        )
        if group.complete or group.reason == STILL_OPEN:
            self._clock.note(delivery.track, group.frames)
            init = _Init(decision.epoch, group.sequence, delivery.size, digest)
            self._note_init(delivery.track, init)
        self._note_end(delivery.track, group.received_end)
        decided = _Decided(delivery, digest, decision, self._init_of(delivery.track))
        self._decided[id(delivery)] = decided
        return decided

    def _items(self, kept: Sequence[_Decided]) -> list[Group | Run]:
        """Return what is to be committed, in the order of arrival within each track."""
        items: list[Group | Run] = []
        small: dict[str, list[Group]] = {}
        runs = self._runs_allowed(kept)
        for decided in kept:
            delivery = decided.delivery
            if delivery.small and runs:
                small.setdefault(delivery.track, []).append(self._group(decided))
                continue
            items += runs_of(small.pop(delivery.track, ()))
            items.append(self._group(decided))
        for groups in small.values():
            items += runs_of(groups)
        return items

    def _runs_allowed(self, kept: Sequence[_Decided]) -> bool:
        """Say whether the archive can be told that it holds runs; without that, groups go alone."""
        if not any(decided.delivery.small for decided in kept):
            return False
        try:
            self._writer.archive.require_runs()
        except StorageError as error:
            if not self._refused:
                _LOG.warning("small groups are not committed together: %s", error)
            self._refused = True
            return False
        return True

    def _group(self, decided: _Decided) -> Group:
        delivery, received = decided.delivery, decided.delivery.group
        current = decided.decision.epoch == self._epochs.epoch
        return Group(
            track=delivery.track,
            epoch=decided.decision.epoch,
            sequence=received.sequence,
            frames=received.frames,
            digest=decided.digest,
            lacking=received.lacking,
            timestamps=received.timestamps,
            timescale=delivery.timescale,
            received_start=received.received_start,
            received_end=received.received_end,
            complete=received.complete,
            reason=received.reason,
            # The init may have come right behind the first media that need it.
            init=self._init_of(delivery.track) if current else decided.init,
            relay=delivery.relay,
            protocol=delivery.protocol,
        )

    def _note_init(self, track: str, init: _Init) -> None:
        """Take a group of any track. Relays deliver the newest first: the last is not the newest.

        One that was cut short is no init; one that still arrives (a catalog) is.
        """
        if track in INIT_TRACKS:
            self._inits[track] = max(init, self._inits.get(track, init))

    def _note_end(self, track: str, received_end: int) -> None:
        self._last_end[track] = max(received_end, self._last_end.get(track, 0))

    def _init_of(self, track: str) -> Digest | None:
        if track in INIT_TRACKS:
            return None
        return next((self._inits[name].digest for name in INIT_TRACKS if name in self._inits), None)

    def _count(self, decided: _Decided) -> None:
        delivery = decided.delivery
        group, size = delivery.group, delivery.size
        track = self._state.track(delivery.track)
        identity = (delivery.track, decided.decision.epoch, group.sequence)
        # A better copy counts once, with what was counted of it before.
        counted = self._cut.pop(identity, None)
        track.groups += counted is None
        track.incomplete -= counted is not None
        track.bytes += size - (counted or 0)
        if not group.complete:
            track.incomplete += 1
            self._cut[identity] = size
            if len(self._cut) > _CUT_REMEMBERED:
                del self._cut[next(iter(self._cut))]
        track.last_sequence = group.sequence
        track.last_received = max(track.last_received, group.received_end)


class _ArchiveHistory:
    """What the archive holds of the writer's broadcast (`ingest.epochs.History`).

    Opened when it is asked; closed, it opens again.
    """

    def __init__(self, writer: BroadcastWriter) -> None:
        self._archive = writer.archive
        self._broadcast = writer.broadcast
        self._reader: Reader | None = None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def find(self, track: str, epoch: int, sequence: int) -> Seen | None:
        group = self._row(track, epoch, sequence)
        if group is None:
            return None
        return Seen(group.digest, group.size, group.complete, group.received_start)

    def prefix(self, track: str, epoch: int, sequence: int, size: int) -> Digest | None:
        group = self._row(track, epoch, sequence)
        if group is None:
            return None
        try:
            descriptor = self._archive.objects.open(group.hash)
        except (ObjectNotFoundError, StorageError):
            return None
        try:
            return digest_of(os.pread(descriptor, size, group.offset))
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def newest(self) -> list[tuple[str, int, int]]:
        """Return track, epoch and sequence of the newest group of each track."""
        reader = self._opened()
        found = []
        for broadcast in reader.broadcasts():
            if broadcast.name == self._broadcast:
                for track in reader.tracks(broadcast):
                    group = reader.newest(track)
                    if group is not None:
                        found.append((track.name, group.epoch, group.sequence))
        return found

    def _row(self, track: str, epoch: int, sequence: int) -> GroupRow | None:
        reader = self._opened()
        row = reader.track(self._broadcast, track)
        return reader.find(row, epoch, sequence) if row is not None else None

    def _opened(self) -> Reader:
        if self._reader is None:
            self._reader = self._archive.reader()
        return self._reader
