"""Which protocol a WebTransport session speaks: what we offer, what the relay chose.

The offer is a header whose value is a structured list of strings (RFC 8941, sections 3.1 and
3.3.3), and the choice one string. Two names of the header are in use: drafts since 2025 and their
relays use ``wt-available-protocols`` and ``wt-protocol``, older ones ``sec-webtransport-protocol``
both ways. We send both and read both. The relay takes the first of our list that it knows.

Draft 14 of MoQ transport is older than that: it names versions in its own SETUP messages. A relay
that chooses nothing is taken to speak it. Over raw QUIC the same names stand in ALPN (RFC 7301).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from casfs.errors import NegotiationError, UsageError
from ingest.moq import moqt_drafts
from ingest.moq.lite import LiteSession
from ingest.moq.lite_versions import LITE_04, LITE_05, LITE_06
from ingest.moq.moqt import MoqtSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ingest.moq.interface import Limits, Locator, MoqSession, Streams
    from ingest.moq.lite_versions import LiteVersion
    from ingest.moq.moqt_drafts import Draft

_LITE: Final[Mapping[str, LiteVersion]] = {
    version.protocol: version for version in (LITE_05, LITE_06, LITE_04)
}

_OLDEST: Final = moqt_drafts.DRAFT_14
DRAFT_14: Final = _OLDEST.protocol
"""What a relay speaks that chooses nothing."""

_MOQT: Final[Mapping[str, Draft]] = {
    draft.protocol: draft for draft in (moqt_drafts.DRAFT_18, moqt_drafts.DRAFT_16, _OLDEST)
}

PROTOCOLS: Final[Sequence[str]] = (*_LITE, *_MOQT)
"""All that we speak, the preferred first."""

_WIRE_NAMES: Final = {DRAFT_14: "moq-00"}
"""What stands in headers and ALPN where that is not the protocol's own name."""

_OFFERS: Final = (b"wt-available-protocols", b"sec-webtransport-protocol")
_CHOICES: Final = (b"wt-protocol", b"sec-webtransport-protocol")


def check_offer(protocols: Sequence[str]) -> None:
    """Raise `UsageError` for a protocol that we do not speak, or for none."""
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise UsageError(
                f"the protocol {protocol!r} is not supported",
                advice=f"choose among {', '.join(PROTOCOLS)}",
            )
    if not protocols:
        raise UsageError("no protocol is offered", advice=f"choose among {', '.join(PROTOCOLS)}")


def offer(protocols: Sequence[str] = PROTOCOLS) -> list[tuple[bytes, bytes]]:
    """Return the headers (name, value) that offer ``protocols`` in that order.

    Raise `UsageError` for one that we do not speak, or for none.
    """
    names = alpn_offer(protocols)
    value = ", ".join(map(_format_string, names)).encode("ascii")
    return [(name, value) for name in _OFFERS]


def alpn_offer(protocols: Sequence[str] = PROTOCOLS) -> list[str]:
    """Return the names that offer ``protocols`` in the TLS handshake of raw QUIC.

    Raise `UsageError` for one that we do not speak, or for none.
    """
    check_offer(protocols)
    return [_WIRE_NAMES.get(protocol, protocol) for protocol in protocols]


def chosen(headers: Iterable[tuple[bytes, bytes]], offered: Sequence[str] = PROTOCOLS) -> str:
    """Return the protocol that a response's headers choose.

    One that chooses nothing chooses draft 14. Raise `NegotiationError` when the choice was not
    offered.
    """
    values = dict(headers)
    for name in _CHOICES:
        value = values.get(name)
        if value is not None:
            return _offered(_parse_string(value), value, offered)
    if DRAFT_14 in offered:
        return DRAFT_14
    raise NegotiationError(
        f"the relay speaks none of {', '.join(offered)}",
        advice="offer other protocols, or ask its operator which ones it speaks",
    )


def chosen_by_alpn(name: str | None, offered: Sequence[str]) -> str:
    """Return the protocol that the relay chose in the handshake.

    Raise `NegotiationError` when it was not offered.
    """
    return _offered(name, (name or "").encode(), offered)


def _offered(name: str | None, value: bytes, offered: Sequence[str]) -> str:
    for protocol in offered:
        if name is not None and name in {protocol, _WIRE_NAMES.get(protocol)}:
            return protocol
    raise NegotiationError(f"the relay chose {value[:80]!r}, which was not offered")


def create_session(
    protocol: str, streams: Streams, limits: Limits, where: Locator | None = None
) -> MoqSession:
    """Return a session of a negotiated protocol; raise `NegotiationError` for an unknown one.

    ``where``: what SETUP has to tell because nothing below it has, on raw QUIC.
    """
    version = _LITE.get(protocol)
    if version is not None:
        return LiteSession(version, streams, limits, where)
    draft = _MOQT.get(protocol)
    if draft is not None:
        return MoqtSession(draft, streams, limits, where)
    raise NegotiationError(f"the protocol {protocol!r} is not supported")


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
