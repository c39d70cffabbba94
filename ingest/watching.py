"""What a supervisor looks at and tells every few seconds: reports, disks, its own state, metrics.

Everything that touches a disk runs in a thread: a disk that hangs stops no decision.
"""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import time
from typing import TYPE_CHECKING

import trio

from casfs.quantities import format_bytes
from casfs.recorders import (
    RecorderReport,
    Remembered,
    SourceReport,
    SupervisedReport,
    SupervisorReport,
    read_report,
    remove_supervisor_report,
    write_remembered,
    write_supervisor_report,
)
from casfs.timestamps import format_time
from ingest.room import Disk, judge, look_at_disks
from ingest.supervision import Phase, Room
from ingest.worker import program, worker_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.metrics import Metrics
    from ingest.supervisor import Supervisor

_LOG = logging.getLogger(__name__)

_EVERY = 5.0
_SUMMARY_EVERY = 60.0
_EXPIRE_EVERY = 600.0
_ROOM_TO_SPARE = 1.2
"""What expiry makes room for, of what is to be free."""
_MOST_TOLD = 1000
"""Broadcasts without a worker in our report."""

_ROOM_SAYS = {
    Room.LOW: "disk space is short: no recording begins until there is room",
    Room.CRITICAL: "disk space is VERY short: recordings end, the newest first, until there is"
    " room",
}


class Watch:
    """Looks after what a supervisor does."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._roots = supervisor.archive.roots
        self._since = time.time_ns()
        self._groups: dict[str, int] = {}
        self._disks: tuple[Disk, ...] = ()
        self._metrics: Metrics | None = None
        self._trouble = ""
        self._recordings: list[Remembered] | None = None
        self._remembered: list[Remembered] | None = None
        """What the file says; None before we know what we record."""

    async def run(self) -> None:
        """Look and tell until cancelled. Raises ConfigError if metrics cannot be served."""
        plan = self._supervisor.plan
        if plan.metrics is not None or plan.metrics_file is not None:
            from ingest.metrics import Metrics

            self._metrics = Metrics(plan.metrics, plan.metrics_file)
        next_summary = next_expiry = 0.0
        try:
            while True:
                await self._look()
                now = trio.current_time()
                if now >= next_summary:
                    _LOG.info("%s", self._supervisor.summary())
                    next_summary = now + _SUMMARY_EVERY
                if self._wants_expiry() and now >= next_expiry:
                    await self._expire()
                    next_expiry = trio.current_time() + _EXPIRE_EVERY
                await trio.sleep(_EVERY)
        finally:
            remove_supervisor_report(self._roots)
            if self._metrics is not None:
                self._metrics.close()

    async def _look(self) -> None:
        supervisor = self._supervisor
        names = list(supervisor.workers)
        reports, disks = await trio.to_thread.run_sync(self._read, names)
        now = trio.current_time()
        for name, report in reports.items():
            if report.groups != self._groups.get(name, 0):
                supervisor.supervision.worker_received(name, now)
            self._groups[name] = report.groups
        supervisor.supervision.reports_read(now)
        for name in self._groups.keys() - supervisor.workers.keys():
            del self._groups[name]
        if disks:
            self._judge(disks)
        own = self._report(now)
        self._remember()
        await trio.to_thread.run_sync(self._tell, own, list(reports.values()))

    def _read(self, names: Sequence[str]) -> tuple[dict[str, RecorderReport], tuple[Disk, ...]]:
        archive = self._supervisor.archive
        found: dict[str, RecorderReport] = {}
        for name in names:
            report = read_report(self._roots, archive.directory_of(name))
            worker = self._supervisor.workers.get(name)
            if report is not None and worker is not None and report.pid == worker.pid:
                found[name] = report
        try:
            return found, look_at_disks(self._roots)
        except OSError as error:
            _LOG.error("the disks cannot be looked at: %s", error)
            return found, ()

    def _judge(self, disks: tuple[Disk, ...]) -> None:
        supervision = self._supervisor.supervision
        before = supervision.room
        room = judge(disks, self._supervisor.plan.min_free, before)
        self._disks = disks
        supervision.take_room(room)
        if room is not before:
            free = min(disk.free for disk in disks)
            if room is Room.AMPLE:
                _LOG.warning("there is room on the disks again: %s", format_bytes(free))
            else:
                _LOG.error("%s; %s are free", _ROOM_SAYS[room], format_bytes(free))
        if room is not before or room is Room.CRITICAL:
            self._supervisor.wake()

    def _remember(self) -> None:
        """Note what is recorded, and what is to be again. A URL with a query may hold a token."""
        supervisor = self._supervisor
        if supervisor.status != "running":
            return
        self._recordings = [
            Remembered(item.name, item.relay, item.tracks)
            for item in supervisor.supervision.supervised()
            if item.relay and "?" not in item.relay and (item.wanted or item.phase.is_running)
        ]

    # Telling

    def _report(self, now: float) -> SupervisorReport:
        supervisor = self._supervisor
        supervision = supervisor.supervision
        known = sorted(
            supervision.supervised(), key=lambda item: (item.phase is Phase.WAITING, item.name)
        )
        running = sum(item.phase is not Phase.WAITING for item in known)
        return SupervisorReport(
            pid=os.getpid(),
            host=platform.node(),
            since=format_time(self._since),
            updated=format_time(time.time_ns()),
            status=supervisor.summary(),
            room=supervision.room.name.lower(),
            min_free=max(
                (supervisor.plan.min_free.of(disk.total) for disk in self._disks), default=0
            ),
            sources=[
                SourceReport(
                    source=state.shown,
                    listed=state.listed,
                    refused=state.refused,
                    asked=format_time(state.asked) if state.asked else None,
                    trouble=state.trouble,
                )
                for state in supervisor.sources.values()
            ],
            broadcasts=[
                SupervisedReport(
                    broadcast=item.name,
                    phase=item.phase.value,
                    listed=item.wanted,
                    pid=None if worker is None else worker.pid,
                    restarts=item.restarts,
                    waiting_for=supervision.why_waiting(item, now),
                )
                for item in known[: running + _MOST_TOLD]
                for worker in [supervisor.workers.get(item.name)]
            ],
        )

    def _tell(self, own: SupervisorReport, reports: Sequence[RecorderReport]) -> None:
        try:
            write_supervisor_report(self._roots, own)
            if self._recordings != self._remembered:
                write_remembered(self._roots, self._recordings or [])
                self._remembered = self._recordings
            if self._metrics is not None:
                self._metrics.update(own, reports, self._disks)
            self._trouble = ""
        except OSError as error:
            if str(error) != self._trouble:
                _LOG.warning("the state cannot be written: %s", error)
            self._trouble = str(error)

    # Expiry

    def _wants_expiry(self) -> bool:
        supervisor = self._supervisor
        return supervisor.plan.expiry.enable and supervisor.supervision.room is not Room.AMPLE

    async def _expire(self) -> None:
        """Run casfs expire and casfs collect, which say on stderr what they refuse."""
        plan = self._supervisor.plan
        expiry = plan.expiry
        wanted = int(plan.min_free.of(self._disks[0].total) * _ROOM_TO_SPARE)
        _LOG.warning("the oldest hours expire until %s are free", format_bytes(wanted))
        expire = ["expire", f"--min-free={wanted}", f"--keep-last={expiry.keep_last}", "--yes"]
        expire += [f"--keep-daily={hours}" for hours in expiry.keep_daily]
        expire += [f"--broadcast={glob}" for glob in expiry.broadcast]
        collect = ["collect", f"--min-free={wanted}", f"--grace={expiry.grace:g}s", "--yes"]
        environment = worker_environment(os.environ, plan.workers, "")
        for command in (expire, collect):
            process = await trio.run_process(
                [*program(), *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=False,
            )
            if process.returncode:
                _LOG.error("casfs %s ended with exit code %d", command[0], process.returncode)
