"""Signals that come before an event loop listens, and after it has ended."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class StoppedEarlyError(BaseException):
    """SIGTERM or SIGINT came while nothing had begun; says which."""


class EarlyStop:
    """What SIGTERM and SIGINT do while no event loop handles them; see `heed`."""

    def __init__(self) -> None:
        self.looping = False
        """An event loop begins, into which nothing may be raised: signals are `noted`."""
        self.noted = ""
        """The signal that came while it began; empty if none did."""
        self.ending = False
        """The end has begun: SIGTERM asks for nothing more, and SIGINT has no patience."""

    @contextlib.contextmanager
    def heed(self) -> Iterator[None]:
        """Have them raise StoppedEarlyError within the context, as long as nothing has begun.

        Both the supervisor and systemd may ask a recorder to end. The second time must not cut off
        the end that the first one began.
        """
        before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.ending:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
        elif self.looping:
            self.noted = name
        else:
            self.ending = True
            raise StoppedEarlyError(name)
