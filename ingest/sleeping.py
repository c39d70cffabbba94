"""Whether the machine slept: then the relay has long forgotten us, whatever our timers say.

A suspended machine's monotonic clock stands still, and so do all timers; ``CLOCK_BOOTTIME`` goes on
(clock_gettime(2)).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SLEPT: Final = 5.0
"""Seconds from which on it counts: a relay gives up on us after some more of them."""


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SleepWatch:
    """Compares the two clocks, seconds."""

    def __init__(
        self,
        boottime: Callable[[], float] = _boot_time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._boottime = boottime
        self._monotonic = monotonic
        self._ahead = boottime() - monotonic()

    def slept(self) -> float:
        """Return for how many seconds the machine slept since the last call; 0 if it did not."""
        ahead = self._boottime() - self._monotonic()
        span, self._ahead = ahead - self._ahead, ahead
        return span if span >= SLEPT else 0.0
