"""One broadcast, recorded: connect, receive, survive, connect again.

Every failure outside ourselves ends in a visible state and another try, with backoff. What the
relay sends goes to a `CommitQueue`; the relay waits when the disk does.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from casfs.errors import (
    CertificateError,
    ConfigError,
    NegotiationError,
    RefusedError,
    RelayError,
)
from casfs.timestamps import NANOSECONDS
from ingest.backoff import Backoff
from ingest.committing import CommitQueue
from ingest.gaps import Gaps
from ingest.keeper import Keeper
from ingest.moving import MAX_MOVES, next_url
from ingest.reception import MAX_LATENCY, Reception, Recording
from ingest.record_options import Connect, RecordOptions, Timers
from ingest.session import open_session
from ingest.sleeping import SleepWatch
from ingest.track_choice import DEFAULT_TRACKS, TrackChoice

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.archive import BroadcastWriter
    from casfs.follower import Follower
    from casfs.index.mirror import Mirror
    from ingest.state import RecorderState

__all__ = ["DEFAULT_TRACKS", "MAX_LATENCY", "Connect", "RecordOptions", "Recorder", "Timers"]

_LOG = logging.getLogger(__name__)

_REFUSED_FIRST, _REFUSED_MOST = 10.0, 300.0
"""Seconds between tries with a relay that does not let us in."""


class _Visit:
    """A try with a relay, and the session if one comes about."""

    def __init__(self) -> None:
        self.reception: Reception | None = None
        self.over = False
        self.refused = False
        self.left = trio.Event()
        """It is over, or the relay has asked us to leave."""


class Recorder:
    """Records one broadcast through ``writer`` until it is told to `stop`.

    ``clock`` gives nanoseconds UTC; ``connect`` opens a session; ``slept`` tells for how many
    seconds the machine slept since it was last asked.
    """

    def __init__(
        self,
        options: RecordOptions,
        writer: BroadcastWriter,
        mirror: Mirror | Follower,
        state: RecorderState,
        *,
        clock: Callable[[], int] = time.time_ns,
        connect: Connect = open_session,
        slept: Callable[[], float] | None = None,
    ) -> None:
        self._options = options
        self._state = state
        self._clock = clock
        self._connect = connect
        self._slept = SleepWatch().slept if slept is None else slept
        self._writer = writer
        keeper = Keeper(writer, state)
        self._queue = CommitQueue(keeper, writer, mirror, state, coalesce=options.coalesce)
        self._gaps = Gaps(keeper, self._queue, clock, options.timers.settle)
        self._recording = Recording(
            options,
            state,
            keeper,
            self._queue,
            self._gaps,
            TrackChoice(options.tracks, include=options.include, exclude=options.exclude),
            clock,
        )
        self._network = trio.CancelScope()
        self._moved_to: str | None = None
        """Where a relay has sent us; None: to the URL of the options. Secret."""
        self._moves = 0
        self._last_error: RelayError | None = None

    @property
    def last_error(self) -> RelayError | None:
        """Why the newest try to reach the relay failed; None if a session came about since."""
        return self._last_error

    def stop(self) -> None:
        """End in good order: everything that was received will be durable when `run` returns."""
        self._network.cancel()

    async def run(self) -> None:
        """Record until `stop`.

        Raises StorageError if the disk will not take what is left at the end, CertificateError,
        NegotiationError or ConfigError if the very first try shows that the settings cannot work.
        """
        for track in self._recording.choice.tracks:
            self._recording.begin(track)
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._queue.run)
                try:
                    with self._network:
                        async with trio.open_nursery() as network:
                            network.start_soon(self._say_alive)
                            network.start_soon(self._seal_hours)
                            await self._connect_for_ever(network)
                except Exception as error:  # noqa: BLE001  raised below, once all is kept
                    failure = error
                self._state.status = "stopping"
                self._gaps.settle_all()
                self._queue.close()
            if failure is not None:
                raise failure
        except BaseExceptionGroup as group:
            raise _innermost(group) from None

    # Sessions

    async def _connect_for_ever(self, nursery: trio.Nursery) -> None:
        usual, slow = Backoff(), Backoff(first=_REFUSED_FIRST, most=_REFUSED_MOST)
        while True:
            if self._recording.current is None:
                self._state.status = "connecting"
            visit = _Visit()
            nursery.start_soon(self._visit, visit)
            await visit.left.wait()
            reception = visit.reception
            if reception is not None and reception.delivering:
                usual.reset()
                slow.reset()
                self._moves = 0
            if not visit.over and reception is not None and self._move(reception):
                continue
            self._moved_to = None
            if self._recording.current is None:
                self._state.status = "waiting to reconnect"
            await trio.sleep((slow if visit.refused else usual).delay())

    def _move(self, reception: Reception) -> bool:
        """Note where the relay sends us; whether we go there at once."""
        assert reception.leaving is not None
        self._moves += 1
        here = self._moved_to or self._options.url
        target = next_url(here, reception.leaving.uri, checked=not self._options.tls.insecure)
        if target is None or self._moves > MAX_MOVES:
            _LOG.warning("where the relay sends us cannot be gone to; going back to the first one")
            return False
        self._moved_to = None if target == self._options.url else target
        return True

    async def _visit(self, visit: _Visit) -> None:
        try:
            await self._one_session(visit)
        except RelayError as error:
            visit.refused = isinstance(error, RefusedError)
            self._note_failure(error)
        finally:
            visit.over = True
            visit.left.set()

    def _note_failure(self, error: RelayError) -> None:
        if isinstance(error, CertificateError | NegotiationError) and not self._state.connections:
            raise error
        if self._recording.current is not None:
            return  # of a session that was left: another one has taken over
        if str(error) != str(self._last_error):
            _LOG.warning("%s; trying again until it works", error.message)
        self._last_error = error
        self._state.relay_trouble = error.message

    async def _one_session(self, visit: _Visit) -> None:
        options = self._options
        url = self._url()
        async with self._connect(url, tls=options.tls, options=options.session) as session:
            self._state.connections += 1
            self._state.relay = session.origin
            self._state.protocol = session.protocol
            self._state.status = "waiting for the broadcast"
            self._last_error = None
            self._state.relay_trouble = ""
            _LOG.info("connected to %s, %s", session.origin, session.protocol)
            self._slept()
            visit.reception = Reception(session, self._recording, self._slept, visit.left)
            await visit.reception.run(lambda: self._network.cancel_called)

    def _url(self) -> str:
        """Return where to connect, with the token as it is now; the result is secret."""
        credentials, options = self._options.credentials, self._options
        try:
            if self._moved_to is not None:
                return credentials.moved(options.url, self._moved_to)
            return credentials.url(options.url)
        except ConfigError as error:
            if not self._state.connections:
                raise
            raise RefusedError(error.message) from None

    async def _say_alive(self) -> None:
        seconds = self._options.timers.alive
        while True:
            await trio.sleep(seconds)
            since = self._recording.last_group
            if self._clock() - since >= seconds * NANOSECONDS:
                current = self._recording.current
                connected = current is not None and current.receives
                note = partial(self._writer.note_alive, connected=connected, since=since)
                self._queue.call(note)

    async def _seal_hours(self) -> None:
        # The first look also seals what an earlier recorder left open.
        while True:
            settled = int(self._options.timers.seal * NANOSECONDS)
            self._queue.call(partial(self._writer.seal_hours, settled))
            await trio.sleep(60)


def _innermost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one failure that matters: a stop is only its consequence."""
    _, failures = group.split(trio.Cancelled)
    inner: BaseException = failures if failures is not None else group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner
