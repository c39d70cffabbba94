"""What happens to the supervisor, and what must be true afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct, field

from casfs.manifests.record import LostSessionRecord, StartRecord
from tools.loopback.directory import Behaviour, StreamDirectory, running_directory
from tools.loopback.publisher import Publisher, running_publisher
from tools.loopback.relay import Relay, running_relay
from tools.supervision.installed import Installed, cpu_seconds, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRACK = "video0.m4s"
Sample = dict[int, tuple[int, float]]
"""Memory (bytes) and processor time (seconds) by process."""

_PATIENCE = 90.0
_GROUP_SECONDS = 0.5
_HOSTILE: list[object] = [
    {"broadcast_name": "\0", "relay_url": "https://localhost/"},
    {"broadcast_name": "x" * 5000},
    {"broadcast_name": "ftp", "relay_url": "ftp://localhost/"},
    {"broadcast_name": 5},
    "",
    None,
    [[[]]],
]


class Options(Struct, frozen=True):
    """How much of it."""

    broadcasts: int
    seconds: float
    bitrate: int
    calm: bool = False
    """Nothing goes wrong."""


class Outcome(Struct):
    """What came of it."""

    broadcasts: int = 0
    groups: int = 0
    bytes: int = 0
    workers_killed: int = 0
    supervisors_killed: int = 0
    behaviours: list[str] = field(default_factory=list)
    slowest_first_group: float = 0.0
    """Seconds from a broadcast's listing to its first acknowledged group."""
    slowest_return: float = 0.0
    """Seconds from a worker's death to its successor's report."""
    worker_megabytes: float = 0.0
    """Resident, the largest of all at the end."""
    worker_growth: float = 0.0
    """Of the worker that ran longest: resident at the end over that at its first look."""
    supervisor_megabytes: float = 0.0
    cores: float = 0.0
    """Processor time of those that ran from the first look to the end, over that time."""
    amiss: list[str] = field(default_factory=list)


class Player(threading.Thread):
    """Publishes groups of random bytes on every broadcast, and remembers them."""

    def __init__(self, publisher: Publisher, options: Options) -> None:
        super().__init__(daemon=True)
        self.sent: dict[str, dict[int, bytes]] = {}
        self._publisher = publisher
        self._size = int(options.bitrate * _GROUP_SECONDS / 8)
        self._done = threading.Event()
        self._lock = threading.Lock()

    def add(self, name: str) -> None:
        """Put a broadcast on air."""
        with self._lock:
            self._publisher.create_broadcast(name)
            self._publisher.create_track(name, TRACK)
            self._publisher.announce(name)
            self.sent[name] = {}

    def run(self) -> None:
        """Publish until `finish`."""
        due = time.monotonic()
        while not self._done.is_set():
            for name in list(self.sent):
                payload = os.urandom(self._size)
                with self._lock:
                    number = self._publisher.append_group(name, TRACK, [payload])
                self.sent[name][number] = payload
            due = max(due + _GROUP_SECONDS, time.monotonic())
            self._done.wait(due - time.monotonic())

    def finish(self) -> None:
        """End it."""
        self._done.set()
        self.join()


class Scenario:
    """One run."""

    def __init__(
        self,
        installed: Installed,
        options: Options,
        relay: Relay,
        directory: StreamDirectory,
        player: Player,
    ) -> None:
        self.installed = installed
        self.options = options
        self.relay = relay
        self.directory = directory
        self.player = player
        self.outcome = Outcome(broadcasts=options.broadcasts)
        self.kills: dict[str, int] = {}
        self._names = [f"demo/tv-{number:02}" for number in range(options.broadcasts)]
        self._dice = random.Random(7)
        self._deck: list[Behaviour] = []
        """What the directory will do next: each misbehaviour once, then all of them again."""

    def live(self) -> None:
        """Go through all of it."""
        began = time.monotonic()
        half = max(1, len(self._names) // 2)
        with self.installed.supervisor(self.directory.url, self.relay) as supervisor:
            self._add(self._names[:half])
            self._add(self._names[half:])
            first = self._sample(supervisor.pid)
            supervised = time.monotonic()
            while time.monotonic() - began < self.options.seconds / 2:
                self._something()
            if self.options.calm:
                self._measure(supervisor.pid, time.monotonic() - supervised, first)
                self._end(supervisor.pid)
                return
            self._kill_supervisor(supervisor.pid)
        with self.installed.supervisor(self.directory.url, self.relay) as supervisor:
            self._until(self._all_recorded, "recorded again after the supervisor's death")
            first, supervised = self._sample(supervisor.pid), time.monotonic()
            while time.monotonic() - began < self.options.seconds:
                self._something()
            self.directory.behaviour = Behaviour.ANSWERS
            self._until(self._all_recorded, "recorded in the end")
            self._measure(supervisor.pid, time.monotonic() - supervised, first)
            self._end(supervisor.pid)

    # What happens

    def _add(self, names: list[str]) -> None:
        for name in names:
            self.player.add(name)
            self.kills[name] = 0
        listed = [
            {"relay_url": self.relay.url, "broadcast_name": name, "track_name": TRACK}
            for name in self.player.sent
        ]
        self.directory.entries = [*_HOSTILE, *listed]
        began = time.monotonic()
        for name in names:
            self._until(partial(self.installed.groups, name, TRACK), f"begun: {name}")
        self.outcome.slowest_first_group = max(
            self.outcome.slowest_first_group, time.monotonic() - began
        )
        self._until(self._all_recorded, "recorded")

    def _something(self) -> None:
        if self.options.calm:
            time.sleep(1)
            return
        if not self._deck:
            self._deck = self._dice.sample(list(Behaviour), len(Behaviour))
        behaviour = self._deck.pop()
        self.directory.behaviour = behaviour
        self.outcome.behaviours.append(behaviour.value)
        name = self._dice.choice(self._names)
        before = self.installed.worker(name)
        if before is not None and self._dice.random() < 0.7:
            os.kill(before, signal.SIGKILL)
            self.kills[name] += 1
            self.outcome.workers_killed += 1
            began = time.monotonic()
            self._until(lambda: self.installed.worker(name) not in (None, before), f"back: {name}")
            self.outcome.slowest_return = max(self.outcome.slowest_return, time.monotonic() - began)
        time.sleep(self._dice.random() * 2)

    def _kill_supervisor(self, pid: int) -> None:
        workers = self.installed.workers()
        os.kill(pid, signal.SIGKILL)
        self.outcome.supervisors_killed += 1
        self._until(
            lambda: not any(_runs(worker) for worker in workers.values()),
            "ended: the workers of a dead supervisor",
        )

    def _end(self, pid: int) -> None:
        """Stop publishing, wait for what is on its way, and end it in good order."""
        self.player.finish()
        for name, sent in self.player.sent.items():
            self._until(partial(self._holds, name, sent), f"archived: all of {name}")
        workers = self.installed.workers()
        os.kill(pid, signal.SIGTERM)
        self._until(
            lambda: not any(_runs(worker) for worker in workers.values()), "ended: the workers"
        )

    # What must be true

    def check(self) -> None:
        """Compare the archive with what was published."""
        for name, sent in self.player.sent.items():
            kept = self.installed.groups(name, TRACK)
            wrong = [number for number, payload in sent.items() if kept.get(number) != payload]
            if wrong:
                self._amiss(f"{name}: {len(wrong)} groups are missing or wrong: {wrong[:5]}")
            records = self.installed.kept(name, TRACK)
            complete = [record.sequence for record in records if record.complete]
            if len(set(complete)) != len(complete):
                self._amiss(f"{name}: a group was recorded twice")
            self.outcome.groups += len(sent)
            self.outcome.bytes += sum(map(len, sent.values()))
            lost = len(self.installed.records(LostSessionRecord, name))
            if lost != self.kills[name]:
                self._amiss(f"{name}: {self.kills[name]} kills, {lost} lost sessions on record")
            if not self.installed.records(StartRecord, name):
                self._amiss(f"{name}: no start is on record")
        if self.outcome.worker_megabytes > 150 or self.outcome.worker_growth > 1.5:
            self._amiss("memory grows")

    def _holds(self, name: str, sent: dict[int, bytes]) -> bool:
        return set(self.installed.groups(name, TRACK)) >= set(sent)

    def _all_recorded(self) -> bool:
        return set(self.installed.workers()) == set(self.player.sent)

    def _sample(self, supervisor: int) -> Sample:
        """Return memory and processor time of each process."""
        pids = [supervisor, *self.installed.workers().values()]
        return {pid: (resident_bytes(pid), cpu_seconds(pid)) for pid in pids}

    def _measure(self, supervisor: int, seconds: float, before: Sample) -> None:
        now = self._sample(supervisor)
        self.outcome.supervisor_megabytes = now[supervisor][0] / 1e6
        used = [now[pid][1] - before[pid][1] for pid in now if pid in before]
        self.outcome.cores = sum(used) / seconds
        workers = {pid: memory for pid, (memory, _) in now.items() if pid != supervisor}
        self.outcome.worker_megabytes = max(workers.values(), default=0) / 1e6
        self.outcome.worker_growth = max(
            (memory / before[pid][0] for pid, memory in workers.items() if pid in before),
            default=0.0,
        )

    def _until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {_PATIENCE:g} s: not {what}\n{self.installed.log()}")
            time.sleep(0.05)

    def _amiss(self, what: str) -> None:
        self.outcome.amiss.append(what)


def live_through(path: Path, options: Options) -> Outcome:
    """Do all of it below ``path``; raises TimeoutError if something never happens."""
    installed = Installed(path)
    with contextlib.ExitStack() as held:
        relay = held.enter_context(running_relay())
        publisher = held.enter_context(running_publisher(relay.url, relay.fingerprint))
        directory = held.enter_context(running_directory())
        player = Player(publisher, options)
        scenario = Scenario(installed, options, relay, directory, player)
        player.start()
        scenario.live()
        scenario.check()
    return scenario.outcome


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
