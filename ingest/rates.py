"""Rates of counters, over the last seconds."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Rates:
    """How fast counters grow over the last ``window`` seconds; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float], *, window: float = 10.0) -> None:
        self._clock = clock
        self._window = window
        self._before: dict[str, deque[tuple[float, int]]] = {}

    def of(self, name: str, count: int) -> float:
        """Return by how much a counter, which stands at ``count`` now, grows in a second."""
        now = self._clock()
        points = self._before.setdefault(name, deque())
        points.append((now, count))
        while now - points[0][0] > self._window:
            points.popleft()
        elapsed = now - points[0][0]
        return (count - points[0][1]) / elapsed if elapsed > 0 else 0.0
