"""A subscriber's session of moq-lite (draft-lcurley-moq-lite), any version of it.

Each transaction has a stream of its own, and the stream's kind says who reads it: the table
`LiteSession._readers`. What a stream does wrong ends that stream alone; no byte that a relay can
send ends the session, so nothing here raises `ProtocolError` to the caller.

Of the order of events: what `ingest.moq.subscriptions` says of accepted, refused and ended, and
groups of a subscription may come before its `TrackAccepted` and after its `TrackEnded`.

The transport tells the end or the reset of every stream that the relay opened, also of one that
was stopped: until then the session remembers its number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from casfs.errors import ProtocolError
from ingest.moq.announcements import Announcements
from ingest.moq.events import (
    AnnouncementsEnded,
    FetchFailed,
    GoawayReceived,
    GroupReceived,
    GroupsDropped,
)
from ingest.moq.groups import OpenGroups
from ingest.moq.lite_fetching import Fetches
from ingest.moq.lite_messages import (
    AnnounceOk,
    BidiStream,
    Datagram,
    Goaway,
    Role,
    Setup,
    SubscribeDrop,
    SubscribeEnd,
    TrackRequest,
    UniStream,
)
from ingest.moq.lite_streams import BIDI_KINDS, UNI_KINDS, ControlStream, Kind, LiteStatistics
from ingest.moq.lite_versions import Wish
from ingest.moq.subscriptions import Subscription
from ingest.moq.varint import encode_varint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ingest.moq.events import Event
    from ingest.moq.interface import Extra, Limits, Locator, Streams
    from ingest.moq.lite_versions import LiteVersion

CANCELLED: Final = 0
"""The code for whatever we do not want or no longer want. Relays agree on no other."""

_RELAY_OPENED: Final = 0b01
_ONE_DIRECTION: Final = 0b10


class LiteSession:
    """Our side of one session; implements `ingest.moq.interface.MoqSession`."""

    def __init__(
        self,
        version: LiteVersion,
        streams: Streams,
        limits: Limits,
        where: Locator | None = None,
    ) -> None:
        """``where`` is told on raw QUIC, by the versions that have SETUP (since 05)."""
        self._where = where
        self.protocol = version.protocol
        self._version = version
        self._transport = streams
        self._limits = limits
        self._streams: dict[int, ControlStream] = {}
        self._stopped: set[int] = set()
        self._groups = OpenGroups(limits, self._stop)
        self._announcements = Announcements(limits)
        self._subscriptions: dict[int, Subscription] = {}
        self._wishes: dict[int, Wish] = {}
        """What each subscription asked for."""
        self._fetches = Fetches(version, self._groups, limits, self._end_ours)
        self._subscribed = 0
        self._ending: set[int] = set()
        """Subscriptions whose stream is over and whose end has not been told."""
        self._violations = 0
        self._abandoned = False

    @property
    def buffered(self) -> int:
        """Payload bytes held in open groups."""
        return self._groups.buffered

    def statistics(self) -> LiteStatistics:
        """Return what the session holds and what it has turned away."""
        return LiteStatistics(
            subscriptions=len(self._subscriptions),
            broadcasts=len(self._announcements),
            open_groups=len(self._groups),
            open_streams=len(self._streams),
            stopped_streams=len(self._stopped),
            ignored_announcements=self._announcements.ignored,
            fetches=len(self._fetches),
            violations=self._violations,
        )

    # What we ask for

    def start(self) -> None:
        """Say that we only subscribe; never wait for what the relay says of itself."""
        if self._version.setup:
            setup = Setup.of_role(Role.SUBSCRIBER)
            if self._where is not None:
                setup = setup.with_path(self._where.path)
            message = encode_varint(UniStream.SETUP) + setup.encode()
            self._transport.send(self._transport.open_uni(), message, end=True)

    def announce(self, prefix: str) -> None:
        """Ask for the broadcasts below ``prefix`` (whole segments), now and as they change."""
        version = self._version
        stream = self._ask(Kind.ANNOUNCE, BidiStream.ANNOUNCE, version.announce(prefix))
        stream.prefix = prefix
        stream.greeted = not version.announce_ok
        stream.announcements = version.announcements(self._limits)

    def subscribe(self, broadcast: str, track: str, *, priority: int, max_latency: int) -> int:
        """Ask for a track, and where the version can for its properties."""
        number = self._subscribed
        self._subscribed += 1
        wish = Wish(number, broadcast, track, priority, max_latency)
        self._wishes[number] = wish
        message = self._version.subscribe(wish)
        self._ask(Kind.SUBSCRIBE, BidiStream.SUBSCRIBE, message).subscription = number
        if self._version.track_requests:
            # Our direction stays open until the answer: its end would withdraw the question.
            message = TrackRequest(broadcast, track).encode()
            self._ask(Kind.TRACK, BidiStream.TRACK, message).subscription = number
        self._subscriptions[number] = Subscription(
            number, info_expected=self._version.track_requests
        )
        return number

    def unsubscribe(self, subscription: int) -> None:
        """Give up a subscription; its open groups are forgotten. Unknown ones are ignored."""
        if self._subscriptions.pop(subscription, None) is None:
            return
        self._ending.discard(subscription)
        del self._wishes[subscription]
        for stream in list(self._streams.values()):
            if stream.subscription == subscription:
                self._dismiss(stream)
        self._groups.forget(subscription)
        self._fetches.forget(subscription)

    def fetch(self, subscription: int, sequence: int) -> bool:
        """Ask for a group again; since 05, whose relays answer on the same stream."""
        wish = self._wishes.get(subscription)
        if wish is None or not self._fetches.possible(subscription, sequence):
            return False
        stream = self._ask(Kind.FETCH, BidiStream.FETCH, self._version.fetch(wish, sequence))
        stream.subscription, stream.sequence = subscription, sequence
        self._fetches.add(stream)
        return True

    def _ask(self, kind: Kind, opening: BidiStream, message: bytes) -> ControlStream:
        stream = ControlStream(self._transport.open_bidi(), kind, self._limits)
        self._streams[stream.number] = stream
        self._transport.send(stream.number, encode_varint(opening) + message)
        return stream

    # What comes

    def stream_data(self, stream: int, data: bytes, now: int, *, end: bool) -> Sequence[Event]:
        """Take bytes of a stream, its WebTransport prefix removed."""
        events: list[Event] = []
        if stream in self._groups:
            events.extend(self._groups.append(stream, data, now, end=end))
            self._fetches.note(stream)
        elif stream in self._stopped:
            if end:
                self._stopped.discard(stream)
        else:
            control = self._streams.get(stream) or self._arrived(stream, now)
            if control is not None:
                control.ended = end
                self._read(control, data, now, events)
        if self._ending:
            self._conclude(now, events)
        return events

    def datagram(self, data: bytes, now: int) -> Sequence[Event]:
        """Take a group of one frame (since 05, section "Datagrams")."""
        if not self._version.datagrams:
            return ()
        try:
            datagram = Datagram.decode(data)
        except ProtocolError:
            self._violations += 1
            return ()
        subscription = self._subscriptions.get(datagram.subscription)
        if subscription is None:
            return ()
        subscription.group(datagram.sequence)
        group = GroupReceived(
            subscription=datagram.subscription,
            sequence=datagram.sequence,
            frames=(datagram.payload,),
            timestamps=(datagram.timestamp,),
            complete=True,
            reason="",
            received_start=now,
            received_end=now,
        )
        return (group,)

    ignored: Final[frozenset[Extra]] = frozenset()
    """Whatever we ask has a stream of its own here: who does not know it resets that."""

    @property
    def waiting(self) -> bool:
        """Whether a subscription is over whose last groups may still come."""
        return bool(self._ending)

    def settle(self, now: int) -> Sequence[Event]:
        """Tell the end of subscriptions of which nothing more comes."""
        events: list[Event] = []
        self._conclude(now, events)
        return events

    def stream_reset(self, stream: int, code: int, now: int) -> Sequence[Event]:
        """Take the relay's RESET_STREAM."""
        events: list[Event] = []
        if stream in self._groups:
            events.append(self._groups.reset(stream, code))
            self._fetches.note(stream)
        elif stream in self._stopped:
            self._stopped.discard(stream)
        else:
            control = self._streams.pop(stream, None)
            if control is not None:
                control.ended = True
                self._over(control, code, now, events)
        if self._ending:
            self._conclude(now, events)
        return events

    def stream_stopped(self, stream: int, code: int, now: int) -> Sequence[Event]:  # noqa: ARG002 - the interface's; no code means anything certain
        """Take the relay's STOP_SENDING: we send no more there; its own direction tells why."""
        control = self._streams.get(stream)
        if control is not None:
            control.waiting = False
        events: list[Event] = []
        if self._ending:
            self._conclude(now, events)
        return events

    def open_groups(
        self,
        opened_before: int,
        now: int,  # noqa: ARG002 - the interface's; a group knows when its last byte came
        subscription: int | None = None,
    ) -> Sequence[GroupReceived]:
        """Return what has come of long-open groups; one of which nothing has come is left out."""
        return self._groups.snapshot(opened_before, subscription)

    def abandon(self, reason: str, now: int) -> Sequence[GroupReceived]:  # noqa: ARG002 - the interface's; a group knows when its last byte came
        """End the session; whatever comes afterwards is ignored."""
        self._abandoned = True
        self._streams.clear()
        self._stopped.clear()
        self._subscriptions.clear()
        self._wishes.clear()
        self._fetches.clear()
        self._ending.clear()
        return self._groups.abandon(reason)

    def _arrived(self, number: int, now: int) -> ControlStream | None:
        """Begin a stream of the relay's; None for what is left on one of ours that is done."""
        if not number & _RELAY_OPENED or self._abandoned:
            return None
        stream = ControlStream(
            number, Kind.UNI if number & _ONE_DIRECTION else Kind.BIDI, self._limits
        )
        stream.opened = now
        self._streams[number] = stream
        return stream

    def _read(self, stream: ControlStream, data: bytes, now: int, events: list[Event]) -> None:
        stream.reader.append(data)
        try:
            self._readers[stream.kind](self, stream, now, events)
        except ProtocolError:
            self._violations += 1
            if self._streams.pop(stream.number, None) is not None:
                self._dismiss(stream)
                self._over(stream, None, now, events)
        else:
            if stream.ended and self._streams.pop(stream.number, None) is not None:
                self._over(stream, None, now, events)

    def _read_kind(self, stream: ControlStream, now: int, events: list[Event]) -> None:
        """Read what a stream of the relay's is for; what we cannot serve is turned away."""
        value = stream.reader.varint()
        if value is None:
            return
        kind = (UNI_KINDS if stream.kind is Kind.UNI else BIDI_KINDS).get(value)
        if kind is None or (kind is Kind.SETUP and not self._version.setup):
            self._dismiss(stream)
            return
        stream.kind = kind
        self._readers[kind](self, stream, now, events)

    def _read_group(self, stream: ControlStream, now: int, events: list[Event]) -> None:
        body = stream.reader.message()
        if body is None:
            return
        header = self._version.decode_group_header(body)
        subscription = self._subscriptions.get(header.subscription)
        if subscription is None:
            self._dismiss(stream)
            return
        subscription.group(header.sequence)
        del self._streams[stream.number]
        groups = self._groups
        groups.open(
            stream.number,
            header.subscription,
            header.sequence,
            stream.opened,
            self._version.framing,
        )
        if header.unknown or header.first_frame:
            # We have asked for whole groups: what lacks its beginning is not the prefix of one.
            self._violations += 1
            reason = f"the group begins at frame {header.first_frame}"
            if header.unknown:
                reason = "the group's header is malformed"
            events.append(groups.fail(stream.number, reason))
            if not stream.ended:
                self._stop(stream.number)
            return
        events.extend(groups.append(stream.number, stream.reader.rest(), now, end=stream.ended))

    def _read_fetch(self, stream: ControlStream, now: int, events: list[Event]) -> None:
        del self._streams[stream.number]
        events.extend(self._fetches.begin(stream, now))

    def _read_setup(self, stream: ControlStream, _now: int, _events: list[Event]) -> None:
        body = stream.reader.message()
        if body is not None:
            Setup.decode(body)  # nothing in it concerns a subscriber
            self._heard(stream)

    def _read_goaway(self, stream: ControlStream, _now: int, events: list[Event]) -> None:
        body = stream.reader.message()
        if body is not None:
            events.append(GoawayReceived(Goaway.decode(body).uri))
            self._heard(stream)

    def _read_nothing(self, stream: ControlStream, _now: int, _events: list[Event]) -> None:
        stream.reader.rest()

    def _heard(self, stream: ControlStream) -> None:
        stream.kind = Kind.DONE
        stream.reader.rest()

    def _read_announcements(self, stream: ControlStream, _now: int, events: list[Event]) -> None:
        if not stream.greeted:
            body = stream.reader.message()
            if body is None:
                return
            AnnounceOk.decode(body)
            stream.greeted = True
        assert stream.announcements is not None
        for announcement in stream.announcements.read(stream.reader):
            take = self._announcements.active if announcement.active else self._announcements.ended
            events.extend(take(stream.number, stream.prefix, announcement.suffix))

    def _read_replies(self, stream: ControlStream, _now: int, events: list[Event]) -> None:
        subscription = self._subscriptions[stream.subscription]
        while (message := stream.reader.typed_message()) is not None:
            reply = self._version.decode_subscribe_reply(message)
            if isinstance(reply, SubscribeDrop):
                subscription.dropped(reply.last)
                events.append(
                    GroupsDropped(subscription.number, reply.first, reply.last, reply.code)
                )
            elif isinstance(reply, SubscribeEnd):
                subscription.bounded(reply.end)
            elif reply is not None:
                events.extend(subscription.answered())

    def _read_track(self, stream: ControlStream, _now: int, events: list[Event]) -> None:
        body = stream.reader.message()
        if body is not None:
            info = self._version.decode_track_info(body)
            del self._streams[stream.number]
            self._end_ours(stream)
            events.extend(self._subscriptions[stream.subscription].properties(info.timescale))

    _readers: ClassVar[
        Mapping[Kind, Callable[[LiteSession, ControlStream, int, list[Event]], None]]
    ] = {
        Kind.ANNOUNCE: _read_announcements,
        Kind.SUBSCRIBE: _read_replies,
        Kind.TRACK: _read_track,
        Kind.FETCH: _read_fetch,
        Kind.UNI: _read_kind,
        Kind.BIDI: _read_kind,
        Kind.GROUP: _read_group,
        Kind.SETUP: _read_setup,
        Kind.GOAWAY: _read_goaway,
        Kind.DONE: _read_nothing,
    }
    """Who reads a stream."""

    # How streams end

    def _over(self, stream: ControlStream, code: int | None, now: int, events: list[Event]) -> None:
        """Draw the conclusions from the end of a stream; ``code``: of its reset, if it was one."""
        self._end_ours(stream)
        if stream.kind is Kind.ANNOUNCE:
            events.extend(self._announcements.closed(stream.number))
            events.append(AnnouncementsEnded(stream.prefix))
        elif stream.kind is Kind.SUBSCRIBE:
            subscription = self._subscriptions[stream.subscription]
            events.extend(subscription.over(code, now))
            self._ending.add(subscription.number)
        elif stream.kind is Kind.FETCH:
            self._fetches.end(stream)
            events.append(FetchFailed(stream.subscription, stream.sequence, code or 0))
        elif stream.kind is Kind.TRACK:
            subscription = self._subscriptions[stream.subscription]
            events.extend(
                subscription.no_properties()
                if code is None
                else subscription.properties_refused(code)
            )

    def _dismiss(self, stream: ControlStream) -> None:
        """Use a stream no more, in either direction."""
        self._streams.pop(stream.number, None)
        if stream.kind is Kind.BIDI:
            self._transport.reset(stream.number, CANCELLED)
            stream.waiting = False
        self._end_ours(stream)
        if not stream.ended:
            self._stop(stream.number)

    def _end_ours(self, stream: ControlStream) -> None:
        if stream.waiting:
            stream.waiting = False
            self._transport.send(stream.number, b"", end=True)

    def _stop(self, number: int) -> None:
        """Ask for no more on a stream, and ignore what still comes."""
        self._transport.stop(number, CANCELLED)
        self._fetches.note(number)
        if number & _RELAY_OPENED:
            self._stopped.add(number)

    def _conclude(self, now: int, events: list[Event]) -> None:
        for number in sorted(self._ending):
            subscription = self._subscriptions[number]
            events.extend(subscription.conclude(now, arriving=self._groups.has(number)))
            if subscription.concluded:
                self._ending.discard(number)
