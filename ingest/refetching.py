"""Groups that were cut short, or skipped, asked for once more while the relay may still have them.

Decides alone: it does no I/O, and is told the time. A group that the relay cut short is held back
until a fetch has brought it whole or its tries are used up; then the most that came of it is
recorded. A sequence that was skipped, upwards or (relays send the newest first) downwards, is asked
for once, for publishers may skip what they like: where several in a row are not there, those of a
track are asked for no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ingest.moq.events import GroupReceived

TRIES: Final = 2
"""How often a group that was cut short is fetched."""
PAUSE: Final = 1.0
"""Seconds between the tries: a relay may still be receiving what it lacks."""
PATIENCE: Final = 15.0
"""Seconds after which a group is recorded as it is, whatever was promised."""
HELD_BYTES: Final = 64 << 20
"""The most that is held back; beyond it groups are recorded as they are."""
SKIPPED_AT_MOST: Final = 16
"""A longer run of sequences that do not come was meant by the publisher."""

_NOT_THERE: Final = 3
_WAITING: Final = 256
_LATE: Final = 5.0
_LATE_BEHIND: Final = 15.0
"""The same for what lies behind: a relay that sends a minute of it all at once takes its time."""
_RELAY_CUT: Final = "reset"


class _Held:
    """A group that was cut short, as far as it has come."""

    def __init__(self, group: GroupReceived, now: float) -> None:
        self.group = group
        self.size = _size(group)
        self.tries = 0
        self.next: float | None = now
        """When to ask; None while an answer is awaited."""
        self.until = now + PATIENCE


class _Skips:
    """The sequences of a subscription."""

    def __init__(self) -> None:
        self.highest: int | None = None
        self.lowest: int | None = None
        self.open: dict[int, float] = {}
        """Those that were skipped -> when to ask for them."""
        self.asked: set[int] = set()
        self.not_there = 0
        """How many in a row."""


class Refetching:
    """What is asked for once more in one session; ``fetch`` asks and says whether it could."""

    def __init__(self, fetch: Callable[[int, int], bool]) -> None:
        self._fetch = fetch
        self._held: dict[tuple[int, int], _Held] = {}
        self._bytes = 0
        self._skips: dict[int, _Skips] = {}

    def received(self, group: GroupReceived, now: float) -> Sequence[GroupReceived]:
        """Take a group; return what is to be recorded now."""
        key = (group.subscription, group.sequence)
        if group.fetched:
            self._skip_answered(group.subscription, group.sequence, there=True)
            return self._answered(key, group, now)
        if group.reason != "still open":
            self._note_sequence(group.subscription, group.sequence, now)
        if group.complete or not group.reason.startswith(_RELAY_CUT):
            # The whole one came all the same.
            if group.complete:
                self._forget(key)
            return (group,)
        held = _Held(group, now)
        if key in self._held or self._bytes + held.size > HELD_BYTES:
            return (group,)
        if not self._ask(key, held):
            return (group,)
        self._held[key] = held
        self._bytes += held.size
        return ()

    def failed(self, subscription: int, sequence: int, now: float) -> Sequence[GroupReceived]:
        """Take that a fetch has failed; return what is to be recorded now."""
        self._skip_answered(subscription, sequence, there=False)
        return self._answered((subscription, sequence), None, now)

    def tick(self, now: float) -> Sequence[GroupReceived]:
        """Ask for what is due; return what is to be recorded without waiting any longer."""
        told: list[GroupReceived] = []
        for key, held in list(self._held.items()):
            due = held.next is not None and now >= held.next
            if now >= held.until or (due and not self._ask(key, held)):
                told.append(held.group)
                self._forget(key)
        for subscription, skips in self._skips.items():
            for sequence, at in list(skips.open.items()):
                if now >= at:
                    del skips.open[sequence]
                    if self._fetch(subscription, sequence):
                        skips.asked.add(sequence)
        return told

    def give_up(self, subscription: int | None = None) -> Sequence[GroupReceived]:
        """Return all that is held back, of one subscription or of all."""
        told = []
        for key, held in list(self._held.items()):
            if subscription is None or key[0] == subscription:
                told.append(held.group)
                self._forget(key)
        if subscription is not None:
            self._skips.pop(subscription, None)
        return told

    # Cut short

    def _ask(self, key: tuple[int, int], held: _Held) -> bool:
        held.next = None
        held.tries += 1
        return self._fetch(*key)

    def _answered(
        self, key: tuple[int, int], group: GroupReceived | None, now: float
    ) -> Sequence[GroupReceived]:
        held = self._held.get(key)
        if held is None:
            return () if group is None else (group,)
        if group is not None and group.complete:
            self._forget(key)
            return (group,)
        if group is not None and _size(group) > held.size:
            self._bytes += _size(group) - held.size
            held.group, held.size = group, _size(group)
        if held.tries >= TRIES or self._bytes > HELD_BYTES:
            self._forget(key)
            return (held.group,)
        held.next = now + PAUSE
        return ()

    def _forget(self, key: tuple[int, int]) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._bytes -= held.size

    # Skipped

    def _note_sequence(self, subscription: int, sequence: int, now: float) -> None:
        skips = self._skips.setdefault(subscription, _Skips())
        skips.open.pop(sequence, None)
        highest, lowest = skips.highest, skips.lowest
        if highest is None or lowest is None:
            skips.highest = skips.lowest = sequence
        elif sequence > highest:
            skips.highest = sequence
            self._note_skipped(skips, range(highest + 1, sequence), now + _LATE)
        elif sequence < lowest:
            skips.lowest = sequence
            self._note_skipped(skips, range(sequence + 1, lowest), now + _LATE_BEHIND)

    def _note_skipped(self, skips: _Skips, skipped: range, due: float) -> None:
        if len(skipped) <= SKIPPED_AT_MOST and skips.not_there < _NOT_THERE:
            for number in skipped:
                if len(skips.open) < _WAITING:
                    skips.open[number] = due

    def _skip_answered(self, subscription: int, sequence: int, *, there: bool) -> None:
        skips = self._skips.get(subscription)
        if skips is None:
            return
        skips.open.pop(sequence, None)
        if sequence in skips.asked:
            skips.asked.discard(sequence)
            skips.not_there = 0 if there else skips.not_there + 1


def _size(group: GroupReceived) -> int:
    return sum(map(len, group.frames))
