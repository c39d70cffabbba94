"""What was missed of each track, and when that is certain.

A track is interrupted when its session ends. Once it comes back, redelivery gets some seconds; what
is missing then is asked for once more, group by group, where the relay has FETCH; and what is
missing still is recorded as a gap.

What is recorded is known to the worker thread alone, so gaps are captured, looked at and settled
there, in order with the groups around them; this task learns of it when it next looks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from casfs.manifests.record import INIT_TRACKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ingest.committing import CommitQueue
    from ingest.keeper import Interruption, Keeper

_FETCHED_AT_MOST = 64
"""Groups of one gap that are asked for once more, the newest ones."""
_FETCHING = 10.0
"""Seconds that what was asked for once more has to come."""


class _Gap:
    """A track that is not being received, or has only just come back."""

    def __init__(self, reason: str, *, expected: bool) -> None:
        self.reason = reason
        self.expected = expected
        """Whether there is something to miss: the track was coming, or the broadcast is there."""
        self.resumed: int | None = None
        """When the first group after it began to come, nanoseconds UTC."""
        self.settles: float | None = None
        """When waiting is over, whatever is waited for; None while nothing comes."""
        self.looked = False
        """Whether what is missing after redelivery has been asked for."""
        self.missing: list[int] | None = None
        """What was missing after redelivery; None until the worker thread has looked."""


class Gaps:
    """The gaps of a recording. ``clock`` gives nanoseconds UTC; ``settle`` is in seconds."""

    def __init__(
        self, keeper: Keeper, queue: CommitQueue, clock: Callable[[], int], settle: float
    ) -> None:
        self._keeper = keeper
        self._queue = queue
        self._clock = clock
        self._patience = settle
        self._gaps: dict[str, _Gap] = {}
        self._captured: dict[str, Interruption] = {}

    def begin(self, track: str, reason: str, *, expected: bool) -> None:
        """Take that a track is not received from now on."""
        gap = self._gaps.get(track)
        if gap is None:
            self._gaps[track] = _Gap(reason, expected=expected)
        else:
            # It had only just come back: what it missed is settled once it comes back for good.
            gap.resumed = gap.settles = gap.missing = None
            gap.looked = False
            gap.expected |= expected
        self._queue.call(partial(self._capture, track, reason))

    def expect_all(self) -> None:
        """Take that the broadcast is there: whatever does not come is missed."""
        for gap in self._gaps.values():
            gap.expected = True

    def refused(self, track: str) -> None:
        """Take that there is no such track, as far as the relay knows."""
        if track in self._gaps:
            self._gaps[track].expected = False

    def resumed(self, track: str, received_start: int, now: float) -> None:
        """Take that a group has come, which began at that instant (ns UTC)."""
        gap = self._gaps.get(track)
        if gap is not None and gap.settles is None:
            gap.resumed = received_start
            gap.settles = now + self._patience

    def tick(self, now: float, fetch: Callable[[str, int], bool]) -> None:
        """Do what is due; ``fetch`` asks for a group once more and says whether it could."""
        for track, gap in list(self._gaps.items()):
            if gap.settles is None:
                continue
            if gap.missing is not None:
                asked = [fetch(track, sequence) for sequence in gap.missing]
                gap.missing = None
                gap.settles = now + _FETCHING if any(asked) else now
            if now < gap.settles:
                continue
            if gap.looked:
                self._settle(track, gap)
            else:
                gap.looked = True
                gap.settles = now + _FETCHING
                self._queue.call(partial(self._look, track, gap))

    def settle_all(self) -> None:
        """Record the gaps that are open at the end.

        A track that never came back counts as missed only if there was something to miss.
        """
        for track, gap in list(self._gaps.items()):
            if gap.resumed is not None or (gap.expected and track not in INIT_TRACKS):
                self._settle(track, gap)

    def _settle(self, track: str, gap: _Gap) -> None:
        del self._gaps[track]
        self._queue.call(partial(self._settle_captured, track, gap.resumed, self._clock()))

    # In the worker thread

    def _capture(self, track: str, reason: str) -> None:
        captured = self._captured.get(track)
        if captured is None or captured.start is None:
            self._captured[track] = self._keeper.interruption(track, reason)

    def _look(self, track: str, gap: _Gap) -> None:
        interruption = self._captured.get(track)
        missing = [] if interruption is None else self._keeper.missed(interruption)
        gap.missing = list(_newest(missing))

    def _settle_captured(self, track: str, resumed: int | None, now: int) -> None:
        interruption = self._captured.get(track)
        if interruption is not None:
            self._keeper.settle(interruption, resumed, now)
            del self._captured[track]


def _newest(ranges: Iterable[tuple[int | None, int | None]]) -> Iterator[int]:
    """Give the sequences in the ranges, the newest first, and not too many."""
    count = 0
    for first, last in reversed(list(ranges)):
        if first is None or last is None:
            continue
        for sequence in range(last, first - 1, -1):
            if count == _FETCHED_AT_MOST:
                return
            count += 1
            yield sequence
