"""Which broadcasts a relay announces: asked once, or followed for as long as one likes.

A relay never says that it has told everything. Its first answers count as complete once nothing
has come for `Settling.quiet` seconds. When a session is lost nothing is known of the broadcasts:
what the next session, its first answers complete, does not announce again has ended meanwhile. A
relay that ends the announcements alone is asked again in the same session.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING

import trio
from msgspec import Struct, field

from casfs.errors import CertificateError, NegotiationError, RelayError
from ingest.backoff import Backoff
from ingest.credentials import Credentials
from ingest.moq.events import AnnouncementsEnded, BroadcastAnnounced, BroadcastEnded
from ingest.session import Session, SessionOptions, open_session
from ingest.tls import TlsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from ingest.moq.events import Event
    from ingest.record_options import Connect

_LOG = logging.getLogger(__name__)

_ASK_AGAIN = 5.0
"""Seconds until a relay is asked again that has ended its announcements."""


class Settling(Struct, frozen=True):
    """When a relay's first answers count as complete, seconds."""

    quiet: float = 1.0
    """Nothing has come for so long."""
    at_most: float = 10.0
    """However much still comes."""


class DiscoverOptions(Struct, frozen=True):
    """Whom to ask, and for what."""

    url: str
    """May hold a token; never logged."""
    credentials: Credentials = Credentials()
    prefix: str = ""
    """Whole segments of the names; empty: all broadcasts."""
    tls: TlsOptions = field(default_factory=TlsOptions)
    session: SessionOptions = field(default_factory=SessionOptions)
    settling: Settling = field(default_factory=Settling)


class Change(Struct, frozen=True):
    """A broadcast has come, or has gone."""

    broadcast: str
    """As the relay sent it: not fit for a terminal."""
    announced: bool
    """Whether it is there now."""
    time: int
    """When we heard of it, nanoseconds UTC."""


class Directory:
    """The broadcasts of a relay, over any number of sessions.

    A broadcast that is replaced by another publisher neither comes nor goes.
    """

    def __init__(self) -> None:
        self._there: set[str] = set()
        self._doubted: set[str] = set()
        """Of these, known from an earlier session alone."""

    def take(self, event: Event, now: int) -> Sequence[Change]:
        """Take what a session tells; return what has changed by it."""
        match event:
            case BroadcastAnnounced(path=path):
                self._doubted.discard(path)
                if path not in self._there:
                    self._there.add(path)
                    return (Change(path, announced=True, time=now),)
            case BroadcastEnded(path=path) if path in self._there:
                self._there.discard(path)
                self._doubted.discard(path)
                return (Change(path, announced=False, time=now),)
            case _:
                pass
        return ()

    def lose(self) -> None:
        """Take the end of a session."""
        self._doubted = set(self._there)

    def settle(self, now: int) -> Sequence[Change]:
        """Take that a session's first answers are complete; return what has gone meanwhile."""
        gone, self._doubted = sorted(self._doubted), set()
        self._there.difference_update(gone)
        return [Change(path, announced=False, time=now) for path in gone]


async def list_broadcasts(
    options: DiscoverOptions,
    *,
    clock: Callable[[], int] = time.time_ns,
    connect: Connect = open_session,
) -> Sequence[Change]:
    """Return the broadcasts that the relay announces now, in the order of their names.

    Raises UsageError for settings that cannot be, RelayError if the relay fails meanwhile.
    """
    found: dict[str, Change] = {}
    directory = Directory()
    url = options.credentials.url(options.url)
    async with connect(url, tls=options.tls, options=options.session) as session:
        session.announce(options.prefix)

        def take(event: Event) -> None:
            for change in directory.take(event, clock()):
                if change.announced:
                    found[change.broadcast] = change
                else:
                    del found[change.broadcast]

        await _first_answers(session, options.settling, take)
    return [found[name] for name in sorted(found)]


async def follow_broadcasts(
    options: DiscoverOptions,
    tell: Callable[[Change], None],
    *,
    clock: Callable[[], int] = time.time_ns,
    connect: Connect = open_session,
) -> None:
    """Tell each broadcast that comes or goes, those that are there first; never returns.

    Connects again for ever, with backoff. Raises UsageError for settings that cannot be, and
    CertificateError or NegotiationError if the very first try shows that they cannot work.
    """
    directory = Directory()
    backoff = Backoff()
    connected = False
    trouble = ""

    def take(event: Event) -> None:
        for change in directory.take(event, clock()):
            tell(change)

    while True:
        try:
            url = options.credentials.url(options.url)
            async with connect(url, tls=options.tls, options=options.session) as session:
                connected = True
                while True:
                    session.announce(options.prefix)
                    await _first_answers(session, options.settling, take)
                    for change in directory.settle(clock()):
                        tell(change)
                    backoff.reset()
                    trouble = ""
                    await _until_ended(session, take)
                    directory.lose()
                    await trio.sleep(_ASK_AGAIN)
        except RelayError as error:
            if not connected and isinstance(error, CertificateError | NegotiationError):
                raise
            if error.message != trouble:
                _LOG.warning("%s; trying again until it works", error.message)
            trouble = error.message
        directory.lose()
        await trio.sleep(backoff.delay())


def follow_in_foreground(options: DiscoverOptions, tell: Callable[[Change], None]) -> None:
    """Follow until SIGINT or SIGTERM. Raises what `follow_broadcasts` and ``tell`` raise."""
    trio.run(_follow_until_stopped, options, tell)


async def _follow_until_stopped(options: DiscoverOptions, tell: Callable[[Change], None]) -> None:
    failure: Exception | None = None

    async def watch_signals(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for _ in signals:
            scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_signals, signals, nursery.cancel_scope)
            try:
                await follow_broadcasts(options, tell)
            except Exception as error:  # noqa: BLE001  raised again below, outside the nursery
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _until_ended(session: Session, take: Callable[[Event], None]) -> None:
    """Take what comes until the relay ends the announcements; that then ends no broadcast."""
    while True:
        events = await session.next_events()
        ended = any(isinstance(event, AnnouncementsEnded) for event in events)
        for event in events:
            if not (ended and isinstance(event, BroadcastEnded)):
                take(event)
        if ended:
            return


async def _first_answers(
    session: Session, settling: Settling, take: Callable[[Event], None]
) -> None:
    """Take what comes until the first answers are complete."""
    end = trio.current_time() + settling.at_most
    while (now := trio.current_time()) < end:
        with trio.move_on_at(min(end, now + settling.quiet)) as patience:
            for event in await session.next_events():
                take(event)
        if patience.cancelled_caught:
            return
