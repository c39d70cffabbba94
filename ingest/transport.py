"""What a session needs of the transport below it: WebTransport, or QUIC as it is.

Both tell the same events and take the same calls, so a session does not know which one it runs on;
`ingest.moq.interface.Streams` is what the MoQ protocol sees of it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from ingest.moq.interface import Streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ingest.quic import QuicEvent
    from ingest.webtransport import WebTransportEvent


class Transport(StrEnum):
    """What carries MoQ."""

    WEBTRANSPORT = "webtransport"
    """WebTransport over HTTP/3."""
    QUIC = "quic"
    """QUIC alone; the protocol is named in the TLS handshake."""


class TransportClient(Streams, Protocol):
    """Our end of one session."""

    def handle(self, events: Iterable[QuicEvent]) -> Sequence[WebTransportEvent]:
        """Take the connection's events, return the session's.

        Raises:
            NegotiationError: the relay does not speak this transport.
            ProtocolError: it breaks it in a way that ends the session.
        """

    def close(self, code: int, reason: str) -> None:
        """End the session. The connection is the caller's to close."""

    def code_of(self, code: int) -> int | None:
        """Return the session's code for one with which the connection was closed, if it is one."""
