"""What the rest of casfs knows of a QUIC library: a connection, its events, and HTTP/3 over it.

No I/O and no clock: datagrams and times come in by calls, events and datagrams go out. Names are
those that aioquic and qh3 share. Times are seconds of any steady clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from msgspec import Struct

from ingest.tls import TlsOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PROTOCOL_VIOLATION = 0x0A
"""The code with which we leave a relay that sends what cannot be processed (RFC 9000, 20.1)."""
CRYPTO_ERROR = 0x0100
"""Added to the number of a TLS alert (RFC 9000, section 20.1)."""
FRAME_CRYPTO = 0x06
ENABLE_CONNECT_PROTOCOL = 0x08
"""The setting of RFC 9220, section 3."""


class Datagrams(NamedTuple):
    """What one read of the socket gave: a datagram, or several that the kernel has joined."""

    data: bytes
    size: int
    """Of each of them, bytes; the last may be shorter."""

    def split(self) -> list[bytes]:
        """Return the single datagrams."""
        data, size = self
        if size >= len(data):
            return [data]
        return [data[start : start + size] for start in range(0, len(data), size)]


class HandshakeCompleted(Struct, frozen=True):
    """Both sides have the keys, and the certificate is accepted, except for its fingerprint."""

    alpn_protocol: str | None


class StreamDataReceived(Struct, frozen=True):
    """The next bytes of a stream: all that one batch of datagrams brought."""

    stream_id: int
    data: bytes
    end_stream: bool


class StreamReset(Struct, frozen=True):
    """The peer has abandoned its direction of a stream."""

    stream_id: int
    error_code: int


class StopSendingReceived(Struct, frozen=True):
    """The peer does not want what we send on a stream."""

    stream_id: int
    error_code: int


class DatagramFrameReceived(Struct, frozen=True):
    """An unreliable datagram (RFC 9221)."""

    data: bytes


class PingAcknowledged(Struct, frozen=True):
    """The answer to `QuicConnection.send_ping`."""

    uid: int


class ConnectionTerminated(Struct, frozen=True):
    """It is over."""

    error_code: int
    frame_type: int | None
    """None: an application ended it; else QUIC did, because of such a frame (0: of none)."""
    reason_phrase: str


QuicEvent = (
    HandshakeCompleted
    | StreamDataReceived
    | StreamReset
    | StopSendingReceived
    | DatagramFrameReceived
    | PingAcknowledged
    | ConnectionTerminated
)


class HeadersReceived(Struct, frozen=True):
    """Headers on a stream of HTTP/3."""

    stream_id: int
    headers: tuple[tuple[bytes, bytes], ...]
    stream_ended: bool


class DataReceived(Struct, frozen=True):
    """The content of DATA frames on a stream of HTTP/3."""

    stream_id: int
    data: bytes
    stream_ended: bool


HttpEvent = HeadersReceived | DataReceived


class HttpConnection(Protocol):
    """HTTP/3 over a connection (RFC 9114), as a client that does WebTransport."""

    @property
    def settings(self) -> Mapping[int, int] | None:
        """What the relay's SETTINGS say; None until they come."""

    def handle(self, event: StreamDataReceived | StreamReset) -> Iterable[HttpEvent]:
        """Take what came on a stream that is HTTP/3's. May raise anything at hostile bytes."""

    def send_headers(self, stream: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin a request on a stream of ours."""

    def send_data(self, stream: int, data: bytes, *, end_stream: bool) -> None:
        """Send a DATA frame; nothing when the stream is over."""


def is_native_panic(error: BaseException) -> bool:
    """Say whether native code has failed on its own; that is no subclass of `Exception`."""
    return type(error).__name__ == "PanicException"


class QuicConnection(Protocol):
    """A client's side of one connection. Sending queues, and never blocks.

    Calls that concern a stream that is over, which one may learn later, do nothing.
    """

    def connect(self, now: float) -> None:
        """Begin the handshake."""

    def receive(self, batch: Sequence[Datagrams], now: float) -> None:
        """Take what has arrived. May raise anything at hostile bytes."""

    def take_events(self) -> list[QuicEvent]:
        """Return what has happened. What came on one stream stands together, in order."""

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Return what is to be sent now."""

    def get_timer(self) -> float | None:
        """Return when `handle_timer` is to be called; None: no need."""

    def handle_timer(self, now: float) -> None:
        """Let time pass."""

    def get_next_available_stream_id(self, *, is_unidirectional: bool = False) -> int:
        """Return the number of the stream that we open next, by sending on it."""

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Send on a stream; ``end_stream`` closes our direction."""

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Abandon our direction (RESET_STREAM)."""

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """Ask the peer to abandon its direction (STOP_SENDING)."""

    def send_ping(self, uid: int) -> None:
        """Ask for a `PingAcknowledged` of that number; nothing when the connection is over."""

    def close(self, error_code: int, frame_type: int | None = None, reason: str = "") -> None:
        """End it; without ``frame_type`` on behalf of the application."""

    def peer_certificate(self) -> bytes:
        """Return the relay's certificate (DER).

        Raises:
            CertificateError: it cannot be read.
        """

    def open_http(self) -> HttpConnection:
        """Begin HTTP/3; once, when the handshake is completed."""


class ConnectionSettings(Struct, frozen=True):
    """What a connection is made with."""

    host: str
    """The relay's, for SNI and certificate."""
    alpn: tuple[str, ...]
    """What to offer (RFC 7301), the preferred first."""
    tls: TlsOptions
    idle_timeout: float
    """Seconds."""
    window: int
    """How far the relay may send ahead of what has come in order, bytes."""


class LibraryStreamData(Protocol):
    """A library's own event of stream data; both call it so."""

    stream_id: int
    data: bytes
    end_stream: bool


E = TypeVar("E")
S = TypeVar("S", bound=LibraryStreamData)


def gathered(
    next_event: Callable[[], E | None],
    stream_data: type[S],
    translate: Callable[[E], QuicEvent | None],
) -> list[QuicEvent]:
    """Take a library's events to the last; put the pieces of each stream together.

    A packet brings little over a kilobyte, and streams take turns on the wire; what matters is the
    order within each. Events of other kinds stand behind all that came before them.
    """
    events: list[QuicEvent] = []
    pieces: dict[int, list[bytes]] = {}
    current = -1
    append = list[bytes]().append  # to the pieces of the current stream
    while (event := next_event()) is not None:
        if isinstance(event, stream_data):
            stream = event.stream_id
            if stream != current:
                append = pieces.setdefault(stream, []).append
                current = stream
            append(event.data)
            if event.end_stream:
                events.append(_joined(stream, pieces.pop(stream), end=True))
                current = -1
        elif (translated := translate(event)) is not None:
            events += (_joined(*item, end=False) for item in pieces.items())
            pieces.clear()
            current = -1
            events.append(translated)
    events += (_joined(*item, end=False) for item in pieces.items())
    return events


def _joined(stream: int, pieces: list[bytes], *, end: bool) -> StreamDataReceived:
    return StreamDataReceived(stream, pieces[0] if len(pieces) == 1 else b"".join(pieces), end)
