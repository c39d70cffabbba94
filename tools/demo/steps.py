"""Runs commands the way a user would: shown first, waited for, and surely ended.

Whatever is started here ends with the context or call that started it: on success, on failure, on
Ctrl-C, and (through PR_SET_PDEATHSIG, by setpriv) also when this process is killed.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

END_TIMEOUT = 20.0
"""Seconds in which a command must have ended after it was asked to."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StepError(Exception):
    """A step did not do what it must; the message is for the user."""


class Interrupted(BaseException):
    """The user, or whoever runs us, wants us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def end_on_signals() -> None:
    """Raise `Interrupted` on the first signal that asks us to end, and ignore those after it."""

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        for later in _SIGNALS:
            signal.signal(later, signal.SIG_IGN)
        raise Interrupted(number)

    for number in _SIGNALS:
        signal.signal(number, interrupt)


def heading(text: str) -> None:
    """Begin a step."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {text}{plain}", flush=True)


def show(command: Sequence[str], after: str = "") -> None:
    """Show a command as it would be typed."""
    print(f"$ {shlex.join(command)}{after}", flush=True)


class Commands:
    """Runs ``casfs`` and others in one environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}
        # The commands run as they were installed, not with our own way to find tools/.
        for variable in ("PYTHONPATH", "PYTHONSAFEPATH"):
            self._environment.pop(variable, None)
        self._environment["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), self._environment.get("PATH", os.defpath)]
        )

    def run(self, *command: str, timeout: float = 60.0) -> None:
        """Show ``command``, run it and wait for it, its output where ours goes.

        Raises:
            StepError: it failed or took longer than ``timeout`` seconds.
        """
        show(command)
        with self._started(command) as process:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise StepError(f"{_short(command)} has not ended in {timeout:g} s") from None
        if process.returncode:
            raise StepError(f"{_short(command)} ended with code {process.returncode}")

    @contextlib.contextmanager
    def running(
        self, *command: str, ready: Callable[[], bool]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``command`` for the time of the context, entered as soon as it is ``ready``.

        Raises:
            StepError: it ended, or took too long, before it was ready.
        """
        show(command, " &")
        with self._started(command) as process:
            await_true(
                lambda: ready() or process.poll() is not None,
                f"{_short(command)} was not ready in time",
            )
            if process.poll() is not None:
                raise StepError(f"{_short(command)} ended with code {process.returncode}")
            yield process

    @contextlib.contextmanager
    def _started(self, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        with_us = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        process = subprocess.Popen(
            [*with_us, *command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for us; what we started, we end
        )
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Have ``process`` end cleanly, and kill it if it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_true(condition: Callable[[], bool], failure: str, timeout: float = 30.0) -> None:
    """Wait until ``condition`` holds.

    Raises:
        StepError: with the text ``failure``, when it did not within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise StepError(failure)
        time.sleep(0.05)


def _short(command: Sequence[str]) -> str:
    """Name a command in a message: the program and its first word."""
    return " ".join(command[:2])
