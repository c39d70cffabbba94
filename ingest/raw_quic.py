"""A MoQ session on QUIC itself, as a client, without I/O.

The streams of the connection are those of the session, with no prefix, and so are its datagrams and
its error codes (draft-ietf-moq-transport, section "Native QUIC"; moq-lite does the same). The
protocol is what ALPN has chosen (RFC 7301), so nothing is left to negotiate once connected.

Relays of moq-dev map their codes here as WebTransport has it; such a code is mapped back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ingest.backends.interface as quic_events
from ingest.webtransport import (
    DatagramReceived,
    StreamData,
    StreamReset,
    StreamStopped,
    WebTransportEvent,
    from_http3,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ingest.backends.interface import QuicConnection, QuicEvent


class RawQuicClient:
    """One session. Feed it the connection's events; implements `ingest.transport.TransportClient`.

    Writing to a stream that is closed, reset or stopped does nothing. The end or the reset of each
    stream that the relay opened is told, also of one that was stopped.
    """

    def __init__(self, connection: QuicConnection) -> None:
        self._quic = connection
        self._receiving: set[int] = set()
        self._stopped: set[int] = set()
        self._sending: set[int] = set()

    # What the MoQ session calls

    def open_uni(self) -> int:
        """Open a stream to the relay and return its id."""
        return self._open(uni=True)

    def open_bidi(self) -> int:
        """Open a stream in both directions and return its id."""
        stream = self._open(uni=False)
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
            self._quic.reset_stream(stream, code)

    def stop(self, stream: int, code: int) -> None:
        """Ask the relay to abandon its direction; what still comes is dropped."""
        if stream in self._receiving:
            self._receiving.discard(stream)
            self._stopped.add(stream)
            self._quic.stop_stream(stream, code)

    def close(self, code: int, reason: str) -> None:
        """Do nothing: the session ends with the connection, which is the caller's to close."""

    @staticmethod
    def code_of(code: int) -> int | None:
        """Return the session's code for the connection's."""
        return _code(code)

    # What the connection tells

    def handle(self, events: Iterable[QuicEvent]) -> list[WebTransportEvent]:
        """Take the connection's events, return the session's; pieces of one stream become one."""
        told: list[WebTransportEvent] = []
        stream = -1
        chunks: list[bytes] = []
        for event in events:
            if isinstance(event, quic_events.StreamDataReceived):
                if event.stream_id != stream and chunks:
                    told.append(StreamData(stream, b"".join(chunks), end=False))
                    chunks = []
                stream = event.stream_id
                if not self._wanted(event, told):
                    continue
                chunks.append(event.data)
                if event.end_stream:
                    self._receiving.discard(stream)
                    told.append(StreamData(stream, b"".join(chunks), end=True))
                    chunks = []
                continue
            if chunks:
                told.append(StreamData(stream, b"".join(chunks), end=False))
                chunks = []
            self._handle(event, told)
        if chunks:
            told.append(StreamData(stream, b"".join(chunks), end=False))
        return told

    def _wanted(self, event: quic_events.StreamDataReceived, told: list[WebTransportEvent]) -> bool:
        """Note a stream of the relay's at its first byte; tell the end of one that was stopped."""
        stream = event.stream_id
        if stream in self._receiving:
            return True
        if stream in self._stopped:
            if event.end_stream:
                self._stopped.discard(stream)
                told.append(StreamData(stream, b"", end=True))
            return False
        if not stream & 1:
            return False
        self._receiving.add(stream)
        if not stream & 2:
            self._sending.add(stream)
        return True

    def _handle(self, event: QuicEvent, told: list[WebTransportEvent]) -> None:
        match event:
            case quic_events.StreamReset(stream_id=stream, error_code=code):
                if stream in self._receiving or stream in self._stopped:
                    self._receiving.discard(stream)
                    self._stopped.discard(stream)
                    told.append(StreamReset(stream, _code(code)))
            case quic_events.StopSendingReceived(stream_id=stream, error_code=code):
                if stream in self._sending:
                    self._sending.discard(stream)
                    told.append(StreamStopped(stream, _code(code)))
            case quic_events.DatagramFrameReceived(data=data):
                told.append(DatagramReceived(data))

    def _open(self, *, uni: bool) -> int:
        stream = self._quic.get_next_available_stream_id(is_unidirectional=uni)
        self._quic.send_stream_data(stream, b"")
        self._sending.add(stream)
        return stream


def _code(code: int) -> int:
    mapped = from_http3(code)
    return code if mapped is None else mapped
