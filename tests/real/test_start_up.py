"""A recorder, or a supervisor, that is asked to end before it has begun."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from casfs.manifests.record import StartRecord, StopRecord
from casfs.recorders import lock_supervisor
from ingest import foreground
from ingest.early_stop import EarlyStop, StoppedEarlyError
from ingest.record_options import RecordOptions
from tests.real.programs import eventually
from tools.loopback.relay import running_relay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.real.programs import Installation, Program

TV = "demo/tv"
NOBODY = ("--tls-insecure", "--url")

either_signal = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


def handles(program: Program, number: signal.Signals) -> None:
    """Wait until the program would not be ended by a signal at once."""

    def handled() -> bool:
        with open(f"/proc/{program.process.pid}/status", encoding="utf-8") as file:
            (caught,) = (line.split()[1] for line in file if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (number - 1) & 1)

    eventually(handled, f"handled: {number.name}")


@either_signal
def test_a_recorder_that_waits_for_another_one_ends_in_good_order(
    installation: Installation, number: signal.Signals
) -> None:
    with (
        installation.archive().writer(TV),
        installation.running(
            *("archive", "--name", TV, "--wait-for-lock", "1m", *NOBODY, "https://127.0.0.1:9/")
        ) as recorder,
    ):
        handles(recorder, signal.SIGTERM)
        outcome = recorder.stop(number)
    assert outcome.code == 0, outcome.err
    last = outcome.err.splitlines()[-1]
    assert last == f"casfs: WARNING: ended by {number.name} before it began to record"
    assert len(installation.records(StartRecord, TV)) == 1


@either_signal
def test_a_recorder_that_never_reached_its_relay_ends_in_good_order(
    installation: Installation, number: signal.Signals
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{deaf.getsockname()[1]}/"
        with installation.running("archive", "--name", TV, *NOBODY, url) as recorder:
            recorder.says("connecting")
            outcome = recorder.stop(number)
    assert outcome.code == 0, outcome.err
    (stop,) = installation.records(StopRecord, TV)
    assert stop.reason == number.name


@either_signal
def test_a_supervisor_that_waits_for_another_one_ends_at_once(
    installation: Installation, number: signal.Signals, tmp_path: Path
) -> None:
    roots = installation.archive().roots
    pinned = ("--broadcast", TV, "--relay-url", "https://127.0.0.1:9/")
    with lock_supervisor(roots), installation.running("auto-archive", *pinned) as supervisor:
        handles(supervisor, signal.SIGTERM)
        outcome = supervisor.stop(number)
    assert outcome.code == 0, outcome.err
    assert f"ended by {number.name} before it began" in outcome.err


def test_a_relay_that_is_killed_before_it_has_answered_is_waited_for(
    installation: Installation,
) -> None:
    with running_relay() as relay:
        port = int(relay.url.rstrip("/").rpartition(":")[2])
    with installation.running(
        *("archive", "--name", TV, *NOBODY, f"https://127.0.0.1:{port}/")
    ) as recorder:
        recorder.says("trying again until it works")
        with running_relay(port=port):
            recorder.says("waiting for the broadcast")
            assert recorder.stop().code == 0


def test_a_signal_while_the_loop_begins_is_noted_and_later_ones_cut_nothing_off() -> None:
    early = EarlyStop()
    before = signal.getsignal(signal.SIGTERM)
    with early.heed():
        early.looping = True
        signal.raise_signal(signal.SIGTERM)
        assert early.noted == "SIGTERM"
        early.ending = True
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    with EarlyStop().heed(), pytest.raises(StoppedEarlyError):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_that_comes_the_moment_it_is_heeded_ends_in_good_order(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(EarlyStop):
        @contextlib.contextmanager
        def heed(self) -> Iterator[None]:
            with super().heed():
                signal.raise_signal(signal.SIGTERM)
                yield

    monkeypatch.setattr(foreground, "EarlyStop", Interrupted)
    monkeypatch.setattr(foreground, "spare_the_collector", lambda: None)
    options = RecordOptions(url="https://127.0.0.1:9/", broadcast=TV)
    run = foreground.ForegroundOptions()
    assert not foreground.record_in_foreground(installation.archive(), options, run).groups
