"""One broadcast, recorded: connect, subscribe, hand over what comes, survive, connect again.

Every failure outside ourselves ends in a visible state and another try, with backoff. What the
relay sends goes to a `CommitQueue`; the relay waits when the disk does.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio
from msgspec import Struct, field
from msgspec.structs import replace

from casfs.errors import CertificateError, ConnectionLostError, NegotiationError, RelayError
from casfs.manifests.record import INIT_TRACKS
from casfs.timestamps import NANOSECONDS
from ingest.backoff import Backoff
from ingest.committing import CommitQueue
from ingest.keeper import Delivery, Interruption, Keeper
from ingest.moq.events import (
    BroadcastAnnounced,
    BroadcastEnded,
    Event,
    GroupReceived,
    GroupsDropped,
    TrackAccepted,
    TrackEnded,
    TrackRefused,
)
from ingest.session import Session, SessionOptions, open_session
from ingest.tls import TlsOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.archive import BroadcastWriter
    from casfs.index.mirror import Mirror
    from ingest.state import RecorderState

_LOG = logging.getLogger(__name__)

DEFAULT_TRACKS = ("catalog.json", "init.mp4", "video0.m4s", "audio0.m4s")
"""What is recorded when nothing else is asked for."""

MAX_LATENCY = 60_000
"""Milliseconds: how old the groups may be that a relay still delivers when we subscribe. With 0 a
relay gives the newest group alone, with a minute everything that it still holds."""

_INIT_PRIORITY, _AUDIO_PRIORITY, _VIDEO_PRIORITY = 100, 60, 50
_TICK = 1.0
_STOPPED = "the recorder stopped"
_GIVEN_UP = "the recorder gave up waiting for the rest"
_LINGER = 10.0


class Connect(Protocol):
    """How to open a session: `ingest.session.open_session`, or one that injects faults."""

    def __call__(
        self, url: str, *, tls: TlsOptions, options: SessionOptions
    ) -> AbstractAsyncContextManager[Session]:
        """Return the session's context."""


class Timers(Struct, frozen=True):
    """When a recorder loses patience, seconds."""

    no_announcement: float = 5.0
    """Then tracks are asked for anyway: not every relay announces."""
    resubscribe: float = 15.0
    """Between tries for a track that was refused or has ended."""
    no_data: float = 60.0
    """Without any group for this long the session is given up."""
    alive: float = 60.0
    """Without any group for this long a record says that we were there."""
    settle: float = 5.0
    """After a reconnect: for redelivery, before what is missing counts as a gap."""
    still_open: float = 30.0
    """A group open for this long is recorded as far as it has come."""
    seal: float = 300.0
    """After its end an hour stays open for so long, for redelivery."""


class RecordOptions(Struct, frozen=True):
    """What to record, from where."""

    url: str
    """May hold a token; never logged."""
    broadcast: str
    tracks: tuple[str, ...] = DEFAULT_TRACKS
    tls: TlsOptions = field(default_factory=TlsOptions)
    session: SessionOptions = field(default_factory=SessionOptions)
    timers: Timers = field(default_factory=Timers)
    coalesce: bool = True
    """Whether small groups of fast tracks are committed together."""


class _Subscription:
    """A subscription of the present session."""

    def __init__(self, track: str, generation: int) -> None:
        self.track = track
        self.generation = generation
        self.timescale: int | None = None
        self.refused = False
        self.over = False
        """Refused or ended. Groups may still come: some were on their way."""
        self.until: float | None = None
        """When to give it up: it is over, or a newer one of the same track stands."""


class _Gap:
    """A track that is not being received, or has only just come back."""

    def __init__(self, reason: str, *, expected: bool) -> None:
        self.reason = reason
        self.expected = expected
        """Whether there is something to miss: the track was coming, or the broadcast is there."""
        self.resumed: int | None = None
        """When the first group after it began to come, nanoseconds UTC."""
        self.settles: float | None = None
        """When redelivery counts as over; None while nothing comes."""


class Recorder:
    """Records one broadcast through ``writer`` until it is told to `stop`.

    ``clock`` gives nanoseconds UTC; ``connect`` opens a session.
    """

    def __init__(
        self,
        options: RecordOptions,
        writer: BroadcastWriter,
        mirror: Mirror,
        state: RecorderState,
        *,
        clock: Callable[[], int] = time.time_ns,
        connect: Connect = open_session,
    ) -> None:
        self._options = options
        self._timers = options.timers
        self._state = state
        self._clock = clock
        self._connect = connect
        self._writer = writer
        self._keeper = Keeper(writer, state)
        self._queue = CommitQueue(self._keeper, writer, mirror, state, coalesce=options.coalesce)
        self._network = trio.CancelScope()
        self._generation = 0
        """How often all tracks were subscribed to: by a new session, or a new announcement."""
        self._subscriptions: dict[int, _Subscription] = {}
        self._retries: dict[str, float] = {}
        self._gaps: dict[str, _Gap] = {}
        self._captured: dict[str, Interruption] = {}
        self._on_air = False
        """Whether the relay announces the broadcast, or has sent of it unannounced."""
        self._delivering = False
        """Whether the present session has brought any group."""
        self._last_group = clock()
        self._heard = 0.0
        self._snapshot = 0.0
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

        Raises StorageError if the disk will not take what is left at the end, CertificateError or
        NegotiationError if the very first try shows that the settings cannot work.
        """
        for track in self._options.tracks:
            self._state.track(track)
            self._begin_gap(track, "the recorder was not running", expected=False)
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._queue.run)
                try:
                    with self._network:
                        async with trio.open_nursery() as network:
                            network.start_soon(self._say_alive)
                            network.start_soon(self._seal_hours)
                            await self._connect_for_ever()
                except Exception as error:  # noqa: BLE001  raised below, once all is kept
                    failure = error
                self._state.status = "stopping"
                self._settle_all()
                self._queue.close()
            if failure is not None:
                raise failure
        except BaseExceptionGroup as group:
            raise _innermost(group) from None

    # Sessions

    async def _connect_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            self._state.status = "connecting"
            self._on_air = self._delivering = False
            try:
                await self._one_session()
            except RelayError as error:
                self._note_failure(error)
            if self._delivering:
                backoff.reset()
            self._state.status = "waiting to reconnect"
            await trio.sleep(backoff.delay())

    def _note_failure(self, error: RelayError) -> None:
        if isinstance(error, CertificateError | NegotiationError) and not self._state.connections:
            raise error
        if str(error) != str(self._last_error):
            _LOG.warning("%s; trying again until it works", error.message)
        self._last_error = error
        self._state.relay_trouble = error.message

    async def _one_session(self) -> None:
        options = self._options
        async with self._connect(options.url, tls=options.tls, options=options.session) as session:
            self._state.connections += 1
            self._state.relay = session.origin
            self._state.protocol = session.protocol
            self._state.status = "waiting for the broadcast"
            self._last_error = None
            self._state.relay_trouble = ""
            _LOG.info("connected to %s, %s", session.origin, session.protocol)
            self._generation += 1
            self._heard = self._snapshot = trio.current_time()
            self._retries = dict.fromkeys(
                options.tracks, trio.current_time() + self._timers.no_announcement
            )
            pending: deque[Event] = deque()
            try:
                session.announce(options.broadcast)
                await self._receive(session, pending)
            finally:
                await self._take_rest(session, pending)

    async def _receive(self, session: Session, pending: deque[Event]) -> None:
        """Handle what comes; what is taken from the session and not handled yet is ``pending``."""
        while True:
            with trio.move_on_after(_TICK):
                pending.extend(await session.next_events())
            while pending:
                await self._queue.room()
                self._handle(session, pending.popleft())
            self._tick(session)

    async def _take_rest(self, session: Session, pending: deque[Event]) -> None:
        """Keep whatever the session still holds, groups that are open included."""
        stopped = self._network.cancel_called
        pending.extend(session.abandon(_STOPPED if stopped else _GIVEN_UP))
        with trio.CancelScope(shield=True), contextlib.suppress(RelayError):
            # The session is over: this returns what it holds and then raises, without waiting.
            while True:
                pending.extend(await session.next_events())
        for event in pending:
            if isinstance(event, GroupReceived | TrackAccepted | GroupsDropped):
                self._handle(session, event)
        if not stopped:
            coming = {item.track for item in self._subscriptions.values() if not item.over}
            for track in self._options.tracks:
                self._state.track(track).status = "waiting"
                self._begin_gap(track, "disconnected", expected=track in coming)
        self._subscriptions.clear()

    # Events

    def _handle(self, session: Session, event: Event) -> None:
        match event:
            case GroupReceived():
                self._take_group(session, event)
            case BroadcastAnnounced(path=path) if path == self._options.broadcast:
                self._on_air = self._state.announced = True
                self._state.status = "recording"
                self._generation += 1
                for gap in self._gaps.values():
                    gap.expected = True
                self._subscribe_all(session)
            case BroadcastEnded(path=path) if path == self._options.broadcast:
                self._on_air = False
                self._state.status = "waiting for the broadcast"
            case TrackAccepted() if event.subscription in self._subscriptions:
                subscription = self._subscriptions[event.subscription]
                subscription.timescale = event.timescale
                self._state.track(subscription.track).status = "subscribed"
            case TrackRefused():
                self._end_subscription(event.subscription, "refused")
            case TrackEnded():
                self._end_subscription(event.subscription, "ended")
            case GroupsDropped() if event.subscription in self._subscriptions:
                track = self._subscriptions[event.subscription].track
                self._queue.call(
                    partial(
                        self._keeper.dropped,
                        track,
                        event.first,
                        event.last,
                        event.code,
                        self._clock(),
                    )
                )
            case _:
                pass

    def _take_group(self, session: Session, group: GroupReceived) -> None:
        subscription = self._subscriptions.get(group.subscription)
        if subscription is None:
            return
        self._heard = trio.current_time()
        self._last_group = self._clock()
        self._delivering = True
        self._state.status = "recording"
        if not subscription.over:
            self._on_air = True
            self._state.track(subscription.track).status = "subscribed"
        gap = self._gaps.get(subscription.track)
        if gap is not None and gap.settles is None:
            gap.resumed = group.received_start
            gap.settles = self._heard + self._timers.settle
        self._queue.put(
            Delivery(
                track=subscription.track,
                group=group,
                timescale=subscription.timescale,
                generation=subscription.generation,
                relay=session.origin,
                protocol=self._state.protocol,
            )
        )

    def _subscribe_all(self, session: Session) -> None:
        """Subscribe to every track; older subscriptions of the same tracks end soon."""
        until = trio.current_time() + self._timers.resubscribe
        for subscription in self._subscriptions.values():
            subscription.until = subscription.until or until
        for track in self._options.tracks:
            self._subscribe(session, track)

    def _subscribe(self, session: Session, track: str) -> None:
        number = session.subscribe(
            self._options.broadcast,
            track,
            priority=_priority(track),
            max_latency=MAX_LATENCY,
        )
        self._subscriptions[number] = _Subscription(track, self._generation)
        self._retries.pop(track, None)

    def _end_subscription(self, number: int, status: str) -> None:
        subscription = self._subscriptions.get(number)
        if subscription is None or subscription.over:
            return
        subscription.over = True
        if status == "refused":
            subscription.refused = True
            if subscription.track in self._gaps:
                self._gaps[subscription.track].expected = False
        subscription.until = trio.current_time() + _LINGER
        track = subscription.track
        if all(other.over for other in self._subscriptions.values() if other.track == track):
            self._state.track(track).status = status
            self._retries[track] = trio.current_time() + self._timers.resubscribe

    # Timers

    def _tick(self, session: Session) -> None:
        now = trio.current_time()
        for track, due in list(self._retries.items()):
            if now >= due:
                self._subscribe(session, track)
        for number, subscription in list(self._subscriptions.items()):
            if subscription.until is not None and now >= subscription.until:
                self._unsubscribe(session, number, subscription)
        for track, gap in list(self._gaps.items()):
            if gap.settles is not None and now >= gap.settles:
                self._settle(track, gap)
        if now - self._snapshot >= self._timers.still_open:
            self._snapshot = now
            before = self._clock() - int(self._timers.still_open * NANOSECONDS)
            for group in session.open_groups(before):
                self._take_group(session, group)
        if self._on_air and now - self._heard > self._timers.no_data:
            raise ConnectionLostError(
                f"{session.origin} has sent no group of {self._options.broadcast!r} "
                f"for {self._timers.no_data:.0f} s"
            )

    def _unsubscribe(self, session: Session, number: int, subscription: _Subscription) -> None:
        """Give up a subscription; what has come of its open groups is kept."""
        if not subscription.refused:
            for group in session.open_groups(self._clock() + 1):
                if group.subscription == number:
                    self._take_group(session, replace(group, reason=_GIVEN_UP))
                else:
                    self._take_group(session, group)
        session.unsubscribe(number)
        del self._subscriptions[number]

    async def _say_alive(self) -> None:
        while True:
            await trio.sleep(self._timers.alive)
            since = self._last_group
            if self._clock() - since >= self._timers.alive * NANOSECONDS:
                note = partial(
                    self._writer.note_alive, connected=bool(self._subscriptions), since=since
                )
                self._queue.call(note)

    async def _seal_hours(self) -> None:
        # The first look also seals what an earlier recorder left open.
        while True:
            settled = int(self._timers.seal * NANOSECONDS)
            self._queue.call(partial(self._writer.seal_hours, settled))
            await trio.sleep(60)

    # Gaps. They begin and settle in the worker thread, in order with the groups around them.

    def _begin_gap(self, track: str, reason: str, *, expected: bool) -> None:
        gap = self._gaps.get(track)
        if gap is None:
            self._gaps[track] = _Gap(reason, expected=expected)
        else:
            # It had only just come back: what it missed is settled once it comes back for good.
            gap.resumed = gap.settles = None
            gap.expected |= expected
        self._queue.call(partial(self._capture, track, reason))

    def _capture(self, track: str, reason: str) -> None:
        if track not in self._captured:
            interruption = self._keeper.interruption(track, reason)
            if interruption is not None:
                self._captured[track] = interruption

    def _settle(self, track: str, gap: _Gap) -> None:
        del self._gaps[track]
        self._queue.call(partial(self._settle_captured, track, gap.resumed, self._clock()))

    def _settle_captured(self, track: str, resumed: int | None, now: int) -> None:
        interruption = self._captured.get(track)
        if interruption is not None:
            self._keeper.settle(interruption, resumed, now)
            del self._captured[track]

    def _settle_all(self) -> None:
        """Record the gaps that are open at the end.

        A track that never came back counts as missed only if there was something to miss.
        """
        for track, gap in list(self._gaps.items()):
            if gap.resumed is not None or (gap.expected and track not in INIT_TRACKS):
                self._settle(track, gap)


def _priority(track: str) -> int:
    if track in INIT_TRACKS:
        return _INIT_PRIORITY
    return _AUDIO_PRIORITY if track.startswith("audio") else _VIDEO_PRIORITY


def _innermost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one failure that matters: a stop is only its consequence."""
    _, failures = group.split(trio.Cancelled)
    inner: BaseException = failures if failures is not None else group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner
