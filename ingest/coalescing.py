"""Which groups of a fast track wait for each other, to be committed together as a run. Pure.

A track that delivers more than ten small groups a second (audio, one frame a group) would fill any
filesystem with files. Its groups wait up to two seconds, or for a mebibyte of them; whatever else
of the track comes meanwhile does not overtake them. Times are seconds that never run backwards.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from casfs.groups import MOST_BYTES, MOST_GROUPS
from casfs.manifests.record import INIT_TRACKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.keeper import Delivery

SMALL_BYTES = 16 << 10
"""Groups of this size and above stay alone."""

FAST = 10
"""Small groups a second, above which a track is fast."""

MOST_SECONDS = 2.0
"""No group waits longer for others."""

_WINDOW = 2 * FAST


class Pace:
    """Knows how fast small groups come, track by track."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def may_wait(self, delivery: Delivery, now: float) -> bool:
        """Take notice of a delivery; say whether it is small and of a fast track."""
        if (
            not delivery.group.complete
            or delivery.track in INIT_TRACKS
            or delivery.size >= SMALL_BYTES
        ):
            return False
        times = self._times.setdefault(delivery.track, deque(maxlen=_WINDOW + 1))
        times.append(now)
        return len(times) > _WINDOW and (now - times[0]) * FAST < _WINDOW


class Queued:
    """A delivery in the queue."""

    __slots__ = ("delivery", "since", "size")

    def __init__(self, delivery: Delivery, since: float) -> None:
        self.delivery = delivery
        self.since = since
        self.size = delivery.size


def waiting(queue: Sequence[Queued], now: float) -> set[int]:
    """Return the places in the queue of those that go on waiting for others of their track."""
    held: set[int] = set()
    tracks: dict[str, list[int]] = {}
    for at, item in enumerate(queue):
        if item.delivery.small:
            tracks.setdefault(item.delivery.track, []).append(at)
        else:
            # It must not overtake those before it.
            tracks.pop(item.delivery.track, None)
    for places in tracks.values():
        if (
            now < queue[places[0]].since + MOST_SECONDS
            and sum(queue[at].size for at in places) < MOST_BYTES
            and len(places) < MOST_GROUPS
        ):
            held.update(places)
    return held
