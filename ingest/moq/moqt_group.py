"""One group of MoQ transport, put together from objects that come in any order.

What is reported of it is what stands in order from object 0 on, up to the first that did not come;
of that one, if its stream was cut, the bytes that came, as a last, shorter frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from casfs.errors import ProtocolError
from ingest.moq.events import GroupReceived
from ingest.moq.moqt_objects import (
    DOES_NOT_EXIST,
    END_OF_GROUP,
    END_OF_TRACK,
    GONE_RANGE,
    NORMAL,
    UNKNOWN_RANGE,
    CutObject,
    ObjectCutter,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.moq.interface import Limits
    from ingest.moq.moqt_objects import ObjectHeader

_OVERHEAD: Final = 200
"""Bytes that CPython needs for one object beside its payload."""


class Source:
    """One stream of a group."""

    __slots__ = ("cutter", "marks_end")

    def __init__(self, cutter: ObjectCutter, *, marks_end: bool) -> None:
        self.cutter = cutter
        self.marks_end = marks_end
        """Whether its good end is the group's."""


class ObjectGroup:
    """One group: objects in any order in, frames out."""

    def __init__(
        self, subscription: int, sequence: int, opened: int, limits: Limits, *, fetched: bool
    ) -> None:
        self.subscription = subscription
        self.sequence = sequence
        self.opened = opened
        self.fetched = fetched
        self.sources: dict[int, Source] = {}
        """The streams that are open."""
        self.quiet_since = opened
        """When the last stream ended."""
        self.begun = False
        """Whether any stream of it has come."""
        self.least = 0
        """How many objects it has at least, by the answer to the subscription."""
        self.subscribed = False
        """Whether a stream of the subscription has brought any of it."""
        self.confirmed: bool | None = None
        """Fetched ones: whether the relay says that this is all of the group; None: not yet."""
        self._limits = limits
        self._objects: dict[int, bytes] = {}
        self._timestamps: dict[int, int] = {}
        self._gone: dict[int, int] = {}
        """First and end of ranges of objects that do not exist."""
        self._end: int | None = None
        """The number behind the last object."""
        self._last = opened
        self._payload = 0
        self._failure = ""
        self._partial: tuple[ObjectHeader, bytes] | None = None
        self._reported = (0, 0)
        self._reached = 0
        self._track_ended = False

    @property
    def payload(self) -> int:
        """Payload bytes held."""
        return self._payload + sum(source.cutter.held for source in self.sources.values())

    @property
    def held(self) -> int:
        """Bytes of memory that the group takes, about."""
        return self.payload + _OVERHEAD * (len(self._objects) + len(self._gone))

    @property
    def begins_late(self) -> bool:
        """Whether there is or was something, and what stands before it has not come."""
        if not self.least and (not self._objects or 0 in self._objects):
            return False
        return self._reach() == 0 and (bool(self._objects) or self._end is not None)

    @property
    def phantom(self) -> bool:
        """Whether it is none: only the end of the track was said, and nothing came."""
        return self._track_ended and not self._objects and not self.fetched

    def touch(self, now: int) -> None:
        """Note that bytes have come."""
        self._last = now

    def take(self, cut: CutObject) -> None:
        """Take an object; raise `ProtocolError` for one over a limit or of another group."""
        header = cut.header
        number = header.number
        if header.group != self.sequence:
            raise ProtocolError(f"an object of group {header.group} came in {self.sequence}")
        if header.status == NORMAL:
            if header.gap:
                self._gone[max(0, number - header.gap)] = number
            if number in self._objects or (self._end is not None and number >= self._end):
                return
            if self._payload + header.size > self._limits.group_bytes:
                raise ProtocolError(
                    f"the group is over the limit of {self._limits.group_bytes} bytes"
                )
            if len(self._objects) + len(self._gone) >= self._limits.group_frames:
                raise ProtocolError(
                    f"the group is over the limit of {self._limits.group_frames} frames"
                )
            self._objects[number] = cut.payload
            self._payload += header.size
            if header.timestamp is not None:
                self._timestamps[number] = header.timestamp
        elif header.status in {END_OF_GROUP, END_OF_TRACK}:
            self._ends_before(number)
            self._track_ended |= header.status == END_OF_TRACK
        elif header.status in {DOES_NOT_EXIST, GONE_RANGE}:
            first = number if header.status == DOES_NOT_EXIST else len(self._objects)
            self._gone[first] = number + 1
        elif header.status != UNKNOWN_RANGE:
            raise ProtocolError(f"an object has the unknown status {header.status}")

    def ended(self, stream: int, now: int) -> None:
        """Take the good end of a stream."""
        source = self.sources.pop(stream)
        self.quiet_since = now
        if source.marks_end:
            last = source.cutter.last
            self._ends_before(max(self.least, 0 if last is None else last + 1))

    def failed(self, stream: int, reason: str, now: int) -> None:
        """Take that a stream brings no more."""
        source = self.sources.pop(stream)
        self.quiet_since = now
        self._failure = self._failure or reason
        partial = source.cutter.cut_short()
        if partial is not None and partial[1]:
            self._partial = partial

    @property
    def whole(self) -> bool:
        """Whether the end is known and everything before it is there."""
        return self._end is not None and self._reach() >= self._end

    @property
    def sound(self) -> bool:
        """Whether nothing is missing as far as can be known."""
        reach = self._reach()
        top = max(self._objects, default=-1) + 1 if self._end is None else self._end
        return reach >= top and (self._end is not None or not self._failure)

    @property
    def grown(self) -> bool:
        """Whether there is more than at the last report; before the first: anything at all."""
        return (len(self._objects), self.payload) != self._reported

    def report(self, reason: str = "") -> GroupReceived:
        """Return what has come; without a ``reason`` the group's own, none if it is sound."""
        numbers = list(self._in_order())
        frames = [self._objects[number] for number in numbers]
        missing = self._reach()
        timestamps = [self._timestamps.get(number) for number in numbers]
        lacking = 0
        partial = self._partial or self._open_partial(missing)
        if partial is not None and partial[0].number == missing and partial[1]:
            frames.append(partial[1])
            timestamps.append(partial[0].timestamp)
            lacking = partial[0].size - len(partial[1])
        if not reason and (not self.sound or self._unfinished):
            reason = self._failure or self._why(missing)
        self._reported = (len(self._objects), self.payload)
        times = tuple(time for time in timestamps if time is not None)
        return GroupReceived(
            subscription=self.subscription,
            sequence=self.sequence,
            frames=tuple(frames),
            timestamps=times if frames and len(times) == len(frames) else None,
            complete=not reason,
            reason=reason,
            received_start=self.opened,
            received_end=self._last,
            lacking=lacking,
            fetched=self.fetched,
        )

    @property
    def _unfinished(self) -> bool:
        return self.fetched and not self.confirmed

    def _why(self, missing: int) -> str:
        if self._objects and missing == 0 and 0 not in self._objects:
            return f"the group begins at object {min(self._objects)}"
        if self._unfinished and self.sound:
            return "the relay does not say that this is all of the group"
        return f"object {missing} did not come"

    def _open_partial(self, missing: int) -> tuple[ObjectHeader, bytes] | None:
        for source in self.sources.values():
            partial = source.cutter.cut_short()
            if partial is not None and partial[0].number == missing:
                return partial
        return None

    def _ends_before(self, number: int) -> None:
        self._end = number if self._end is None else min(self._end, number)

    def _in_order(self) -> Iterator[int]:
        number = 0
        while self._end is None or number < self._end:
            if number in self._objects:
                yield number
                number += 1
            elif number in self._gone:
                number = max(number + 1, self._gone[number])
            else:
                return

    def _reach(self) -> int:
        """Return the first number that is neither there nor known not to exist."""
        number = self._reached
        while True:
            if number in self._objects:
                number += 1
            elif number in self._gone:
                number = max(number + 1, self._gone[number])
            else:
                break
        self._reached = number
        return number if self._end is None else min(number, self._end)
