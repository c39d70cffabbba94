"""Which recordings begin and end: decided here, carried out by `ingest.supervisor`. Pure.

What directories list and what becomes of workers goes in, with the time in seconds of any steady
clock; `Supervision.decide` says what is to be done. One broadcast, by its name, has at most one
worker, however many directories and relays know it.

- A broadcast that any directory lists is recorded. What a directory listed last holds until it
  answers again: one that fails ends nothing.
- One that is off every list is recorded until nothing has come for the grace period.
- A worker that ends by itself is started again, later each time; one that had worked for a minute
  begins with short delays anew. If it received nothing, the broadcast's next relay is tried.
- One of which nothing comes for the grace period makes way if another waits for a free worker.
- Silence counts while the workers' reports can be read: a disk that hangs ends no recording.
- While room is short nothing is started; where it is very short the newest recording ends, one for
  each look at the disk.
"""

from __future__ import annotations

import enum
import fnmatch
import math
import random
import re
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ingest.backoff import Backoff
from ingest.directory import Listed, relay_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_LONGEST_DELAY = 60.0
_WRONG_SETTINGS_DELAY = 300.0
_HEALTHY = 60.0
_BLIND = 60.0
"""Seconds between two looks at the reports after which silence counts from the beginning."""
_USAGE = 2  # the exit code of wrong usage or settings, which do not mend themselves


class Room(enum.IntEnum):
    """How much space there is on the disks."""

    CRITICAL = 0
    """Recordings must end."""
    LOW = 1
    """None may begin."""
    AMPLE = 2


class Policy(Struct, frozen=True):
    """What is to be recorded."""

    include: tuple[str, ...] = ()
    """Globs; empty: all."""
    exclude: tuple[str, ...] = ()
    relay_hosts: tuple[str, ...] = ()
    """Globs; empty: any."""
    default_relay: str | None = None
    """For broadcasts for which no directory names a relay."""
    tracks: tuple[str, ...] = ()
    listed_tracks: bool = False
    max_workers: int = 100
    grace: float = 600.0


class Start(Struct, frozen=True):
    """Begin to record a broadcast."""

    broadcast: str
    relay: str
    """A URL; may hold a token."""
    tracks: tuple[str, ...]
    """Empty: those that a recorder chooses by itself."""


class Stop(Struct, frozen=True):
    """End a recording in good order."""

    broadcast: str
    reason: str


class Phase(enum.StrEnum):
    """What becomes of a broadcast."""

    WAITING = "waiting"
    RECORDING = "recording"
    STOPPING = "stopping"

    @property
    def is_running(self) -> bool:
        """Whether there is a worker."""
        return self is not Phase.WAITING


class Supervised(Struct):
    """A broadcast that we know."""

    name: str
    first_seen: float
    sources: dict[str, Listed] = field(default_factory=dict)
    """What each directory that lists it says of it."""
    wanted: bool = False
    """Whether it is listed and the policy takes it."""
    absent_since: float = 0.0
    """When it was wanted last; means nothing while it is."""
    phase: Phase = Phase.WAITING
    relay: str = ""
    """Of the worker."""
    tracks: tuple[str, ...] = ()
    """Of the worker."""
    started: float = 0.0
    """When the worker was."""
    last_data: float | None = None
    """When a group came last, to any worker of ours."""
    starts: int = 0
    not_before: float = 0.0
    """When it may be started again."""
    turn: int = 0
    """Which of its relays is next."""
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def restarts(self) -> int:
        """How often a worker was started again."""
        return max(0, self.starts - 1)

    def silent_since(self) -> float:
        """Return when the worker last had anything, or was started."""
        return max(self.started, self.last_data or 0.0)


class Supervision:
    """The broadcasts of all directories and their workers. ``chance``: numbers from 0 to 1."""

    def __init__(self, policy: Policy, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._known: dict[str, Supervised] = {}
        self._listings: dict[str, tuple[Listed, ...]] = {}
        self._room = Room.AMPLE
        self._to_shed = False
        self._crowded = False
        """Whether a broadcast waits because as many are recorded as may be."""
        self._looked: float | None = None
        """When reports were read last; None if none ever was."""
        self._seeing_since = -math.inf
        """Since when they could be read."""
        self._set_policy(policy)

    # What happens

    def configure(self, policy: Policy, now: float) -> None:
        """Take another policy. It ends no recording: what it refuses counts as off every list."""
        self._set_policy(policy)
        for item in self._known.values():
            self._judge(item, now)

    def take_listing(self, source: str, listed: Sequence[Listed], now: float) -> None:
        """Take what a directory lists now."""
        new = tuple(listed)
        old = self._listings.get(source, ())
        if new == old:
            return
        self._listings[source] = new
        before = {entry.broadcast: entry for entry in old}
        for name in before.keys() - {entry.broadcast for entry in new}:
            if name in self._known:
                item = self._known[name]
                item.sources.pop(source, None)
                self._judge(item, now)
        for entry in new:
            known = self._known.get(entry.broadcast)
            if known is None:
                known = Supervised(entry.broadcast, now, absent_since=now)
                known.backoff = Backoff(self._chance, most=_LONGEST_DELAY)
                self._known[entry.broadcast] = known
            elif before.get(entry.broadcast) == entry:
                continue
            known.sources[source] = entry
            self._judge(known, now)

    def drop_source(self, source: str, now: float) -> None:
        """Forget a directory that is not asked any longer."""
        self.take_listing(source, (), now)
        self._listings.pop(source, None)

    def take_room(self, room: Room) -> None:
        """Take how much space there is."""
        self._room = room
        self._to_shed = room is Room.CRITICAL

    def worker_received(self, broadcast: str, when: float) -> None:
        """Take that a worker had data at that time."""
        item = self._known.get(broadcast)
        if item is not None and (item.last_data is None or when > item.last_data):
            item.last_data = when

    def reports_read(self, now: float) -> None:
        """Take that the reports of all workers were read: who had data by now was told."""
        if self._looked is not None and now - self._looked > _BLIND:
            self._seeing_since = now
        self._looked = now

    def worker_ended(self, broadcast: str, code: int, now: float) -> None:
        """Take that a worker has ended, by itself or as it was told."""
        item = self._known[broadcast]
        told = item.phase is Phase.STOPPING
        item.phase = Phase.WAITING
        if told:
            return
        if item.last_data is None or item.last_data < item.started:
            item.turn += 1
        if now - item.started >= _HEALTHY:
            item.backoff.reset()
        delay = item.backoff.delay()
        item.not_before = now + (max(delay, _WRONG_SETTINGS_DELAY) if code == _USAGE else delay)

    # What is to be done

    def decide(self, now: float) -> list[Start | Stop]:
        """Return what is to be done now; it counts as done."""
        actions: list[Start | Stop] = []
        for item in self._known.values():
            if item.phase is Phase.RECORDING:
                reason = self._reason_to_stop(item, now)
                if reason:
                    item.phase = Phase.STOPPING
                    actions.append(Stop(item.name, reason))
        actions += self._shed()
        actions += self._starts(now)
        for name in [item.name for item in self._known.values() if self._is_over(item, now)]:
            del self._known[name]
        return actions

    def supervised(self) -> Iterator[Supervised]:
        """Yield every broadcast that is known."""
        yield from self._known.values()

    @property
    def room(self) -> Room:
        """How much space there was when last we heard."""
        return self._room

    def why_waiting(self, item: Supervised, now: float) -> str:
        """Return why a broadcast has no worker; empty if it has one."""
        if item.phase is not Phase.WAITING:
            return ""
        if not item.wanted and not self._is_kept(item, now):
            return "off the list"
        if self._room is not Room.AMPLE:
            return "disk space is short"
        if not self._relays(item):
            return "no relay is known for it"
        if item.not_before > now:
            return f"starts again in {item.not_before - now:.0f} s"
        return "as many are recorded as may be"

    # Details

    def _set_policy(self, policy: Policy) -> None:
        self._policy = policy
        self._include = _any_of(policy.include)
        self._exclude = _any_of(policy.exclude)
        self._hosts = _any_of(policy.relay_hosts)

    def _judge(self, item: Supervised, now: float) -> None:
        wanted = bool(item.sources) and self._takes(item.name)
        if item.wanted and not wanted:
            item.absent_since = now
        item.wanted = wanted

    def _takes(self, name: str) -> bool:
        included = self._include is None or self._include.match(name) is not None
        return included and (self._exclude is None or self._exclude.match(name) is None)

    def _relays(self, item: Supervised) -> list[str]:
        named = [relay for entry in item.sources.values() for relay in entry.relays]
        if not item.sources and item.relay:
            return [item.relay]
        if not named and self._policy.default_relay is not None:
            return [self._policy.default_relay]
        return [
            relay
            for relay in dict.fromkeys(named)
            if self._hosts is None or self._hosts.match(relay_host(relay))
        ]

    def _tracks(self, item: Supervised) -> tuple[str, ...]:
        if self._policy.listed_tracks:
            named = dict.fromkeys(
                track for entry in item.sources.values() for track in entry.tracks
            )
            if named:
                return tuple(named)
        return self._policy.tracks

    def _reason_to_stop(self, item: Supervised, now: float) -> str:
        grace = self._policy.grace
        silent = self._silence(item, now) >= grace
        if not item.wanted:
            gone = now - item.absent_since >= grace
            return "it is off every list, and nothing comes" if gone and silent else ""
        if silent and len(self._relays(item)) > 1:
            item.turn += 1
            return "nothing comes; another relay is to be tried"
        if silent and self._crowded:
            self._crowded = False
            item.not_before = now + grace
            return "nothing comes, and another broadcast waits"
        return ""

    def _silence(self, item: Supervised, now: float) -> float:
        seen = now if self._looked is None else min(now, self._looked)
        return seen - max(item.silent_since(), self._seeing_since)

    def _shed(self) -> list[Start | Stop]:
        if not self._to_shed:
            return []
        self._to_shed = False
        running = [item for item in self._known.values() if item.phase is Phase.RECORDING]
        if not running:
            return []
        newest = max(running, key=lambda item: item.started)
        newest.phase = Phase.STOPPING
        return [Stop(newest.name, "disk space is very short")]

    def _starts(self, now: float) -> list[Start | Stop]:
        if self._room is not Room.AMPLE:
            return []
        free = self._policy.max_workers - sum(
            item.phase.is_running for item in self._known.values()
        )
        actions: list[Start | Stop] = []
        self._crowded = False
        for item in self._known.values():
            if item.phase is not Phase.WAITING or item.not_before > now:
                continue
            if not item.wanted and not self._is_kept(item, now):
                continue
            relays = self._relays(item)
            if relays and free <= len(actions):
                self._crowded = True
                break
            if relays:
                item.phase = Phase.RECORDING
                item.relay = relays[item.turn % len(relays)]
                item.tracks = self._tracks(item)
                item.started = now
                item.starts += 1
                actions.append(Start(item.name, item.relay, item.tracks))
        return actions

    def _is_kept(self, item: Supervised, now: float) -> bool:
        """Say whether a recording that died is taken up although its broadcast is off the lists."""
        since = max(item.absent_since, item.last_data or 0.0)
        return item.starts > 0 and now - since < self._policy.grace and self._takes(item.name)

    def _is_over(self, item: Supervised, now: float) -> bool:
        since = max(item.absent_since, item.last_data or 0.0)
        return (
            item.phase is Phase.WAITING and not item.sources and now - since >= self._policy.grace
        )


def _any_of(globs: Sequence[str]) -> re.Pattern[str] | None:
    if not globs:
        return None
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs))
