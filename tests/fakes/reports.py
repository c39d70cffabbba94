"""A recorder's report, as one would be made after ten seconds of work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingest.reporting import Reporter
from ingest.state import RecorderState
from tests.fakes.store import NOON

if TYPE_CHECKING:
    from casfs.recorders import RecorderReport


def report(name: str = "demo/tv", groups: int = 0) -> RecorderReport:
    state = RecorderState(broadcast=name, status="recording", relay="https://r.example:443")
    steady = [0.0]
    reporter = Reporter(state, "id", clock=lambda: NOON, steady=lambda: steady[0])
    reporter.report()
    steady[0] = 10.0
    track = state.track("video0.m4s")
    track.groups, track.bytes, track.last_sequence, track.last_received = groups, 1000, 6, NOON
    state.new_bytes = 500
    return reporter.report()
