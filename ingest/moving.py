"""Where to go when a relay asks us to leave (GOAWAY). Pure.

What the relay wrote is taken at its word only as far as that can do no harm: it must be a URL as a
user may write it (https or moqt, no user name, printable, bounded), and every address proves itself
by its certificate as the first one did. So nobody is sent elsewhere whose relay's certificate is
not checked; nor from a public relay to an address in our own network; nor on and on.

Our token goes with the URL that it was given for: to the same origin. To another origin goes what
the relay itself put into the URL, and nothing else.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from casfs.errors import ConfigError
from ingest.relay_url import RelayUrl, parse_relay_url

MAX_URI_BYTES: Final = 8192
"""draft-ietf-moq-transport, section "GOAWAY": a longer one is a violation."""
MAX_MOVES: Final = 5
"""From one relay to the next, until one of them delivers."""


def next_url(current: str, uri: str, *, checked: bool) -> str | None:
    """Return the URL to go to from ``current``; None where ``uri`` cannot be followed.

    An empty ``uri`` is the same place again. ``checked``: whether certificates are.
    """
    if not uri:
        return current
    if len(uri) > MAX_URI_BYTES or not all("!" <= character <= "~" for character in uri):
        return None
    try:
        here, there = parse_relay_url(current), parse_relay_url(uri)
    except ConfigError:
        return None
    if there.origin != here.origin and (not checked or _goes_inside(here, there)):
        return None
    return uri


def same_origin(one: str, other: str) -> bool:
    """Say whether two URLs of relays are of one scheme, host and port."""
    return parse_relay_url(one).origin == parse_relay_url(other).origin


def _goes_inside(here: RelayUrl, there: RelayUrl) -> bool:
    return _is_inside(there.host) and not _is_inside(here.host)


def _is_inside(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False
