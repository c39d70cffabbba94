"""A writer process as those who end it see it: what it acknowledged, and how it ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from casfs.roots import Roots

ROOT = Path(__file__).parents[2]
"""The top of the checkout."""

_MOST_SECONDS = 60.0
"""A writer that takes longer hangs, and is killed."""


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
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in __exit__
        with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        own = [sys.executable, "-P", "-m", "tools.crashes.writer", roots.cas, roots.manifests]
        self.process = subprocess.Popen(
            [*with_us, *own, "--broadcast", broadcast, *options],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            process_group=0,  # Ctrl-C is for us; what we started, we end
        )
        self._timer = threading.Timer(_MOST_SECONDS, self.process.kill)
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
