"""Whether a filesystem will be full of files before it is full of bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from casfs.errors import storage_error

if TYPE_CHECKING:
    from casfs.roots import Roots

USUAL_OBJECT = 64 << 10
"""What an object is taken to have where nothing is known, bytes: some seconds of audio, a short
group of video."""

_ENOUGH_FILES = 10_000


def inode_shortage(status: os.statvfs_result, object_bytes: float) -> str | None:
    """Return what is wrong if the free inodes will not hold the free bytes in such objects.

    None also where the filesystem has no fixed number of inodes (btrfs, ZFS: they tell 0).
    """
    if not status.f_files:
        return None
    free = status.f_bavail * status.f_frsize
    objects = int(free / max(object_bytes, status.f_frsize))
    if status.f_favail >= objects:
        return None
    return (
        f"has {status.f_favail} free inodes, but room for {objects} objects of "
        f"{object_bytes / 1000:.0f} kB each: it will be full of files before it is full of bytes"
    )


def usual_object(status: os.statvfs_result) -> float:
    """Return the mean size of the files that a filesystem holds; `USUAL_OBJECT` if they are few."""
    files = status.f_files - status.f_ffree
    if files < _ENOUGH_FILES:
        return USUAL_OBJECT
    return (status.f_blocks - status.f_bfree) * status.f_frsize / files


def inode_warning(roots: Roots, object_bytes: float | None = None) -> str | None:
    """Return one line of warning for the disk of the objects, or None.

    ``object_bytes``: the mean size of the archive's objects; None: by what the filesystem holds.
    Raises StorageError.
    """
    try:
        status = os.statvfs(roots.cas)
    except OSError as error:
        raise storage_error(error, "looking at", roots.cas) from error
    shortage = inode_shortage(status, object_bytes or usual_object(status))
    return None if shortage is None else f"the filesystem of {roots.cas} {shortage}"
