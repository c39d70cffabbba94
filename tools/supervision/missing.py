"""What may be missing from an archive: only what is on record as a gap, and nobody could have had.

A relay remembers a group for a minute. One that is missing is excused if the archive says so itself
and no recorder ran, long enough to get it, while the relay still had it. Of what was sent before
the very first recorder came, and lies before all that it got, the archive cannot know.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.manifests.record import GapRecord, LostSessionRecord, StartRecord, StopRecord
from casfs.timestamps import NANOSECONDS, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

REMEMBERED = 60.0
"""Seconds that a relay can be relied on to remember a group, and a recorder asks for."""

CHANCE = 15.0
"""Seconds that a recorder which has just begun may need to have it."""


class Session(Struct, frozen=True):
    """When a recorder ran, seconds UTC."""

    start: float
    end: float


class Missing(Struct, frozen=True):
    """The groups that are missing, by what the archive says of them; each by its sequence."""

    unrecorded: list[int]
    """Not a word is said about them."""
    missed: list[int]
    """On record as a gap, but a recorder was there."""
    excused: list[int]
    """On record as a gap, or before the beginning; no recorder was there for long enough."""

    @property
    def amiss(self) -> bool:
        """Whether any of it should have been there."""
        return bool(self.unrecorded or self.missed)


def sessions_of(
    records: Iterable[StartRecord | StopRecord | LostSessionRecord], kills: Sequence[float]
) -> list[Session]:
    """Return the sessions of a broadcast, from its journal and from when recorders were killed.

    A lost session says only when it wrote last: it ended with the next kill.
    """
    starts: dict[str, float] = {}
    ends: dict[str, float] = {}
    for record in records:
        match record:
            case StartRecord():
                starts[record.recorder] = _seconds(record.time)
            case StopRecord():
                ends[record.recorder] = _seconds(record.time)
            case LostSessionRecord():
                last = _seconds(record.last)
                ends[record.lost] = min((kill for kill in kills if kill >= last), default=last)
    return [Session(start, ends.get(name, math.inf)) for name, start in starts.items()]


def judge_missing(
    sent: Mapping[int, float],
    gaps: Sequence[GapRecord],
    sessions: Sequence[Session],
    *,
    lowest: int = 0,
) -> Missing:
    """Judge groups that are missing: their sequences, and when each was sent, seconds UTC.

    ``lowest``: the first group that is kept.
    """
    found = Missing([], [], [])
    began = min((session.start for session in sessions), default=math.inf)
    for sequence, at in sorted(sent.items()):
        before = sequence < lowest and at < began
        if not before and not any(_covers(gap, sequence, at) for gap in gaps):
            found.unrecorded.append(sequence)
        elif any(_had_a_chance(session, at) for session in sessions):
            found.missed.append(sequence)
        else:
            found.excused.append(sequence)
    return found


def _covers(gap: GapRecord, sequence: int, at: float) -> bool:
    if gap.first is not None and sequence < int(gap.first):
        return False
    if gap.last is not None and sequence > int(gap.last):
        return False
    # Where it does not say from which group to which, only its time says what it means.
    known = gap.first is not None and gap.last is not None
    return known or _seconds(gap.start) <= at <= _seconds(gap.end)


def _had_a_chance(session: Session, at: float) -> bool:
    return min(session.end, at + REMEMBERED) - max(session.start, at) >= CHANCE


def _seconds(time: str) -> float:
    return parse_time(time) / NANOSECONDS
