"""Whether a directory can be mounted on, and clearing away what a killed mount left there.

Everything here blocks; the programs that are run are ``fusermount3`` and, for root without it,
``umount``. The kernel's list of mounts is ``/proc/self/mountinfo`` (proc(5)).
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import subprocess

from msgspec import Struct

from casfs.errors import MountPointError

log = logging.getLogger(__name__)

FILESYSTEM_TYPE = "fuse.casfs"
"""What the kernel calls our mounts."""

_LOCAL = frozenset({"ext4", "ext3", "ext2", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs"})

FUSE_DEVICE = "/dev/fuse"

_FUSE_CONFIGURATION = "/etc/fuse.conf"
_MOUNTINFO = "/proc/self/mountinfo"
_MOST_STALE_MOUNTS = 16
_UNMOUNT_SECONDS = 20.0
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(Struct, frozen=True):
    """A line of mountinfo, as far as we need it."""

    path: str
    filesystem: str
    """Type, with its subtype: ``ext4``, ``fuse.casfs``."""
    device: str = ""
    """Major and minor number, ``0:39``: each mounted filesystem has its own."""
    propagation: str = ""
    """Where mounts beneath it show as well: ``shared:1``, ``master:1``, both, or nowhere."""


def prepare_mountpoint(path: str, *, allow_other: bool, allow_nonempty: bool) -> str:
    """Return the real path of a directory that can be mounted on now.

    A mount of ours whose process is dead is taken away first. Raises MountPointError if the
    directory does not exist, is none, is in use or (unless allowed) not empty, or if this user
    cannot mount with FUSE.
    """
    real = os.path.realpath(path)
    _replace_stale(real, path)
    used = next((mount for mount in reversed(mounts_at(real)) if _is_fuse(mount)), None)
    if used is not None:
        raise MountPointError(
            f"the mount point {path} is in use: a {used.filesystem} filesystem is mounted there",
            advice=f"unmount it (fusermount3 -u {path}) or choose another directory",
        )
    _check_directory(real, path, allow_nonempty=allow_nonempty)
    check_fuse(allow_other=allow_other)
    return real


def check_fuse(*, allow_other: bool) -> None:
    """Raise MountPointError if this process cannot mount a FUSE filesystem at all."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise MountPointError(
            f"there is no {FUSE_DEVICE}",
            advice="load the kernel module (modprobe fuse), or give the device to the container "
            "(--device /dev/fuse --cap-add SYS_ADMIN)",
        ) from None
    except OSError as error:
        raise MountPointError(
            f"{FUSE_DEVICE} cannot be opened: {error.strerror}",
            advice="it should have mode 0666; a container must be allowed the device",
        ) from error
    if os.geteuid() == 0:
        return
    if shutil.which("fusermount3") is None:
        raise MountPointError(
            "fusermount3 is not installed, and only root can mount without it",
            advice="install the package fuse3",
        )
    if allow_other and not _users_may_allow_other():
        raise MountPointError(
            "only root may give other users access to a mount on this machine",
            advice=f"write user_allow_other into {_FUSE_CONFIGURATION}",
        )


def mounts_at(path: str) -> list[Mount]:
    """Return what is mounted at exactly this real path, in order: the last one is on top."""
    return [mount for mount in _mounts(_MOUNTINFO) if mount.path == path]


def is_private(path: str) -> bool:
    """Say whether what is mounted at this real path shows to this service alone.

    That is so in a mount namespace of its own (systemd's PrivateTmp=, ProtectSystem= and their like
    make one), where nobody else would ever see the mount. Process 1 is asked for everybody; a user
    who may not do that learns it from how the mounts around propagate.
    """
    ours = mounts_at(path)
    try:
        seen = {mount.device for mount in _mounts("/proc/1/mountinfo")}
    except OSError:
        around = [m for m in _mounts(_MOUNTINFO) if m.path != path and _lies_in(path, m.path)]
        # What comes from elsewhere and goes nowhere is how such a namespace begins.
        return bool(around) and around[-1].propagation.startswith("master:")
    return bool(ours) and ours[-1].device not in seen


def may_hang(path: str) -> bool:
    """Say whether even the attributes of an open file may take long here: over a network, say."""
    real = os.path.realpath(path)
    around = [mount for mount in _mounts(_MOUNTINFO) if _lies_in(real, mount.path)]
    return not around or around[-1].filesystem not in _LOCAL


def _mounts(path: str) -> list[Mount]:
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        return [parse_mountinfo_line(line) for line in lines]


def _lies_in(path: str, directory: str) -> bool:
    return os.path.commonpath([path, directory]) == directory


def parse_mountinfo_line(line: str) -> Mount:
    """Return what one line of mountinfo says (proc(5)): fields 3, 5, 7, and 9 after the ``-``."""
    before, _, after = line.partition(" - ")
    fields = before.split(" ")
    path = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
    return Mount(
        path=path,
        filesystem=after.split(" ")[0],
        device=fields[2],
        propagation=" ".join(fields[6:]),
    )


def unmount(path: str) -> None:
    """Detach what is mounted at ``path``, at once, also if it is in use.

    Raises MountPointError with what the program said if that fails.
    """
    program = shutil.which("fusermount3")
    command = [program, "-u", "-z", "-q", path] if program else ["umount", "-l", path]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_UNMOUNT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountPointError(
            f"{path} cannot be unmounted: {error}", advice=f"run umount -l {path} as root"
        ) from error
    if result.returncode != 0:
        said = result.stderr.strip() or f"{command[0]} ended with {result.returncode}"
        raise MountPointError(
            f"{path} cannot be unmounted: {said}", advice=f"run umount -l {path} as root"
        )


def _replace_stale(real: str, path: str) -> None:
    """Detach our dead mounts at this path, one for each time that a mount was killed."""
    for _ in range(_MOST_STALE_MOUNTS):
        if not _is_stale(real):
            return
        mounts = mounts_at(real)
        if not mounts or mounts[-1].filesystem != FILESYSTEM_TYPE:
            found = mounts[-1].filesystem if mounts else "unknown"
            raise MountPointError(
                f"a dead mount that is not ours ({found}) stands at {path}",
                advice=f"take it away with fusermount3 -uz {path}",
            )
        log.warning("replacing the mount at %s: the process that served it is gone", path)
        unmount(real)


def _is_stale(path: str) -> bool:
    try:
        # Not stat: the kernel may still remember what a dead process answered to that.
        os.statvfs(path)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def _check_directory(real: str, path: str, *, allow_nonempty: bool) -> None:
    try:
        entries = os.listdir(real)
    except FileNotFoundError:
        raise MountPointError(
            f"the mount point {path} does not exist", advice=f"create it: mkdir -p {path}"
        ) from None
    except NotADirectoryError:
        raise MountPointError(
            f"the mount point {path} is not a directory", advice="choose a directory"
        ) from None
    except OSError as error:
        raise MountPointError(
            f"the mount point {path} cannot be used: {error.strerror}",
            advice="choose a directory that this user may read and write",
        ) from error
    if entries and not allow_nonempty:
        raise MountPointError(
            f"the mount point {path} is not empty: a mount would hide {entries[0]!r}",
            advice="choose an empty directory",
        )
    if not os.access(real, os.W_OK | os.X_OK):
        raise MountPointError(
            f"this user may not mount on {path}", advice="choose a directory that is yours"
        )


def _is_fuse(mount: Mount) -> bool:
    return mount.filesystem == "fuse" or mount.filesystem.startswith(("fuse.", "fuseblk"))


def _users_may_allow_other() -> bool:
    try:
        with open(_FUSE_CONFIGURATION, encoding="utf-8", errors="replace") as lines:
            return any(line.split("#")[0].strip() == "user_allow_other" for line in lines)
    except OSError:
        return False
