"""A subscriber's session of MoQ transport (draft-ietf-moq-transport), drafts 14, 16 and 18.

What the drafts differ in is data (`ingest.moq.moqt_drafts`). What is said comes through
`ingest.moq.moqt_control`, objects through `ingest.moq.moqt_data`; here the two meet.

A subscription asks for everything from {0, 0} on (filter AbsoluteStart), which by the drafts means:
what is published or received from now on. Relays of moq-dev give the newest group from its start;
of others that beginning is fetched when it does not come by itself, since a catalog or an init
would never come otherwise; and older groups are fetched one by one, back to the first that the
relay has no more. Those groups come as ``fetched``.

A malformed message on the control stream raises `ProtocolError`: nothing behind it can be trusted.
Elsewhere what a stream does wrong ends that stream alone. Messages that are not known are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ingest.moq.events import (
    BroadcastAnnounced,
    BroadcastEnded,
    FetchFailed,
    GoawayReceived,
    GroupReceived,
)
from ingest.moq.moqt_control import CANCELLED, Control, Over
from ingest.moq.moqt_data import DataStreams
from ingest.moq.moqt_groups import LINGER
from ingest.moq.moqt_messages import (
    Fetch,
    FetchOk,
    Kind,
    PublishDone,
    RequestError,
    Subscribe,
    SubscribeOk,
)
from ingest.moq.moqt_parameters import Location, Property, number_of
from ingest.moq.moqt_requests import Ask, Request
from ingest.moq.subscriptions import PATIENCE, Subscription

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ingest.moq.events import Event
    from ingest.moq.interface import Limits, Locator, Streams
    from ingest.moq.moqt_control import Answer, Message
    from ingest.moq.moqt_drafts import Draft

_BACKLOG: Final = 256
"""How many groups are fetched back from where a subscription begins."""
_BACKLOG_GAPS: Final = 2
"""After how many groups that are not there, one behind the other, nothing older is expected."""
_RELAY_OPENED: Final = 0b01
_ONE_DIRECTION: Final = 0b10
_GONE: Final = 0
"""The code of a request that just ended."""


class MoqtStatistics(Struct, frozen=True):
    """What a session holds and what it has turned away, for status and tests."""

    subscriptions: int
    broadcasts: int
    open_groups: int
    message_streams: int
    early_bytes: int
    """Held of groups whose subscription is not answered yet."""
    requests: int
    ignored_announcements: int
    violations: int
    """Streams, messages and datagrams turned away for what they say."""


class _Track:
    """One subscription and what is needed to go on with it."""

    def __init__(self, wish: Subscribe, number: int, *, backlog: bool) -> None:
        self.subscription = Subscription(number, info_expected=True)
        self.number = number
        self.wish = wish
        self.over = False
        """The relay brings no more."""
        self.largest: Location | None = None
        self.answered_at = 0
        self.head_due = False
        """The beginning of the newest group may have to be fetched."""
        self.backlog = _BACKLOG if backlog else 0
        """How many older groups may still be fetched."""
        self.gaps = 0
        self.streams = 0
        """How many have come."""
        self.streams_due = 0
        """How many there are, by PUBLISH_DONE."""


class MoqtSession:
    """Our side of one session; implements `ingest.moq.interface.MoqSession`."""

    def __init__(
        self, draft: Draft, streams: Streams, limits: Limits, where: Locator | None = None
    ) -> None:
        """``where`` is told to the relay on raw QUIC."""
        self.protocol = draft.protocol
        self._draft = draft
        self._transport = streams
        self._limits = limits
        self._control = Control(draft, streams, limits, where, self._stop)
        self._requests = self._control.requests
        self._data = DataStreams(draft, limits, self._stop, self._begun)
        self._kinds: dict[int, bytes] = {}
        """Streams in one direction whose kind is not whole."""
        self._stopped: set[int] = set()
        self._tracks: dict[int, _Track] = {}
        self._ending: set[int] = set()
        self._subscribed = 0
        self._over = False
        self._fetches_asked = False
        self._fetch_answered = False

    @property
    def fetch_ignored(self) -> bool:
        """Whether FETCH was sent and never answered."""
        return self._fetches_asked and not self._fetch_answered

    @property
    def _can_fetch(self) -> bool:
        return self._control.can_fetch and self._limits.fetches > 0

    @property
    def buffered(self) -> int:
        """Payload bytes held in open groups."""
        return self._data.groups.buffered

    def statistics(self) -> MoqtStatistics:
        """Return what the session holds and what it has turned away."""
        return MoqtStatistics(
            subscriptions=len(self._tracks),
            broadcasts=len(self._control.names),
            open_groups=len(self._data.groups),
            message_streams=len(self._control),
            early_bytes=self._data.early_bytes,
            requests=len(self._requests),
            ignored_announcements=self._control.names.ignored,
            violations=self._control.violations + self._data.violations,
        )

    # What we ask for

    def start(self) -> None:
        """Send SETUP; requests wait for the relay's only up to draft 16."""
        self._control.start()

    def announce(self, prefix: str) -> None:
        """Ask for the namespaces below ``prefix`` (whole fields), now and as they change."""
        self._control.announce(prefix)

    def subscribe(self, broadcast: str, track: str, *, priority: int, max_latency: int) -> int:
        """Ask for a track; a ``max_latency`` of 0 leaves out what is older than the newest group.

        There is no field for more of it in these drafts.
        """
        number = self._subscribed
        self._subscribed += 1
        request = self._requests.new(Ask.SUBSCRIBE)
        request.subscription = number
        namespace = self._control.names.namespace(broadcast)
        wish = Subscribe(request.number, namespace, track.encode(), 255 - priority)
        self._tracks[number] = _Track(wish, number, backlog=max_latency > 0)
        self._data.expect(request)
        self._control.send(request, Kind.SUBSCRIBE, wish.encode(self._draft))
        return number

    def unsubscribe(self, subscription: int) -> None:
        """Give up a subscription; its open groups and fetches are forgotten."""
        if self._tracks.pop(subscription, None) is None:
            return
        self._ending.discard(subscription)
        for request in self._requests:
            if request.ask is not Ask.NAMESPACES and request.subscription == subscription:
                self._drop(request)
        self._data.forget(subscription)

    def fetch(self, subscription: int, sequence: int) -> bool:
        """Ask for a group again, by a standalone FETCH of all of it."""
        track = self._tracks.get(subscription)
        fetches = [request for request in self._requests if request.ask is Ask.FETCH]
        if (
            track is None
            or not self._can_fetch
            or len(fetches) >= self._limits.fetches
            or any((item.subscription, item.group) == (subscription, sequence) for item in fetches)
        ):
            return False
        self._fetch(Ask.FETCH, track, Location(sequence, 0), Location(sequence, 0))
        return True

    def _fetch(self, ask: Ask, track: _Track, start: Location, end: Location) -> Request:
        request = self._requests.new(ask)
        request.subscription, request.group = track.number, start.group
        wish = track.wish
        message = Fetch(request.number, wish.namespace, wish.track, wish.priority, start, end)
        self._data.fetching(request)
        self._fetches_asked = True
        self._control.send(request, Kind.FETCH, message.encode(self._draft))
        return request

    def _fetch_head(self, track: _Track, largest: Location) -> None:
        """Fetch the beginning of the group in whose middle the subscription began."""
        track.head_due = False
        start, end = Location(largest.group, 0), Location(largest.group, largest.object + 1)
        self._fetch(Ask.HEAD, track, start, end)

    def _fetch_older(self, track: _Track, than: int) -> None:
        """Fetch the group before one, if it may be there and has not come."""
        while than > 0 and track.backlog > 0 and self._can_fetch:
            than -= 1
            track.backlog -= 1
            if not self._data.groups.known(track.number, than):
                start = Location(than, 0)
                self._fetch(Ask.FETCH, track, start, start).backlog = True
                return

    def _drop(self, request: Request) -> None:
        """Take a request back."""
        self._control.cancel(request)
        self._data.done(request)

    # What comes

    def stream_data(self, stream: int, data: bytes, now: int, *, end: bool) -> Sequence[Event]:
        """Take bytes of a stream, the transport's prefix removed."""
        events: list[Event] = []
        if stream in self._data:
            self._tell(self._data.append(stream, data, now, end=end), events)
        elif stream in self._stopped:
            if end:
                self._stopped.discard(stream)
        elif stream in self._control:
            self._answer(self._control.take(stream, data, end=end), now, events)
        elif stream & _RELAY_OPENED and not self._over:
            self._arrived(stream, data, now, events, end=end)
        self._conclude(now, events)
        return events

    def stream_reset(self, stream: int, code: int, now: int) -> Sequence[Event]:
        """Take the relay's RESET_STREAM."""
        events: list[Event] = []
        self._kinds.pop(stream, None)
        if stream in self._data:
            self._tell(self._data.reset(stream, code, now), events)
        elif stream in self._stopped:
            self._stopped.discard(stream)
        elif stream in self._control:
            self._answer(self._control.reset(stream, code), now, events)
        self._conclude(now, events)
        return events

    def stream_stopped(self, stream: int, code: int, now: int) -> Sequence[Event]:  # noqa: ARG002 - the interface's; the other direction tells why
        """Take the relay's STOP_SENDING: we send no more there."""
        self._control.stopped(stream)
        return ()

    def datagram(self, data: bytes, now: int) -> Sequence[Event]:
        """Take an object that came alone."""
        events: list[Event] = []
        if not self._over:
            self._tell(self._data.datagram(data, now), events)
        return events

    @property
    def waiting(self) -> bool:
        """Whether a group, a fetch or the end of a subscription waits for what may come."""
        return (
            bool(self._ending)
            or self._control.names.untold
            or self._data.groups.waiting
            or any(track.head_due for track in self._tracks.values())
            or any(request.ask is Ask.FETCH for request in self._requests)
        )

    def settle(self, now: int) -> Sequence[Event]:
        """Tell of groups, fetches and subscriptions of which nothing more comes."""
        events: list[Event] = []
        self._tell(self._data.groups.settle(now, self._is_over), events)
        for track in self._tracks.values():
            largest = track.largest
            if track.head_due and largest is not None and now - track.answered_at >= LINGER:
                if self._data.groups.known(track.number, largest.group):
                    track.head_due = False
                else:
                    self._fetch_head(track, largest)
        for request in self._requests:
            if request.ask is Ask.FETCH and self._expired(request, now):
                self._fail_fetch(request, _GONE, events)
        self._conclude(now, events)
        return events

    def open_groups(self, opened_before: int, now: int) -> Sequence[GroupReceived]:  # noqa: ARG002 - the interface's; a group knows when its last byte came
        """Return what has come of long-open groups; one of which nothing has come is left out."""
        return self._data.groups.snapshot(opened_before)

    def abandon(self, reason: str, now: int) -> Sequence[GroupReceived]:  # noqa: ARG002 - as above
        """End the session; whatever comes afterwards is ignored."""
        self._over = True
        self._control.clear()
        self._kinds.clear()
        self._stopped.clear()
        self._tracks.clear()
        self._ending.clear()
        return self._data.abandon(reason)

    def _arrived(
        self, number: int, data: bytes, now: int, events: list[Event], *, end: bool
    ) -> None:
        """Begin a stream of the relay's: a request of its, its control stream, or data."""
        if not number & _ONE_DIRECTION:
            self._control.begin(number, control=False)
            self._answer(self._control.take(number, data, end=end), now, events)
            return
        data = self._kinds.pop(number, b"") + data
        kind = self._draft.integers.read(data, 0)
        if kind is None:
            if not end:
                self._kinds[number] = data
        elif kind[0] == Kind.SETUP and self._draft.request_streams:
            self._control.begin(number, control=True)
            self._answer(self._control.take(number, data, end=end), now, events)
        else:
            self._tell(self._data.arrived(number, data, now, end=end), events)

    # Answers

    def _answer(self, answers: Iterable[Answer], now: int, events: list[Event]) -> None:
        for request, message in answers:
            if request is None:
                if isinstance(message, BroadcastAnnounced | BroadcastEnded | GoawayReceived):
                    events.append(message)
            elif self._requests.get(request.number) is not None:  # else it is over already
                self._answer_one(request, message, now, events)

    def _answer_one(
        self, request: Request, message: Message, now: int, events: list[Event]
    ) -> None:
        self._fetch_answered |= request.ask in {Ask.FETCH, Ask.HEAD}
        match message:
            case SubscribeOk():
                self._accepted(request, message, now, events)
            case FetchOk() if request.ask is Ask.FETCH:
                self._confirmed(request, message, now, events)
            case PublishDone() if request.ask is Ask.SUBSCRIBE:
                self._tracks[request.subscription].streams_due = message.streams
                self._ended(request, None, now, events)
            case RequestError(code=code):
                self._ended(request, code, now, events)
            case Over(code=code):
                answered = self._data.groups.confirmed(request.subscription, request.group)
                if request.ask is not Ask.FETCH or not answered:
                    self._ended(request, code, now, events)
            case _:
                pass

    def _accepted(
        self, request: Request, answer: SubscribeOk, now: int, events: list[Event]
    ) -> None:
        track = self._tracks.get(request.subscription)
        if track is None or request.ask is not Ask.SUBSCRIBE or track.answered_at:
            return
        timescale = number_of(answer.properties, Property.TIMESCALE) or 0
        events.extend(track.subscription.answered())
        events.extend(track.subscription.properties(timescale))
        track.answered_at = now
        track.largest = largest = answer.largest
        if largest is not None:
            self._data.groups.expect(track.number, largest.group, largest.object + 1)
            track.head_due = self._can_fetch
            self._fetch_older(track, largest.group)
        self._tell(self._data.answered(request, answer.alias, now), events)

    def _confirmed(self, request: Request, answer: FetchOk, now: int, events: list[Event]) -> None:
        end = answer.end
        whole = end.object == 0 or end.group > request.group or answer.end_of_track
        groups = self._data.groups
        told = groups.confirm(request.subscription, request.group, now, whole=whole)
        self._tell(told, events)

    def _ended(self, request: Request, code: int | None, now: int, events: list[Event]) -> None:
        """Take that a request is over, by an error, or by the end of its stream (None)."""
        if request.ask is Ask.FETCH:
            self._fail_fetch(request, code or _GONE, events)
            return
        self._requests.done(request)
        self._data.done(request)
        track = self._tracks.get(request.subscription)
        if request.ask is Ask.SUBSCRIBE and track is not None:
            self._tell(self._data.answered(request, None, now), events)
            track.over = True
            events.extend(track.subscription.over(code, now))
            self._ending.add(track.number)

    def _fail_fetch(self, request: Request, code: int, events: list[Event]) -> None:
        self._data.groups.drop_fetch(request.subscription, request.group)
        self._drop(request)
        track = self._tracks.get(request.subscription)
        if not request.backlog:
            events.append(FetchFailed(request.subscription, request.group, code))
        elif track is not None:
            track.gaps += 1
            if track.gaps < _BACKLOG_GAPS:
                self._fetch_older(track, request.group)

    def _expired(self, request: Request, now: int) -> bool:
        """Whether a fetch has been answered by nothing for too long."""
        begun = self._data.groups.find(request.subscription, request.group, fetched=True)
        if request.since is None or (begun is not None and begun.sources):
            request.since = now
        return not 0 <= now - request.since < PATIENCE

    # Groups

    def _tell(self, groups: Iterable[GroupReceived], events: list[Event]) -> None:
        for group in groups:
            if not group.fetched:
                events.append(group)
                continue
            request = next(
                (
                    request
                    for request in self._requests
                    if request.ask is Ask.FETCH
                    and (request.subscription, request.group)
                    == (group.subscription, group.sequence)
                ),
                None,
            )
            if request is None:
                continue
            if not group.complete and not group.frames:
                self._fail_fetch(request, _GONE, events)
                continue
            self._requests.done(request)
            self._data.done(request)
            events.append(group)
            track = self._tracks.get(group.subscription)
            if request.backlog and track is not None:
                track.gaps = 0
                self._fetch_older(track, group.sequence)

    def _begun(self, subscription: int, sequence: int) -> None:
        track = self._tracks.get(subscription)
        if track is not None:
            track.streams += 1
            track.subscription.group(sequence)

    def _is_over(self, subscription: int) -> bool:
        track = self._tracks.get(subscription)
        return track is None or track.over

    def _stop(self, number: int) -> None:
        self._transport.stop(number, CANCELLED)
        if number & _RELAY_OPENED:
            self._stopped.add(number)

    def _conclude(self, now: int, events: list[Event]) -> None:
        events.extend(self._control.names.take_untold())
        for track in self._tracks.values():
            largest = track.largest
            if track.head_due and largest is not None:
                group = self._data.groups.find(track.number, largest.group, fetched=False)
                if group is not None and group.begins_late:
                    self._fetch_head(track, largest)
        for number in sorted(self._ending):
            track = self._tracks[number]
            arriving = self._data.groups.has(number) or track.streams < track.streams_due
            events.extend(track.subscription.conclude(now, arriving=arriving))
            if track.subscription.concluded:
                self._ending.discard(number)
