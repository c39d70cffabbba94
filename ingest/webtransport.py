"""A WebTransport session over HTTP/3, as a client, without I/O.

Implements what a MoQ subscriber needs of draft-ietf-webtrans-http3 (in the dialect of its draft 02,
which the relays of 2026 accept), RFC 9220 (extended CONNECT) and RFC 9297 (capsules): one session
on one connection, streams in both directions, datagrams, error codes, the close capsule.

The library's HTTP/3 sees only what is HTTP/3 proper: the CONNECT stream and the relay's control and
QPACK streams. It takes the answers on streams that we opened for HTTP/3 frames, which they are not,
and would end the connection; so every other stream is ours, told apart by its id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.errors import NegotiationError, ProtocolError
from ingest.backends import interface as quic
from ingest.backends.interface import ENABLE_CONNECT_PROTOCOL, DataReceived, HeadersReceived
from ingest.capsules import Capsule, CapsuleParser, encode_capsule
from ingest.moq.varint import encode_varint, read_varint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ingest.backends.interface import HttpEvent, QuicConnection, QuicEvent

ALPN = "h3"
"""HTTP/3 in the TLS handshake (RFC 9114, section 3.1)."""

NO_ERROR = 0x0100
"""HTTP/3's code for ending a connection in good order (RFC 9114, section 8.1)."""

_UNI_STREAM = 0x54
_BIDI_STREAM = 0x41
_CLOSE_SESSION = 0x2843
_SETTINGS_SESSIONS = (0x2B603742, 0xC671706A, 0x14E9CD29)
"""How drafts 02, 07 and 14 say that they do WebTransport."""
_BUFFERED_STREAM_REJECTED = 0x3994BD84
_STREAM_CREATION_ERROR = 0x0103
_FIRST_ERROR = 0x52E4A40FA8DB
_LAST_ERROR = 0x52E5AC983162
_LONGEST_REASON = 1024
"""Of a close capsule, bytes (draft-ietf-webtrans-http3, section 6)."""
_HTTP_STREAMS = frozenset({0x00, 0x01, 0x02, 0x03})
"""Control, push, QPACK encoder and decoder. Others are greasing and are turned away."""
_MOST_EARLY = 1024
_HTTP_BYTES = 256 << 10
"""The most that HTTP/3 may take in beside the data of the CONNECT stream, bytes."""


class SessionReady(Struct, frozen=True):
    """The relay has answered 200."""

    headers: tuple[tuple[bytes, bytes], ...]
    """Of the response; among them the protocol that it chose."""


class SessionRejected(Struct, frozen=True):
    """The relay has answered something else."""

    status: int


class StreamData(Struct, frozen=True):
    """Bytes of a stream, its WebTransport prefix removed."""

    stream: int
    data: bytes
    end: bool


class StreamReset(Struct, frozen=True):
    """The relay has abandoned its direction."""

    stream: int
    code: int


class StreamStopped(Struct, frozen=True):
    """The relay does not want what we send."""

    stream: int
    code: int


class DatagramReceived(Struct, frozen=True):
    """A datagram of the session, its prefix removed (RFC 9297, section 2.1)."""

    data: bytes


class SessionClosed(Struct, frozen=True):
    """The relay has ended the session."""

    code: int
    reason: str


WebTransportEvent = (
    SessionReady
    | SessionRejected
    | StreamData
    | StreamReset
    | StreamStopped
    | DatagramReceived
    | SessionClosed
)


def to_http3(code: int) -> int:
    """Map a WebTransport error code (32 bits) to HTTP/3's (draft section 4.3)."""
    return _FIRST_ERROR + code + code // 0x1E


def from_http3(code: int) -> int | None:
    """Map back; None for a code that is not one of WebTransport's."""
    if not _FIRST_ERROR <= code <= _LAST_ERROR or (code - 0x21) % 0x1F == 0:
        return None
    shifted = code - _FIRST_ERROR
    return shifted - shifted // 0x1F


def _stream_code(code: int) -> int:
    """Map back; a code of HTTP/3 itself is told as it is."""
    mapped = from_http3(code)
    return code if mapped is None else mapped


class WebTransportClient:
    """One session. Feed it the connection's events; it implements `ingest.moq.interface.Streams`.

    ``headers`` are sent with the CONNECT request, which waits for the relay's SETTINGS. Nothing is
    sent before the object is made, so a caller that wants to look at the certificate first does it
    then. Writing to a stream that is closed, reset or stopped does nothing.
    """

    def __init__(
        self,
        connection: QuicConnection,
        *,
        authority: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self._quic = connection
        self._http = connection.open_http()
        self._request = [
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
            (b":protocol", b"webtransport"),
            *headers,
        ]
        self._session: int | None = None
        self._ready = False
        self._over = False
        self._capsules = CapsuleParser([_CLOSE_SESSION], 4 + _LONGEST_REASON)
        self._http_bytes = 0
        self._http_streams: set[int] = set()
        self._prefixes: dict[int, bytes] = {}
        self._stopped: set[int] = set()
        self._refused: set[int] = set()
        self._early: list[WebTransportEvent] = []
        self._receiving: set[int] = set()
        self._sending: set[int] = set()

    # What the MoQ session calls

    def open_uni(self) -> int:
        """Open a stream to the relay and return its id."""
        return self._open(_UNI_STREAM, uni=True)

    def open_bidi(self) -> int:
        """Open a stream in both directions and return its id."""
        stream = self._open(_BIDI_STREAM, uni=False)
        self._receiving.add(stream)
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Queue ``data``; ``end`` closes our direction."""
        if stream in self._sending:
            self._quic.send_stream_data(stream, data, end)
            if end:
                self._sending.discard(stream)

    def reset(self, stream: int, code: int) -> None:
        """Abandon our direction (RESET_STREAM)."""
        if stream in self._sending:
            self._sending.discard(stream)
            self._quic.reset_stream(stream, to_http3(code))

    def stop(self, stream: int, code: int) -> None:
        """Ask the relay to abandon its direction.

        Data that still comes is dropped; the end or the reset is told.
        """
        if stream in self._receiving:
            self._receiving.discard(stream)
            self._stopped.add(stream)
            self._quic.stop_stream(stream, to_http3(code))

    def close(self, code: int, reason: str) -> None:
        """End the session (CLOSE_WEBTRANSPORT_SESSION). The connection is the caller's to close."""
        if self._session is None or self._over:
            return
        self._over = True
        value = code.to_bytes(4, "big") + reason.encode()[:_LONGEST_REASON]
        capsule = encode_capsule(Capsule(_CLOSE_SESSION, value))
        self._http.send_data(self._session, capsule, end_stream=True)

    @staticmethod
    def code_of(code: int) -> int | None:
        """Return the session's code for one with which the connection was closed, if it is one."""
        return from_http3(code)

    # What the connection tells

    def handle(self, events: Iterable[QuicEvent]) -> list[WebTransportEvent]:
        """Take the connection's events, return the session's.

        Raises:
            NegotiationError: the relay does not do WebTransport.
            ProtocolError: it breaks HTTP/3 in a way that ends the session.
        """
        told: list[WebTransportEvent] = []
        for event in events:
            if isinstance(event, quic.StreamDataReceived) and event.stream_id in self._receiving:
                if event.end_stream:
                    self._receiving.discard(event.stream_id)
                self._tell(event.stream_id, event.data, told, end=event.end_stream)
            else:
                self._handle(event, told)
        return told

    def _handle(self, event: QuicEvent, told: list[WebTransportEvent]) -> None:
        match event:
            case quic.StreamDataReceived(stream_id=stream):
                if stream == self._session or stream in self._http_streams:
                    self._to_http(event, told)
                elif stream in self._stopped or stream in self._refused:
                    self._drop(event, told)
                elif stream & 1:
                    self._first_bytes(event, told)
            case quic.StreamReset():
                self._on_reset(event, told)
            case quic.StopSendingReceived(stream_id=stream, error_code=code):
                if stream == self._session:
                    self._end(_stream_code(code), "the relay stopped the session's stream", told)
                elif stream in self._sending:
                    self._sending.discard(stream)
                    told.append(StreamStopped(stream, _stream_code(code)))
            case quic.DatagramFrameReceived(data=data):
                quarter = read_varint(data, 0)
                if self._ready and quarter is not None and 4 * quarter[0] == self._session:
                    told.append(DatagramReceived(data[quarter[1] :]))

    def _first_bytes(self, event: quic.StreamDataReceived, told: list[WebTransportEvent]) -> None:
        """Find out whose stream this is: WebTransport's, or HTTP/3's own (RFC 9114, section 6.2).

        The prefix may come in pieces.
        """
        stream = event.stream_id
        data = self._prefixes.pop(stream, b"") + event.data
        uni = bool(stream & 2)
        kind = read_varint(data, 0)
        if kind is not None and uni and kind[0] in _HTTP_STREAMS:
            self._http_streams.add(stream)
            whole = quic.StreamDataReceived(stream, data, event.end_stream)
            self._to_http(whole, told)
            return
        if kind is not None and kind[0] != (_UNI_STREAM if uni else _BIDI_STREAM):
            self._abort(event, _STREAM_CREATION_ERROR)
            return
        session = kind and read_varint(data, kind[1])
        if not session:
            if not event.end_stream:
                self._prefixes[stream] = data
            return
        if session[0] != self._session:
            self._abort(event, _BUFFERED_STREAM_REJECTED)
            return
        if not uni:
            self._sending.add(stream)
        if not event.end_stream:
            self._receiving.add(stream)
        self._tell(stream, data[session[1] :], told, end=event.end_stream)

    def _drop(self, event: quic.StreamDataReceived, told: list[WebTransportEvent]) -> None:
        """Take the rest of a stream that we do not want."""
        stream = event.stream_id
        if event.end_stream:
            if stream in self._stopped:
                told.append(StreamData(stream, b"", end=True))
            self._stopped.discard(stream)
            self._refused.discard(stream)

    def _to_http(self, event: quic.StreamDataReceived, told: list[WebTransportEvent]) -> None:
        self._http_bytes += len(event.data)
        try:
            answers = list(self._http.handle(event))
        except Exception as error:  # noqa: BLE001 - hostile bytes must not end the program
            raise ProtocolError(
                f"the relay's HTTP/3 cannot be processed ({type(error).__name__})"
            ) from None
        for answer in answers:
            self._on_http(answer, told)
        if self._http_bytes > _HTTP_BYTES:
            raise ProtocolError("the relay sends endless HTTP/3 headers or settings")
        if self._session is None and self._http.settings is not None:
            self._connect(self._http.settings)

    def _connect(self, settings: Mapping[int, int]) -> None:
        """Ask for the session, now that the relay says what it can (RFC 9220, section 3)."""
        if not settings.get(ENABLE_CONNECT_PROTOCOL) or not any(
            settings.get(setting) for setting in _SETTINGS_SESSIONS
        ):
            raise NegotiationError("the relay speaks HTTP/3, but not WebTransport")
        self._session = self._quic.get_next_available_stream_id()
        self._http.send_headers(self._session, self._request)

    def _on_http(self, event: HttpEvent, told: list[WebTransportEvent]) -> None:
        match event:
            case HeadersReceived(stream_id=stream) if stream == self._session and not self._ready:
                self._on_response(event.headers, told)
            case DataReceived(stream_id=stream) if stream == self._session:
                self._http_bytes -= len(event.data)
                self._on_capsules(event.data, told)
            case _:
                return
        if event.stream_ended:
            self._end(0, "", told)

    def _on_response(
        self, headers: Sequence[tuple[bytes, bytes]], told: list[WebTransportEvent]
    ) -> None:
        status = int(dict(headers)[b":status"])
        if status < 200:
            return
        if status >= 300:
            self._over = True
            told.append(SessionRejected(status))
            return
        self._ready = True
        told.append(SessionReady(tuple(headers)))
        told.extend(self._early)
        self._early.clear()

    def _on_capsules(self, data: bytes, told: list[WebTransportEvent]) -> None:
        for capsule in self._capsules.feed(data):
            code = int.from_bytes(capsule.value[:4], "big")
            self._end(code, capsule.value[4:].decode("utf-8", "replace"), told)

    def _on_reset(self, event: quic.StreamReset, told: list[WebTransportEvent]) -> None:
        stream, code = event.stream_id, event.error_code
        self._prefixes.pop(stream, None)
        self._refused.discard(stream)
        if stream == self._session:
            self._end(_stream_code(code), "the relay reset the session's stream", told)
        elif stream in self._receiving or stream in self._stopped:
            self._receiving.discard(stream)
            self._stopped.discard(stream)
            told.append(StreamReset(stream, _stream_code(code)))
        elif stream in self._http_streams:
            list(self._http.handle(event))

    def _end(self, code: int, reason: str, told: list[WebTransportEvent]) -> None:
        if not self._over:
            self._over = True
            told.append(SessionClosed(code, reason))

    def _tell(
        self, stream: int, data: bytes, told: list[WebTransportEvent], *, end: bool = False
    ) -> None:
        """Pass on; what overtakes the relay's response is kept until that is there."""
        if self._ready:
            told.append(StreamData(stream, data, end))
            return
        if len(self._early) >= _MOST_EARLY:
            raise ProtocolError("the relay sends streams, but no response")
        self._early.append(StreamData(stream, data, end))

    def _open(self, kind: int, *, uni: bool) -> int:
        assert self._session is not None
        stream = self._quic.get_next_available_stream_id(is_unidirectional=uni)
        prefix = encode_varint(kind) + encode_varint(self._session)
        self._quic.send_stream_data(stream, prefix)
        self._sending.add(stream)
        return stream

    def _abort(self, event: quic.StreamDataReceived, code: int) -> None:
        """Turn away a stream that the relay opened, in both directions."""
        stream = event.stream_id
        if not stream & 2:
            self._quic.reset_stream(stream, code)
        if not event.end_stream:
            self._refused.add(stream)
            self._quic.stop_stream(stream, code)
