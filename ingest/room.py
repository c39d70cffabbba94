"""How much space the disks of an archive have, and what that allows. Pure but for one look."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from ingest.supervision import Room

if TYPE_CHECKING:
    from casfs.quantities import Room as Wanted
    from casfs.roots import Roots

_ENOUGH_AGAIN = 1.1
"""Once short, so much more than asked for must be free before recordings begin again."""


class Disk(Struct, frozen=True):
    """A filesystem, bytes."""

    total: int
    free: int
    """For us, who may not use what is reserved for root."""


def look_at_disks(roots: Roots) -> tuple[Disk, Disk]:
    """Return the disks of objects and of manifests; raises OSError."""
    return _disk(roots.cas), _disk(roots.manifests)


def judge(disks: tuple[Disk, ...], wanted: Wanted, before: Room) -> Room:
    """Return what the fuller of the disks allows, when ``before`` was the last judgement."""
    return min(_judge(disk, wanted.of(disk.total), before) for disk in disks)


def _judge(disk: Disk, wanted: int, before: Room) -> Room:
    if disk.free < wanted / 2:
        return Room.CRITICAL
    enough = wanted if before is Room.AMPLE else wanted * _ENOUGH_AGAIN
    return Room.AMPLE if disk.free >= enough else Room.LOW


def _disk(path: str) -> Disk:
    status = os.statvfs(path)
    return Disk(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)
