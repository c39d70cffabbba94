"""Runs each measured thing in a process of its own and says how long it took and what it needed.

A contender is run several times, in turns with what it is compared with, so that whatever else the
machine does meets both alike. Times are comparable within one run alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_SAMPLING_SECONDS = 0.01


class BenchError(Exception):
    """A measured program failed; the message is for the user."""


class Measurement(Struct, frozen=True):
    """One run of one contender."""

    seconds: float
    """Of what counts; for a command from its start to its end."""
    peak_bytes: int
    """The most memory that the process held at any time (resident, file pages included)."""
    files: int = 0
    """How many it left, directories included, where that was counted."""
    disk_bytes: int = 0
    """The disk that they take, likewise."""


class Contender(Struct, frozen=True):
    """Something to be measured."""

    name: str
    run: Callable[[], Measurement]
    """Prepares, runs in a process of its own, cleans up; what counts is up to it."""


def take_turns(contenders: Sequence[Contender], rounds: int) -> dict[str, tuple[Measurement, ...]]:
    """Run each contender once a round, every other round in reverse, and return runs by name."""
    runs: dict[str, list[Measurement]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            os.sync()  # what others left to be written is not ours to wait for
            measured = contender.run()
            runs[contender.name].append(measured)
            _say(f"  {contender.name}: {measured.seconds:.3f} s")
    return {name: tuple(measured) for name, measured in runs.items()}


def run_command(
    command: Sequence[str],
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Measurement:
    """Run a program to its end and measure all of it; its output is dropped.

    Raises:
        BenchError: it failed; the message carries the end of what it said.
    """
    measured, _ = _run(command, directory, environment)
    return measured


def run_task(task: Callable[..., float], *arguments: str | float) -> Measurement:
    """Call ``task`` in a Python process of its own; it returns the seconds that count.

    Raises:
        BenchError: it failed.
    """
    _, output = _run(_task_command(task, arguments), None, None)
    return msgspec.json.decode(output, type=Measurement)


def run_whole_task(task: Callable[..., float], *arguments: str | float) -> Measurement:
    """Do the same, but measure the process from its start to its end, as `run_command` does."""
    measured, _ = _run(_task_command(task, arguments), None, None)
    return measured


def own_peak_bytes() -> int:
    """Return the most memory that this process has held since its program began."""
    return peak_bytes("self")


@contextlib.contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Measure the block: afterwards the value can be called for its seconds."""
    begun = time.perf_counter()
    ended: list[float] = []
    yield lambda: ended[0] - begun
    ended.append(time.perf_counter())


def _task_command(task: Callable[..., float], arguments: Sequence[str | float]) -> list[str]:
    return [
        *(sys.executable, "-m", "tools.benchmarks.child"),
        *(task.__module__, task.__qualname__, json.dumps(arguments)),
    ]


def _run(
    command: Sequence[str], directory: Path | None, environment: Mapping[str, str] | None
) -> tuple[Measurement, bytes]:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begun = time.perf_counter()
        with subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        ) as process:
            try:
                with _sampled_peak(process.pid) as peak:
                    code = process.wait()
                    seconds = time.perf_counter() - begun
            finally:
                if process.poll() is None:
                    process.kill()
        if code != 0:
            errors.seek(0)
            said = errors.read()[-2000:].decode(errors="replace").strip()
            raise BenchError(f"{command[0]} ended with code {code}: {said}")
        output.seek(0)
        return Measurement(seconds, peak()), output.read()


@contextlib.contextmanager
def _sampled_peak(pid: int) -> Iterator[Callable[[], int]]:
    """Watch a process; the value can be called for its peak.

    The kernel keeps the peak itself, so that only the last hundredth of a second can be missed.
    (The peak that wait4(2) tells includes the process that started it: useless for small ones.)
    """
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while True:
            with contextlib.suppress(OSError):
                peak = max(peak, peak_bytes(str(pid)))
            if done.wait(_SAMPLING_SECONDS):
                return

    watcher = threading.Thread(target=watch, name="bench-peak")
    watcher.start()
    try:
        yield lambda: peak
    finally:
        done.set()
        watcher.join()


def peak_bytes(pid: str) -> int:
    """Return the most memory that this process has held since its program began."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
