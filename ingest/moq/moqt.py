"""A subscriber's session of MoQ transport (draft-ietf-moq-transport), drafts 14, 16 and 18.

What the drafts differ in is data (`ingest.moq.moqt_drafts`). What is said comes through
`ingest.moq.moqt_control`, objects through `ingest.moq.moqt_data`; here the two meet. What is
fetched is the affair of `ingest.moq.moqt_fetching`, what the relay offers unasked that of
`ingest.moq.moqt_offers`.

A subscription asks for everything from {0, 0} on (filter AbsoluteStart), which by the drafts means:
what is published or received from now on. Relays of moq-dev give the newest group from its start;
of others that beginning is fetched when it does not come by itself, since a catalog or an init
would never come otherwise; and older groups are fetched one by one, back to the first that the
relay has no more. Those groups come as ``fetched``.

A track that the relay offers (PUBLISH) is taken in place of a SUBSCRIBE, if it is wanted. It cannot
be asked for again: a newer subscription takes over from the older where that stands.

A malformed message on the control stream raises `ProtocolError`: nothing behind it can be trusted.
Elsewhere what a stream does wrong ends that stream alone. Messages that are not known are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ingest.moq.events import (
    AnnouncementsEnded,
    BroadcastAnnounced,
    BroadcastEnded,
    GoawayReceived,
    GroupReceived,
)
from ingest.moq.interface import Extra
from ingest.moq.moqt_control import CANCELLED, NOT_SUPPORTED, Control, Over, Refusal
from ingest.moq.moqt_data import DataStreams
from ingest.moq.moqt_fetching import Fetching
from ingest.moq.moqt_messages import (
    FetchOk,
    Kind,
    PublishDone,
    RequestError,
    Subscribe,
    SubscribeOk,
)
from ingest.moq.moqt_offers import Offers
from ingest.moq.moqt_parameters import Property, number_of
from ingest.moq.moqt_publishing import Publish
from ingest.moq.moqt_requests import Ask, Request
from ingest.moq.moqt_track import Track

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ingest.moq.events import Event
    from ingest.moq.interface import Limits, Locator, Streams
    from ingest.moq.moqt_control import Answer, Message
    from ingest.moq.moqt_drafts import Draft

_RELAY_OPENED: Final = 0b01
_ONE_DIRECTION: Final = 0b10


class MoqtStatistics(Struct, frozen=True):
    """What a session holds and what it has turned away, for status and tests."""

    subscriptions: int
    broadcasts: int
    open_groups: int
    message_streams: int
    early_bytes: int
    """Held of groups whose subscription is not answered yet."""
    requests: int
    offers: int
    """Tracks that the relay offers, neither taken nor refused."""
    ignored_announcements: int
    violations: int
    """Streams, messages and datagrams turned away for what they say."""


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
        self._tracks: dict[int, Track] = {}
        self._fetching = Fetching(draft, self._control, self._data, self._tracks, limits)
        self._offers = Offers(self._control, self._data, limits)
        self._pushed: dict[int, Publish] = {}
        """Offers that were taken, by the number of the request."""
        self._taken: list[tuple[Request, Track | None]] = []
        """Those of them of which that has not been told; and which older subscription had it."""
        self._ending: set[int] = set()
        self._subscribed = 0
        self._over = False

    @property
    def ignored(self) -> frozenset[Extra]:
        """What was asked of the relay and never answered."""
        offers = self._control.offers_asked and not self._control.offers_answered
        found = {Extra.FETCH: self._fetching.ignored, Extra.OFFERS: offers}
        return frozenset(extra for extra, ignored in found.items() if ignored)

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
            offers=len(self._offers),
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
        name = self._control.names.namespace(broadcast), track.encode()
        offer = self._offers.take(name)
        pushed = self._pushed_request(name)
        request = pushed or (self._requests.new(Ask.SUBSCRIBE) if offer is None else offer.request)
        wish = Subscribe(request.number, *name, 255 - priority)
        subscribed = self._tracks[number] = Track(wish, number, backlog=max_latency > 0)
        if pushed is not None:
            self._hand_over(pushed, subscribed)
        elif offer is not None:
            self._take(offer.request, offer.publish, subscribed)
        else:
            request.subscription = number
            self._data.expect(request)
            self._control.send(request, Kind.SUBSCRIBE, wish.encode(self._draft))
        return number

    def unsubscribe(self, subscription: int) -> None:
        """Give up a subscription; its open groups and fetches are forgotten."""
        if self._tracks.pop(subscription, None) is None:
            return
        self._ending.discard(subscription)
        for request in self._requests:
            if request.subscription == subscription:
                self._fetching.drop(request)
                self._pushed.pop(request.number, None)
                self._control.names.refused(request.number)
        self._data.forget(subscription)

    def fetch(self, subscription: int, sequence: int) -> bool:
        """Ask for a group again, by a standalone FETCH of all of it."""
        return self._fetching.ask(subscription, sequence)

    # Tracks that the relay offers

    def _pushed_request(self, name: tuple[tuple[bytes, ...], bytes]) -> Request | None:
        """Return the request of a track that is pushed to us already."""
        for number, publish in self._pushed.items():
            if (publish.namespace, publish.track) == name:
                return self._requests.get(number)
        return None

    def _take(self, request: Request, publish: Publish, track: Track) -> None:
        request.ask, request.subscription = Ask.SUBSCRIBE, track.number
        self._pushed[request.number] = publish
        self._taken.append((request, None))
        self._control.grant(request, track.wish.priority)

    def _hand_over(self, request: Request, track: Track) -> None:
        """Let a newer subscription have what is pushed to an older one from now on."""
        before = self._tracks.get(request.subscription)
        request.subscription = track.number
        self._taken.append((request, before))
        if before is not None:
            track.streams = before.streams
            before.over = True

    def _tell_taken(self, now: int, events: list[Event]) -> None:
        """Tell what was taken: that the relay delivers, and what had overtaken our answer."""
        taken, self._taken = self._taken, []
        for request, before in taken:
            publish = self._pushed.get(request.number)
            if publish is not None and self._requests.get(request.number) is request:
                answer = SubscribeOk(None, publish.alias, publish.largest, publish.properties)
                self._accepted(request, answer, now, events)
            if before is not None and before.number in self._tracks:
                events.extend(before.subscription.over(None, now))
                self._ending.add(before.number)

    def _offered(self, request: Request, publish: Publish, now: int, events: list[Event]) -> None:
        name = publish.namespace, publish.track
        tracks = [track for track in self._tracks.values() if track.name == name]
        if any(track.live for track in tracks) or self._pushed_request(name) is not None:
            self._control.turn_down(request, Refusal.DUPLICATE)
            return
        events.extend(self._offers.hold(request, publish, now, wanted=bool(tracks)))

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
            bool(self._ending or self._taken)
            or self._control.names.untold
            or self._data.groups.waiting
            or self._fetching.waiting
            or self._offers.waiting
        )

    def settle(self, now: int) -> Sequence[Event]:
        """Tell of groups, fetches and subscriptions of which nothing more comes."""
        events: list[Event] = []
        self._tell(self._data.groups.settle(now, self._is_over), events)
        events.extend(self._fetching.settle(now))
        self._offers.settle(now)
        self._conclude(now, events)
        return events

    def open_groups(
        self,
        opened_before: int,
        now: int,  # noqa: ARG002 - the interface's; a group knows when its last byte came
        subscription: int | None = None,
    ) -> Sequence[GroupReceived]:
        """Return what has come of long-open groups; one of which nothing has come is left out."""
        return self._data.groups.snapshot(opened_before, subscription)

    def abandon(self, reason: str, now: int) -> Sequence[GroupReceived]:  # noqa: ARG002 - as above
        """End the session; whatever comes afterwards is ignored."""
        self._over = True
        self._control.clear()
        self._kinds.clear()
        self._stopped.clear()
        self._tracks.clear()
        self._offers.clear()
        self._pushed.clear()
        self._taken.clear()
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
        if request.ask in {Ask.FETCH, Ask.HEAD}:
            self._fetching.answered()
        match message:
            case Publish():
                self._offered(request, message, now, events)
            case SubscribeOk():
                self._accepted(request, message, now, events)
            case FetchOk() if request.ask is Ask.FETCH:
                self._tell(self._fetching.confirmed(request, message, now), events)
            case PublishDone() if request.ask in {Ask.SUBSCRIBE, Ask.OFFER}:
                if request.ask is Ask.SUBSCRIBE:
                    self._tracks[request.subscription].streams_due = message.streams
                self._ended(request, None, now, events)
            case RequestError(code=code):
                self._ended(request, code, now, events)
            case Over(code=code):
                if request.ask is Ask.NAMESPACES:
                    events.append(AnnouncementsEnded(request.prefix))
                elif request.ask is Ask.TRACKS and code is not None:
                    self._control.can_ask_for_offers = False
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
        largest = answer.largest
        if largest is not None:
            self._data.groups.expect(track.number, largest.group, largest.object + 1)
            self._fetching.accepted(track, largest)
        self._tell(self._data.answered(request, answer.alias, now), events)
        self._offers.turn_down(track.name, Refusal.DUPLICATE, now)

    def _ended(self, request: Request, code: int | None, now: int, events: list[Event]) -> None:
        """Take that a request is over, by an error, or by the end of its stream (None)."""
        if request.ask is Ask.FETCH:
            events.extend(self._fetching.fail(request, code or 0))
            return
        self._requests.done(request)
        self._data.done(request)
        events.extend(self._control.names.withdrawn_offer(request.number))
        self._offers.withdrawn(request)
        self._pushed.pop(request.number, None)
        if request.ask is Ask.TRACKS and code == NOT_SUPPORTED:
            self._control.can_ask_for_offers = False
        track = self._tracks.get(request.subscription)
        if request.ask is not Ask.SUBSCRIBE or track is None:
            return
        refused = code is not None and not track.answered_at
        offer = self._offers.take(track.name) if refused else None
        if offer is not None:
            self._take(offer.request, offer.publish, track)
            return
        self._tell(self._data.answered(request, None, now), events)
        track.over = True
        events.extend(track.subscription.over(code, now))
        self._ending.add(track.number)
        namespace = track.wish.namespace
        alive = (item for item in self._tracks.values() if not item.over)
        if refused and not any(item.wish.namespace == namespace for item in alive):
            self._control.ask_for_offers(namespace)

    # Groups

    def _tell(self, groups: Iterable[GroupReceived], events: list[Event]) -> None:
        for group in groups:
            events.extend(self._fetching.received(group) if group.fetched else (group,))

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
        if self._taken:
            self._tell_taken(now, events)
        self._fetching.look_at_heads()
        for number in sorted(self._ending):
            track = self._tracks[number]
            arriving = self._data.groups.has(number) or track.streams < track.streams_due
            events.extend(track.subscription.conclude(now, arriving=arriving))
            if track.subscription.concluded:
                self._ending.discard(number)
