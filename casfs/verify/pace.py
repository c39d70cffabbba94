"""How fast and for how long: a limit of bytes a second and a budget of time, for all threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LARGEST_READ = 1 << 20
_SMALLEST_READ = 4096
_READS_A_SECOND = 4


class Budget:
    """The time that a run may take, from now on. At least one object is always allowed.

    So a run whose manifests alone take longer than that still comes forward.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds
        self._lock = threading.Lock()
        self._begun = False

    def allows_another(self) -> bool:
        """Say whether one more object may be looked at; whoever asks then does so."""
        if self._end is None:
            return True
        with self._lock:
            first, self._begun = not self._begun, True
        return first or self._clock() < self._end

    def spent(self) -> bool:
        """Say whether the time is over, and something was looked at."""
        return self._end is not None and self._begun and self._clock() >= self._end


class Throttle:
    """Lets through so many bytes a second, over all threads; None for no limit."""

    def __init__(
        self, rate: float | None, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free = clock()

    @property
    def read_bytes(self) -> int:
        """How much to read at once, so that a low rate is an even one."""
        if self._rate is None:
            return _LARGEST_READ
        return int(min(_LARGEST_READ, max(_SMALLEST_READ, self._rate / _READS_A_SECOND)))

    def wait(self, count: int) -> None:
        """Return when the ``count`` bytes that were just read are paid for."""
        if self._rate is None:
            return
        with self._lock:
            now = self._clock()
            self._free = max(self._free, now) + count / self._rate
            delay = self._free - now
        self._sleep(delay)
