"""The address of a relay, as a user writes it.

Path and query may be secret (they carry tokens): nothing here puts them into a message, and
`RelayUrl` does not show them.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct

from casfs.errors import ConfigError
from ingest.transport import Transport

_DEFAULT_PORT = 443
_ADVICE = "write it as https://host[:port]/path, or moqt:// for QUIC without HTTP"
_TRANSPORTS = {"https": Transport.WEBTRANSPORT, "moqt": Transport.QUIC}


class RelayUrl(Struct, frozen=True):
    """Where a relay is and what to ask it for."""

    host: str
    """A name in ASCII, or an IP address without brackets."""
    port: int
    target: str
    """Path and query. Secret."""
    transport: Transport = Transport.WEBTRANSPORT
    """What the scheme asks for: ``https`` WebTransport, ``moqt`` QUIC alone."""

    @property
    def authority(self) -> str:
        """Host and port as HTTP wants them (RFC 9110, section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """What may be shown: ``https://host:port``, or ``moqt://host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "https" if self.transport is Transport.WEBTRANSPORT else "moqt"
        return f"{scheme}://{host}:{self.port}"

    def __repr__(self) -> str:
        return f"RelayUrl({self.origin})"


def parse_relay_url(url: str) -> RelayUrl:
    """Read the URL of a relay.

    Raises:
        ConfigError: it is none that we can use; the message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        port = _DEFAULT_PORT if parts.port is None else parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError:
        raise ConfigError("the relay's URL cannot be read", advice=_ADVICE) from None
    transport = _TRANSPORTS.get(parts.scheme)
    if transport is None:
        raise ConfigError("the relay's URL does not begin with https:// or moqt://", advice=_ADVICE)
    if not host:
        raise ConfigError("the relay's URL names no host", advice=_ADVICE)
    if port == 0:
        raise ConfigError("the relay's URL names port 0", advice=_ADVICE)
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the relay's URL holds a user name or password", advice=_ADVICE)
    if parts.fragment:
        raise ConfigError("the relay's URL holds a fragment (#)", advice=_ADVICE)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not all("!" <= character <= "~" for character in target):
        raise ConfigError(
            "the relay's URL holds characters that no URL may hold",
            advice="percent-encode them",
        )
    return RelayUrl(host, port, target, transport)
