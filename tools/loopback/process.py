"""A child process that speaks JSON lines: started, talked to, and surely ended.

The MoQ implementation in `moq-rs` is driven by asyncio, so it lives in processes of its own and
this module is what the rest of the house sees of it: plain calls, no event loop.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
START_TIMEOUT = 30.0
"""Seconds in which a process must have said that it is ready."""
END_TIMEOUT = 5.0
"""Seconds in which it must have ended after it was asked to; it is asked three times."""


class LoopbackError(Exception):
    """The process did not start, did not answer, or said that it could not do what was asked."""


class LineProcess:
    """``python -m module arguments`` with JSON lines on its stdin and stdout.

    It ends when `close` is called, and also when this process dies: its stdin closes then.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], *, python: str = sys.executable
    ) -> None:
        """``python`` is the interpreter: another one where the module needs it."""
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": _ROOT},
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for whoever owns it, who then closes it
        )
        self._name = module
        self._pending = b""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def send(self, line: bytes) -> None:
        """Write one line, without its newline."""
        assert self._process.stdin is not None
        view = memoryview(line + b"\n")
        try:
            while view:
                view = view[os.write(self._process.stdin.fileno(), view) :]
        except BrokenPipeError:
            raise LoopbackError(f"{self._name} has ended") from None

    def receive(self, timeout: float) -> bytes:
        """Return the next line, waiting at most ``timeout`` seconds for it."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        pieces = [self._pending]
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in pieces[-1]:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._pending = b"".join(pieces)
                    raise LoopbackError(f"{self._name} gave no answer in {timeout:g} s")
                piece = os.read(self._process.stdout.fileno(), 1 << 20)
                if not piece:
                    raise LoopbackError(f"{self._name} ended with code {self._process.wait()}")
                pieces.append(piece)
        line, _, self._pending = b"".join(pieces).partition(b"\n")
        return line

    def kill(self) -> None:
        """End it the way a power cut would: no farewell to anybody (SIGKILL)."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Freeze it: its sockets stay open and nothing answers (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Ask it to end, and end it if it does not. May be called again."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        for insist in (self.resume, self._process.terminate, self._process.kill):
            if self.running:
                insist()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT)
                break
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
