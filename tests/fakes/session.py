"""Sessions with a relay that exists only in a script: what comes is what the test says."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from msgspec import Struct
from msgspec.structs import replace

from casfs.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from casfs.errors import RelayError
    from ingest.moq.events import Event, GroupReceived
    from ingest.session import SessionOptions
    from ingest.tls import TlsOptions


class Asked(Struct, frozen=True):
    """A subscription that was asked for."""

    number: int
    broadcast: str
    track: str
    priority: int
    max_latency: int
    at: float
    """Seconds of trio's clock."""


class FakeSession:
    """What `ingest.session.Session` is to a recorder."""

    origin = "https://relay.example:443"
    protocol = "moq-lite-05"

    def __init__(self) -> None:
        self.announced: list[str] = []
        self.asked: list[Asked] = []
        self.given_up: list[int] = []
        self.open: list[GroupReceived] = []
        """Groups that are still arriving, as far as they have come."""
        self.closed = trio.Event()
        """The recorder has left."""
        self.can_fetch = False
        self.fetched: list[tuple[int, int]] = []
        """Subscription and sequence of each group that was asked for again."""
        self._events: list[Event] = []
        self._arrived = trio.Event()
        self._asked = trio.Event()
        self._over: BaseException | None = None

    # What the test does

    def tell(self, *events: Event) -> None:
        """Let events come."""
        self._events.extend(events)
        self._arrived.set()

    def lose(self, error: BaseException) -> None:
        """End the session; what was told before is delivered first."""
        self._over = error
        self._arrived.set()

    async def subscriptions(self, count: int) -> list[Asked]:
        """Wait until so many subscriptions have been asked for; return them all."""
        while len(self.asked) < count:
            await self._asked.wait()
        return self.asked

    def number(self, track: str) -> int:
        """Return the newest subscription of a track."""
        return max(asked.number for asked in self.asked if asked.track == track)

    # What the recorder does

    def announce(self, prefix: str) -> None:
        self.announced.append(prefix)

    def subscribe(self, broadcast: str, track: str, *, priority: int, max_latency: int) -> int:
        number = len(self.asked)
        now = trio.current_time()
        self.asked.append(Asked(number, broadcast, track, priority, max_latency, now))
        self._asked.set()
        self._asked = trio.Event()
        return number

    def unsubscribe(self, subscription: int) -> None:
        self.given_up.append(subscription)
        self.open = [group for group in self.open if group.subscription != subscription]

    def fetch(self, subscription: int, sequence: int) -> bool:
        if self.can_fetch:
            self.fetched.append((subscription, sequence))
        return self.can_fetch

    async def next_events(self) -> Sequence[Event]:
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._over is not None:
                raise self._over
            await self._arrived.wait()
        events, self._events = self._events, []
        self._arrived = trio.Event()
        return events

    def open_groups(self, opened_before: int) -> Sequence[GroupReceived]:
        return [
            replace(group, complete=False, reason="still open")
            for group in self.open
            if group.received_start < opened_before
        ]

    def abandon(self, reason: str) -> Sequence[GroupReceived]:
        if self._over is not None:
            return ()
        self._over = ConnectionLostError("closed here")
        groups, self.open = self.open, []
        return [replace(group, complete=False, reason=reason) for group in groups]


class FakeRelay:
    """Give it as ``connect`` to a recorder: each try fails as planned, or opens a session."""

    def __init__(self, *failures: RelayError | None) -> None:
        self.failures = deque(failures)
        """How the next tries fail; None: they do not. Afterwards all succeed."""
        self.tries: list[float] = []
        """When each try began, seconds of trio's clock."""
        self._send, self._receive = trio.open_memory_channel[FakeSession](1000)

    async def session(self) -> FakeSession:
        """Wait for the next session and return it."""
        return await self._receive.receive()

    @asynccontextmanager
    async def __call__(
        self,
        url: str,  # noqa: ARG002  the interface's, as the others: a script needs none of them
        *,
        tls: TlsOptions,  # noqa: ARG002
        options: SessionOptions,  # noqa: ARG002
    ) -> AsyncIterator[FakeSession]:
        await trio.lowlevel.checkpoint()
        self.tries.append(trio.current_time())
        failure = self.failures.popleft() if self.failures else None
        if failure is not None:
            raise failure
        session = FakeSession()
        self._send.send_nowait(session)
        try:
            yield session
        finally:
            session.closed.set()
