"""What is expired of an hour of a broadcast, as a journal of expiries tells it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.manifests.record import ExpiredRecord, RestoredRecord
from casfs.timestamps import HOUR, parse_time

if TYPE_CHECKING:
    from casfs.manifests.record import AnyRecord


class ExpiredHour(Struct, frozen=True):
    """What is expired of the records of one hour, by received-start."""

    through: int
    """Those up to this commit number; 0: none."""
    keep: frozenset[int] = frozenset()
    """But not these."""

    def names(self, n: int) -> bool:
        """Say whether the record with this commit number is expired, if it is of this hour."""
        return n <= self.through and n not in self.keep

    def covers(self, other: ExpiredHour) -> bool:
        """Say whether all that ``other`` names is named."""
        kept = {n for n in self.keep if n <= other.through}
        return self.through >= other.through and kept <= other.keep


NOTHING_EXPIRED = ExpiredHour(0)
"""Of an hour that never expired, or was restored."""


def expired_hour(record: AnyRecord) -> tuple[int, ExpiredHour] | None:
    """Return the hour (since the Unix epoch) that a record tells of, and what it says is expired.

    None for a record that tells nothing of expiry.
    """
    if isinstance(record, ExpiredRecord):
        return parse_time(record.hour) // HOUR, ExpiredHour(record.through, frozenset(record.keep))
    if isinstance(record, RestoredRecord):
        return parse_time(record.hour) // HOUR, NOTHING_EXPIRED
    return None
