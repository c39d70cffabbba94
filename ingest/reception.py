"""One session with a relay, as a recorder uses it: subscribe, hand over what comes, lose patience.

What outlives a session, the `Recording`, belongs to the recorder. Two sessions may receive at the
same time, while a relay that asked us to leave still delivers: the newer one is the current one.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from casfs.errors import ConnectionLostError, RelayError
from casfs.manifests.record import INIT_TRACKS
from casfs.media.catalog_names import HANG_CATALOG
from casfs.timestamps import NANOSECONDS
from ingest.keeper import Delivery
from ingest.moq.events import (
    AnnouncementsEnded,
    BroadcastAnnounced,
    BroadcastEnded,
    Event,
    FetchFailed,
    GoawayReceived,
    GroupReceived,
    GroupsDropped,
    TrackAccepted,
    TrackEnded,
    TrackRefused,
)
from ingest.refetching import Refetching

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ingest.committing import CommitQueue
    from ingest.gaps import Gaps
    from ingest.keeper import Keeper
    from ingest.record_options import RecordOptions
    from ingest.session import Session
    from ingest.state import RecorderState
    from ingest.track_choice import TrackChoice

_LOG = logging.getLogger(__name__)

MAX_LATENCY = 60_000
"""Milliseconds: how old the groups may be that a relay still delivers when we subscribe. With 0 a
relay gives the newest group alone, with a minute everything that it still holds."""

NOT_RUNNING = "the recorder was not running"
_STOPPED = "the recorder stopped"
_GIVEN_UP = "the recorder gave up waiting for the rest"
_DISCONNECTED = "disconnected"
_SLEPT = "the machine slept"
_ASKED_TO_LEAVE = "the relay asked us to leave"

_INIT_PRIORITY, _AUDIO_PRIORITY, _VIDEO_PRIORITY = 100, 60, 50
_TICK = 1.0
_LINGER = 10.0
_DUPLICATE = 1.0
_ANNOUNCE_AGAIN = 5.0
_HANDED_OVER = 5.0


class Recording:
    """What all sessions of one recording have in common. ``clock`` gives nanoseconds UTC."""

    def __init__(
        self,
        options: RecordOptions,
        state: RecorderState,
        keeper: Keeper,
        queue: CommitQueue,
        gaps: Gaps,
        choice: TrackChoice,
        clock: Callable[[], int],
    ) -> None:
        self.options = options
        self.state = state
        self.keeper = keeper
        self.queue = queue
        self.gaps = gaps
        self.choice = choice
        self.clock = clock
        self.generation = 0
        """How often all tracks were subscribed to: by a new session, or a new announcement."""
        self.last_group = clock()
        self.current: Reception | None = None

    def begin(self, track: str) -> None:
        """Take a track among those that are recorded."""
        self.state.track(track)
        self.gaps.begin(track, NOT_RUNNING, expected=False)


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


class Reception:
    """Receives from ``session``; ``slept`` tells for how long the machine has just slept.

    ``asked_to_leave`` is set when the relay asks us to go elsewhere.
    """

    def __init__(
        self,
        session: Session,
        recording: Recording,
        slept: Callable[[], float],
        asked_to_leave: trio.Event,
    ) -> None:
        self._session = session
        self._recording = recording
        self._options = recording.options
        self._timers = recording.options.timers
        self._state = recording.state
        self._slept = slept
        self._asked_to_leave = asked_to_leave
        self._subscriptions: dict[int, _Subscription] = {}
        self._retries: dict[str, float] = {}
        self._hastened: set[str] = set()
        """Tracks that were asked for again because a catalog had come to name them."""
        self._refetching = Refetching(self._fetch)
        self._pending: deque[Event] = deque()
        """Taken from the session and not handled yet."""
        self._open_catalogs: dict[tuple[int, int], GroupReceived] = {}
        self._on_air = False
        """Whether the relay announces the broadcast, or has sent of it unannounced."""
        self._heard = self._snapshot = self._asked = trio.current_time()
        self._announce_at: float | None = None
        self._leaves_at: float | None = None
        self._handed_over: float | None = None
        self._loss = _DISCONNECTED
        self.delivering = False
        """Whether any group has come."""
        self.leaving: GoawayReceived | None = None
        """The relay has asked us to go elsewhere."""

    @property
    def receives(self) -> bool:
        """Whether anything is subscribed to."""
        return bool(self._subscriptions)

    async def run(self, stopped: Callable[[], bool]) -> None:
        """Receive until the session is over, or the one that replaces it delivers.

        Raises RelayError; ``stopped`` says whether we are to stop. What came is kept in any case.
        """
        recording = self._recording
        before, recording.current = recording.current, self
        recording.generation += 1
        recording.choice.begin()
        if before is not None:
            for track in recording.choice.tracks:
                recording.gaps.begin(track, _ASKED_TO_LEAVE, expected=True)
        self._retries = dict.fromkeys(
            recording.choice.tracks, trio.current_time() + self._timers.no_announcement
        )
        try:
            self._session.announce(self._options.broadcast)
            await self._receive()
        finally:
            await self._take_rest(stopped=stopped())

    async def _receive(self) -> None:
        while not self._may_go():
            with trio.move_on_after(_TICK):
                self._pending.extend(await self._session.next_events())
            while self._pending:
                await self._recording.queue.room()
                self._handle(self._pending.popleft())
            self._tick()

    async def _take_rest(self, *, stopped: bool) -> None:
        """Keep whatever the session still holds, groups that are open included."""
        self._pending.extend(self._session.abandon(_STOPPED if stopped else _GIVEN_UP))
        with trio.CancelScope(shield=True), contextlib.suppress(RelayError):
            # The session is over: this returns what it holds and then raises, without waiting.
            while True:
                self._pending.extend(await self._session.next_events())
        for event in self._pending:
            if isinstance(event, GroupReceived | TrackAccepted | GroupsDropped):
                self._handle(event)
        self._take_groups(self._refetching.give_up())
        recording = self._recording
        if recording.current is self:
            recording.current = None
            coming = {item.track for item in self._subscriptions.values() if not item.over}
            for track in recording.choice.tracks if not stopped else ():
                self._state.track(track).status = "waiting"
                recording.gaps.begin(track, self._loss, expected=track in coming)
        self._subscriptions.clear()

    # Leaving

    @property
    def _is_current(self) -> bool:
        return self._recording.current is self

    def _leave(self, goaway: GoawayReceived) -> None:
        if self.leaving is not None:
            return
        self.leaving = goaway
        patience = self._timers.leave
        if goaway.timeout:
            patience = min(patience, goaway.timeout / 1000)
        self._leaves_at = trio.current_time() + patience
        _LOG.info("%s asks us to connect elsewhere", self._session.origin)
        self._asked_to_leave.set()

    def _may_go(self) -> bool:
        """Say whether this session, which was asked to leave, is needed no more."""
        if self._leaves_at is None:
            return False
        now = trio.current_time()
        successor = self._recording.current
        if self._handed_over is None and successor is not None and successor is not self:
            self._handed_over = now + _HANDED_OVER if successor.delivering else None
        return now >= self._leaves_at or (
            self._handed_over is not None and now >= self._handed_over
        )

    # Events

    def _handle(self, event: Event) -> None:
        broadcast = self._options.broadcast
        match event:
            case GroupReceived():
                self._take_groups(self._refetching.received(event, trio.current_time()))
            case FetchFailed():
                self._take_groups(
                    self._refetching.failed(event.subscription, event.sequence, trio.current_time())
                )
            case BroadcastAnnounced(path=path) if path == broadcast:
                self._announced()
            case BroadcastEnded(path=path) if path == broadcast:
                self._on_air = False
                self._say("waiting for the broadcast")
            case AnnouncementsEnded():
                self._announce_at = trio.current_time() + _ANNOUNCE_AGAIN
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
                recording = self._recording
                note = partial(recording.keeper.dropped, track, event.first, event.last, event.code)
                recording.queue.call(partial(note, recording.clock()))
            case GoawayReceived():
                self._leave(event)
            case _:
                pass

    def _say(self, status: str) -> None:
        if self._is_current:
            self._state.status = status

    def _announced(self) -> None:
        self._on_air = self._state.announced = True
        self._say("recording")
        if self.leaving is None:
            self._recording.gaps.expect_all()
            self._ask_anew()

    def _take_groups(self, groups: Sequence[GroupReceived]) -> None:
        for group in groups:
            self._take_group(group)

    def _take_group(self, group: GroupReceived) -> None:
        subscription = self._subscriptions.get(group.subscription)
        if subscription is None:
            return
        recording = self._recording
        now = trio.current_time()
        if not group.fetched:
            self._heard = now
            recording.gaps.resumed(subscription.track, group.received_start, now)
        recording.last_group = recording.clock()
        self.delivering = True
        self._say("recording")
        if not subscription.over:
            self._on_air = True
            self._state.track(subscription.track).status = "subscribed"
        if recording.choice.reads(subscription.track):
            self._open_catalogs.pop((group.subscription, group.sequence), None)
            self._read_catalog(subscription.track, group)
        recording.queue.put(
            Delivery(
                track=subscription.track,
                group=group,
                timescale=subscription.timescale,
                generation=subscription.generation,
                relay=self._session.origin,
                protocol=self._state.protocol,
            )
        )

    # Tracks

    def _read_catalog(self, catalog: str, group: GroupReceived) -> None:
        new = self._recording.choice.take(catalog, group.sequence, group.frames)
        if new:
            self._add(new)
            self._recording.gaps.expect_all()
        # A publisher that begins makes its tracks one by one: those asked for too early are there.
        for track in list(self._retries):
            if self._state.track(track).status == "refused":
                self._hasten(track)

    def _hasten(self, track: str) -> None:
        """Ask soon, once a generation, for a track that was refused and that a catalog names."""
        if self._recording.choice.is_there(track) and track not in self._hastened:
            self._hastened.add(track)
            self._retries[track] = trio.current_time()

    def _add(self, tracks: Sequence[str]) -> None:
        """Record these tracks as well."""
        for track in tracks:
            self._recording.begin(track)
            if self.leaving is None:
                with contextlib.suppress(RelayError):  # the session is over: the next one asks
                    self._subscribe(track)

    def _ask_anew(self) -> None:
        """Subscribe to every track; older subscriptions of the same tracks end soon."""
        now = trio.current_time()
        self._asked = now
        self._recording.generation += 1
        self._recording.choice.begin()
        self._hastened.clear()
        for subscription in self._subscriptions.values():
            subscription.until = subscription.until or now + self._timers.resubscribe
        for track in self._recording.choice.tracks:
            if self._worth_asking(track):
                self._subscribe(track)

    def _worth_asking(self, track: str) -> bool:
        refused = self._state.track(track).status == "refused"
        return not refused or self._recording.choice.worth_asking_again(track)

    def _subscribe(self, track: str) -> None:
        number = self._session.subscribe(
            self._options.broadcast, track, priority=_priority(track), max_latency=MAX_LATENCY
        )
        self._subscriptions[number] = _Subscription(track, self._recording.generation)
        self._retries.pop(track, None)

    def _end_subscription(self, number: int, status: str) -> None:
        subscription = self._subscriptions.get(number)
        if subscription is None or subscription.over:
            return
        now = trio.current_time()
        subscription.over = True
        subscription.until = now + _LINGER
        track = subscription.track
        others = [
            other
            for other in self._subscriptions.values()
            if other.track == track and not other.over
        ]
        if status == "refused":
            subscription.refused = True
            if others:
                # A session may not have two of one track with some relays: then the older goes.
                for other in others:
                    other.until = now
                self._retries[track] = now + _DUPLICATE
                return
            self._recording.gaps.refused(track)
            if track == HANG_CATALOG:
                self._add(self._recording.choice.other_catalogs())
        if not others:
            self._state.track(track).status = status
            self._retries[track] = now + self._timers.resubscribe
            if status == "refused":
                self._hasten(track)

    def _unsubscribe(self, number: int, subscription: _Subscription) -> None:
        """Give up a subscription; what has come of its open groups is kept."""
        self._take_groups(self._refetching.give_up(number))
        if not subscription.refused:
            for group in self._session.open_groups(self._recording.clock() + 1, number):
                self._take_group(replace(group, reason=_GIVEN_UP))
        self._session.unsubscribe(number)
        del self._subscriptions[number]
        self._open_catalogs = {
            key: group for key, group in self._open_catalogs.items() if key[0] != number
        }

    # Asking once more

    def _fetch(self, subscription: int, sequence: int) -> bool:
        return self.leaving is None and self._session.fetch(subscription, sequence)

    def _fetch_missing(self, track: str, sequence: int) -> bool:
        numbers = [
            number
            for number, item in self._subscriptions.items()
            if item.track == track and not item.refused
        ]
        return bool(numbers) and self._fetch(max(numbers), sequence)

    # Timers

    def _tick(self) -> None:
        now = trio.current_time()
        slept = self._slept()
        if slept:
            self._loss = _SLEPT
            raise ConnectionLostError(f"the machine slept for {slept:.0f} s")
        for number, subscription in list(self._subscriptions.items()):
            if subscription.until is not None and now >= subscription.until:
                self._unsubscribe(number, subscription)
        if self.leaving is None:
            self._ask_again(now)
        self._take_groups(self._refetching.tick(now))
        if self._is_current:
            self._recording.gaps.tick(now, self._fetch_missing)
        self._look_at_open(now)
        if self._on_air and self.leaving is None:
            self._check_silence(now)

    def _ask_again(self, now: float) -> None:
        for track, due in list(self._retries.items()):
            if now >= due:
                if self._worth_asking(track):
                    self._subscribe(track)
                else:
                    del self._retries[track]
        silent = self._subscriptions and now - self._asked > 2 * self._timers.no_announcement
        if silent and not self._recording.choice.has_catalog:
            self._add(self._recording.choice.other_catalogs())
        if self._announce_at is not None and now >= self._announce_at:
            self._announce_at = None
            self._session.announce(self._options.broadcast)

    def _look_at_open(self, now: float) -> None:
        clock = self._recording.clock()
        for number, subscription in list(self._subscriptions.items()):
            if self._recording.choice.reads(subscription.track):
                for group in self._session.open_groups(clock + 1, number):
                    self._open_catalogs[number, group.sequence] = group
                    self._read_catalog(subscription.track, group)
        if now - self._snapshot >= self._timers.still_open:
            self._snapshot = now
            before = clock - int(self._timers.still_open * NANOSECONDS)
            self._take_groups(self._session.open_groups(before))
            self._take_groups(list(self._open_catalogs.values()))

    def _check_silence(self, now: float) -> None:
        silence = now - self._heard
        if silence > self._timers.no_data:
            raise ConnectionLostError(
                f"{self._session.origin} has sent no group of {self._options.broadcast!r} "
                f"for {self._timers.no_data:.0f} s"
            )
        if silence > self._timers.stall and now - self._asked > self._timers.stall:
            # An old announcement may stand before a publisher who is there again.
            self._ask_anew()


def _priority(track: str) -> int:
    if track in INIT_TRACKS:
        return _INIT_PRIORITY
    return _AUDIO_PRIORITY if track.startswith("audio") else _VIDEO_PRIORITY
