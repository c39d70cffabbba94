"""On which kind of filesystem a directory lies, and what that means for an archive.

The kernel's list of mounts is ``/proc/self/mountinfo`` (proc(5)).
"""

from __future__ import annotations

import os
import re

_MOUNTINFO = "/proc/self/mountinfo"
_ESCAPE = re.compile(r"\\([0-7]{3})")

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"}
    | {"fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "ncpfs", "virtiofs"}
)
"""Where locks and syncs depend on another machine: an archive is not made there unasked."""

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
"""Where nothing survives a power cut."""


def filesystem_of(path: str, mountinfo: str = _MOUNTINFO) -> str:
    """Return the type of the filesystem that ``path``, or the nearest parent that exists, lies on.

    Such as ``ext4``, ``nfs4`` or ``fuse.sshfs``; empty if the kernel does not say.
    """
    real = os.path.realpath(path)
    found, longest = "", -1
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return ""
    for line in lines:
        # A later mount at the same place hides the earlier one.
        left, _, right = line.partition(" - ")
        place = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), left.split()[4])
        within = real == place or real.startswith(place.rstrip("/") + "/")
        if within and len(place) >= longest:
            found, longest = right.split()[0], len(place)
    return found
