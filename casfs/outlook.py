"""How an archive's recorders and disks stand now: reports, locks and free space put together."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.recorders import (
    RecorderReport,
    SupervisedReport,
    SupervisorReport,
    is_recorded,
    is_supervised,
    read_reports,
    read_supervisor_report,
)
from casfs.timestamps import NANOSECONDS, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.roots import Roots

_DAY = 86400
_LATE = 30.0


class DiskOutlook(Struct, frozen=True):
    """The filesystem of one root, bytes."""

    root: str
    """``cas`` or ``manifests``."""
    path: str
    total: int
    free: int
    days_left: float | None
    """At the rate of the last minute; None where nothing new comes, or for the manifests."""


class RecorderOutlook(Struct, frozen=True):
    """A recorder that runs, or one that left its report behind."""

    report: RecorderReport
    running: bool
    """Whether it holds the broadcast's lock. Without, its report tells of the past."""
    late: float
    """Seconds beyond what is usual since it reported; a process that hangs."""
    restarts: int | None
    """How often a supervisor started it again; None without a supervisor."""


class Outlook(Struct, frozen=True):
    """All of it."""

    recorders: list[RecorderOutlook]
    supervisor: SupervisorReport | None
    supervised: bool
    """Whether the supervisor runs that wrote the report."""
    waiting: list[SupervisedReport]
    """Broadcasts that the supervisor knows and nobody records."""
    disks: list[DiskOutlook]

    @property
    def bitrate(self) -> float:
        """Payload that all recorders take, bits a second."""
        return sum(item.report.bitrate for item in self.recorders if item.running)


def look(roots: Roots, *, clock: Callable[[], int] = time.time_ns) -> Outlook:
    """Return how things stand; takes no lock for longer than a look, and writes nothing."""
    supervisor = read_supervisor_report(roots)
    supervised = supervisor is not None and is_supervised(roots)
    known = {item.broadcast: item for item in supervisor.broadcasts} if supervisor else {}
    recorders = [
        RecorderOutlook(
            report,
            running=is_recorded(roots, directory),
            late=max(0.0, (clock() - parse_time(report.updated)) / NANOSECONDS - _LATE),
            restarts=known[report.broadcast].restarts if report.broadcast in known else None,
        )
        for directory, report in read_reports(roots).items()
    ]
    recorders.sort(key=lambda item: item.report.broadcast)
    recorded = {item.report.broadcast for item in recorders if item.running}
    rate = sum(item.report.new_bitrate for item in recorders if item.running) / 8
    return Outlook(
        recorders=recorders,
        supervisor=supervisor,
        supervised=supervised,
        waiting=[item for name, item in known.items() if supervised and name not in recorded],
        disks=[_disk("cas", roots.cas, rate), _disk("manifests", roots.manifests, 0.0)],
    )


def _disk(root: str, path: str, rate: float) -> DiskOutlook:
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    days = free / rate / _DAY if rate > 0 else None
    return DiskOutlook(root, path, status.f_blocks * status.f_frsize, free, days)
