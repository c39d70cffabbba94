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
- media time that goes back, by more than `REORDER`, from one sequence to a higher one, is a
  publisher that goes on with the sequences of the one before it: a new epoch;
- everything else continues the epoch.

What is recorded is remembered for a while and looked up in the archive beyond that, so that one
identity (track, epoch, sequence) never gets two contents, however long ago the first one came.

The epoch is one number for the broadcast: a new one opened by one track holds for all. Groups that
come later over subscriptions of an earlier generation are the old publisher's last ones, and still
belong to the epoch before. Where only time tells the two publishers apart, their sequences are one
row: what lies within the old one's is the old one's, and what lies between the two is, if it goes
on where that left off, or is later than what follows it. So one restart opens one epoch, however
many tracks see it.

A track whose time goes back again and again tells no time at all, and is not believed.
"""

from __future__ import annotations

import enum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct
from msgspec.structs import replace

from casfs.digest import Digest, digest_of_parts
from casfs.timestamps import NANOSECONDS
from ingest.epoch_memory import HELD_BACK, OVER, EpochMemory, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


REORDER = 5 * NANOSECONDS
"""How far media time may go back, from one group to the next, and still go on."""

_AGAIN, _BACK = "sequences began again", "media time went back"

_EPOCHS_REMEMBERED = 3
"""Before the current one."""
_JUMPS, _JUMPS_WITHIN = 3, 600 * NANOSECONDS
"""A track that jumps back so often in this time is not believed."""


class Verdict(enum.Enum):
    """What to do with a group."""

    NEW = "new"
    """Record it."""
    BETTER = "better"
    """Record it: it is the same group as an incomplete one, and more of it."""
    KNOWN = "known"
    """It is recorded already."""


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


class EpochTracker:
    """Decides group by group; ``history`` is asked about what is remembered no more."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._current = EpochMemory(1, 0)
        self._jumps: dict[str, list[int]] = {}
        """When the media time of a track has gone back, nanoseconds UTC."""
        self.reason = ""
        """Why the current epoch began."""

    @property
    def epoch(self) -> int:
        """The current epoch, 1 at the beginning."""
        return self._current.number

    def restore(self, track: str, epoch: int, sequence: int, seen: Seen) -> None:
        """Remember a group that was recorded before; call in the order of a track's commits."""
        self.restore_highest(track, epoch, sequence)
        known = self._known(epoch)
        if known is not None:
            known.track(track).remember(sequence, seen)
            known.begun = min(known.begun or seen.received, seen.received)

    def restore_highest(self, track: str, epoch: int, sequence: int) -> None:
        """Take that groups of a track up to this one were recorded before."""
        if epoch > self.epoch:
            before = self._current if self._current.tracks else None
            self._current = EpochMemory(epoch, 0, before=before)
            self._forget()
        known = self._known(epoch)
        if known is not None:
            state = known.track(track)
            state.horizon = max(state.horizon, sequence)

    def observe(
        self, track: str, sequence: int, frames: Sequence[bytes], seen: Seen, *, generation: int
    ) -> Decision:
        """Decide on a group that came over a subscription of this ``generation`` (from 1 on)."""
        self._forget(seen.received - OVER)
        epoch = self._placed(self._epoch_of(generation), track, sequence, seen)
        state = epoch.track(track)
        state.enter(generation)
        before = self._recorded(epoch, track, sequence)
        if before is None:
            if state.floor is not None and sequence < state.floor:
                return self._begin(track, sequence, seen, generation, _AGAIN)
            if epoch is self._current and self._goes_back(track, sequence, seen):
                return self._begin(track, sequence, seen, generation, _BACK)
            state.remember(sequence, seen)
            return Decision(Verdict.NEW, epoch.number, None)
        prefix = partial(self._history.prefix, track, epoch.number, sequence)
        verdict = _compare(before, seen, frames, prefix)
        if verdict is Verdict.NEW:
            return self._begin(track, sequence, seen, generation, _AGAIN)
        known = replace(before, time=seen.time)
        state.remember(sequence, seen if verdict is Verdict.BETTER else known)
        return Decision(verdict, epoch.number, before)

    def missing(self, track: str, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges (inclusive) between two sequences that are not recorded.

        Nothing is said of sequences that lie before all that is remembered.
        """
        state = self._current.track(track)
        if state.horizon >= 0:
            first = max(first, min(state.sequences, default=state.horizon + 1))
        known = sorted(number for number in state.sequences if first <= number <= last)
        ranges: list[tuple[int, int]] = []
        at = first
        for number in [*known, last + 1]:
            if number > at:
                ranges.append((at, number - 1))
            at = number + 1
        return ranges

    def highest(self, track: str) -> int | None:
        """Return the highest sequence that is recorded of a track in this epoch."""
        highest = self._current.highest(track)
        return highest if highest >= 0 else None

    def lowest(self, track: str) -> int:
        """Return the lowest sequence that is remembered of a track in this epoch, or 0."""
        return min(self._current.track(track).sequences, default=0)

    def _epoch_of(self, generation: int) -> EpochMemory:
        before = self._current.before
        late = before is not None and generation < self._current.generation
        return before if late and before is not None else self._current

    def _known(self, number: int) -> EpochMemory | None:
        epoch: EpochMemory | None = self._current
        while epoch is not None and epoch.number != number:
            epoch = epoch.before
        return epoch

    def _forget(self, over: int = 0) -> None:
        """Forget epochs that were over at a time, and the oldest of too many."""
        epoch = self._current
        for _ in range(_EPOCHS_REMEMBERED):
            if epoch.before is None:
                return
            if 0 < epoch.begun < over:
                break
            epoch = epoch.before
        epoch.before = None

    def _recorded(self, epoch: EpochMemory, track: str, sequence: int) -> Seen | None:
        state = epoch.tracks.get(track)
        before = None if state is None else state.recall(sequence)
        # Of an epoch that was read back, and is over, only a part is remembered.
        partly = epoch is not self._current and not epoch.generation
        if before is None and (partly or (state is not None and sequence <= state.horizon)):
            before = self._history.find(track, epoch.number, sequence)
        return before

    def _placed(self, epoch: EpochMemory, track: str, sequence: int, seen: Seen) -> EpochMemory:
        """Return the epoch to which a group belongs: the one given, or one before it."""
        placed = at = epoch
        while at.before is not None:
            before = at.before
            highest = before.highest(track)
            if (at.goes_on and sequence <= highest) or self._is_older(
                placed, before, track, sequence, seen
            ):
                placed = before
            elif highest >= 0 or not at.goes_on:
                break
            at = before
        return placed

    def _is_older(
        self, epoch: EpochMemory, before: EpochMemory, track: str, sequence: int, seen: Seen
    ) -> bool:
        """Whether its media time makes a group one of the epoch before the one given."""
        if seen.time is None or self._recorded(epoch, track, sequence):
            return False
        known = self._recorded(before, track, sequence)
        if known is not None and known.complete and known.digest != seen.digest:
            return False
        at, clock = seen.time.nanoseconds, seen.time.clock
        times, since = before.times(track, clock), epoch.times(track, clock)
        last = before.latest(clock) if times is None else times.around(sequence)[0]
        if last is not None and at < last - REORDER:
            return False
        if since is not None:
            lower, higher = since.around(sequence)
            if times is None or lower is not None or higher is None:
                return False
            return at > higher + REORDER
        # The track has not been heard of since: does it go on as before, or as others do now?
        others = epoch.latest(clock)
        recent = 0 <= seen.received - epoch.begun < HELD_BACK
        if not (epoch.by_time and recent) or others is None or last is None:
            return False
        return abs(at - last) < abs(at - others)

    def _goes_back(self, track: str, sequence: int, seen: Seen) -> bool:
        """Whether media time goes back to a group that is the newest of its track."""
        if seen.time is None or sequence <= self._current.highest(track):
            return False
        times = opened = self._current.times(track, seen.time.clock)
        if times is None and self._current.by_time and self._current.before is not None:
            # Another track opened the epoch: this one goes back, too, and it counts.
            times = self._current.before.times(track, seen.time.clock)
        if times is None:
            return False
        lower, _ = times.around(sequence)
        if lower is None or seen.time.nanoseconds >= lower - REORDER:
            return False
        since = seen.received - _JUMPS_WITHIN
        jumps = [jump for jump in self._jumps.get(track, ()) if jump > since]
        self._jumps[track] = [*jumps, seen.received][-_JUMPS:]
        return opened is not None and len(jumps) < _JUMPS

    def _begin(
        self, track: str, sequence: int, seen: Seen, generation: int, reason: str
    ) -> Decision:
        self._current = EpochMemory(
            self.epoch + 1,
            generation,
            seen.received,
            before=self._current,
            by_time=reason == _BACK,
        )
        self._forget()
        self.reason = reason
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
