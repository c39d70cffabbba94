"""Where broadcasts are listed: each source is a task that tells what it lists, for ever.

A source that fails says so and tries again, later each time, at most a minute or its own
interval; what it listed last stands meanwhile.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from casfs.errors import CasfsError, DirectoryError
from ingest.backoff import Backoff
from ingest.credentials import Credentials
from ingest.directory import Listed, Listing, ListingLimits, shown_source
from ingest.discovery import DiscoverOptions, follow_broadcasts
from ingest.fetching import Fetcher, FetchOptions
from ingest.relay_url import parse_relay_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.discovery import Change
    from ingest.session import SessionOptions
    from ingest.tls import TlsOptions

_LOG = logging.getLogger(__name__)

_MOST_DELAY = 60.0
"""Seconds: what relays remember for who comes late, more or less. Who begins then loses nothing."""
_JITTER = 0.1


class SourceState(Struct):
    """What is known of a source."""

    shown: str
    """Its URL, as far as it may be shown."""
    listed: int = 0
    refused: int = 0
    asked: int = 0
    """When it last answered, nanoseconds UTC; 0 if it never did."""
    trouble: str = ""


async def poll_directory(
    url: str,
    options: FetchOptions,
    interval: Callable[[], float],
    state: SourceState,
    tell: Callable[[Listing], None],
) -> None:
    """Ask a directory again and again, and tell each answer; never returns."""
    fetcher = Fetcher(url, options)
    backoff = Backoff(first=5.0, most=_MOST_DELAY)
    try:
        while True:
            try:
                listing = await fetcher.fetch()
            except DirectoryError as error:
                if error.message != state.trouble:
                    _LOG.warning("%s: %s", state.shown, error.message)
                state.trouble = error.message
                await trio.sleep(min(backoff.delay(), max(interval(), _MOST_DELAY)))
                continue
            if state.trouble:
                _LOG.info("%s: it answers again", state.shown)
            _note(state, listing)
            backoff.reset()
            tell(listing)
            await trio.sleep(interval() * (1 - _JITTER * random.random()))  # noqa: S311
    finally:
        fetcher.close()


async def follow_relay(
    url: str,
    tls: TlsOptions,
    session: SessionOptions,
    state: SourceState,
    tell: Callable[[Listing], None],
    *,
    credentials: Credentials = Credentials(),  # noqa: B008  frozen
    limits: ListingLimits = ListingLimits(),  # noqa: B008  frozen
) -> None:
    """Follow what a relay announces, and tell all of it at each change; never returns."""
    there: dict[str, None] = {}
    refused = 0

    def take(change: Change) -> None:
        nonlocal refused
        if not change.announced:
            there.pop(change.broadcast, None)
        elif change.broadcast and "\0" not in change.broadcast and len(there) < limits.broadcasts:
            there[change.broadcast] = None
        else:
            refused += 1
        listing = Listing(tuple(Listed(name, (url,)) for name in there), refused)
        _note(state, listing)
        tell(listing)

    options = DiscoverOptions(url=url, credentials=credentials, tls=tls, session=session)
    backoff = Backoff(first=5.0, most=_MOST_DELAY)
    while True:
        try:
            await follow_broadcasts(options, take)
        except CasfsError as error:
            # Settings that cannot work with this relay now; it may come to its senses.
            if error.message != state.trouble:
                _LOG.warning("%s: %s", state.shown, error.message)
            state.trouble = error.message
        await trio.sleep(backoff.delay())


def shown_relay(url: str) -> str:
    """Return what of a relay's URL may be shown."""
    return parse_relay_url(url).origin


def shown_directory(url: str) -> str:
    """Return what of a directory's URL may be shown."""
    return shown_source(url)


def _note(state: SourceState, listing: Listing) -> None:
    if listing.refused and listing.refused != state.refused:
        _LOG.warning(
            "%s: %d entries were refused: %s", state.shown, listing.refused, listing.problem
        )
    state.listed = len(listing.listed)
    state.refused = listing.refused
    state.asked = time.time_ns()
    state.trouble = ""
