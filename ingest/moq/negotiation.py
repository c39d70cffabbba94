"""Which protocol a WebTransport session speaks: what we offer, what the relay chose.

The offer is a header whose value is a structured list of strings (RFC 8941, sections 3.1 and
3.3.3), and the choice one string. Two names of the header are in use: drafts since 2025 and their
relays use ``wt-available-protocols`` and ``wt-protocol``, older ones ``sec-webtransport-protocol``
both ways. We send both and read both. The relay takes the first of our list that it knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from casfs.errors import NegotiationError, UsageError
from ingest.moq.lite import LiteSession
from ingest.moq.lite_versions import LITE_04, LITE_05, LITE_06

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ingest.moq.interface import Limits, MoqSession, Streams
    from ingest.moq.lite_versions import LiteVersion

_LITE: Final[Mapping[str, LiteVersion]] = {
    version.protocol: version for version in (LITE_05, LITE_06, LITE_04)
}

PROTOCOLS: Final[Sequence[str]] = tuple(_LITE)
"""All that we speak, the preferred first."""

_OFFERS: Final = (b"wt-available-protocols", b"sec-webtransport-protocol")
_CHOICES: Final = (b"wt-protocol", b"sec-webtransport-protocol")


def offer(protocols: Sequence[str] = PROTOCOLS) -> list[tuple[bytes, bytes]]:
    """Return the headers (name, value) that offer ``protocols`` in that order.

    Raise `UsageError` for one that we do not speak, or for none.
    """
    for protocol in protocols:
        if protocol not in _LITE:
            raise UsageError(
                f"the protocol {protocol!r} is not supported",
                advice=f"choose among {', '.join(PROTOCOLS)}",
            )
    if not protocols:
        raise UsageError("no protocol is offered", advice=f"choose among {', '.join(PROTOCOLS)}")
    value = ", ".join(map(_format_string, protocols)).encode("ascii")
    return [(name, value) for name in _OFFERS]


def chosen(headers: Iterable[tuple[bytes, bytes]], offered: Sequence[str] = PROTOCOLS) -> str:
    """Return the protocol that a response's headers choose.

    Raise `NegotiationError` when they choose none or one that was not offered.
    """
    values = dict(headers)
    for name in _CHOICES:
        value = values.get(name)
        if value is not None:
            protocol = _parse_string(value)
            if protocol is None or protocol not in offered:
                raise NegotiationError(f"the relay chose {value[:80]!r}, which was not offered")
            return protocol
    raise NegotiationError(
        f"the relay speaks none of {', '.join(offered)}",
        advice="offer other protocols, or ask its operator which ones it speaks",
    )


def create_session(protocol: str, streams: Streams, limits: Limits) -> MoqSession:
    """Return a session of a negotiated protocol; raise `NegotiationError` for an unknown one."""
    version = _LITE.get(protocol)
    if version is None:
        raise NegotiationError(f"the protocol {protocol!r} is not supported")
    return LiteSession(version, streams, limits)


def _format_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _parse_string(value: bytes) -> str | None:
    """Return the string that a header's value is, its parameters ignored; None if it is none.

    A bare token is taken for the string that some servers mean by it.
    """
    text = value.decode("ascii", "replace").strip(" \t")
    if not text.startswith('"'):
        return text.partition(";")[0].rstrip(" \t")
    characters: list[str] = []
    rest = iter(text[1:])
    for character in rest:
        if character == '"':
            behind = "".join(rest).lstrip(" \t")
            return "".join(characters) if not behind or behind.startswith(";") else None
        escaped = next(rest, "") if character == "\\" else character
        if character == "\\" and escaped not in {'"', "\\"}:
            return None
        characters.append(escaped)
    return None
