"""Reports what a recorder does: to a file every few seconds, to the log once a minute."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
from typing import TYPE_CHECKING

import trio

from casfs.recorders import RecorderReport, TrackReport, remove_report, write_report
from casfs.timestamps import format_time
from ingest.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.roots import Roots
    from ingest.state import RecorderState, TrackState

_LOG = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between reports; a change of status is reported within one."""

_LOG_EVERY = 60.0
_TICK = 1.0
_WINDOW = 60.0


class Reporter:
    """Makes the reports of one recorder. ``clock``: nanoseconds UTC; ``steady``: seconds."""

    def __init__(
        self,
        state: RecorderState,
        recorder: str,
        *,
        clock: Callable[[], int] = time.time_ns,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._recorder = recorder
        self._clock = clock
        self._since = clock()
        self._rates = Rates(steady, window=_WINDOW)

    def report(self) -> RecorderReport:
        """Return what the recorder does now."""
        state = self._state
        tracks = {name: self._track(name, track) for name, track in state.tracks.items()}
        last = max((track.last_received for track in state.tracks.values()), default=0)
        return RecorderReport(
            broadcast=state.broadcast,
            relay=state.relay,
            protocol=state.protocol,
            status=state.status,
            pid=os.getpid(),
            host=platform.node(),
            recorder=self._recorder,
            since=format_time(self._since),
            updated=format_time(self._clock()),
            last_group=format_time(last) if last else None,
            connections=state.connections,
            epoch=state.epoch,
            groups=state.groups,
            bytes=state.bytes,
            new_bytes=state.new_bytes,
            incomplete=sum(track.incomplete for track in state.tracks.values()),
            redelivered=sum(track.redelivered for track in state.tracks.values()),
            gaps=state.gaps,
            pending_groups=state.pending_groups,
            bitrate=self._rate(("all",), state.bytes),
            new_bitrate=self._rate(("new",), state.new_bytes),
            relay_trouble=state.relay_trouble,
            disk_trouble=state.trouble,
            index_trouble=state.index_trouble,
            tracks=tracks,
        )

    def _track(self, name: str, track: TrackState) -> TrackReport:
        return TrackReport(
            status=track.status,
            groups=track.groups,
            bytes=track.bytes,
            incomplete=track.incomplete,
            redelivered=track.redelivered,
            gaps=track.gaps,
            bitrate=self._rate(("track", name), track.bytes),
            last_sequence=None if track.last_sequence < 0 else track.last_sequence,
            last_group=format_time(track.last_received) if track.last_received else None,
        )

    def _rate(self, key: tuple[str, ...], count: int) -> float:
        return round(8 * self._rates.of("\0".join(key), count), 1)


async def keep_reporting(reporter: Reporter, roots: Roots, directory: str) -> None:
    """Write reports until cancelled, and take the last one away. Trouble with them ends nothing."""
    said = ""
    shown = ""
    due = 0.0
    try:
        while True:
            report = reporter.report()
            if report.status != shown or trio.current_time() >= due:
                shown = report.status
                due = trio.current_time() + EVERY
                try:
                    await trio.to_thread.run_sync(write_report, roots, directory, report)
                    said = ""
                except OSError as error:
                    if str(error) != said:
                        _LOG.warning("no report can be written: %s", error)
                    said = str(error)
            await trio.sleep(_TICK)
    finally:
        remove_report(roots, directory)


async def log_reports(reporter: Reporter) -> None:
    """Log the recorder's state at each change of its status, and once a minute, until cancelled.

    The whole report goes along as the record's ``report``, for a format that can show it.
    """
    shown = ""
    due = 0.0
    with contextlib.suppress(OSError):
        while True:
            report = reporter.report()
            if report.status != shown or trio.current_time() >= due:
                shown = report.status
                due = trio.current_time() + _LOG_EVERY
                _LOG.info("%s", report.status, extra={"report": report})
            await trio.sleep(_TICK)
