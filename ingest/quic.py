"""One QUIC connection to a relay, as a client, driven by one trio task.

A library does the protocol (RFC 9000, 9001, 9002) without I/O (`ingest.backends`); this module
gives it datagrams, the time and the timers. A round is: take all datagrams that have arrived, up to
some hundreds; let the timers fire; hand the events on; send what is to be sent. Working in batches
is what makes it fast: an acknowledgement covers a batch, and the per-round work is shared by its
packets.

What a relay can make us hold here is bounded: bytes that we have not passed on in order, holes
included, never exceed `QuicOptions.window`, because that is all the credit it gets (RFC 9000,
section 4). While the consumer lags, the socket is hardly read: the kernel drops what is too much,
and the relay slows down as it does for any loss.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Protocol

import trio
from msgspec import Struct

from casfs.errors import (
    CertificateError,
    ConnectError,
    ConnectionLostError,
    NegotiationError,
    ProtocolError,
    RelayError,
)
from ingest.backends.choice import BackendChoice, new_connection
from ingest.backends.interface import (
    CRYPTO_ERROR,
    FRAME_CRYPTO,
    PROTOCOL_VIOLATION,
    ConnectionSettings,
    ConnectionTerminated,
    HandshakeCompleted,
    PingAcknowledged,
    QuicEvent,
    is_native_panic,
)
from ingest.tls import check_fingerprint, flaw_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ingest.backends.interface import Datagrams
    from ingest.tls import TlsOptions

__all__ = [
    "DatagramEndpoint",
    "QuicClient",
    "QuicEvent",
    "QuicOptions",
    "QuicStatistics",
    "printable",
]

_BATCH = 512
"""The most datagrams of a round, about: more delay acknowledgements, fewer cost time."""
_TRICKLE = 2
"""How many we take with each ping while the consumer lags: enough to know that the relay lives."""
_REFUSED_FOR = 1.0
"""Seconds during which a standing connection's datagrams must be refused until we believe it."""
_PACED = 0.02
"""Seconds by which the pacer may hold a packet back (RFC 9002, section 7.7), generously."""
_FAREWELL_DATAGRAMS = 16
_ALERT_BAD_CERTIFICATE = 42
_ALERT_CERTIFICATE_EXPIRED = 45
_ALERT_UNKNOWN_CA = 48
_ALERT_NO_APPLICATION_PROTOCOL = 120
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM})


class DatagramEndpoint(Protocol):
    """A connected UDP socket, or what stands for one in a test. Nothing blocks."""

    def receive(self, limit: int) -> list[Datagrams]:
        """Return what has arrived, about ``limit`` datagrams at most; [] when nothing has.

        Raises:
            OSError: the network said that nobody is there.
        """

    def send(self, datagram: bytes) -> None:
        """Send, or lose, one datagram.

        Raises:
            OSError: as `receive`.
        """

    async def wait_readable(self) -> None:
        """Return when `receive` may have something."""

    def close(self) -> None:
        """Release it."""


class QuicOptions(Struct, frozen=True):
    """How a connection behaves. Times in seconds, sizes in bytes."""

    idle_timeout: float = 30.0
    """After this long without a word from the relay the connection is lost."""
    keep_alive: float = 5.0
    """After this long without a word from the relay we ask for one."""
    window: int = 16 << 20
    """How far the relay may send ahead of what we have passed on."""
    backend: BackendChoice = "auto"
    """Which library does it."""


class QuicStatistics(Struct, frozen=True):
    """What has happened on a connection so far."""

    datagrams_received: int
    datagrams_sent: int
    bytes_received: int
    bytes_sent: int
    """UDP payload."""
    round_trip: float | None
    """Seconds, by the last ping; None before the first answer."""


class QuicClient:
    """A connection and the task (`run`) that drives it.

    ``on_connected`` is called once, when handshake and certificate are done with; ``on_events``
    gets the events of each round. While ``may_read`` says no, the socket is hardly read; call
    `wake` when that changes. ``peer`` names the relay in messages.

    Raises:
        ConfigError: the QUIC library that was asked for is not installed.
    """

    def __init__(
        self,
        endpoint: DatagramEndpoint,
        *,
        host: str,
        peer: str,
        tls: TlsOptions,
        options: QuicOptions,
        alpn: Sequence[str],
        on_connected: Callable[[], None],
        on_events: Callable[[Sequence[QuicEvent]], None],
        may_read: Callable[[], bool],
    ) -> None:
        self._endpoint = endpoint
        self._host = host
        self._peer = peer
        self._tls = tls
        self._options = options
        self._on_connected = on_connected
        self._on_events = on_events
        self._may_read = may_read
        self.connection = new_connection(
            options.backend,
            ConnectionSettings(
                host=host,
                alpn=tuple(alpn),
                tls=tls,
                idle_timeout=options.idle_timeout,
                window=options.window,
            ),
        )
        self._established = False
        self.alpn: str | None = None
        """What the relay has chosen (RFC 7301), once connected."""
        self._failure: RelayError | None = None
        self.application_code: int | None = None
        """The code with which the relay's application closed the connection, if it did."""
        self._sleep: trio.CancelScope | None = None
        self._awake = False
        self._closed = False
        self._heard_at = 0.0
        self._ping_due = 0.0
        self._pings: dict[int, float] = {}
        self._ping_number = 0
        self._refused_since: float | None = None
        self._round_trip: float | None = None
        self._datagrams_received = self._datagrams_sent = 0
        self._bytes_received = self._bytes_sent = 0

    def statistics(self) -> QuicStatistics:
        """Return the counters as they are now."""
        return QuicStatistics(
            datagrams_received=self._datagrams_received,
            datagrams_sent=self._datagrams_sent,
            bytes_received=self._bytes_received,
            bytes_sent=self._bytes_sent,
            round_trip=self._round_trip,
        )

    @property
    def answered(self) -> bool:
        """Whether anything at all has come from the relay."""
        return self._datagrams_received > 0

    async def run(self) -> RelayError | None:
        """Connect, and drive the connection until it is over; return why, None after `close`.

        What ``on_events`` raises passes through; the connection is then left for `close`.
        """
        now = trio.current_time()
        self._heard_at = now
        self._ping_due = now + self._options.keep_alive
        self.connection.connect(now)
        self._send(now)
        while self._failure is None and not self._closed:
            await self._wait()
            if not self._closed:
                self._round()
        return self._failure

    def wake(self) -> None:
        """Have the next round begin at once: there is something to send, or room again."""
        self._awake = True
        if self._sleep is not None:
            self._sleep.cancel()

    def close(self, code: int, reason: str) -> None:
        """Say farewell (CONNECTION_CLOSE with an application code) and end `run`.

        Does not wait for anything, so that it also works under cancellation.
        """
        if self._closed:
            return
        self._closed = True
        if self._failure is None:
            now = self._send_all(trio.current_time())
            self.connection.close(code, reason=reason)
            self._send(now)
        self.wake()

    async def _wait(self) -> None:
        timer = self.connection.get_timer()
        due = self._ping_due if timer is None else min(timer, self._ping_due)
        with trio.CancelScope(deadline=due) as self._sleep:
            if self._awake:
                await trio.lowlevel.checkpoint()
            elif self._may_read():
                await self._endpoint.wait_readable()
            else:
                await trio.sleep_forever()
        self._sleep = None
        self._awake = False

    def _round(self) -> None:
        """Take in, think, hand on, send out."""
        batch: list[Datagrams] = []
        pinging = trio.current_time() >= self._ping_due
        try:
            if self._may_read():
                batch = self._endpoint.receive(_BATCH)
            elif pinging:
                batch = self._endpoint.receive(_TRICKLE)
        except OSError as error:
            self._on_network_error(error)
        now = trio.current_time()
        self._take(batch, now)
        timer = self.connection.get_timer()
        if timer is not None and now >= timer:
            self.connection.handle_timer(now)
        if pinging:
            self._ping(now)
        self._hand_on(now)
        self._send(now)

    def _take(self, batch: list[Datagrams], now: float) -> None:
        if not batch:
            return
        self._heard_at = now
        self._ping_due = now + self._options.keep_alive
        self._refused_since = None
        for data, size in batch:
            self._datagrams_received += -(-len(data) // size)
            self._bytes_received += len(data)
        try:
            self.connection.receive(batch, now)
        except BaseException as error:  # a hostile packet must not end the program
            if not isinstance(error, Exception) and not is_native_panic(error):
                raise
            self._failure = self._failure or ProtocolError(
                f"{self._peer} sent a packet that cannot be processed ({type(error).__name__})"
            )
            self.connection.close(PROTOCOL_VIOLATION)

    def _hand_on(self, now: float) -> None:
        events = self.connection.take_events()
        for event in events:
            match event:
                case HandshakeCompleted(alpn_protocol=alpn):
                    self._established = True
                    self.alpn = alpn
                    if self._tls.fingerprint is not None and not self._pin(self._tls.fingerprint):
                        return
                    self._ping(now)
                    self._on_connected()
                case PingAcknowledged(uid=uid):
                    self._round_trip = now - self._pings.pop(uid, now)
                case ConnectionTerminated():
                    if event.frame_type is None:
                        self.application_code = event.error_code
                    self._failure = self._failure or self._why(event)
        if events:
            self._on_events(events)

    def _pin(self, fingerprint: str) -> bool:
        try:
            check_fingerprint(self.connection.peer_certificate(), fingerprint, self._peer)
        except CertificateError as error:
            self._failure = error
            self.connection.close(CRYPTO_ERROR + _ALERT_BAD_CERTIFICATE, FRAME_CRYPTO)
            self._send(trio.current_time())
            return False
        return True

    def _ping(self, now: float) -> None:
        self._ping_due = now + self._options.keep_alive
        if not self._established:
            return
        self._ping_number += 1
        self._pings[self._ping_number] = now
        self.connection.send_ping(self._ping_number)

    def _send(self, now: float) -> None:
        for datagram in self.connection.datagrams_to_send(now):
            self._datagrams_sent += 1
            self._bytes_sent += len(datagram)
            try:
                self._endpoint.send(datagram)
            except OSError as error:
                self._on_network_error(error)
                return

    def _send_all(self, now: float) -> float:
        """Send what is queued without waiting for the pacer, and return the time that it thinks."""
        for _ in range(_FAREWELL_DATAGRAMS):
            self._send(now)
            timer = self.connection.get_timer()
            if timer is None or timer > now + _PACED:
                break
            now = max(now, timer)
        return now

    def _on_network_error(self, error: OSError) -> None:
        """Believe an ICMP error at once while nobody has answered, and later only if it lasts.

        They are not authenticated (RFC 9000, section 14.2.1), so a standing connection outlives
        them as long as packets arrive.
        """
        now = trio.current_time()
        if not self.answered:
            if error.errno == errno.ECONNREFUSED:
                reason = "nothing listens there"
            elif error.errno in _UNREACHABLE:
                reason = (error.strerror or str(error)).lower()
            else:
                return
            self._failure = ConnectError(
                f"cannot connect to {self._peer}: {reason}",
                advice="check host and port (UDP), and that the relay runs",
            )
        elif error.errno == errno.ECONNREFUSED and self._failure is None:
            if self._refused_since is None:
                self._refused_since = now
                self._ping(now)
            elif now - self._refused_since >= _REFUSED_FOR:
                self._failure = ConnectionLostError(
                    f"the connection to {self._peer} is lost: the relay is gone"
                )

    def _why(self, event: ConnectionTerminated) -> RelayError:
        """Put the end of the connection into our words."""
        code = event.error_code
        alert = code - CRYPTO_ERROR
        reason = printable(event.reason_phrase)
        if event.frame_type is not None and alert in {
            _ALERT_BAD_CERTIFICATE,
            _ALERT_CERTIFICATE_EXPIRED,
            _ALERT_UNKNOWN_CA,
        }:
            return CertificateError(
                f"the certificate of {self._peer} is not accepted: {self._flaw() or reason}",
                advice="name the CA file or the fingerprint if you trust this relay",
            )
        if event.frame_type is not None and alert == _ALERT_NO_APPLICATION_PROTOCOL:
            return NegotiationError(f"{self._peer} speaks nothing that we offer (ALPN)")
        detail = f"{reason} (code {code:#x})" if reason else f"code {code:#x}"
        if reason == "Idle timeout":
            detail = f"nothing heard for {trio.current_time() - self._heard_at:.0f} s"
        if not self._established:
            return ConnectError(f"cannot connect to {self._peer}: {detail}")
        return ConnectionLostError(f"the connection to {self._peer} is lost: {detail}")

    def _flaw(self) -> str:
        """Say what is wrong with the relay's certificate, if that can be seen; libraries differ."""
        try:
            return flaw_of(self.connection.peer_certificate(), self._host)
        except CertificateError:
            return ""


def printable(text: str, limit: int = 200) -> str:
    """Return what a relay wrote, fit for one line of ours."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit]).strip()
