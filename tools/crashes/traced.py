"""A commit that is killed, or meets a disk error, at each of its system calls (by strace).

strace takes hold of the writer just before the commit, so its nth call of a kind is counted from
there; the writer does everything in one thread, so that it is the same call each time. Every run
commits to two tracks that are new, with a duplicate among the objects; in every second pass it is
not the first commit of its process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from casfs.archive import Archive
from casfs.roots import Roots, create
from tools.crashes.disk import UnavailableError
from tools.crashes.evidence import Evidence
from tools.crashes.promises import FAILS_CLEANLY, GOES_ON, UNFINISHED, Violation, violations
from tools.crashes.recording import MOST_SECONDS, Recording
from tools.crashes.results import Found, Row, found_in, judged, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from casfs.objects.syncing import StrategyName


class DiskError(Struct, frozen=True):
    """A way in which a disk fails."""

    says: str
    """What the writer's message must say."""
    calls: tuple[str, ...]
    """The calls that can fail so; those that a commit does not make count zero."""


ERRORS = {
    "EIO": DiskError(
        "Input/output error",
        (
            *("writev", "fsync", "fdatasync", "rename", "mkdir", "openat", "flock", "pread64"),
            *("link", "linkat", "renameat2", "fallocate", "ftruncate"),
            "syncfs",
        ),
    ),
    "ENOSPC": DiskError(
        "disk full",
        (
            *("writev", "rename", "mkdir", "openat", "link", "linkat", "renameat2", "fallocate"),
            "syncfs",
        ),
    ),
}
"""By the error's name."""

_NOT_TO_BE_IGNORED = frozenset({"writev", "fsync", "fdatasync", "rename", "mkdir", "syncfs"})
"""Where these fail the batch must; another call may have another way out."""
_BATCH = 3
_MOST_CALLS = 150
_RUNS_EACH = 30
"""Runs on one archive."""
_IO_ERROR = 7  # the exit code of StorageError


class Strace:
    """strace on a process that runs; a context manager, in which it has hold of it."""

    def __init__(self, process: int, log: str, *options: str) -> None:
        self._log = log
        self._process = subprocess.Popen(
            ["strace", "-f", "-p", str(process), "-o", log, *options],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def __enter__(self) -> Self:
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if "attached" not in line:
            self.__exit__()
            raise UnavailableError(f"strace cannot take hold of a process: {line.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        # It lets go of the process when it is asked to end.
        self._process.terminate()
        assert self._process.stderr is not None
        with self._process.stderr:
            self._process.stderr.read()
        self._process.wait()

    def log(self) -> str:
        """Return what it saw; whole only after the context."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()


class Bench:
    """An archive whose writer meets one fault after the other; a context manager."""

    def __init__(self, strategy: StrategyName = "auto") -> None:
        self._strategy = strategy
        if shutil.which("strace") is None:
            raise UnavailableError("strace is not installed")
        self.kept: dict[str, set[int]] = {"news": set()}
        self.total = 0
        """Groups that were kept, on all archives so far."""
        self.account = ""
        """What the last writer said, and how it ended."""
        self._resources = contextlib.ExitStack()
        self._first = 0
        self._runs = 0

    def __enter__(self) -> Self:
        directory = tempfile.TemporaryDirectory(prefix="casfs-crash-")
        self._directory = Path(self._resources.enter_context(directory))
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.total += len(self.kept["news"])
        self._resources.close()

    def _begin(self) -> None:
        self.total += len(self.kept["news"])
        self.kept = {"news": set()}
        own = self._directory / str(self._runs)
        own.mkdir()
        roots = Roots.of(str(own / "cas"), str(own / "manifests"))
        create(roots)
        self.archive = Archive(roots)

    @contextlib.contextmanager
    def writer(self, *, warm: bool) -> Iterator[Recording]:
        """Run a writer up to its commit; with ``warm`` it has made one before."""
        if self._runs % _RUNS_EACH == 0 and self._runs:
            self._begin()
        self._runs += 1
        tracks = (f"video{self._runs}.m4s", f"audio{self._runs}.m4s")
        how = ("--stepwise", "--one-thread", "--sync-strategy", self._strategy)
        options = (*how, "--batch", str(_BATCH))
        first = ("--first", str(self._first), "--tracks", *tracks)
        with Recording(self.archive.roots, *options, *first) as recording:
            recording.read()
            if warm:
                recording.step()
            yield recording
            self.kept["news"].update(recording.kept)
            self._first += 2 * _BATCH
            self.account = recording.whole_account()

    def keep(self, evidence: Evidence, subject: str, found: Sequence[Violation]) -> None:
        """Keep all that is left of the last run."""
        roots = self.archive.roots
        files: dict[str, Path | str] = {"cas": roots.cas, "manifests": roots.manifests}
        log = self._directory / "strace.log"
        evidence.keep(subject, found, [self.account], files | {"strace.log": log})

    def fault(self, recording: Recording, call: str, fault: str) -> Strace:
        """Have the writer's calls of a kind meet a fault, ``signal=KILL:when=3``."""
        options = ("-e", f"trace={call}", "-e", f"inject={call}:{fault}")
        return Strace(recording.process.pid, str(self._directory / "strace.log"), *options)

    def calls(self, *, warm: bool) -> list[str]:
        """Return the names of the system calls that a commit makes, in order of their first."""
        with self.writer(warm=warm) as recording:
            log = str(self._directory / "strace.log")
            with Strace(recording.process.pid, log) as strace:
                recording.step()
            recording.finish()
        names = re.findall(r"^\d+ +(\w+)\(", strace.log(), re.MULTILINE)
        return list(dict.fromkeys(names))


def kill(
    rounds: int,
    only: Sequence[str] = (),
    strategy: StrategyName = "auto",
    evidence: Evidence | None = None,
) -> Iterator[Row]:
    """Kill a commit at each of its system calls (or at those named); raises UnavailableError."""
    evidence = evidence or Evidence()
    for number in range(1, rounds + 1):
        begun = time.monotonic()
        found: list[Found] = []
        counts: dict[str, int] = {}
        warm = number % 2 == 0
        with Bench(strategy) as bench:
            for call in only or bench.calls(warm=warm):
                for nth in range(1, _MOST_CALLS):
                    died, broken = _killed(bench, call, nth, warm=warm)
                    found += found_in(number, broken)
                    if broken:
                        bench.keep(evidence, f"kill at {call} {nth} of {_which(warm=warm)}", broken)
                    if not died:
                        break
                    counts[call] = nth
        say(f"kill, pass {number}: " + ", ".join(f"{call} {n}" for call, n in counts.items()))
        yield _row("kill", _which(warm=warm), counts, bench, found, begun)


def _killed(bench: Bench, call: str, nth: int, *, warm: bool) -> tuple[bool, list[Violation]]:
    with bench.writer(warm=warm) as recording:
        with bench.fault(recording, call, f"signal=KILL:when={nth}"):
            answer = recording.step()
        end = recording.finish()
    died = end == -9 and not recording.stopped
    problems = violations(bench.archive, bench.kept)
    if recording.late:
        problems.append(_unfinished(recording, f"at {call} {nth}"))
    elif not died:
        where = f"after {call} {nth - 1}"
        problems += _left_behind(bench, where)
        if not (answer == "kept" and recording.stopped):
            problems.append(Violation(GOES_ON, f"{where}: {recording.account()}"))
    return died, problems


def errors(
    rounds: int,
    only: Sequence[str] = (),
    strategy: StrategyName = "auto",
    evidence: Evidence | None = None,
) -> Iterator[Row]:
    """Let each call of a commit that can fail (or those named) fail; raises UnavailableError."""
    evidence = evidence or Evidence()
    for number, (error, ways) in itertools.product(range(1, rounds + 1), ERRORS.items()):
        begun = time.monotonic()
        found: list[Found] = []
        counts: dict[str, int] = {}
        warm = number % 2 == 0
        with Bench(strategy) as bench:
            for call in ways.calls:
                if only and call not in only:
                    continue
                for nth in range(1, _MOST_CALLS):
                    struck, broken = _failed(bench, call, error, nth, warm=warm)
                    found += found_in(number, broken)
                    if broken:
                        where = f"{error} at {call} {nth} of {_which(warm=warm)}"
                        bench.keep(evidence, where, broken)
                    if not struck:
                        break
                    counts[call] = nth
        say(
            f"errors, pass {number}, {error}: "
            + ", ".join(f"{call} {n}" for call, n in counts.items())
        )
        yield _row("errors", f"{error}, {_which(warm=warm)}", counts, bench, found, begun)


def _failed(
    bench: Bench, call: str, error: str, nth: int, *, warm: bool
) -> tuple[bool, list[Violation]]:
    """One error; what it broke, right after it and after the same batch was committed again."""
    problems: list[Violation] = []
    with bench.writer(warm=warm) as recording:
        with bench.fault(recording, call, f"error={error}:when={nth}") as strace:
            answer = recording.step()
        struck = "INJECTED" in strace.log()
        if answer == "failed":
            problems += violations(bench.archive, {"news": bench.kept["news"]})
            answer = recording.step()
        end = recording.finish()
    where = f"{error} at {call} {nth}"
    told = recording.account()
    if recording.late:
        return struck, [_unfinished(recording, where), *violations(bench.archive, bench.kept)]
    if answer != "kept":
        problems.append(Violation(GOES_ON, f"{where}: not kept when tried again: {told}"))
    if struck and call in _NOT_TO_BE_IGNORED and not recording.failures:
        problems.append(Violation(FAILS_CLEANLY, f"{where}: ignored, and acknowledged"))
    if any(ERRORS[error].says not in failure for failure in recording.failures):
        problems.append(Violation(FAILS_CLEANLY, f"{where}: {told}"))
    if end not in (0, _IO_ERROR) or "Traceback" in recording.complaints:
        problems.append(Violation(FAILS_CLEANLY, f"{where}: it ended with {end}: {told}"))
    problems += violations(bench.archive, bench.kept)
    problems += _left_behind(bench, where)
    return struck, problems


def _unfinished(recording: Recording, where: str) -> Violation:
    told = f"{where}: did not end within {MOST_SECONDS:.0f} s: {recording.account()}"
    return Violation(UNFINISHED, told)


def _left_behind(bench: Bench, where: str) -> list[Violation]:
    """Say what a writer that ended in good order left half written, its own or of the dead."""
    names = os.listdir(os.path.join(bench.archive.roots.cas, ".casfs", "tmp"))
    return [Violation(FAILS_CLEANLY, f"{where}: temporaries stay: {names}")] if names else []


def _which(*, warm: bool) -> str:
    return "a later commit" if warm else "the first commit of a process"


def _row(
    campaign: str,
    subject: str,
    counts: dict[str, int],
    bench: Bench,
    found: list[Found],
    begun: float,
) -> Row:
    points = sum(counts.values())
    return Row(
        campaign=campaign,
        subject=subject,
        rounds=1,
        events=points,
        kept=bench.total,
        found=tuple(found),
        passed=not found and points > 0,
        verdict=judged(
            found,
            ", ".join(f"{call} {number}" for call, number in counts.items()) or "no fault met",
        ),
        seconds=time.monotonic() - begun,
    )
