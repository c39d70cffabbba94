"""Turns received groups into commits: epoch, init, order. Blocking; runs in a worker thread.

The recorder hands over what has come, in batches; when `keep` returns, all of it is durable. If the
disk fails, nothing of the batch counts and the same batch can be handed over again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.archive import BroadcastWriter, Group
from casfs.digest import Digest, digest_of, digest_of_parts
from casfs.errors import ObjectNotFoundError, StorageError
from casfs.timestamps import parse_time
from ingest.epochs import EpochTracker, Seen, Verdict
from ingest.moq.events import GroupReceived

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.manifests.record import GroupRecord
    from ingest.state import RecorderState

INIT_TRACKS = ("init.mp4", "catalog.json")
"""Tracks whose newest group a player needs before any media, the better one first."""


class Delivery(Struct, frozen=True):
    """A group as it came, with what the session knows of its track."""

    track: str
    group: GroupReceived
    timescale: int | None
    subscription: str
    """Names the subscription uniquely in this process."""
    relay: str
    protocol: str

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
    start: int
    """When the last group before it ended, nanoseconds UTC."""
    reason: str


class Keeper:
    """Commits deliveries through ``writer`` and counts them in ``state``."""

    def __init__(self, writer: BroadcastWriter, state: RecorderState) -> None:
        self._writer = writer
        self._state = state
        self._epochs = EpochTracker(self._stored_prefix)
        self._inits: dict[str, Digest] = {}
        self._last_end: dict[str, int] = {}
        for record in writer.recent_groups():
            self._restore(record)
        state.epoch = self._noted_epoch = self._epochs.epoch

    @property
    def epoch(self) -> int:
        """The current epoch of the broadcast."""
        return self._epochs.epoch

    def keep(self, deliveries: Sequence[Delivery]) -> int:
        """Commit what is new; on return it is durable. Returns how many groups that were.

        Raises StorageError: then nothing counts, and the same deliveries may be tried again.
        """
        # Init and catalog first: the media beside them name what they need.
        ordered = sorted(deliveries, key=lambda delivery: delivery.track not in INIT_TRACKS)
        groups: list[Group] = []
        kept: list[Delivery] = []
        known: list[Delivery] = []
        for delivery in ordered:
            group = self._decide(delivery)
            if group is None:
                known.append(delivery)
            else:
                groups.append(group)
                kept.append(delivery)
        try:
            if self._epochs.epoch != self._noted_epoch:
                self._writer.note_epoch(self._epochs.epoch, "sequences began again")
                self._noted_epoch = self._epochs.epoch
            committed = self._writer.commit(groups) if groups else []
        except StorageError:
            for delivery in kept:
                self._epochs.forget(delivery.track, delivery.group.sequence)
            raise
        for delivery, done in zip(kept, committed, strict=True):
            self._count(delivery, new_bytes=done.record.size if done.new else 0)
        for delivery in known:
            self._state.track(delivery.track).redelivered += 1
        self._state.epoch = self._epochs.epoch
        return len(kept)

    def interruption(self, track: str, reason: str) -> Interruption | None:
        """Return the interruption that begins now for a track; None if it never had a group."""
        start = self._last_end.get(track)
        if start is None:
            return None
        return Interruption(track, self._epochs.epoch, self._epochs.highest(track), start, reason)

    def settle(self, interruption: Interruption, resumed: int | None, now: int) -> int:
        """Record what an interruption cost, now that redelivery is over; return how many gaps.

        ``resumed``: when the first group after it began, None if none has come (ns UTC). Raises
        StorageError.
        """
        end = resumed if resumed is not None else now
        track, start = interruption.track, interruption.start
        if (
            resumed is None
            or interruption.epoch != self._epochs.epoch
            or interruption.after is None
        ):
            self._note_gap(interruption, end)
            return 1
        highest = self._epochs.highest(track)
        if highest is None:
            self._note_gap(interruption, end)
            return 1
        missing = self._epochs.missing(track, interruption.after + 1, highest)
        for first, last in missing:
            self._writer.note_gap(
                track,
                epoch=interruption.epoch,
                start=start,
                end=max(start, end),
                reason=interruption.reason,
                first=first,
                last=last,
            )
        self._state.track(track).gaps += len(missing)
        return len(missing)

    def dropped(self, track: str, first: int, last: int, code: int, now: int) -> None:
        """Record groups that the relay said it will not deliver; raises StorageError."""
        for start, end in self._epochs.missing(track, first, last):
            self._writer.note_gap(
                track,
                epoch=self._epochs.epoch,
                start=self._last_end.get(track, now),
                end=now,
                reason=f"dropped by the relay, code {code}",
                first=start,
                last=end,
            )
            self._state.track(track).gaps += 1

    def _note_gap(self, interruption: Interruption, end: int) -> None:
        self._writer.note_gap(
            interruption.track,
            epoch=interruption.epoch,
            start=interruption.start,
            end=max(interruption.start, end),
            reason=interruption.reason,
            first=None if interruption.after is None else interruption.after + 1,
        )
        self._state.track(interruption.track).gaps += 1

    def _restore(self, record: GroupRecord) -> None:
        sequence = int(record.sequence)
        seen = Seen(record.hash, record.size, record.complete)
        self._epochs.restore(record.track or "", record.epoch, sequence, seen)
        self._after(record.track or "", record.hash, parse_time(record.received_end))

    def _decide(self, delivery: Delivery) -> Group | None:
        received = delivery.group
        seen = Seen(digest_of_parts(received.frames), delivery.size, received.complete)
        verdict = self._epochs.observe(
            delivery.track,
            received.sequence,
            received.frames,
            seen,
            subscription=delivery.subscription,
        )
        self._after(delivery.track, seen.digest, received.received_end)
        if verdict is Verdict.KNOWN:
            return None
        return Group(
            track=delivery.track,
            epoch=self._epochs.epoch,
            sequence=received.sequence,
            frames=received.frames,
            digest=seen.digest,
            lacking=received.lacking,
            timestamps=received.timestamps,
            timescale=delivery.timescale,
            received_start=received.received_start,
            received_end=received.received_end,
            complete=received.complete,
            reason=received.reason,
            init=self._init_of(delivery.track),
            relay=delivery.relay,
            protocol=delivery.protocol,
        )

    def _after(self, track: str, digest: Digest, received_end: int) -> None:
        if track in INIT_TRACKS:
            self._inits[track] = digest
        self._last_end[track] = max(received_end, self._last_end.get(track, 0))

    def _init_of(self, track: str) -> Digest | None:
        if track in INIT_TRACKS:
            return None
        return next((self._inits[name] for name in INIT_TRACKS if name in self._inits), None)

    def _count(self, delivery: Delivery, *, new_bytes: int) -> None:
        track = self._state.track(delivery.track)
        track.groups += 1
        track.bytes += delivery.size
        track.incomplete += not delivery.group.complete
        track.last_sequence = delivery.group.sequence
        track.last_received = max(track.last_received, delivery.group.received_end)
        self._state.new_bytes += new_bytes

    def _stored_prefix(self, digest: Digest, size: int) -> Digest | None:
        try:
            descriptor = self._writer.archive.objects.open(digest)
        except (ObjectNotFoundError, StorageError):
            return None
        try:
            return digest_of(os.pread(descriptor, size, 0))
        except OSError:
            return None
        finally:
            os.close(descriptor)
