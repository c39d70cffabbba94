"""QUIC by qh3: native code takes packets apart, many at a time. An extra of the package.

Its credit slides: the relay never gets to send further ahead than ``window`` of what has come in
order, and holes earn none. So nothing of it needs replacing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from qh3.h3.connection import H3Connection
from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError

from casfs.errors import CertificateError
from ingest.backends.adapter import (
    PLACEHOLDER_ADDRESS,
    Adapter,
    HttpAdapter,
    configured,
    translated,
)
from ingest.backends.interface import StreamDataReceived, StreamReset, gathered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.backends.interface import ConnectionSettings, Datagrams, QuicEvent


class Qh3Connection(Adapter[QuicConnection]):
    """See `ingest.backends.interface.QuicConnection`."""

    OVER: ClassVar = (AssertionError, QuicConnectionError, ValueError)

    def __init__(self, settings: ConnectionSettings) -> None:
        configuration = configured(QuicConfiguration, settings)
        if configuration.cafile is not None:
            configuration.capath = None  # it would read every file there too
        super().__init__(QuicConnection(configuration=configuration))

    def receive(self, batch: Sequence[Datagrams], now: float) -> None:
        """Take what has arrived, as the kernel has joined it."""
        receive = self._quic.receive_gro_buffer
        for data, size in batch:
            receive(data, size, PLACEHOLDER_ADDRESS, now)

    def take_events(self) -> list[QuicEvent]:
        """Return what has happened."""
        return gathered(self._quic.next_event, events.StreamDataReceived, translated)

    def peer_certificate(self) -> bytes:
        """Return the relay's certificate (DER)."""
        certificate = self._quic.get_peercert()
        if certificate is None:
            raise CertificateError("the relay's certificate cannot be read")
        return bytes(certificate.public_bytes())

    def open_http(self) -> HttpAdapter[H3Connection]:
        """Begin HTTP/3."""
        http = H3Connection(self._quic, enable_webtransport=True)
        return HttpAdapter(http, self.OVER, _untranslated)


def _untranslated(event: StreamDataReceived | StreamReset) -> events.QuicEvent:
    if isinstance(event, StreamReset):
        return events.StreamReset(event.error_code, event.stream_id)
    return events.StreamDataReceived(event.data, event.end_stream, event.stream_id)
