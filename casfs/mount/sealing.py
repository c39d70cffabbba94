"""Which hours and days of a broadcast are closed, and what belongs to them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.index.rows import SealRow
from casfs.mount.calendar import media_tracks
from casfs.mount.filenames import HOURS_PER_DAY
from casfs.timestamps import HOUR, NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from casfs.index.lookup import Lookup
    from casfs.index.rows import BroadcastRow

SETTLED = 600 * NANOSECONDS
"""How long after its end a day is closed at the earliest."""


def sealed_hours(
    lookup: Lookup, broadcast: BroadcastRow, hours: Iterable[int]
) -> dict[int, SealRow]:
    """Return, of these hours with media, those that are sealed, and what belongs to each.

    An hour that is sealed twice is what it was at first. One that got its first group after a later
    hour had been sealed (it was imported) is closed by the next seal of any later hour.
    """
    seals = list(lookup.seals(broadcast))
    own: dict[int, SealRow] = {}
    for seal in seals:
        own.setdefault(seal.hour, seal)
    found: dict[int, SealRow] = {}
    for hour in hours:
        if hour in own:
            found[hour] = own[hour]
            continue
        first = _first_commit(lookup, broadcast, hour)
        later = [
            seal.through
            for seal in seals
            if seal.hour > hour and first is not None and seal.through >= first
        ]
        if later:
            found[hour] = SealRow(hour, min(later))
    return found


def sealed_day(
    day: int, hours: Sequence[int], sealed: dict[int, SealRow], now: int
) -> tuple[SealRow, ...] | None:
    """Return what belongs to a day, given its hours with media; None while it is not closed."""
    over = now >= (day + 1) * HOURS_PER_DAY * HOUR + SETTLED
    if not over or not hours or any(hour not in sealed for hour in hours):
        return None
    return tuple(sealed[hour] for hour in hours)


def _first_commit(lookup: Lookup, broadcast: BroadcastRow, hour: int) -> int | None:
    start, stop = hour * HOUR, (hour + 1) * HOUR
    firsts = (
        next(iter(lookup.groups(track, start, stop)), None)
        for track in media_tracks(lookup, broadcast)
    )
    return min((row.n for row in firsts if row is not None), default=None)
