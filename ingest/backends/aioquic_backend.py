"""QUIC by aioquic: Python throughout, and always there."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aioquic.h3.connection import H3Connection
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from ingest.backends.adapter import (
    PLACEHOLDER_ADDRESS,
    Adapter,
    HttpAdapter,
    configured,
    translated,
)
from ingest.backends.aioquic_private import peer_certificate, slide_receive_window
from ingest.backends.interface import StreamDataReceived, StreamReset, gathered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.backends.interface import ConnectionSettings, Datagrams, QuicEvent


class AioquicConnection(Adapter[QuicConnection]):
    """See `ingest.backends.interface.QuicConnection`."""

    OVER: ClassVar = (RuntimeError, ValueError)

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__(QuicConnection(configuration=configured(QuicConfiguration, settings)))
        slide_receive_window(self._quic, settings.window)

    def receive(self, batch: Sequence[Datagrams], now: float) -> None:
        """Take what has arrived, a datagram at a time."""
        receive = self._quic.receive_datagram
        for datagrams in batch:
            for datagram in datagrams.split():
                receive(datagram, PLACEHOLDER_ADDRESS, now)

    def take_events(self) -> list[QuicEvent]:
        """Return what has happened."""
        return gathered(self._quic.next_event, events.StreamDataReceived, translated)

    def peer_certificate(self) -> bytes:
        """Return the relay's certificate (DER)."""
        return peer_certificate(self._quic)

    def open_http(self) -> HttpAdapter[H3Connection]:
        """Begin HTTP/3."""
        http = H3Connection(self._quic, enable_webtransport=True)
        return HttpAdapter(http, self.OVER, _untranslated)


def _untranslated(event: StreamDataReceived | StreamReset) -> events.QuicEvent:
    if isinstance(event, StreamReset):
        return events.StreamReset(event.error_code, event.stream_id)
    return events.StreamDataReceived(event.data, event.end_stream, event.stream_id)
