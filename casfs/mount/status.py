"""What ``/.casfs/status.json`` tells about a running mount.

The members below are stable: further ones may come, none goes or changes its meaning. Times are
RFC 3339 with nine decimals.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.index.rows import GroupRow

LISTED_DAMAGE = 100
"""How many of the last damaged objects are listed."""

LISTED_GROUPS = 20
"""How many groups are listed for each of them."""


class GroupIdentity(Struct, frozen=True):
    """The group that an object is needed for."""

    broadcast: str
    track: str
    epoch: int
    sequence: str
    """Decimal; text, because it can pass 2**53."""

    @classmethod
    def of(cls, group: GroupRow) -> GroupIdentity:
        """Return the identity of a row."""
        return cls(group.broadcast.name, group.track, group.epoch, str(group.sequence))

    def __str__(self) -> str:
        return f"{self.broadcast} {self.track} epoch {self.epoch} group {self.sequence}"


class DamagedObject(Struct, frozen=True):
    """An object that could not be served."""

    hash: Digest
    reason: str
    found: str
    """When this was met first."""
    groups: tuple[GroupIdentity, ...]
    """Which groups need the object: the first `LISTED_GROUPS` of them."""


class MountStatus(Struct, frozen=True, kw_only=True):
    """The members of ``status.json``."""

    version: str
    """Of casfs."""
    archive: str | None
    """The id of the archive, as in ``format.json``; null if it was not told."""
    mounted: str
    """When the mount began."""
    broadcasts: int
    """How many the archive holds."""
    open_files: int
    verified_opens: int
    """How many opens read and hashed an object and found it sound."""
    remembered_opens: int
    """How many opens found an object that had been hashed a moment ago."""
    prefetched: int
    """How many objects were verified and read before they were asked for."""
    read_ahead_bytes: int | None
    """How far the kernel reads ahead in the mount; null if it does not tell."""
    damaged_opens: int
    """How many opens were refused because the object is damaged or missing."""
    damaged_reads: int
    """How many reads were refused because that block of a large object is damaged."""
    damaged: tuple[DamagedObject, ...]
    """The last `LISTED_DAMAGE` objects that were refused, the latest last."""


class Counters:
    """What a mount counts while it runs."""

    def __init__(self) -> None:
        self.open_files = 0
        self.verified_opens = 0
        self.remembered_opens = 0
        self.prefetched = 0
        self.read_ahead_bytes: int | None = None
        self.damaged_opens = 0
        self.damaged_reads = 0
        self._damaged: deque[DamagedObject] = deque(maxlen=LISTED_DAMAGE)

    def opened(self, *, hashed: bool) -> None:
        """Count an open that was granted."""
        if hashed:
            self.verified_opens += 1
        else:
            self.remembered_opens += 1

    def refused(self, damaged: DamagedObject, *, read: bool = False) -> bool:
        """Count an open or a read that was refused; say whether this damage is met first."""
        if read:
            self.damaged_reads += 1
        else:
            self.damaged_opens += 1
        if any((d.hash, d.reason) == (damaged.hash, damaged.reason) for d in self._damaged):
            return False
        self._damaged.append(damaged)
        return True

    def summary(self) -> str:
        """Return the figures that matter most, in a few words."""
        return f"{self.open_files} open files, {len(self._damaged)} damaged objects met"

    @property
    def damaged(self) -> Sequence[DamagedObject]:
        """Return the last objects that were refused."""
        return tuple(self._damaged)


def render_status(status: MountStatus) -> bytes:
    """Return the status as indented JSON with a newline."""
    return msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n"
