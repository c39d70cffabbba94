"""Which epoch a group belongs to, and whether it is new, known already, or a better copy. Pure.

Relays deliver groups again after a reconnect, publishers restart and begin their sequences again,
and the two must not be taken for each other. The rules, in this order:

- a sequence that is recorded with the same bytes is a redelivery: nothing is recorded;
- if one of two copies was cut short and its bytes are the beginning of the other's, they are the
  same group: the longer one counts;
- a sequence that is recorded with other bytes belongs to a new epoch;
- an unknown sequence below everything that earlier generations of subscriptions have seen does,
  too, if what they have seen spans more time than any relay holds back: an older group of the same
  publisher would have had to come with it;
- everything else continues the epoch.

What is recorded is remembered for a while and looked up in the archive beyond that, so that one
identity (track, epoch, sequence) never gets two contents, however long ago the first one came.

The epoch is one number for the broadcast: a new one opened by one track holds for all. Groups that
come later over subscriptions of an earlier generation are the old publisher's last ones, and still
belong to the epoch before.
"""

from __future__ import annotations

import enum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from casfs.digest import Digest, digest_of_parts
from casfs.timestamps import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REMEMBERED = 1 << 14
"""Sequences remembered for each track; relays redeliver some seconds or minutes, not hours."""

HELD_BACK = 90 * NANOSECONDS
"""More than the age up to which we let relays deliver old groups."""


class Verdict(enum.Enum):
    """What to do with a group."""

    NEW = "new"
    """Record it."""
    BETTER = "better"
    """Record it: it is the same group as an incomplete one, and more of it."""
    KNOWN = "known"
    """It is recorded already."""


class Seen(Struct, frozen=True):
    """A group as it came or is recorded."""

    digest: Digest
    size: int
    """Bytes."""
    complete: bool
    received: int
    """When its first byte came, nanoseconds UTC."""


class Decision(Struct, frozen=True):
    """What was decided about a group."""

    verdict: Verdict
    epoch: int
    before: Seen | None
    """What is recorded of the same group; None if nothing is."""


class History(Protocol):
    """What the archive holds."""

    def find(self, track: str, epoch: int, sequence: int) -> Seen | None:
        """Return the group of this identity, or None."""

    def prefix(self, track: str, epoch: int, sequence: int, size: int) -> Digest | None:
        """Return the digest of a group's first ``size`` bytes; None if it cannot be read."""


class _Track:
    """What is remembered of a track in one epoch."""

    __slots__ = ("first", "floor", "generation", "highest", "horizon", "last", "lowest", "seen")

    def __init__(self) -> None:
        self.seen: dict[int, Seen] = {}
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

    def remember(self, sequence: int, seen: Seen) -> None:
        self.seen.pop(sequence, None)
        self.seen[sequence] = seen
        if self.lowest is None or self.highest is None:
            self.lowest = self.highest = sequence
            self.first = self.last = seen.received
        self.lowest, self.highest = min(self.lowest, sequence), max(self.highest, sequence)
        self.first, self.last = min(self.first, seen.received), max(self.last, seen.received)
        if len(self.seen) > REMEMBERED:
            oldest = next(iter(self.seen))
            del self.seen[oldest]
            self.horizon = max(self.horizon, oldest)


class _Epoch:
    __slots__ = ("generation", "number", "tracks")

    def __init__(self, number: int, generation: int) -> None:
        self.number = number
        self.generation = generation
        """Of the subscription that opened it."""
        self.tracks: dict[str, _Track] = {}

    def track(self, name: str) -> _Track:
        return self.tracks.setdefault(name, _Track())


class EpochTracker:
    """Decides group by group; ``history`` is asked about what is remembered no more."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._current = _Epoch(1, 0)
        self._previous: _Epoch | None = None

    @property
    def epoch(self) -> int:
        """The current epoch, 1 at the beginning."""
        return self._current.number

    def restore(self, track: str, epoch: int, sequence: int, seen: Seen) -> None:
        """Remember a group that was recorded before; call in the order of a track's commits."""
        self.restore_highest(track, epoch, sequence)
        if epoch == self.epoch:
            self._current.track(track).remember(sequence, seen)

    def restore_highest(self, track: str, epoch: int, sequence: int) -> None:
        """Take that groups of a track up to this one were recorded before."""
        if epoch > self.epoch:
            self._current = _Epoch(epoch, 0)
        if epoch == self.epoch:
            state = self._current.track(track)
            state.horizon = max(state.horizon, sequence)

    def observe(
        self, track: str, sequence: int, frames: Sequence[bytes], seen: Seen, *, generation: int
    ) -> Decision:
        """Decide on a group that came over a subscription of this ``generation`` (from 1 on)."""
        epoch = self._epoch_of(generation)
        state = epoch.track(track)
        state.enter(generation)
        before = state.seen.get(sequence)
        if before is None and sequence <= state.horizon:
            before = self._history.find(track, epoch.number, sequence)
        if before is None:
            if state.floor is not None and sequence < state.floor:
                return self._begin(track, sequence, seen, generation)
            state.remember(sequence, seen)
            return Decision(Verdict.NEW, epoch.number, None)
        prefix = partial(self._history.prefix, track, epoch.number, sequence)
        verdict = _compare(before, seen, frames, prefix)
        if verdict is Verdict.NEW:
            return self._begin(track, sequence, seen, generation)
        state.remember(sequence, seen if verdict is Verdict.BETTER else before)
        return Decision(verdict, epoch.number, before)

    def missing(self, track: str, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges (inclusive) between two sequences that are not recorded.

        Nothing is said of sequences that lie before all that is remembered.
        """
        state = self._current.track(track)
        if state.horizon >= 0:
            first = max(first, min(state.seen, default=state.horizon + 1))
        known = sorted(number for number in state.seen if first <= number <= last)
        ranges: list[tuple[int, int]] = []
        at = first
        for number in [*known, last + 1]:
            if number > at:
                ranges.append((at, number - 1))
            at = number + 1
        return ranges

    def highest(self, track: str) -> int | None:
        """Return the highest sequence that is recorded of a track in this epoch."""
        state = self._current.track(track)
        highest = state.horizon if state.highest is None else max(state.horizon, state.highest)
        return highest if highest >= 0 else None

    def _epoch_of(self, generation: int) -> _Epoch:
        late = self._previous is not None and generation < self._current.generation
        return self._previous if late and self._previous is not None else self._current

    def _begin(self, track: str, sequence: int, seen: Seen, generation: int) -> Decision:
        self._previous = self._current
        self._current = _Epoch(self.epoch + 1, generation)
        state = self._current.track(track)
        state.enter(generation)
        state.remember(sequence, seen)
        return Decision(Verdict.NEW, self.epoch, None)


def _compare(
    before: Seen, now: Seen, frames: Sequence[bytes], prefix: Callable[[int], Digest | None]
) -> Verdict:
    """Compare two groups of one sequence; NEW says that they are not the same one."""
    if before.digest == now.digest:
        return Verdict.BETTER if now.complete and not before.complete else Verdict.KNOWN
    if not before.complete and before.size <= now.size:
        beginning = digest_of_parts(_first_bytes(frames, before.size))
        return Verdict.BETTER if beginning == before.digest else Verdict.NEW
    if not now.complete and now.size < before.size:
        stored = prefix(now.size)
        if stored is None or stored == now.digest:
            return Verdict.KNOWN
    return Verdict.NEW


def _first_bytes(frames: Sequence[bytes], size: int) -> list[bytes]:
    parts: list[bytes] = []
    for frame in frames:
        if not size:
            break
        parts.append(frame[:size])
        size -= len(parts[-1])
    return parts
