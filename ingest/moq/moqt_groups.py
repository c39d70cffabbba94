"""Groups of MoQ transport that are arriving, put together from objects.

A group may come on several streams (subgroups), whose objects are merged by their numbers; and its
beginning may come by FETCH, when the subscription began in its middle.

When is a group complete? When a relay marks its end (a bit of the stream's kind, or a status) and
every object before it is there. Without a mark, when every stream of it has ended in good order and
`LINGER` has passed, in which no other brought more: there is no better way to know. A stream that
is reset is waited for as long, because a relay may go on with its objects on another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from casfs.errors import ProtocolError
from ingest.moq.moqt_group import ObjectGroup, Source
from ingest.moq.moqt_objects import END_OF_GROUP, CutObject, ObjectCutter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ingest.moq.events import GroupReceived
    from ingest.moq.interface import Limits
    from ingest.moq.moqt_objects import ReadObject

LINGER: Final = 10**9
"""How long a group waits for another stream, nanoseconds."""

STILL_OPEN: Final = "still open"

_REMEMBERED: Final = 4096
"""Groups of each subscription that are known to have been told."""


class ObjectGroups:
    """All groups of a session that are arriving, and what they may take together."""

    def __init__(self, limits: Limits, stop: Callable[[int], None]) -> None:
        """``stop`` is called with a stream of which nothing more is wanted."""
        self._limits = limits
        self._stop = stop
        self._groups: dict[tuple[int, int, bool], ObjectGroup] = {}
        self._streams: dict[int, ObjectGroup] = {}
        self._held = 0
        self._told: dict[int, dict[int, None]] = {}
        """Complete groups that have been told, the newest of each subscription."""
        self._least: dict[int, tuple[int, int]] = {}
        """Of each subscription: a group, and how many objects it has at least."""
        self._newest: dict[int, int] = {}
        """The highest group that has begun, by subscription."""

    @property
    def buffered(self) -> int:
        """Payload bytes held."""
        return sum(group.payload for group in self._groups.values())

    @property
    def waiting(self) -> bool:
        """Whether a group waits to see whether more of it comes."""
        return any(
            group.begun and not group.sources and (not self._endless(group) or group.grown)
            for group in self._groups.values()
        )

    def __contains__(self, stream: int) -> bool:
        return stream in self._streams

    def __len__(self) -> int:
        return len(self._groups)

    def has(self, subscription: int) -> bool:
        """Whether a group of that subscription is arriving, those apart that are fetched."""
        return any(
            group.subscription == subscription and not group.fetched and not self._endless(group)
            for group in self._groups.values()
        )

    def told(self, subscription: int, sequence: int) -> bool:
        """Whether the group has been told as complete: what still comes of it adds nothing."""
        return sequence in self._told.get(subscription, ())

    def expect(self, subscription: int, sequence: int, objects: int) -> None:
        """Note how many objects the newest group has had when the subscription began.

        A stream of it that brings none of them is no proof that it is empty.
        """
        self._least[subscription] = (sequence, objects)

    def known(self, subscription: int, sequence: int) -> bool:
        """Whether any of a group has come over its subscription."""
        return self.told(subscription, sequence) or (subscription, sequence, False) in self._groups

    def confirmed(self, subscription: int, sequence: int) -> bool:
        """Whether the relay has answered the fetch of a group."""
        group = self.find(subscription, sequence, fetched=True)
        return group is not None and group.confirmed is not None

    def find(self, subscription: int, sequence: int, *, fetched: bool) -> ObjectGroup | None:
        """Return a group that is arriving."""
        return self._groups.get((subscription, sequence, fetched))

    def at(self, stream: int) -> ObjectGroup:
        """Return the group that comes on a stream."""
        return self._streams[stream]

    def open(
        self,
        stream: int,
        subscription: int,
        sequence: int,
        opened: int,
        read: ReadObject,
        *,
        marks_end: bool,
        fetched: bool = False,
        subscribed: bool = True,
    ) -> ObjectGroup:
        """Expect objects of a group on ``stream``, of which the first byte came at ``opened``.

        ``fetched``: it is a group of its own, asked for once more. Not ``subscribed``: it is the
        beginning of a group, of which more may come over the subscription at any time.
        """
        group = self._group(subscription, sequence, opened, fetched=fetched)
        group.sources[stream] = Source(ObjectCutter(read, self._limits), marks_end=marks_end)
        group.subscribed |= subscribed
        group.begun = True
        self._streams[stream] = group
        if subscribed:
            self._newest[subscription] = max(sequence, self._newest.get(subscription, 0))
        return group

    def append(self, stream: int, data: bytes, now: int, *, end: bool) -> Sequence[GroupReceived]:
        """Take bytes of a stream and return the groups that are over by them."""
        group = self._streams[stream]
        source = group.sources[stream]
        before = group.held
        group.touch(now)
        try:
            for cut in source.cutter.append(data):
                group.take(cut)
            if end:
                source.cutter.finish()
        except ProtocolError as error:
            del self._streams[stream]
            group.failed(stream, error.message, now)
            if not end:
                self._stop(stream)
        else:
            if end:
                del self._streams[stream]
                group.ended(stream, now)
        self._held += group.held - before
        told = self._conclude(group, now)
        if self._held > self._limits.buffered_bytes:
            return [*told, *self._relieve()]
        return told

    def take_datagram(
        self, subscription: int, cut: CutObject, now: int, *, end_of_group: bool
    ) -> Sequence[GroupReceived]:
        """Take an object that came alone."""
        group = self._group(subscription, cut.header.group, now, fetched=False)
        group.subscribed = group.begun = True
        before = group.held
        group.touch(now)
        group.quiet_since = now
        try:
            group.take(cut)
            if end_of_group:
                ended = cut.header._replace(number=cut.header.number + 1, status=END_OF_GROUP)
                group.take(CutObject(ended, b""))
        except ProtocolError:
            return ()
        self._held += group.held - before
        self._newest[subscription] = max(cut.header.group, self._newest.get(subscription, 0))
        told = self._conclude(group, now)
        if self._held > self._limits.buffered_bytes:
            return [*told, *self._relieve()]
        return told

    def reset(self, stream: int, code: int, now: int) -> Sequence[GroupReceived]:
        """Take the reset of a stream."""
        group = self._streams.pop(stream)
        before = group.held
        group.failed(stream, f"reset {code}", now)
        self._held += group.held - before
        return self._conclude(group, now)

    def confirm(
        self, subscription: int, sequence: int, now: int, *, whole: bool
    ) -> Sequence[GroupReceived]:
        """Take what the relay says of a fetch: whether it brings all of the group."""
        group = self._group(subscription, sequence, now, fetched=True)
        group.confirmed = whole
        return self._conclude(group, now) if group.begun else ()

    def settle(self, now: int, over: Callable[[int], bool]) -> Sequence[GroupReceived]:
        """Return the groups of which no more will come; ``over``: whether a subscription is."""
        told: list[GroupReceived] = []
        for group in list(self._groups.values()):
            if group.sources or not group.begun:
                continue
            if 0 <= now - group.quiet_since < LINGER:
                continue
            if self._endless(group) and not over(group.subscription):
                if group.grown:
                    told.append(group.report(STILL_OPEN))
                continue
            told += self._close(group)
        return told

    def forget(self, subscription: int) -> None:
        """Drop the groups of a subscription."""
        for group in list(self._groups.values()):
            if group.subscription == subscription:
                self._drop(group)
        self._newest.pop(subscription, None)
        self._told.pop(subscription, None)
        self._least.pop(subscription, None)

    def drop_fetch(self, subscription: int, sequence: int) -> None:
        """Drop a group that is fetched."""
        group = self._groups.get((subscription, sequence, True))
        if group is not None:
            self._drop(group)

    def snapshot(self, opened_before: int) -> Sequence[GroupReceived]:
        """Return what has come of each group opened before that time and grown since last told."""
        return [
            group.report(STILL_OPEN)
            for group in self._groups.values()
            if group.opened < opened_before and group.grown and not group.fetched
        ]

    def abandon(self, reason: str) -> Sequence[GroupReceived]:
        """Return all groups as incomplete for ``reason``, and hold none."""
        told = [
            group.report("" if group.whole else reason)
            for group in self._groups.values()
            if not group.phantom and group.begun
        ]
        self._groups.clear()
        self._streams.clear()
        self._held = 0
        return told

    def _endless(self, group: ObjectGroup) -> bool:
        """Whether only the beginning was fetched, and nothing says yet that the group is over.

        A later group will; or the end of the track.
        """
        newest = self._newest.get(group.subscription, 0)
        return not group.subscribed and not group.fetched and newest <= group.sequence

    def _group(
        self, subscription: int, sequence: int, opened: int, *, fetched: bool
    ) -> ObjectGroup:
        key = (subscription, sequence, fetched)
        group = self._groups.get(key)
        if group is None:
            group = ObjectGroup(subscription, sequence, opened, self._limits, fetched=fetched)
            if not fetched and self._least.get(subscription, (-1, 0))[0] == sequence:
                group.least = self._least[subscription][1]
            self._groups[key] = group
        return group

    def _conclude(self, group: ObjectGroup, now: int) -> Sequence[GroupReceived]:  # noqa: ARG002 - what is certain needs no clock
        """Tell a group that is certain: whole, with its end known."""
        if group.phantom and not group.sources:
            self._drop(group)
            return ()
        if group.whole and (not group.fetched or (not group.sources and group.confirmed)):
            return self._close(group)
        return ()

    def _close(self, group: ObjectGroup) -> Sequence[GroupReceived]:
        report = group.report()
        self._drop(group)
        if not group.fetched and (report.complete or group.phantom):
            told = self._told.setdefault(group.subscription, {})
            told[group.sequence] = None
            if len(told) > _REMEMBERED:
                del told[next(iter(told))]
        return () if group.phantom else (report,)

    def _drop(self, group: ObjectGroup) -> None:
        self._held -= group.held
        self._groups.pop((group.subscription, group.sequence, group.fetched), None)
        for stream in group.sources:
            del self._streams[stream]
            self._stop(stream)

    def _relieve(self) -> Sequence[GroupReceived]:
        told: list[GroupReceived] = []
        while self._held > self._limits.buffered_bytes and self._groups:
            group = max(self._groups.values(), key=lambda group: group.held)
            told.append(group.report(f"open groups hold over {self._limits.buffered_bytes} bytes"))
            self._drop(group)
        return told
