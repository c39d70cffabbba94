"""The data streams of a MoQ transport session: whose they are, and what overtakes the answer.

A stream names its track by an alias that SUBSCRIBE_OK tells, on another stream, maybe later. Until
then what comes is held, up to `Limits.early_bytes`; beyond, and for aliases that no open request
can explain, streams are stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.errors import ProtocolError
from ingest.moq.moqt_groups import ObjectGroups
from ingest.moq.moqt_objects import (
    FETCH_STREAM,
    PADDING_STREAM,
    CutObject,
    ObjectHeader,
    fetch_reader,
    is_subgroup,
    read_datagram,
    read_subgroup_header,
    subgroup_reader,
)
from ingest.moq.moqt_requests import Ask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ingest.moq.events import GroupReceived
    from ingest.moq.interface import Limits
    from ingest.moq.moqt_drafts import Draft
    from ingest.moq.moqt_requests import Request

_OVERHEAD = 500
"""Bytes that an early stream takes beside its data."""
_LONGEST_HEADER = 64


class _Early:
    """A stream that belongs to nobody yet."""

    __slots__ = ("data", "ended", "opened", "reset")

    def __init__(self, opened: int) -> None:
        self.data = b""
        self.opened = opened
        self.ended = False
        self.reset: int | None = None

    @property
    def held(self) -> int:
        return len(self.data) + _OVERHEAD


class DataStreams:
    """Takes data streams and datagrams, gives groups."""

    def __init__(
        self,
        draft: Draft,
        limits: Limits,
        stop: Callable[[int], None],
        begun: Callable[[int, int], None],
    ) -> None:
        """``stop`` turns a stream away; ``begun`` hears of each stream: subscription, group."""
        self._draft = draft
        self._limits = limits
        self._stop = stop
        self._begun = begun
        self.groups = ObjectGroups(limits, stop)
        self._aliases: dict[int, int] = {}
        self._unanswered: set[int] = set()
        """Requests of subscriptions that may explain an unknown alias."""
        self._fetches: dict[int, Request] = {}
        self._early: dict[int, _Early] = {}
        self.violations = 0

    @property
    def early_bytes(self) -> int:
        """Held of streams that belong to nobody yet."""
        return sum(early.held for early in self._early.values())

    def __contains__(self, stream: int) -> bool:
        return stream in self.groups or stream in self._early

    # What the session knows

    def expect(self, request: Request) -> None:
        """Note a subscription that will tell an alias."""
        self._unanswered.add(request.number)

    def answered(self, request: Request, alias: int | None, now: int) -> Sequence[GroupReceived]:
        """Take the alias that a subscription has been told, or that it will be told none."""
        self._unanswered.discard(request.number)
        if alias is not None:
            self._aliases[alias] = request.subscription
        told: list[GroupReceived] = []
        for stream in list(self._early):
            told += self._advance(stream, now)
        return told

    def fetching(self, request: Request) -> None:
        """Note a request that will be answered by a stream."""
        self._fetches[request.number] = request

    def done(self, request: Request) -> None:
        """Note that a request of any kind is over."""
        self._fetches.pop(request.number, None)
        self._unanswered.discard(request.number)

    def forget(self, subscription: int) -> None:
        """Drop what belongs to a subscription."""
        self.groups.forget(subscription)
        self._aliases = {
            alias: number for alias, number in self._aliases.items() if number != subscription
        }

    def abandon(self, reason: str) -> Sequence[GroupReceived]:
        """Return all groups as incomplete for ``reason``, and hold nothing."""
        self._early.clear()
        self._unanswered.clear()
        self._fetches.clear()
        return self.groups.abandon(reason)

    # What comes

    def arrived(self, stream: int, data: bytes, now: int, *, end: bool) -> Sequence[GroupReceived]:
        """Take the first bytes of a stream; its kind is whole."""
        self._early[stream] = _Early(now)
        return self.append(stream, data, now, end=end)

    def append(self, stream: int, data: bytes, now: int, *, end: bool) -> Sequence[GroupReceived]:
        """Take bytes of a stream that is one of these."""
        early = self._early.get(stream)
        if early is None:
            return self.groups.append(stream, data, now, end=end)
        early.data += data
        early.ended = end
        return self._advance(stream, now)

    def reset(self, stream: int, code: int, now: int) -> Sequence[GroupReceived]:
        """Take the reset of a stream."""
        early = self._early.get(stream)
        if early is None:
            return self.groups.reset(stream, code, now)
        early.reset = code
        return self._advance(stream, now)

    def datagram(self, data: bytes, now: int) -> Sequence[GroupReceived]:
        """Take an object that came alone; one of an unknown track is lost, as datagrams may be."""
        try:
            found = read_datagram(data, self._draft)
        except ProtocolError:
            self.violations += 1
            return ()
        subscription = self._aliases.get(found.alias)
        if subscription is None or self.groups.told(subscription, found.group):
            return ()
        size = len(found.payload)
        header = ObjectHeader(found.group, found.number, size, found.status, found.timestamp, 0, 0)
        cut = CutObject(header, found.payload)
        return self.groups.take_datagram(subscription, cut, now, end_of_group=found.end_of_group)

    def _advance(self, stream: int, now: int) -> Sequence[GroupReceived]:
        """Give an early stream to whom it belongs, if that is known by now."""
        early = self._early[stream]
        try:
            behind = self._place(stream, early)
        except ProtocolError:
            self.violations += 1
            behind = None
        if behind is None:
            if (
                stream in self._early
                and (early.ended or early.reset is not None)
                and (len(early.data) < _LONGEST_HEADER and not self._unanswered)
            ):
                del self._early[stream]
            return ()
        del self._early[stream]
        told = [*self.groups.append(stream, early.data[behind:], now, end=early.ended)]
        if early.reset is not None and stream in self.groups:
            told += self.groups.reset(stream, early.reset, now)
        return told

    def _place(self, stream: int, early: _Early) -> int | None:
        """Open the group that a stream belongs to; return where its objects begin.

        None: not known yet, or the stream is turned away.
        """
        draft, data = self._draft, early.data
        kind = draft.integers.read(data, 0)
        assert kind is not None
        if kind[0] == FETCH_STREAM:
            number = draft.integers.read(data, kind[1])
            if number is None:
                return None
            request = self._fetches.get(number[0])
            if request is None:
                self._refuse(stream)
                return None
            self._open_fetch(stream, request, early)
            return number[1]
        if not is_subgroup(kind[0], draft):
            self.violations += kind[0] != PADDING_STREAM
            self._refuse(stream)
            return None
        header = read_subgroup_header(data, draft)
        if header is None:
            return None
        subscription = self._aliases.get(header.alias)
        if subscription is None:
            if not self._unanswered or self.early_bytes > self._limits.early_bytes:
                self._refuse(stream)
            return None
        self._begun(subscription, header.group)
        if self.groups.told(subscription, header.group):
            self._refuse(stream)
            return None
        read = subgroup_reader(header, draft)
        self.groups.open(
            stream, subscription, header.group, early.opened, read, marks_end=header.end_of_group
        )
        return header.size

    def _open_fetch(self, stream: int, request: Request, early: _Early) -> None:
        whole = request.ask is Ask.FETCH
        self.groups.open(
            stream,
            request.subscription,
            request.group,
            early.opened,
            fetch_reader(self._draft),
            marks_end=whole,
            fetched=whole,
            subscribed=False,
        )

    def _refuse(self, stream: int) -> None:
        early = self._early.pop(stream)
        if not early.ended and early.reset is None:
            self._stop(stream)
