"""Groups that are arriving: frames cut from stream bytes, in bounded memory.

Shared by every MoQ protocol; a protocol brings the function that reads its frame headers. A piece
of payload is appended in constant time, and each frame is joined once, when it is whole. Nothing
is reserved by a length that the relay declares: what is held is what has come.

What is reported of a group that was cut short is a valid prefix of it: the whole frames, and of
the frame that was cut the bytes that came, as a last, shorter frame (``lacking`` says how much of
it is missing). A frame of which no byte came is not told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from casfs.errors import ProtocolError
from ingest.moq.events import GroupReceived

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ingest.moq.interface import Limits

_OVERHEAD: Final = 96
"""Bytes that CPython needs for one piece or frame beside its payload (object, list entry,
timestamp). Counted against the limit on all that is held, or tiny pieces would slip past it."""


class FrameHeader(NamedTuple):
    """What stands before a frame's payload."""

    size: int
    timestamp: int | None
    payload: int
    """Where the payload begins, in the bytes that the header was read from."""


class Framing(NamedTuple):
    """How a protocol frames a group's payload."""

    read: Callable[[bytes, int, int], FrameHeader | None]
    """Reads the frame header at an offset, given the timestamp of the frame before (0 for the
    first); None when more bytes are needed, `ProtocolError` when there can be none."""
    timed: bool
    """Whether frames have timestamps."""


class GroupAssembly:
    """One group: bytes in, frames out."""

    __slots__ = (
        "_frames",
        "_head",
        "_lacking",
        "_last",
        "_limits",
        "_parts",
        "_read_frame",
        "_reported",
        "_timed",
        "_timestamp",
        "_timestamps",
        "fetched",
        "opened",
        "payload",
        "sequence",
        "subscription",
    )

    def __init__(
        self,
        subscription: int,
        sequence: int,
        opened: int,
        framing: Framing,
        limits: Limits,
        *,
        fetched: bool = False,
    ) -> None:
        """Expect a group of which the first byte came at ``opened``, nanoseconds UTC."""
        self.fetched = fetched
        self.subscription = subscription
        self.sequence = sequence
        self.opened = opened
        self.payload = 0
        """Payload bytes held."""
        self._limits = limits
        self._read_frame = framing.read
        self._timed = framing.timed
        self._last = opened
        self._frames: list[bytes] = []
        self._timestamps: list[int] = []
        self._timestamp = 0
        self._head = b""
        """The beginning of a frame header that is not whole yet."""
        self._parts: list[bytes] = []
        """The pieces of the frame that is not whole yet."""
        self._lacking = 0
        """How many payload bytes that frame lacks."""
        self._reported = (0, 0)

    @property
    def held(self) -> int:
        """Bytes of memory that the group takes, about."""
        return self.payload + _OVERHEAD * (len(self._frames) + len(self._parts))

    def append(self, data: bytes, now: int) -> None:
        """Take the next piece; raise `ProtocolError` at a frame over a limit.

        After an error the group can be reported, and takes no more.
        """
        size = len(data)
        self._last = now
        if not size:
            return
        if size < self._lacking:
            self._parts.append(data)
            self._lacking -= size
            self.payload += size
        else:
            self._cut(data)

    def _cut(self, data: bytes) -> None:
        """Take a piece in which at least one frame ends or begins."""
        offset = self._lacking
        if offset:
            self._frames.append(b"".join([*self._parts, memoryview(data)[:offset]]))
            self._parts.clear()
            self.payload += offset
            self._lacking = 0
        elif self._head:
            data = self._head + data
            self._head = b""
        size = len(data)
        while offset < size:
            header = self._read_frame(data, offset, self._timestamp)
            if header is None:
                self._head = data[offset:]
                return
            self._admit(header)
            offset = header.payload
            end = offset + header.size
            if end > size:
                self._lacking = end - size
                if offset < size:
                    self._parts.append(data[offset:])
                    self.payload += size - offset
                return
            self._frames.append(data[offset:end])
            self.payload += header.size
            offset = end

    def _admit(self, header: FrameHeader) -> None:
        limits = self._limits
        if header.size > limits.frame_bytes:
            raise ProtocolError(
                f"a frame of {header.size} bytes is over the limit of {limits.frame_bytes}"
            )
        if self.payload + header.size > limits.group_bytes:
            raise ProtocolError(f"the group is over the limit of {limits.group_bytes} bytes")
        if len(self._frames) >= limits.group_frames:
            raise ProtocolError(f"the group is over the limit of {limits.group_frames} frames")
        if header.timestamp is not None:
            self._timestamp = header.timestamp
            self._timestamps.append(header.timestamp)

    def finish(self) -> None:
        """Take the stream's end; raise `ProtocolError` when it cuts a frame."""
        if self._lacking or self._head:
            raise ProtocolError("the stream ended in the middle of a frame")

    def report(self, reason: str) -> GroupReceived:
        """Return what has come; an empty ``reason`` says that it is the whole group."""
        frames = tuple(self._frames)
        if self._parts:
            partial = b"".join(self._parts)
            self._parts = [partial]
            frames += (partial,)
        self._reported = (len(frames), self.payload)
        return GroupReceived(
            subscription=self.subscription,
            sequence=self.sequence,
            frames=frames,
            timestamps=tuple(self._timestamps[: len(frames)]) if self._timed else None,
            complete=not reason,
            reason=reason,
            received_start=self.opened,
            received_end=self._last,
            lacking=self._lacking if self._parts else 0,
            fetched=self.fetched,
        )

    @property
    def grown(self) -> bool:
        """Whether there is more than at the last report; before the first: anything at all."""
        frames = len(self._frames) + bool(self._parts)
        return (frames, self.payload) != self._reported


class OpenGroups:
    """All groups of a session that are arriving, by stream, and what they may take together."""

    def __init__(self, limits: Limits, stop: Callable[[int], None]) -> None:
        """``stop`` is called with a stream of which nothing more is wanted."""
        self._limits = limits
        self._stop = stop
        self._groups: dict[int, GroupAssembly] = {}
        self._held = 0

    @property
    def buffered(self) -> int:
        """Payload bytes held."""
        return sum(group.payload for group in self._groups.values())

    def __contains__(self, stream: int) -> bool:
        return stream in self._groups

    def __len__(self) -> int:
        return len(self._groups)

    def has(self, subscription: int) -> bool:
        """Whether a group of that subscription is arriving, those apart that are fetched."""
        return any(
            group.subscription == subscription and not group.fetched
            for group in self._groups.values()
        )

    def open(
        self,
        stream: int,
        subscription: int,
        sequence: int,
        opened: int,
        framing: Framing,
        *,
        fetched: bool = False,
    ) -> None:
        """Expect a group on ``stream``, of which the first byte came at ``opened``."""
        self._groups[stream] = GroupAssembly(
            subscription, sequence, opened, framing, self._limits, fetched=fetched
        )

    def append(self, stream: int, data: bytes, now: int, *, end: bool) -> Sequence[GroupReceived]:
        """Take bytes of a group's stream and return the groups that are over by them.

        That is this one, when it ended or broke a rule; or any that had to be cut because all
        together hold too much, the largest first.
        """
        group = self._groups[stream]
        before = group.held
        try:
            group.append(data, now)
            if end:
                group.finish()
        except ProtocolError as error:
            self._remove(stream, before)
            if not end:
                self._stop(stream)
            return (group.report(error.message),)
        if end:
            self._remove(stream, before)
            return (group.report(""),)
        self._held += group.held - before
        if self._held > self._limits.buffered_bytes:
            return self._relieve()
        return ()

    def _relieve(self) -> Sequence[GroupReceived]:
        cut = []
        while self._held > self._limits.buffered_bytes:
            stream = max(self._groups, key=lambda number: self._groups[number].held)
            group = self._groups[stream]
            self._remove(stream, group.held)
            self._stop(stream)
            cut.append(group.report(f"open groups hold over {self._limits.buffered_bytes} bytes"))
        return cut

    def reset(self, stream: int, code: int) -> GroupReceived:
        """Take the reset of a group's stream."""
        return self.fail(stream, f"reset {code}")

    def fail(self, stream: int, reason: str) -> GroupReceived:
        """End a group as incomplete for ``reason``; its stream is the caller's to stop."""
        group = self._groups[stream]
        self._remove(stream, group.held)
        return group.report(reason)

    def forget(self, subscription: int) -> None:
        """Drop the groups of a subscription."""
        for stream, group in list(self._groups.items()):
            if group.subscription == subscription:
                self._remove(stream, group.held)
                self._stop(stream)

    def snapshot(self, opened_before: int) -> Sequence[GroupReceived]:
        """Return what has come of each group opened before that time and grown since last told."""
        told = []
        for group in self._groups.values():
            if group.opened < opened_before and group.grown and not group.fetched:
                before = group.held
                told.append(group.report("still open"))
                self._held += group.held - before  # the report joins the last frame's pieces
        return told

    def abandon(self, reason: str) -> Sequence[GroupReceived]:
        """Return all groups as incomplete for ``reason``, and hold none."""
        groups = [group.report(reason) for group in self._groups.values()]
        self._groups.clear()
        self._held = 0
        return groups

    def _remove(self, stream: int, counted: int) -> None:
        """Hold a group no more; ``counted`` is what it has last added to the sum."""
        del self._groups[stream]
        self._held -= counted
