"""How the end of a session becomes one of our errors."""

from __future__ import annotations

from typing import Final

from casfs.errors import ConnectError, NegotiationError, RefusedError, RelayError
from ingest.quic import printable

UNAUTHORIZED: Final = 2
"""The code of a session that was ended because we may not: moq-dev's relays, and
draft-ietf-moq-transport, section "Session Termination Error Codes"."""


def refusal(origin: str, code: int | None, reason: str, *, heard: bool) -> RefusedError | None:
    """Return the error if a close means that we may not, rather than that it failed.

    ``heard``: the relay has spoken on some stream, so it had let us in.
    """
    unauthorized = code == UNAUTHORIZED or reason == "unauthorized"
    if not code or (heard and not unauthorized):
        return None
    detail = f"{printable(reason)} (code {code})" if reason else f"code {code}"
    return RefusedError(
        f"{origin} refused the session: {detail}",
        advice="check the URL's path and token",
    )


def rejection(origin: str, status: int) -> RelayError:
    """Return the error for an HTTP status that is no success."""
    if status in {400, 406, 501}:
        return NegotiationError(f"{origin} does not take our session: HTTP {status}")
    if status < 500:
        return RefusedError(
            f"{origin} refused the session: HTTP {status}",
            advice="check the URL's path and token",
        )
    return ConnectError(f"{origin} cannot open a session: HTTP {status}")
