"""Metrics for Prometheus: served on a loopback address, written to a file, or both."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from casfs.errors import ConfigError
from casfs.timestamps import NANOSECONDS, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from casfs.recorders import RecorderReport, SupervisorReport
    from ingest.room import Disk

_COUNTERS: tuple[tuple[str, str, Callable[[RecorderReport], float]], ...] = (
    ("groups", "Groups recorded.", lambda report: report.groups),
    ("bytes", "Their payload.", lambda report: report.bytes),
    ("new_bytes", "Of that, not in the store before.", lambda report: report.new_bytes),
    ("gaps", "Stretches that were missed.", lambda report: report.gaps),
    ("incomplete", "Groups that were cut short.", lambda report: report.incomplete),
    ("redelivered", "Groups that came again.", lambda report: report.redelivered),
    ("connections", "Sessions with the relay.", lambda report: report.connections),
)
_GAUGES: tuple[tuple[str, str, Callable[[RecorderReport], float]], ...] = (
    ("start_time_seconds", "When the recorder was started.", lambda it: _seconds(it.since)),
    ("last_group_time_seconds", "When the newest group came.", lambda it: _seconds(it.last_group)),
    ("bits_per_second", "Payload, over the last minute.", lambda report: report.bitrate),
    ("pending_groups", "Received and not on disk yet.", lambda report: report.pending_groups),
    ("relay_trouble", "1 without a session.", lambda report: bool(report.relay_trouble)),
    ("disk_trouble", "1 if the disk takes nothing.", lambda report: bool(report.disk_trouble)),
    ("index_trouble", "1 if the index lags.", lambda report: bool(report.index_trouble)),
)


class Metrics(Collector):
    """The newest state, as Prometheus wants it. Raises ConfigError if it cannot be served."""

    def __init__(self, address: tuple[str, int] | None, file: str | None) -> None:
        self._file = file
        self._own: SupervisorReport | None = None
        self._reports: Sequence[RecorderReport] = ()
        self._disks: Sequence[Disk] = ()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._end = contextlib.ExitStack()
        if address is not None:
            try:
                server, thread = start_http_server(address[1], address[0], self._registry)
            except OSError as error:
                raise ConfigError(
                    f"metrics cannot be served at {address[0]}:{address[1]}: {error.strerror}",
                    advice="choose another port",
                ) from None
            self._end.callback(thread.join)
            self._end.callback(server.server_close)
            self._end.callback(server.shutdown)

    def update(
        self, own: SupervisorReport, reports: Sequence[RecorderReport], disks: Sequence[Disk]
    ) -> None:
        """Take a new state, and write the file; raises OSError."""
        self._own, self._reports, self._disks = own, reports, disks
        if self._file is not None:
            write_to_textfile(self._file, self._registry)

    def close(self) -> None:
        """Serve no longer."""
        self._end.close()

    def collect(self) -> Iterable[Metric]:
        """Yield what is known now."""
        own, reports = self._own, self._reports
        for name, text, value in _COUNTERS:
            counter = CounterMetricFamily(f"casfs_recorder_{name}", text, labels=["broadcast"])
            for report in reports:
                counter.add_metric([report.broadcast], value(report))
            yield counter
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(f"casfs_recorder_{name}", text, labels=["broadcast"])
            for report in reports:
                gauge.add_metric([report.broadcast], value(report))
            yield gauge
        yield from self._disk_metrics()
        if own is not None:
            yield from _supervisor_metrics(own)

    def _disk_metrics(self) -> Iterable[Metric]:
        free = GaugeMetricFamily("casfs_disk_free_bytes", "Free for us.", labels=["root"])
        total = GaugeMetricFamily("casfs_disk_size_bytes", "The whole disk.", labels=["root"])
        for root, disk in zip(("cas", "manifests"), self._disks, strict=False):
            free.add_metric([root], disk.free)
            total.add_metric([root], disk.total)
        yield from (free, total)


def _supervisor_metrics(own: SupervisorReport) -> Iterable[Metric]:
    phases = GaugeMetricFamily("casfs_broadcasts", "Broadcasts that are known.", labels=["phase"])
    for phase in ("recording", "stopping", "waiting"):
        phases.add_metric([phase], sum(item.phase == phase for item in own.broadcasts))
    restarts = CounterMetricFamily(
        "casfs_recorder_restarts", "Recorders that were started again.", labels=["broadcast"]
    )
    for item in own.broadcasts:
        if item.phase != "waiting" or item.restarts:
            restarts.add_metric([item.broadcast], item.restarts)
    up = GaugeMetricFamily("casfs_source_up", "1 if it last answered.", labels=["source"])
    listed = GaugeMetricFamily("casfs_source_broadcasts", "What it lists.", labels=["source"])
    for source in own.sources:
        up.add_metric([source.source], not source.trouble)
        listed.add_metric([source.source], source.listed)
    room = GaugeMetricFamily(
        "casfs_room", "2: there is room. 1: nothing new is recorded. 0: recordings end."
    )
    room.add_metric([], ("critical", "low", "ample").index(own.room))
    minimum = GaugeMetricFamily("casfs_min_free_bytes", "What is to be free.")
    minimum.add_metric([], own.min_free)
    yield from (phases, restarts, up, listed, room, minimum)


def _seconds(time: str | None) -> float:
    return 0.0 if time is None else parse_time(time) / NANOSECONDS
