"""What is remembered of epochs, for `ingest.epochs` to decide by: groups and media times. Pure."""

from __future__ import annotations

import bisect
from struct import Struct as Packing
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import Digest
from casfs.timestamps import NANOSECONDS
from ingest.media_clock import MediaTime

if TYPE_CHECKING:
    from collections.abc import Collection

    from ingest.media_clock import Clock

REMEMBERED = 1 << 13
"""Sequences remembered for each track; relays redeliver some seconds or minutes, not hours, and
what is forgotten is looked up in the archive."""

_PACKED = Packing("<32sQq?")
"""Digest, size, when it came, whether it is complete: a recorder holds thousands for years."""

OVER = 600 * NANOSECONDS
"""How long after the beginning of an epoch nothing of the one before it can come any more."""

HELD_BACK = 90 * NANOSECONDS
"""More than the age up to which we let relays deliver old groups."""

_TIMED = 1 << 10
"""Groups of each track whose media time is remembered."""


class Seen(Struct, frozen=True):
    """A group as it came or is recorded."""

    digest: Digest
    size: int
    """Bytes."""
    complete: bool
    received: int
    """When its first byte came, nanoseconds UTC."""
    time: MediaTime | None = None
    """When its media begin; None if that is not known."""


class Times:
    """The media times of a track's groups by one clock, by sequence."""

    __slots__ = ("_sequences", "_times", "latest")

    def __init__(self) -> None:
        self._sequences: list[int] = []
        self._times: dict[int, int] = {}
        self.latest = 0
        """The latest of all, nanoseconds."""

    def note(self, sequence: int, time: int) -> None:
        """Take a group; of too many, those with the lowest sequences are forgotten."""
        if sequence not in self._times:
            bisect.insort(self._sequences, sequence)
        self._times[sequence] = time
        self.latest = max(self.latest, time)
        if len(self._sequences) > _TIMED:
            del self._times[self._sequences.pop(0)]

    def around(self, sequence: int) -> tuple[int | None, int | None]:
        """Return the times of the next lower and of the next higher sequence."""
        at = bisect.bisect_left(self._sequences, sequence)
        lower = self._times[self._sequences[at - 1]] if at else None
        behind = bisect.bisect_right(self._sequences, sequence)
        higher = self._times[self._sequences[behind]] if behind < len(self._sequences) else None
        return lower, higher


class TrackMemory:
    """What is remembered of a track in one epoch."""

    __slots__ = (
        "_seen",
        "first",
        "floor",
        "generation",
        "highest",
        "horizon",
        "last",
        "lowest",
        "times",
    )

    def __init__(self) -> None:
        self.times: dict[Clock, Times] = {}
        self._seen: dict[int, bytes] = {}
        self.generation: int | None = None
        self.lowest: int | None = None
        self.highest: int | None = None
        self.first = self.last = 0
        """When the earliest and the latest group came, nanoseconds UTC."""
        self.floor: int | None = None
        """Nothing below it can come from the same publisher any more."""
        self.horizon = -1
        """Up to here groups may be recorded that are not remembered."""

    def enter(self, generation: int) -> None:
        """Take that a group of this generation of subscriptions has come."""
        if self.generation == generation:
            return
        self.generation = generation
        self.floor = self.lowest if self.last - self.first > HELD_BACK else None

    def recall(self, sequence: int) -> Seen | None:
        """Return a group that is remembered, without its media time (`times` has that)."""
        packed = self._seen.get(sequence)
        if packed is None:
            return None
        digest, size, received, complete = _PACKED.unpack(packed)
        return Seen(Digest(digest.hex()), size, complete, received)

    @property
    def sequences(self) -> Collection[int]:
        """Of the groups that are remembered."""
        return self._seen.keys()

    def remember(self, sequence: int, seen: Seen) -> None:
        """Take a group that is recorded, or is about to be."""
        self._seen.pop(sequence, None)
        self._seen[sequence] = _PACKED.pack(
            bytes.fromhex(seen.digest), seen.size, seen.received, seen.complete
        )
        if self.lowest is None or self.highest is None:
            self.lowest = self.highest = sequence
            self.first = self.last = seen.received
        self.lowest, self.highest = min(self.lowest, sequence), max(self.highest, sequence)
        self.first, self.last = min(self.first, seen.received), max(self.last, seen.received)
        if seen.time is not None:
            times = self.times.setdefault(seen.time.clock, Times())
            times.note(sequence, seen.time.nanoseconds)
        if len(self._seen) > REMEMBERED:
            oldest = next(iter(self._seen))
            del self._seen[oldest]
            self.horizon = max(self.horizon, oldest)


class EpochMemory:
    """What is remembered of one epoch, and of those before it."""

    __slots__ = ("before", "begun", "by_time", "generation", "number", "tracks")

    def __init__(
        self,
        number: int,
        generation: int,
        begun: int = 0,
        *,
        before: EpochMemory | None = None,
        by_time: bool = False,
    ) -> None:
        self.before = before
        """The epoch before it, of which groups may still come."""
        self.number = number
        self.generation = generation
        """Of the subscription that opened it."""
        self.begun = begun
        """When its first group came, nanoseconds UTC."""
        self.by_time = by_time
        """Whether media time alone tells it from the one before."""
        self.tracks: dict[str, TrackMemory] = {}

    def track(self, name: str) -> TrackMemory:
        """Return what is remembered of a track."""
        return self.tracks.setdefault(name, TrackMemory())

    def highest(self, track: str) -> int:
        """Return the highest sequence that is recorded of a track; -1 if there is none."""
        state = self.tracks.get(track)
        if state is None:
            return -1
        return state.horizon if state.highest is None else max(state.horizon, state.highest)

    @property
    def goes_on(self) -> bool:
        """Whether its sequences go on with those of the epoch before it.

        Of an epoch that was read back, what was recorded tells.
        """
        if self.by_time or self.before is None or self.generation:
            return self.by_time
        common = self.tracks.keys() & self.before.tracks.keys()
        lowest = {name: self.tracks[name].lowest for name in common}
        return bool(common) and all(
            first is not None and first > self.before.highest(name)
            for name, first in lowest.items()
        )

    def times(self, track: str, clock: Clock) -> Times | None:
        """Return the media times of a track; None if none are known."""
        state = self.tracks.get(track)
        return None if state is None else state.times.get(clock)

    def latest(self, clock: Clock) -> int | None:
        """Return how far the media of any track have come by a clock."""
        found = [
            track.times[clock].latest for track in self.tracks.values() if clock in track.times
        ]
        return max(found, default=None)
