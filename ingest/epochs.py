"""Which epoch a group belongs to, and whether it is new, known already, or a better copy. Pure.

Relays deliver groups again after a reconnect, publishers restart and begin their sequences again,
and the two must not be taken for each other. The rules, in this order:

- a sequence that is known with the same bytes is a redelivery: nothing is recorded;
- if one of two copies was cut short and its bytes are the beginning of the other's, they are the
  same group: the longer one counts;
- a sequence that is known with other bytes belongs to a new epoch;
- an unknown sequence below everything that earlier subscriptions of the track have seen does, too:
  relays keep the newest groups, so an older one can only come from a publisher that began again;
- everything else continues the epoch.

The epoch is one number for the broadcast: a new one opened by one track holds for all.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import Digest, digest_of_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_REMEMBERED = 4096
"""Sequences remembered for each track; relays redeliver some seconds, not hours."""


class Verdict(enum.Enum):
    """What to do with a group."""

    NEW = "new"
    """Record it."""
    BETTER = "better"
    """Record it: it is the same group as an incomplete one, and more of it."""
    KNOWN = "known"
    """It is recorded already."""


class Seen(Struct, frozen=True):
    """A group that is recorded."""

    digest: Digest
    size: int
    """Bytes."""
    complete: bool


class _Track:
    __slots__ = ("floor", "lowest", "seen", "subscription")

    def __init__(self) -> None:
        self.seen: dict[int, Seen] = {}
        self.subscription: object = None
        self.lowest: int | None = None
        self.floor: int | None = None


class EpochTracker:
    """Decides group by group; `epoch` is the current one, 1 at the beginning.

    ``stored_prefix(digest, size)`` gives the digest of an object's first ``size`` bytes, or None
    if it cannot be read.
    """

    def __init__(self, stored_prefix: Callable[[Digest, int], Digest | None]) -> None:
        self.epoch = 1
        self._stored_prefix = stored_prefix
        self._tracks: dict[str, _Track] = {}

    def restore(self, track: str, epoch: int, sequence: int, seen: Seen) -> None:
        """Remember a group that was recorded before; call in the order of commits."""
        if epoch > self.epoch:
            self._begin(epoch)
        if epoch == self.epoch:
            self._remember(self._track(track, "restored"), sequence, seen)

    def observe(
        self,
        track: str,
        sequence: int,
        frames: Sequence[bytes],
        seen: Seen,
        *,
        subscription: object,
    ) -> Verdict:
        """Decide on a group that has come over ``subscription``; `epoch` holds for it after."""
        state = self._track(track, subscription)
        before = state.seen.get(sequence)
        if before is None:
            if state.floor is not None and sequence < state.floor:
                self._begin(self.epoch + 1)
                state = self._track(track, subscription)
            self._remember(state, sequence, seen)
            return Verdict.NEW
        if before.digest == seen.digest:
            if seen.complete and not before.complete:
                self._remember(state, sequence, seen)
                return Verdict.BETTER
            return Verdict.KNOWN
        if self._is_beginning(before, seen, frames):
            self._remember(state, sequence, seen)
            return Verdict.BETTER
        if not seen.complete and seen.size < before.size:
            prefix = self._stored_prefix(before.digest, seen.size)
            if prefix is None or prefix == seen.digest:
                return Verdict.KNOWN
        self._begin(self.epoch + 1)
        self._remember(self._track(track, subscription), sequence, seen)
        return Verdict.NEW

    def forget(self, track: str, sequence: int) -> None:
        """Take back what was observed of a group that could not be recorded after all."""
        state = self._tracks.get(track)
        if state is not None:
            state.seen.pop(sequence, None)

    def missing(self, track: str, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges (inclusive) between two sequences that are not recorded."""
        seen = self._tracks[track].seen if track in self._tracks else {}
        known = sorted(number for number in seen if first <= number <= last)
        ranges: list[tuple[int, int]] = []
        at = first
        for number in [*known, last + 1]:
            if number > at:
                ranges.append((at, number - 1))
            at = number + 1
        return ranges

    def highest(self, track: str) -> int | None:
        """Return the highest sequence that is recorded of a track in this epoch."""
        state = self._tracks.get(track)
        return max(state.seen, default=None) if state is not None else None

    def _begin(self, epoch: int) -> None:
        self.epoch = epoch
        self._tracks.clear()

    def _track(self, name: str, subscription: object) -> _Track:
        state = self._tracks.setdefault(name, _Track())
        if state.subscription != subscription:
            state.subscription = subscription
            state.floor = state.lowest
        return state

    @staticmethod
    def _remember(state: _Track, sequence: int, seen: Seen) -> None:
        state.seen.pop(sequence, None)
        state.seen[sequence] = seen
        state.lowest = sequence if state.lowest is None else min(state.lowest, sequence)
        if len(state.seen) > _REMEMBERED:
            del state.seen[next(iter(state.seen))]

    @staticmethod
    def _is_beginning(before: Seen, now: Seen, frames: Sequence[bytes]) -> bool:
        """Say whether the recorded bytes of a cut group begin those that have come now."""
        if before.complete or before.size > now.size:
            return False
        left = before.size
        parts: list[bytes] = []
        for frame in frames:
            parts.append(frame[:left])
            left -= len(parts[-1])
            if not left:
                break
        return digest_of_parts(parts) == before.digest
