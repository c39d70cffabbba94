"""One connection to a relay and the MoQ session on it. `ingest.session.open_session` makes it.

The connection carries WebTransport or MoQ itself; what is on it, the protocol, is negotiated on the
way. Calls go down, events come up, and what the consumer has not taken yet stops the relay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Struct
from msgspec.structs import replace

from casfs.errors import ConnectError, ConnectionLostError, NegotiationError, ProtocolError
from ingest.backends.choice import BackendChoice
from ingest.moq.events import GroupReceived
from ingest.moq.interface import Extra, Limits, Locator
from ingest.moq.negotiation import (
    DRAFT_14,
    PROTOCOLS,
    alpn_offer,
    chosen,
    chosen_by_alpn,
    create_session,
    offer,
)
from ingest.quic import QuicClient, QuicOptions, printable
from ingest.raw_quic import RawQuicClient
from ingest.refusals import refusal, rejection
from ingest.transport import Transport, TransportClient
from ingest.webtransport import (
    ALPN,
    NO_ERROR,
    DatagramReceived,
    SessionClosed,
    SessionReady,
    SessionRejected,
    StreamData,
    StreamReset,
    StreamStopped,
    WebTransportClient,
    WebTransportEvent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from casfs.errors import RelayError
    from ingest.backends.interface import QuicEvent
    from ingest.moq.events import Event
    from ingest.moq.interface import MoqSession
    from ingest.quic import DatagramEndpoint
    from ingest.relay_url import RelayUrl
    from ingest.tls import TlsOptions

_EVENT_COST = 1 << 10
"""What an event counts for beside its payload, bytes: even empty groups fill memory."""
_SESSION_LOST = "session lost"
_SETTLING = 0.25
"""How often we look, in seconds, for what time alone decides."""
_BAD_REQUEST = 400
_ENDED_AT: dict[str, frozenset[Extra]] = {}
"""Relays that ended a session at something that they do not know instead of refusing it: it is not
sent to them again, or sessions with them would end for ever. Of relays of draft 16 some do not know
FETCH."""


class SessionOptions(Struct, frozen=True):
    """How a session behaves. Times in seconds, sizes in bytes."""

    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    """What to offer, the preferred first."""
    transport: Transport | None = None
    """What carries it; None: as the URL's scheme says."""
    limits: Limits = Limits()
    """What the relay may make the MoQ session hold."""
    connect_timeout: float = 10.0
    """Until the session must be open, all addresses of the host together."""
    keep_alive: float = 5.0
    """After this long without a word from the relay we ask for one."""
    idle_timeout: float = 30.0
    """After this long without a word from the relay the session is lost."""
    queued_bytes: int = 64 << 20
    """How much may wait for `Session.next_events` until the relay is stopped."""
    window: int = 16 << 20
    """How far the relay may send ahead; throughput is at most this for each round trip."""
    quic: BackendChoice = "auto"
    """Which QUIC library to use; ``auto``: the fastest that is installed."""


class SessionStatistics(Struct, frozen=True):
    """What has happened in a session so far, and what it holds now."""

    datagrams_received: int
    datagrams_sent: int
    bytes_received: int
    bytes_sent: int
    """UDP payload."""
    round_trip: float | None
    """Seconds; None before it was measured."""
    buffered_bytes: int
    """Payload in groups that are still open."""
    queued_bytes: int
    """What waits for `Session.next_events`."""


class Session:
    """An open session. Made by `open_session`; for one consumer task."""

    def __init__(
        self,
        url: RelayUrl,
        endpoint: DatagramEndpoint,
        *,
        tls: TlsOptions,
        options: SessionOptions,
        clock: Callable[[], int],
        offering: bool = True,
    ) -> None:
        """``offering``: whether to name the protocols when asking for a WebTransport session."""
        self._url = url
        self._options = options
        self._clock = clock
        self._kind = options.transport or url.transport
        self._offering = offering
        self._headers = offer(options.protocols)
        raw = self._kind is Transport.QUIC
        self._endpoint = endpoint
        self._quic = QuicClient(
            endpoint,
            host=url.host,
            peer=url.origin,
            tls=tls,
            options=QuicOptions(
                idle_timeout=options.idle_timeout,
                keep_alive=options.keep_alive,
                window=options.window,
                backend=options.quic,
            ),
            alpn=alpn_offer(options.protocols) if raw else [ALPN],
            on_connected=self._on_connected,
            on_events=self._on_quic_events,
            may_read=lambda: self._queued < options.queued_bytes,
        )
        self._transport: TransportClient | None = None
        self._moq: MoqSession | None = None
        self._events: list[Event] = []
        self._queued = 0
        self._arrived = trio.Event()
        self._heard = False
        self._over: RelayError | None = None
        self._offer_refused = False
        self._settles = 0.0
        self.opened = trio.Event()
        """Set when the relay has said 200, or the session is over."""
        self.settled = trio.Event()
        """Set when the relay has said something on a stream, or the session is over."""

    # What the recorder calls

    @property
    def protocol(self) -> str:
        """The negotiated protocol, for instance ``moq-lite-05``."""
        return self._active().protocol

    @property
    def origin(self) -> str:
        """``https://host:port`` of the relay: without path and query, which may hold tokens."""
        return self._url.origin

    @property
    def answered(self) -> bool:
        """Whether anything at all has come from the relay."""
        return self._quic.answered

    @property
    def failure(self) -> RelayError | None:
        """Why the session is over; None while it is not."""
        return self._over

    def announce(self, prefix: str) -> None:
        """Ask for the broadcasts whose names begin with ``prefix``, now and as they change.

        Raises:
            RelayError: the session is over; `next_events` raises the same.
        """
        self._active().announce(prefix)
        self._quic.wake()

    def subscribe(self, broadcast: str, track: str, *, priority: int, max_latency: int) -> int:
        """Ask for a track and return the subscription's number, which its events carry.

        ``priority`` 0 to 255, higher first; ``max_latency`` milliseconds: how old the groups may be
        that the relay still delivers (0: the newest alone).

        Raises:
            RelayError: the session is over.
        """
        number = self._active().subscribe(
            broadcast, track, priority=priority, max_latency=max_latency
        )
        self._quic.wake()
        return number

    def fetch(self, subscription: int, sequence: int) -> bool:
        """Ask once more for one whole group; whether that can be done here.

        If so, a `GroupReceived` that is ``fetched`` or a `FetchFailed` answers, unless the session
        ends or the subscription is given up before. More in `ingest.moq.interface.MoqSession`.
        """
        if self._moq is None or self._over is not None:
            return False
        asked = self._moq.fetch(subscription, sequence)
        self._quic.wake()
        return asked

    def unsubscribe(self, subscription: int) -> None:
        """Give up a subscription; its open groups are forgotten. Nothing once all is over."""
        if self._moq is not None and self._over is None:
            self._moq.unsubscribe(subscription)
            self._quic.wake()

    async def next_events(self) -> Sequence[Event]:
        """Return everything that has arrived, at least one event.

        Raises:
            ConnectionLostError: the connection is gone, or the relay has ended the session.
            RefusedError: the relay ended it because we may not (any more).
            ProtocolError: the relay broke the protocol.

        Each only when all events have been delivered; among the last are the groups that were
        open, as incomplete ones with the reason ``session lost``.
        """
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._over is not None:
                raise self._over
            await self._wait()
            if not self._events and self._over is None:
                self._arrived = trio.Event()  # woken to look at the time from now on
        events, self._events = self._events, []
        waited = self._queued >= self._options.queued_bytes
        self._queued = 0
        self._arrived = trio.Event()
        if waited:
            self._quic.wake()
        return events

    async def _wait(self) -> None:
        """Return when something has arrived, or time alone may have decided something."""
        moq = self._moq
        if moq is None or not moq.waiting:
            await self._arrived.wait()
            return
        with trio.move_on_after(_SETTLING):
            await self._arrived.wait()
            return
        if self._moq is moq:
            self._settle(moq)
            self._quic.wake()

    def _settle(self, moq: MoqSession) -> None:
        """Let time decide, also where so much comes that nobody ever waits."""
        now = trio.current_time()
        if now >= self._settles:
            self._settles = now + _SETTLING
            self._queue(moq.settle(self._clock()))

    def open_groups(
        self, opened_before: int, subscription: int | None = None
    ) -> Sequence[GroupReceived]:
        """Return what has come so far of each group opened before that time (ns UTC).

        ``subscription``: of that one alone.

        They stay open; a group is told again only when it has grown.
        """
        if self._moq is None or self._over is not None:
            return ()
        return self._moq.open_groups(opened_before, self._clock(), subscription)

    def abandon(self, reason: str) -> Sequence[GroupReceived]:
        """End the session and return every open group as an incomplete one, for ``reason``.

        What had been completed before still comes from `next_events`, which then raises
        `ConnectionLostError`.
        """
        if self._over is not None:
            return ()
        groups = [] if self._moq is None else self._moq.abandon(reason, self._clock())
        self._moq = None
        self._end(ConnectionLostError(f"the session with {self.origin} was closed here"))
        self.close()
        return groups

    def statistics(self) -> SessionStatistics:
        """Return the counters as they are now."""
        quic = self._quic.statistics()
        return SessionStatistics(
            datagrams_received=quic.datagrams_received,
            datagrams_sent=quic.datagrams_sent,
            bytes_received=quic.bytes_received,
            bytes_sent=quic.bytes_sent,
            round_trip=quic.round_trip,
            buffered_bytes=0 if self._moq is None else self._moq.buffered,
            queued_bytes=self._queued,
        )

    # What open_session calls

    async def run(self) -> None:
        """Drive the session until it is over."""
        try:
            failure = await self._quic.run()
            if failure is not None:
                code = self._quic.application_code
                if code is not None:
                    self._learn()
                if code is not None and self._transport is not None:
                    code = self._transport.code_of(code)
                self._end(self._refusal(code, "") or failure)
        finally:
            self._endpoint.close()

    def close(self) -> None:
        """Say farewell and end `run`. Waits for nothing."""
        if self._transport is not None:
            self._transport.close(0, "")
        self._quic.close(0 if self._kind is Transport.QUIC else NO_ERROR, "")
        self._end(ConnectionLostError(f"the session with {self.origin} was closed here"))

    def timed_out(self) -> ConnectError:
        """Say what did not come in time."""
        seconds = f"{self._options.connect_timeout:g} s"
        if not self._quic.answered:
            return ConnectError(
                f"no answer from {self.origin} in {seconds}",
                advice="check host and port, and that UDP gets through",
            )
        return ConnectError(f"{self.origin} did not open a session in {seconds}")

    @property
    def offer_refused(self) -> bool:
        """Whether the relay may have turned us away for naming protocols at all.

        Servers that know draft 14 of MoQ transport alone do: they expect no list.
        """
        return self._offer_refused

    # What the connection calls

    def _on_connected(self) -> None:
        connection = self._quic.connection
        if self._kind is Transport.QUIC:
            self._transport = RawQuicClient(connection)
            where = Locator(self._url.authority, self._url.target)
            self._begin(chosen_by_alpn(self._quic.alpn, self._options.protocols), where)
            return
        self._transport = WebTransportClient(
            connection,
            authority=self._url.authority,
            path=self._url.target,
            headers=self._headers if self._offering else (),
        )

    def _begin(self, protocol: str, where: Locator | None = None) -> None:
        assert self._transport is not None
        limits = self._options.limits
        unknown = _ENDED_AT.get(self.origin, frozenset())
        if Extra.FETCH in unknown:
            limits = replace(limits, fetches=0)
        if Extra.OFFERS in unknown:
            limits = replace(limits, offer_requests=0)
        self._moq = create_session(protocol, self._transport, limits, where)
        self._moq.start()
        self.opened.set()

    def _on_quic_events(self, events: Sequence[QuicEvent]) -> None:
        if self._transport is None or self._over is not None:
            return
        now = self._clock()
        try:
            for event in self._transport.handle(events):
                self._on_event(event, now)
            if self._moq is not None and self._moq.waiting:
                self._arrived.set()
                self._settle(self._moq)
        except (NegotiationError, ProtocolError) as error:
            self._end(error)
            self.close()

    def _on_event(self, event: WebTransportEvent, now: int) -> None:
        match event:
            case StreamData(stream=stream, data=data, end=end) if self._moq is not None:
                self._heard = True
                self.settled.set()
                self._queue(self._moq.stream_data(stream, data, now, end=end))
            case StreamReset(stream=stream, code=code) if self._moq is not None:
                self._queue(self._moq.stream_reset(stream, code, now))
            case StreamStopped(stream=stream, code=code) if self._moq is not None:
                self._queue(self._moq.stream_stopped(stream, code, now))
            case DatagramReceived(data=data) if self._moq is not None:
                self._queue(self._moq.datagram(data, now))
            case SessionReady(headers=headers):
                offered = self._options.protocols if self._offering else (DRAFT_14,)
                self._begin(chosen(headers, offered))
            case SessionRejected(status=status):
                draft_14 = DRAFT_14 in self._options.protocols
                self._offer_refused = status == _BAD_REQUEST and self._offering and draft_14
                self._end(rejection(self.origin, status))
                self.close()
            case SessionClosed(code=code, reason=reason):
                detail = f"{printable(reason) or 'no reason given'} (code {code})"
                self._learn()
                lost = ConnectionLostError(f"{self.origin} closed the session: {detail}")
                self._end(self._refusal(code, reason) or lost)
                self.close()

    def _learn(self) -> None:
        """Take that the relay has ended the session: not for the same reason another time."""
        if self._moq is not None and self._moq.ignored:
            _ENDED_AT[self.origin] = _ENDED_AT.get(self.origin, frozenset()) | self._moq.ignored

    def _queue(self, events: Sequence[Event]) -> None:
        if not events:
            return
        self._events.extend(events)
        for event in events:
            self._queued += _EVENT_COST
            if isinstance(event, GroupReceived):
                self._queued += sum(map(len, event.frames))
        self._arrived.set()

    def _end(self, error: RelayError) -> None:
        """Note why the session is over, after delivering what was open. The first reason counts."""
        if self._over is not None:
            return
        if self._moq is not None:
            self._queue(self._moq.abandon(_SESSION_LOST, self._clock()))
        self._over = error
        self._arrived.set()
        self.opened.set()
        self.settled.set()

    def _refusal(self, code: int | None, reason: str) -> RelayError | None:
        return refusal(self.origin, code, reason, heard=self._heard)

    def _active(self) -> MoqSession:
        if self._over is not None:
            raise self._over
        assert self._moq is not None
        return self._moq
