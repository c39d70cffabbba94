"""What aioquic keeps to itself and casfs cannot do without; nothing else of it is touched.

Two things, neither for speed. The relay's certificate, to compare its fingerprint: there is no
public way to it. And the connection's credit (MAX_DATA; RFC 9000, section 4): aioquic doubles it
whenever half is used, for ever, so that a relay that leaves a hole at the start of each stream
could make us hold whatever it sends. No setting stops that, and not reading the socket cannot tell
such a relay from an honest one; so the credit is replaced by one that slides.

Both are tested against the version at hand, for which pyproject.toml pins the minor version, and
both fail closed: where the attributes are missing, no connection is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.connection import Limit
from cryptography.hazmat.primitives.serialization import Encoding

from casfs.errors import CertificateError, ConfigError

if TYPE_CHECKING:
    from aioquic.quic.connection import QuicConnection


def peer_certificate(connection: QuicConnection) -> bytes:
    """Return the relay's certificate (DER).

    Raises:
        CertificateError: it cannot be read.
    """
    try:
        certificate = connection.tls._peer_certificate  # noqa: SLF001 - see above
        assert certificate is not None
        return certificate.public_bytes(Encoding.DER)
    except (AttributeError, AssertionError):
        raise CertificateError("the relay's certificate cannot be read") from None


class SlidingLimit(Limit):
    """The connection's credit, a fixed way ahead of what was passed on in order.

    aioquic asks for more (by doubling ``value``) whenever half of the credit is used. What it asks
    for is only the occasion here.
    """

    def __init__(self, connection: QuicConnection, window: int) -> None:
        self._granted = 0
        self._connection: QuicConnection | None = None
        old = connection._local_max_data  # noqa: SLF001 - see above
        super().__init__(frame_type=old.frame_type, name=old.name, value=old.value)
        self._window = window
        self._connection = connection

    @property
    def value(self) -> int:
        """Bytes that the relay may send, in all."""
        return self._granted

    @value.setter
    def value(self, wanted: int) -> None:
        if self._connection is None:
            self._granted = wanted
            return
        if self._granted - self.used > self._window // 2:
            return
        held = sum(
            stream.receiver.highest_offset - stream.receiver.starting_offset()
            for stream in self._connection._streams.values()  # noqa: SLF001 - see above
            if not stream.receiver.is_finished
        )
        self._granted = max(self._granted, self.used - held + self._window)


def slide_receive_window(connection: QuicConnection, window: int) -> SlidingLimit:
    """Replace the credit that doubles by one that slides, ``window`` bytes ahead.

    Raises:
        ConfigError: this aioquic is another than the one that we know.
    """
    try:
        limit = SlidingLimit(connection, window)
    except AttributeError as error:
        raise ConfigError(
            f"what this version of aioquic holds cannot be bounded ({error})",
            advice="install the version that casfs asks for, or choose --quic qh3",
        ) from None
    connection._local_max_data = limit  # noqa: SLF001 - see above
    return limit
