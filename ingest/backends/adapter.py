"""What aioquic and qh3 have in common: a connection of theirs behind our interface.

qh3 began as a fork of aioquic. Methods, events and their members have the same names in both; the
classes differ, and so does what they raise where a stream is over.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import msgspec

from ingest.backends import interface as ours
from ingest.tls import trust_anchors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import aioquic.h3.connection
    import aioquic.quic.configuration
    import aioquic.quic.connection
    import aioquic.quic.events
    import qh3.h3.connection
    import qh3.quic.configuration
    import qh3.quic.connection
    import qh3.quic.events

    from ingest.backends.interface import ConnectionSettings, HttpEvent, QuicEvent

# Without a handler Python would print the libraries' remarks on stderr.
logging.getLogger("quic").addHandler(logging.NullHandler())

PLACEHOLDER_ADDRESS: Final = ("192.0.2.1", 443)
"""The libraries compare addresses to notice migration; our socket is connected, there is one."""

_EVENTS: Final[Mapping[str, type[QuicEvent]]] = {
    kind.__name__: kind
    for kind in (
        ours.HandshakeCompleted,
        ours.StreamReset,
        ours.StopSendingReceived,
        ours.DatagramFrameReceived,
        ours.PingAcknowledged,
        ours.ConnectionTerminated,
    )
}

Quic = TypeVar(
    "Quic", "aioquic.quic.connection.QuicConnection", "qh3.quic.connection.QuicConnection"
)
Http = TypeVar("Http", "aioquic.h3.connection.H3Connection", "qh3.h3.connection.H3Connection")


class Adapter(Generic[Quic]):
    """The calls that are the same for both. See `ingest.backends.interface.QuicConnection`."""

    OVER: ClassVar[tuple[type[Exception], ...]]
    """What the library raises where a stream, or the connection, is over."""

    def __init__(self, connection: Quic) -> None:
        self._quic: Quic = connection
        self.get_timer = connection.get_timer
        self.handle_timer = connection.handle_timer

    def connect(self, now: float) -> None:
        """Begin the handshake."""
        self._quic.connect(PLACEHOLDER_ADDRESS, now)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Return what is to be sent now."""
        return [datagram for datagram, _ in self._quic.datagrams_to_send(now)]

    def get_next_available_stream_id(self, *, is_unidirectional: bool = False) -> int:
        """Return the number of the stream that we open next."""
        stream: int = self._quic.get_next_available_stream_id(is_unidirectional)
        return stream

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Send on a stream."""
        with contextlib.suppress(*self.OVER):
            self._quic.send_stream_data(stream_id, data, end_stream)

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Abandon our direction."""
        with contextlib.suppress(*self.OVER):
            self._quic.reset_stream(stream_id, error_code)

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """Ask the peer to abandon its direction."""
        with contextlib.suppress(*self.OVER):
            self._quic.stop_stream(stream_id, error_code)

    def send_ping(self, uid: int) -> None:
        """Ask for a sign of life."""
        with contextlib.suppress(*self.OVER):
            self._quic.send_ping(uid)

    def close(self, error_code: int, frame_type: int | None = None, reason: str = "") -> None:
        """End the connection."""
        self._quic.close(error_code, frame_type, reason)


class HttpAdapter(Generic[Http]):
    """HTTP/3 of either library. See `ingest.backends.interface.HttpConnection`."""

    def __init__(
        self,
        http: Http,
        over: tuple[type[Exception], ...],
        untranslated: Callable[[ours.StreamDataReceived | ours.StreamReset], Any],
    ) -> None:
        self._http: Http = http
        self._over = over
        self._untranslated = untranslated

    @property
    def settings(self) -> Mapping[int, int] | None:
        """What the relay's SETTINGS say."""
        settings: Mapping[int, int] | None = self._http.received_settings
        return settings

    def handle(self, event: ours.StreamDataReceived | ours.StreamReset) -> Iterator[HttpEvent]:
        """Take what came on a stream that is HTTP/3's."""
        for answer in self._http.handle_event(self._untranslated(event)):
            match type(answer).__name__:
                case "HeadersReceived":
                    yield msgspec.convert(answer, ours.HeadersReceived, from_attributes=True)
                case "DataReceived":
                    yield msgspec.convert(answer, ours.DataReceived, from_attributes=True)

    def send_headers(self, stream: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin a request."""
        self._http.send_headers(stream, list(headers))

    def send_data(self, stream: int, data: bytes, *, end_stream: bool) -> None:
        """Send a DATA frame."""
        with contextlib.suppress(*self._over):
            self._http.send_data(stream, data, end_stream)


def translated(event: object) -> QuicEvent | None:
    """Return a library's event as ours; None for what does not concern us."""
    kind = _EVENTS.get(type(event).__name__)
    return None if kind is None else msgspec.convert(event, kind, from_attributes=True)


Configuration = TypeVar(
    "Configuration",
    "aioquic.quic.configuration.QuicConfiguration",
    "qh3.quic.configuration.QuicConfiguration",
)


def configured(library: type[Configuration], settings: ConnectionSettings) -> Configuration:
    """Return the library's configuration of such a connection.

    Raises:
        CertificateError: the system has no root certificates, and they are needed.
    """
    configuration = library(
        is_client=True,
        alpn_protocols=list(settings.alpn),
        server_name=settings.host,  # of an address both check the IP SAN, and send no SNI
        idle_timeout=settings.idle_timeout,
        max_data=settings.window,
        max_stream_data=settings.window,
        max_datagram_frame_size=65536,  # HTTP/3 datagrams need it (RFC 9297, section 2.1.1)
        verify_mode=ssl.CERT_REQUIRED if settings.tls.verifies_chain else ssl.CERT_NONE,
    )
    if settings.tls.verifies_chain:
        anchors = trust_anchors(settings.tls)
        configuration.cafile = anchors.file
        configuration.capath = anchors.directory
    return configuration
