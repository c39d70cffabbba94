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
        later = [seal.through for seal in seals if seal.hour > hour]
        first = _first_commit(lookup, broadcast, hour) if later else None
        closing = [through for through in later if first is not None and through >= first]
        if closing:
            found[hour] = SealRow(hour, min(closing))
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
    """Return the lowest commit number of the hour's media, of which there may be very much."""
    firsts = (
        entry.n
        for track in media_tracks(lookup, broadcast)
        for entry in lookup.group_entries(track, hour, after=0, most=1)
    )
    extents = (lookup.extent(broadcast.number, n) for n in firsts)
    rows = (row for extent in extents if extent is not None for row in extent.group_rows())
    return min((row.n for row in rows), default=None)
