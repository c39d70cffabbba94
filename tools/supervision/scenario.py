"""What happens to the supervisor, and what must be true afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct, field

from casfs.manifests.record import GapRecord, LostSessionRecord, StartRecord, StopRecord
from tools.loopback.directory import Behaviour, StreamDirectory, running_directory
from tools.loopback.publisher import running_publisher
from tools.loopback.relay import Relay, running_relay
from tools.supervision.installed import Installed
from tools.supervision.missing import Missing, judge_missing, sessions_of
from tools.supervision.player import TRACK, Player
from tools.supervision.processes import children, cpu_seconds, runs
from tools.supervision.soaking import Flatness, Soak, judge, look

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

_PATIENCE = 180.0
_FIRST_LIFE = 100.0
"""Seconds after which the supervisor is killed, if half of the time is not over before."""
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
    pace: float = 1.0
    """Seconds between two things that go wrong, on average."""


class Outcome(Struct):
    """What came of it."""

    broadcasts: int = 0
    groups: int = 0
    excused: int = 0
    """Groups that are missing, on record as gaps, of times in which no recorder could run."""
    bytes: int = 0
    workers_killed: int = 0
    supervisors_killed: int = 0
    behaviours: list[str] = field(default_factory=list)
    slowest_first_group: float = 0.0
    """Seconds from a broadcast's listing to its first acknowledged group."""
    slowest_return: float = 0.0
    """Seconds from a worker's death to its successor's report."""
    guests: int = 0
    """Broadcasts that came, were archived, and went."""
    cores: float = 0.0
    """Processor time of those that ran from the first look to the end, over that time."""
    held: dict[str, float] = field(default_factory=dict)
    """What the processes held in the end."""
    soak_seconds: float = 0.0
    """How long they were watched."""
    soak: dict[str, Flatness] = field(default_factory=dict)
    amiss: list[str] = field(default_factory=list)


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
        self.kills: dict[str, list[float]] = {}
        """When the recorder of each broadcast was killed, seconds UTC."""
        self._names = [f"demo/tv-{number:02}" for number in range(options.broadcasts)]
        # Some are spared, or no recorder would live long enough to show that it leaks.
        self._targets = self._names[len(self._names) // 4 :]
        self._guest: str | None = None
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
            if self.options.calm:
                self._watch(supervisor.pid, began + self.options.seconds)
                self._end(supervisor.pid)
                return
            while time.monotonic() - began < min(self.options.seconds / 2, _FIRST_LIFE):
                self._something()
            self._take_leave()
            self._kill_supervisor(supervisor.pid)
        with self.installed.supervisor(self.directory.url, self.relay) as supervisor:
            self._until(self._all_recorded, "recorded again after the supervisor's death")
            self._watch(supervisor.pid, began + self.options.seconds)
            self.directory.behaviour = Behaviour.ANSWERS
            self._until(self._all_recorded, "recorded in the end")
            self._end(supervisor.pid)

    def _watch(self, supervisor: int, until: float) -> None:
        """Let things go on until then, and see what the processes hold meanwhile."""
        began, before = time.monotonic(), self._cpu(supervisor)
        soak = Soak(supervisor, min(10.0, max(0.5, (until - began) / 100)))
        soak.start()
        try:
            while time.monotonic() < until:
                self._something()
        finally:
            soak.finish()
            self.outcome.soak = judge(soak.samples)
        seconds, after = time.monotonic() - began, self._cpu(supervisor)
        self.outcome.cores = sum(after[pid] - before[pid] for pid in after if pid in before)
        self.outcome.cores /= seconds
        self.outcome.held = look(supervisor).figures
        self.outcome.soak_seconds = seconds

    def _cpu(self, supervisor: int) -> dict[int, float]:
        workers = children(supervisor)
        pids = [supervisor, *workers, *(child for one in workers for child in children(one))]
        return {pid: cpu_seconds(pid) for pid in pids}

    # What happens

    def _add(self, names: list[str]) -> None:
        for name in names:
            self.player.add(name)
            self.kills[name] = []
        self._list()
        began = time.monotonic()
        for name in names:
            self._until(partial(self.installed.sequences, name, TRACK), f"begun: {name}")
        self.outcome.slowest_first_group = max(
            self.outcome.slowest_first_group, time.monotonic() - began
        )
        self._until(self._all_recorded, "recorded")

    def _list(self) -> None:
        """Have the directory list what is on air."""
        listed = [
            {"relay_url": self.relay.url, "broadcast_name": name, "track_name": TRACK}
            for name in sorted(self.player.on_air)
        ]
        self.directory.entries = [*_HOSTILE, *listed]

    def _welcome(self) -> None:
        """Let a guest come, who is archived like any other."""
        self._guest = name = f"demo/guest-{self.outcome.guests}"
        self.outcome.guests += 1
        self.player.add(name)
        self.kills[name] = []
        self._list()
        # Relays remember a minute for those who come late: a directory may be away for longer.
        self.directory.behaviour = Behaviour.ANSWERS
        self._until(partial(self.installed.sequences, name, TRACK), f"begun: {name}")

    def _take_leave(self) -> None:
        """Let the guest go, and its recorder after it."""
        name, self._guest = self._guest, None
        if name is not None:
            self.player.rest(name)
            self._until(partial(self._holds, name), f"archived: all of {name}")
            self._list()
            self.player.remove(name)

    def _something(self) -> None:
        if self.options.calm:
            time.sleep(1)
            return
        if not self._deck:
            self._deck = self._dice.sample(list(Behaviour), len(Behaviour))
        behaviour = self._deck.pop()
        self.directory.behaviour = behaviour
        self.outcome.behaviours.append(behaviour.value)
        if self._dice.random() < 0.3:
            if self._guest is None:
                self._welcome()
            else:
                self._take_leave()
        name = self._dice.choice(self._targets)
        before = self.installed.worker(name)
        if before is not None and self._dice.random() < 0.7:
            os.kill(before, signal.SIGKILL)
            self.kills[name].append(time.time())
            self.outcome.workers_killed += 1
            began = time.monotonic()
            self._until(lambda: self.installed.worker(name) not in (None, before), f"back: {name}")
            self.outcome.slowest_return = max(self.outcome.slowest_return, time.monotonic() - began)
        time.sleep(2 * self._dice.random() * self.options.pace)

    def _kill_supervisor(self, pid: int) -> None:
        workers = self.installed.workers()
        os.kill(pid, signal.SIGKILL)
        self.outcome.supervisors_killed += 1
        self._until(
            lambda: not any(runs(worker) for worker in workers.values()),
            "ended: the workers of a dead supervisor",
        )

    def _end(self, pid: int) -> None:
        """Stop publishing, wait for what is on its way, and end it in good order."""
        self.player.finish()
        for name in self.player.sent:
            self._until(partial(self._holds, name), f"archived: all of {name}")
        workers = self.installed.workers()
        os.kill(pid, signal.SIGTERM)
        self._until(
            lambda: not any(runs(worker) for worker in workers.values()), "ended: the workers"
        )

    # What must be true

    def check(self) -> None:
        """Compare the archive with what was published."""
        for name, sent in self.player.sent.items():
            kept = self.installed.digests(name, TRACK)
            wrong = [
                number for number, digest in sent.items() if kept.get(number, digest) != digest
            ]
            missing = self._missing(name, kept)
            self.outcome.excused += len(missing.excused)
            for what, numbers in (
                ("wrong", wrong),
                ("missing without a word", missing.unrecorded),
                ("missed by a recorder that ran, and on record as a gap", missing.missed),
            ):
                if numbers:
                    self._amiss(f"{name}: {len(numbers)} groups are {what}: {_ranges(numbers)}")
            records = self.installed.kept(name, TRACK)
            complete = [record.sequence for record in records if record.complete]
            if len(set(complete)) != len(complete):
                self._amiss(f"{name}: a group was recorded twice")
            self.outcome.groups += len(sent)
            lost = len(self.installed.records(LostSessionRecord, name))
            if lost != len(self.kills[name]):
                self._amiss(
                    f"{name}: {len(self.kills[name])} kills, {lost} lost sessions on record"
                )
            if not self.installed.records(StartRecord, name):
                self._amiss(f"{name}: no start is on record")
        self.outcome.bytes = self.player.bytes
        for what, figure in self.outcome.soak.items():
            if not figure.flat:
                self._amiss(f"{what}: {figure.early:g} early, {figure.late:g} late")

    def _missing(self, name: str, kept: Collection[int]) -> Missing:
        """Judge what a broadcast lacks."""
        times = self.player.sent_at[name]
        lacking = {number: times[number] for number in self.player.sent[name] if number not in kept}
        if not lacking:
            return Missing([], [], [])
        records = self.installed.records
        sessions = sessions_of(
            [
                *records(StartRecord, name),
                *records(StopRecord, name),
                *records(LostSessionRecord, name),
            ],
            self.kills[name],
        )
        gaps = records(GapRecord, name, TRACK)
        return judge_missing(lacking, gaps, sessions, lowest=min(kept, default=0))

    def _holds(self, name: str) -> bool:
        """Say whether nothing of a broadcast is still to come."""
        return not self._missing(name, self.installed.sequences(name, TRACK)).amiss

    def _all_recorded(self) -> bool:
        return set(self.installed.workers()) >= self.player.on_air

    def _until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {_PATIENCE:g} s: not {what}\n{self.installed.log()}")
            time.sleep(0.05)

    def _amiss(self, what: str) -> None:
        self.outcome.amiss.append(what)


def _ranges(numbers: Sequence[int]) -> str:
    """Return ``3-7, 9`` for rising numbers."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return ", ".join([*shown[:5], "..."] if len(shown) > 5 else shown)


def live_through(path: Path, options: Options) -> Outcome:
    """Do all of it below ``path``; what never happens is amiss, too."""
    installed = Installed(path)
    with contextlib.ExitStack() as held:
        relay = held.enter_context(running_relay())
        publisher = held.enter_context(running_publisher(relay.url, relay.fingerprint))
        directory = held.enter_context(running_directory())
        player = Player(publisher, options.bitrate)
        scenario = Scenario(installed, options, relay, directory, player)
        player.start()
        try:
            scenario.live()
        except TimeoutError as error:
            scenario.outcome.amiss.append(str(error))
        finally:
            player.finish()
        scenario.check()
    return scenario.outcome
