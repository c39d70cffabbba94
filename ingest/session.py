"""A session with a relay: what the recorder sees of the network.

    async with open_session(url, tls=TlsOptions(), options=SessionOptions()) as session:
        session.announce("")
        session.subscribe("demo/tv", "video0.m4s", priority=50, max_latency=60_000)
        while True:
            for event in await session.next_events():
                ...

One task drives the connection; it belongs to the context and is gone with it. Failures of the
network and of the relay come out as errors of `casfs.errors`, one at a time. Memory is bounded on
the way: what the consumer has not taken yet stops the relay (`SessionOptions.queued_bytes`), what
QUIC holds back is bounded by `SessionOptions.window`, and open groups by `Limits`.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from casfs.errors import (
    ConnectError,
    ConnectionLostError,
    NegotiationError,
    ProtocolError,
    RefusedError,
    RelayError,
)
from ingest.backends.choice import BackendChoice
from ingest.moq.events import GroupReceived
from ingest.moq.interface import Limits
from ingest.moq.negotiation import PROTOCOLS, chosen, create_session, offer
from ingest.quic import QuicClient, QuicOptions, printable
from ingest.relay_url import RelayUrl, parse_relay_url
from ingest.udp import Address, UdpEndpoint, resolve
from ingest.webtransport import (
    ALPN,
    NO_ERROR,
    SessionClosed,
    SessionReady,
    SessionRejected,
    StreamData,
    StreamReset,
    StreamStopped,
    WebTransportClient,
    WebTransportEvent,
    from_http3,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from ingest.backends.interface import QuicEvent
    from ingest.moq.events import Event
    from ingest.moq.interface import MoqSession
    from ingest.quic import DatagramEndpoint
    from ingest.tls import TlsOptions

_GRACE = 0.25
"""Seconds after the relay's 200 in which it may still refuse before we call the session open.

A relay that refuses says 200 too and closes the session right behind it; one that accepts usually
speaks first (moq-lite-05) and cuts this short.
"""
_EVENT_COST = 1 << 10
"""What an event counts for beside its payload, bytes: even empty groups fill memory."""
_UNAUTHORIZED = 2
"""The code with which moq-dev relays close sessions that they refuse."""
_SESSION_LOST = "session lost"


class SessionOptions(Struct, frozen=True):
    """How a session behaves. Times in seconds, sizes in bytes."""

    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    """What to offer, the preferred first."""
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
    ) -> None:
        self._url = url
        self._options = options
        self._clock = clock
        self._headers = offer(options.protocols)
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
            alpn=[ALPN],
            on_connected=self._on_connected,
            on_events=self._on_quic_events,
            may_read=lambda: self._queued < options.queued_bytes,
        )
        self._transport: WebTransportClient | None = None
        self._moq: MoqSession | None = None
        self._events: list[Event] = []
        self._queued = 0
        self._arrived = trio.Event()
        self._heard = False
        self._over: RelayError | None = None
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
            await self._arrived.wait()
        events, self._events = self._events, []
        waited = self._queued >= self._options.queued_bytes
        self._queued = 0
        self._arrived = trio.Event()
        if waited:
            self._quic.wake()
        return events

    def open_groups(self, opened_before: int) -> Sequence[GroupReceived]:
        """Return what has come so far of each group opened before that time (ns UTC).

        They stay open; a group is told again only when it has grown.
        """
        if self._moq is None or self._over is not None:
            return ()
        return self._moq.open_groups(opened_before, self._clock())

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
                refusal = None if code is None else self._refusal(from_http3(code), "")
                self._end(refusal or failure)
        finally:
            self._endpoint.close()

    def close(self) -> None:
        """Say farewell and end `run`. Waits for nothing."""
        if self._transport is not None:
            self._transport.close(0, "")
        self._quic.close(NO_ERROR, "")
        self._end(ConnectionLostError(f"the session with {self.origin} was closed here"))

    def timed_out(self) -> ConnectError:
        """Say what did not come in time."""
        seconds = f"{self._options.connect_timeout:g} s"
        if not self._quic.answered:
            return ConnectError(
                f"no answer from {self.origin} in {seconds}",
                advice="check host and port, and that UDP gets through",
            )
        return ConnectError(f"{self.origin} did not open a WebTransport session in {seconds}")

    # What the connection calls

    def _on_connected(self) -> None:
        self._transport = WebTransportClient(
            self._quic.connection,
            authority=self._url.authority,
            path=self._url.target,
            headers=self._headers,
        )

    def _on_quic_events(self, events: Sequence[QuicEvent]) -> None:
        if self._transport is None or self._over is not None:
            return
        now = self._clock()
        try:
            for event in self._transport.handle(events):
                self._on_event(event, now)
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
            case SessionReady(headers=headers):
                assert self._transport is not None
                protocol = chosen(headers, self._options.protocols)
                self._moq = create_session(protocol, self._transport, self._options.limits)
                self._moq.start()
                self.opened.set()
            case SessionRejected(status=status):
                self._end(self._rejection(status))
                self.close()
            case SessionClosed(code=code, reason=reason):
                detail = f"{printable(reason) or 'no reason given'} (code {code})"
                lost = ConnectionLostError(f"{self.origin} closed the session: {detail}")
                self._end(self._refusal(code, reason) or lost)
                self.close()

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

    def _refusal(self, code: int | None, reason: str) -> RefusedError | None:
        """Return the error if a close means that we may not, rather than that it failed."""
        unauthorized = code == _UNAUTHORIZED or reason == "unauthorized"
        if not code or (self._heard and not unauthorized):
            return None
        detail = f"{printable(reason)} (code {code})" if reason else f"code {code}"
        return RefusedError(
            f"{self.origin} refused the session: {detail}",
            advice="check the URL's path and token",
        )

    def _rejection(self, status: int) -> RelayError:
        if status in {400, 406, 501}:
            return NegotiationError(f"{self.origin} does not take our session: HTTP {status}")
        if status < 500:
            return RefusedError(
                f"{self.origin} refused the session: HTTP {status}",
                advice="check the URL's path and token",
            )
        return ConnectError(f"{self.origin} cannot open a session: HTTP {status}")

    def _active(self) -> MoqSession:
        if self._over is not None:
            raise self._over
        assert self._moq is not None
        return self._moq


@asynccontextmanager
async def open_session(
    url: str,
    *,
    tls: TlsOptions,
    options: SessionOptions,
    clock: Callable[[], int] = time.time_ns,
    connect: Callable[[Address], DatagramEndpoint] = UdpEndpoint,
) -> AsyncIterator[Session]:
    """Connect to the relay at ``url``, negotiate, and yield the session.

    ``clock`` gives nanoseconds UTC; ``connect`` makes the socket for an address. On leaving the
    context, in any way, the relay is told and the socket closed, without waiting.

    Raises:
        ConfigError: the URL or the TLS settings cannot be used.
        ConnectError: nobody answers, or not in time.
        CertificateError: the relay's certificate is not accepted.
        NegotiationError: the relay speaks nothing that we offered.
        RefusedError: the relay does not let us in.
        ConnectionLostError: it let us in and ended the session at once.
    """
    relay = parse_relay_url(url)
    tls.check()
    try:
        async with trio.open_nursery() as nursery:
            session = await _connect(
                nursery,
                relay,
                options,
                lambda address: Session(
                    relay, connect(address), tls=tls, options=options, clock=clock
                ),
            )
            try:
                yield session
            finally:
                session.close()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        single = _single(group)
        raise single from single.__cause__


async def _connect(
    nursery: trio.Nursery,
    relay: RelayUrl,
    options: SessionOptions,
    make_session: Callable[[Address], Session],
) -> Session:
    """Try one address of the relay after the other; return the first session that opens."""
    deadline = trio.current_time() + options.connect_timeout
    addresses = await _resolve(relay, deadline)
    failure: RelayError | None = None
    for number, address in enumerate(addresses):
        now = trio.current_time()
        share = (deadline - now) / (len(addresses) - number)
        try:
            session = make_session(address)
        except OSError as error:
            failure = ConnectError(f"cannot connect to {relay.origin}: {error.strerror}")
            continue
        nursery.start_soon(session.run)
        with trio.move_on_at(now + share):
            await session.opened.wait()
        if not session.opened.is_set():
            failure = session.timed_out()
        else:
            with trio.move_on_after(_GRACE):
                await session.settled.wait()
            failure = session.failure
            if failure is None:
                return session
        session.close()
        if session.answered:  # another address is the same relay, and would say the same
            break
    assert failure is not None
    raise failure


async def _resolve(relay: RelayUrl, deadline: float) -> list[Address]:
    addresses: list[Address] = []
    reason = "no answer from the name servers"
    with trio.move_on_at(deadline):
        try:
            addresses = await resolve(relay.host, relay.port)
            reason = "it has no address"
        except OSError as error:
            reason = error.strerror or str(error)
    if not addresses:
        raise ConnectError(
            f"cannot find the host of {relay.origin}: {reason}", advice="check its name"
        )
    return addresses


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one exception that a nursery has wrapped; the group when there are several."""
    _, failures = group.split(trio.Cancelled)
    inner: BaseException = group if failures is None else failures
    while isinstance(inner, BaseExceptionGroup) and (
        len(inner.exceptions) == 1 or failures is None
    ):
        inner = inner.exceptions[0]
    return inner
