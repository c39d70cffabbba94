"""Whether what the processes of an archive hold stays flat: looked at all the time, then judged."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from tools.supervision.processes import Footprint, children, footprint

if TYPE_CHECKING:
    from collections.abc import Sequence

_MEGABYTE = 1_000_000
_KINDS = ("supervisor", "worker", "index")
"""The processes: the last one is a worker's child, which keeps its index."""

ALL = "all"

_LEAST_SECONDS = 300.0
"""A shorter soak says nothing."""


class Margin(Struct, frozen=True):
    """By how much more there may be in the end, and it still counts as flat."""

    share: float
    amount: float


MARGINS = {
    "resident MB": Margin(0.05, 2.0),
    "own MB": Margin(0.05, 2.0),
    "descriptors": Margin(0.0, 4.0),
    "threads": Margin(0.0, 4.0),
    # Some die and come back, each with a child, whenever one looks.
    "processes": Margin(0.0, 3.0),
}


class Sample(Struct, frozen=True):
    """What they held at one time."""

    at: float
    """Seconds of the monotonic clock."""
    figures: dict[str, float]
    """By kind of process and quantity, as ``worker: own MB``: the largest of that kind."""


class Flatness(Struct, frozen=True):
    """A figure, early and late."""

    early: float
    """The most in the second quarter."""
    late: float
    """The most in the last quarter."""
    flat: bool


class Soak(threading.Thread):
    """Looks at a supervisor and all below it every ``every`` seconds, until `finish`."""

    def __init__(self, supervisor: int, every: float) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self._supervisor = supervisor
        self._every = every
        self._done = threading.Event()

    def run(self) -> None:
        """Look."""
        while not self._done.wait(self._every):
            self.samples.append(look(self._supervisor))

    def finish(self) -> None:
        """End it."""
        self._done.set()
        self.join()


def look(supervisor: int) -> Sample:
    """Return what a supervisor and all below it hold now."""
    workers = children(supervisor)
    indexes = [child for worker in workers for child in children(worker)]
    everything: list[Footprint] = []
    figures: dict[str, float] = {}
    for kind, pids in zip(_KINDS, ([supervisor], workers, indexes), strict=True):
        held = [found for pid in pids if (found := footprint(pid)) is not None]
        everything += held
        figures |= {
            f"{kind}: resident MB": max((one.resident for one in held), default=0) / _MEGABYTE,
            f"{kind}: own MB": max((one.proportional for one in held), default=0) / _MEGABYTE,
            f"{kind}: descriptors": max((one.descriptors for one in held), default=0),
            f"{kind}: threads": max((one.threads for one in held), default=0),
        }
    figures[f"{ALL}: own MB"] = sum(one.proportional for one in everything) / _MEGABYTE
    figures[f"{ALL}: descriptors"] = sum(one.descriptors for one in everything)
    figures[f"{ALL}: processes"] = len(everything)
    return Sample(time.monotonic(), figures)


def judge(samples: Sequence[Sample]) -> dict[str, Flatness]:
    """Compare the second quarter of a soak with its last one; empty if it was too short for that.

    The first quarter does not count: caches fill, the first of everything is made.
    """
    first, last = (samples[0].at, samples[-1].at) if samples else (0.0, 0.0)
    if last - first < _LEAST_SECONDS:
        return {}
    quarter = (last - first) / 4
    early = [one for one in samples if first + quarter <= one.at < first + 2 * quarter]
    late = [one for one in samples if one.at >= first + 3 * quarter]
    found: dict[str, Flatness] = {}
    for name in samples[0].figures:
        kind, _, quantity = name.partition(": ")
        before, after = (max(one.figures[name] for one in part) for part in (early, late))
        margin = MARGINS[quantity]
        # Of many processes each may have its own chance; of their sum little is left to it.
        amount = margin.amount * (5 if kind == ALL and quantity != "processes" else 1)
        flat = after <= before * (1 + margin.share) + amount
        found[name] = Flatness(round(before, 1), round(after, 1), flat)
    return found
