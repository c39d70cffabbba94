"""Which epoch an adopted group belongs to, and whether the archive has it already. Pure.

A recorder decides group by group as they come. Whoever adopts a history sees it long after, perhaps
again and again, perhaps of a broadcast that the archive recorded itself meanwhile. So the rule
looks at what is held, and at the order that all of it must keep: in a track, a later epoch is later
in time, and within an epoch a higher sequence is later in time (within `SLACK`; relays reorder).

- Received at the very same instant, with the same sequence and the same bytes: the same group.
- The same sequence and bytes as one that is held in the current epoch, or in any epoch within some
  seconds (another recorder saw it a moment later): the same group, delivered again.
- If one of two copies was cut short and its bytes begin the other's, the longer one counts.
- Otherwise it goes to the first epoch where its sequence is free and the order fits: the current
  one, then the others from the newest on. If there is none, the publisher had begun again: a new
  epoch opens, for all tracks of the broadcast.

The current epoch is the one in which the group before was held or put. Adopting the same history
again therefore decides the same way at each step, and finds everything held.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct

from casfs.digest import Digest
from casfs.timestamps import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

SLACK = 90 * NANOSECONDS
"""More than what relays hold back and reorder."""

NEAR = 30 * NANOSECONDS
"""How far apart two recorders receive the same group, at most."""


class Verdict(enum.Enum):
    """What to do with a group."""

    NEW = "new"
    """Put it in."""
    BETTER = "better"
    """Put it in: it is more of a group that is held incomplete."""
    KNOWN = "known"
    """The archive has it."""


class Candidate(Struct, frozen=True):
    """A group that is offered, or one that is held."""

    epoch: int
    """0 if it has none yet."""
    sequence: int
    digest: Digest
    size: int | None
    """Bytes, where known."""
    complete: bool
    received: int
    """When it began to come, nanoseconds UTC."""
    inside: tuple[Digest, int] | None = None
    """The object in which it lies with others, and where; None if it is an object of its own."""


class Placement(Struct, frozen=True):
    """Where a group belongs."""

    epoch: int
    verdict: Verdict


class Held(Protocol):
    """What the archive holds of one broadcast, with what was put in since."""

    def epochs(self, track: str) -> Sequence[int]:
        """Return the epochs in which the track has groups, in order."""

    def latest(self, track: str) -> int:
        """Return an instant after which no group of the track was received; -1 if it has none."""

    def find(self, track: str, epoch: int, sequence: int) -> Candidate | None:
        """Return the group of this identity."""

    def neighbours(
        self, track: str, epoch: int, sequence: int
    ) -> tuple[Candidate | None, Candidate | None]:
        """Return the groups of an epoch with the next lower and the next higher sequence."""

    def begins(self, shorter: Candidate, longer: Candidate) -> bool:
        """Say whether the bytes of one group are the beginning of the other's."""


class EpochRule:
    """Places groups one after the other, in the order of their times; ``highest``: 0 if none."""

    def __init__(self, held: Held, highest: int) -> None:
        self.highest = highest
        """The highest epoch of the broadcast."""
        self._held = held
        self._current = max(highest, 1)
        # The group of the highest epoch and sequence of each track, where that is known.
        self._tips: dict[str, Candidate] = {}

    def place(self, track: str, group: Candidate) -> Placement:
        """Decide about a group; `accept` makes it so, if it is put in."""
        if self._follows_on(track, group):
            return Placement(self._current, Verdict.NEW)
        epochs = self._held.epochs(track)
        if group.received <= self._held.latest(track):
            for epoch in sorted(epochs, key=lambda epoch: epoch != self._current):
                held = self._held.find(track, epoch, group.sequence)
                if held is not None and _same(held, group) and held.received == group.received:
                    self._current = epoch
                    return _known(held, group)
        others = [epoch for epoch in reversed(epochs) if epoch != self._current]
        known = self._delivered_again(track, group, others)
        if known is not None:
            return known
        for epoch in (self._current, *others):
            if self._held.find(track, epoch, group.sequence) is None and self._fits(
                track, epoch, group, epochs
            ):
                return Placement(epoch, Verdict.NEW)
        return Placement(self.highest + 1, Verdict.NEW)

    def accept(self, track: str, group: Candidate, placement: Placement) -> None:
        """Go on from where a group was put; what is held must show it from now on."""
        self._current = placement.epoch
        self.highest = max(self.highest, placement.epoch)
        tip = self._tips.get(track)
        if tip is None:
            highest = max(self._held.epochs(track), default=0)
            _, above = self._held.neighbours(track, placement.epoch, group.sequence)
            is_tip = placement.epoch >= highest and above is None
        else:
            is_tip = (placement.epoch, group.sequence) > (tip.epoch, tip.sequence)
        if is_tip:
            self._tips[track] = msgspec.structs.replace(group, epoch=placement.epoch)

    def _follows_on(self, track: str, group: Candidate) -> bool:
        """Say whether it comes after everything of its track in every respect: nearly all do."""
        tip = self._tips.get(track)
        return (
            tip is not None
            and tip.epoch == self._current == self.highest
            and group.sequence > tip.sequence
            and group.received > self._held.latest(track)
        )

    def _delivered_again(
        self, track: str, group: Candidate, others: Sequence[int]
    ) -> Placement | None:
        held = self._held.find(track, self._current, group.sequence)
        if held is not None:
            if _same(held, group):
                return _known(held, group)
            if not held.complete and self._held.begins(held, group):
                return Placement(held.epoch, Verdict.BETTER)
            if not group.complete and self._held.begins(group, held):
                return Placement(held.epoch, Verdict.KNOWN)
        if group.received - NEAR > self._held.latest(track):
            return None
        for epoch in others:
            held = self._held.find(track, epoch, group.sequence)
            if (
                held is not None
                and _same(held, group)
                and abs(held.received - group.received) <= NEAR
            ):
                return _known(held, group)
        return None

    def _fits(self, track: str, epoch: int, group: Candidate, epochs: Sequence[int]) -> bool:
        """Say whether time would still rise with epoch and sequence if the group were there."""
        below, above = self._held.neighbours(track, epoch, group.sequence)
        if below is None:
            before = max((number for number in epochs if number < epoch), default=None)
            if before is not None:
                below, _ = self._held.neighbours(track, before, _ENDLESS)
        if above is None:
            after = min((number for number in epochs if number > epoch), default=None)
            if after is not None:
                _, above = self._held.neighbours(track, after, -1)
        return (below is None or below.received <= group.received + SLACK) and (
            above is None or group.received <= above.received + SLACK
        )


_ENDLESS = 1 << 62


def _same(held: Candidate, group: Candidate) -> bool:
    return held.digest == group.digest


def _known(held: Candidate, group: Candidate) -> Placement:
    better = group.complete and not held.complete
    return Placement(held.epoch, Verdict.BETTER if better else Verdict.KNOWN)
