"""A writer process as those who end it see it: what it acknowledged, and how it ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from casfs.roots import Roots

ROOT = Path(__file__).parents[2]
"""The top of the checkout."""

MOST_SECONDS = 240.0
"""A writer that takes longer is ended, and its round proves nothing. A disk that others keep busy
may hold up one sync for a minute and more."""
_LAST_WORDS_SECONDS = 5.0


class Recording:
    """One run of `tools.crashes.writer`, ended with the context at the latest."""

    def __init__(self, roots: Roots, *options: str, broadcast: str = "news") -> None:
        self.broadcast = broadcast
        self._kept: dict[int, int] = {}
        self.failures: list[str] = []
        """What it said of failed commits."""
        self.complaints = ""
        """What it wrote to stderr, once it is finished."""
        self.stopped = False
        """Whether it ended in good order."""
        self.late = ""
        """Where it hung, if it did not end in time and was ended: that says nothing of it."""
        self._said: list[str] = []
        self._begun = time.monotonic_ns()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in __exit__
        with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        # By faulthandler it says where it was when it is aborted, or touches memory that is gone.
        python = [sys.executable, "-P", "-X", "faulthandler"]
        own = [*python, "-m", "tools.crashes.writer", roots.cas, roots.manifests]
        self._command = [*with_us, *own, "--broadcast", broadcast, *options]
        self.process = subprocess.Popen(
            self._command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            process_group=0,  # Ctrl-C is for us; what we started, we end
        )
        self._timer = threading.Timer(MOST_SECONDS, self._end_late)
        self._timer.daemon = True
        self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._timer.cancel()
        self._timer.join()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.process.stdout, self._errors, contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    @property
    def kept(self) -> set[int]:
        """The sequences that it acknowledged so far."""
        return set(self._kept)

    def kept_before(self, instant: int) -> set[int]:
        """Return the sequences that it acknowledged before then (nanoseconds, monotonic)."""
        return {sequence for sequence, when in self._kept.items() if when < instant}

    def read(self) -> str:
        """Read one line and return its first word; empty when it has no more to say."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self._said += [line.rstrip("\n")] if line else []
        word, _, rest = line.rstrip("\n").partition(" ")
        if not line.endswith("\n"):
            return ""  # dead, or died in the middle of it
        match word:
            case "kept":
                instant, *sequences = map(int, rest.split())
                self._kept |= dict.fromkeys(sequences, instant)
            case "failed":
                self.failures.append(rest)
            case "stopped":
                self.stopped = True
            case _:
                pass
        return word

    def step(self) -> str:
        """Have a stepwise writer make one attempt; return its answer, empty if it died."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("commit\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self.read()

    def finish(self) -> int:
        """Read all that it still says, wait for its end and return its exit code.

        A stepwise writer stops here.
        """
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        while self.read():
            pass
        code = self.process.wait()
        self._errors.seek(0)
        self.complaints = self._errors.read()
        return code

    def account(self) -> str:
        """Return what it said when something went wrong, for a message."""
        return "; ".join([*self.failures[-2:], self.complaints[-400:]])

    def whole_account(self) -> str:
        """Return all that is known of it: how it was called, what it said, how it ended."""
        return "\n".join(
            [
                " ".join(self._command),
                f"begun at {self._begun}, ended with {self.process.poll()}",
                *([f"did not end within {MOST_SECONDS:.0f} s\n{self.late}"] if self.late else []),
                *(f"> {line}" for line in self._said),
                f"stderr: {self.complaints}",
            ]
        )

    def _end_late(self) -> None:
        """Note what it waits for, have it say where it is, and kill it."""
        if self.process.poll() is not None:
            return
        self.late = _waits(self.process.pid)
        self.process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_LAST_WORDS_SECONDS)
        self.process.kill()


def _waits(process: int) -> str:
    """Return what each thread of a process waits for in the kernel, as far as we may know."""
    found: list[str] = []
    for task in sorted(Path(f"/proc/{process}/task").glob("*")):
        for name in ("stat", "wchan", "syscall", "stack"):
            with contextlib.suppress(OSError):
                text = (task / name).read_text(encoding="utf-8", errors="replace").strip()
                found.append(f"{task.name} {name}: {text}")
    return "\n".join(found) or "it was gone a moment later"
