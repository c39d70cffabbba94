"""How long to wait before the next try: longer each time, never in step with others."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST = 1.0
_MOST = 30.0
_JITTER = 0.25


class Backoff:
    """Doubling delays from 1 to 30 seconds, each a quarter longer or shorter by chance.

    ``chance`` gives numbers from 0 to 1. ``first`` and ``most`` are seconds.
    """

    def __init__(
        self,
        chance: Callable[[], float] = random.random,
        *,
        first: float = _FIRST,
        most: float = _MOST,
    ) -> None:
        self._chance = chance
        self._first = first
        self._most = most
        self._next = first

    def delay(self) -> float:
        """Return how many seconds to wait now; the next time it is twice as long."""
        base, self._next = self._next, min(self._most, 2 * self._next)
        return base * (1 - _JITTER + 2 * _JITTER * self._chance())

    def reset(self) -> None:
        """Begin anew: what was tried has worked."""
        self._next = self._first
