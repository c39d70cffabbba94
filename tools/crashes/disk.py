"""Filesystems in image files, whose power can be cut.

The ioctl of ``xfs_io -x -c shutdown`` makes an ext4 or XFS forget everything that is not on its
disk, as a power cut does; it then answers EIO until it is mounted again, journal recovery and all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Self

FILESYSTEMS = ("ext4", "xfs")
"""Those that can be cut."""

_BYTES = 320 << 20  # the least that mkfs.xfs takes is 300 MiB; the image is sparse
# XFS_IOC_GOINGDOWN of xfs_fs.h, which ext4 calls EXT4_IOC_SHUTDOWN, and two of its flags.
_SHUTDOWN = 0x8004587D
_JOURNAL_FIRST = 1
_AT_ONCE = 2
_UNMOUNT_SECONDS = 10.0
_RELEASE_SECONDS = 20.0
_LOOK_SECONDS = 0.005
_NAMED = 3


class UnavailableError(Exception):
    """This machine cannot do it: a tool is missing, or we are not root."""


class HeldError(OSError):
    """Somebody else keeps a filesystem alive that we have unmounted: nothing about it is proven.

    A container that began while it was mounted, say, has a mount of its own. What was cut answers
    EIO until the last of them is gone, and mounting the image again only shows the same one.
    """


class Disk:
    """One filesystem, mounted at ``path``; a context manager that leaves nothing behind.

    Raises UnavailableError.
    """

    def __init__(self, directory: Path, filesystem: str) -> None:
        for tool in (f"mkfs.{filesystem}", "mount", "umount"):
            if shutil.which(tool) is None:
                raise UnavailableError(f"{tool} is not installed")
        if os.geteuid() != 0:
            raise UnavailableError("only root can mount a filesystem and shut it down")
        directory.mkdir()
        directory = directory.resolve()
        self.path = directory / "mounted"
        self.path.mkdir()
        self._directory = directory
        self._image = directory / "image"
        self.left = directory / "left"
        """The image as it was when `keep_left` was called last."""
        with open(self._image, "wb") as file:
            file.truncate(_BYTES)
        subprocess.run([f"mkfs.{filesystem}", "-q", self._image], check=True, capture_output=True)

    def __enter__(self) -> Self:
        try:
            self.mount()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.unmount()
        except (subprocess.CalledProcessError, HeldError):
            # Somebody still looks at it: the loop device is freed when they are gone.
            subprocess.run(["umount", "--lazy", self.path], check=False, capture_output=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def mount(self) -> None:
        """Mount it; what a cut left is recovered. Raises UnavailableError."""
        command = ["mount", "-o", "loop", str(self._image), str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UnavailableError(f"no image can be mounted here: {done.stderr.strip()}")

    def cut(self, *, journal_first: bool = False) -> int:
        """Cut the power, or (both can happen) just after the journal was written on its own.

        Returns when it began (nanoseconds, monotonic). A sync that is under way then may return
        success and have done nothing. In a power cut nobody is left to hear it; where one disk of
        two dies, or a filesystem shuts itself down, the writer lives and must not believe it.
        """
        return shut_down(str(self.path), journal_first=journal_first)

    def keep_left(self) -> None:
        """Copy the image, which is not mounted, as whatever ended its filesystem has left it."""
        copy_sparse(self._image, self.left)

    def unmount(self) -> None:
        """Unmount it; the loop device goes with the mount.

        Raises CalledProcessError, and HeldError if the filesystem lives on elsewhere.
        """
        deadline = time.monotonic() + _UNMOUNT_SECONDS
        while self._mounted():
            late = time.monotonic() > deadline
            subprocess.run(["umount", self.path], check=late, capture_output=True)
        # The kernel lets go of the device a moment later, once nobody has the filesystem mounted.
        deadline = time.monotonic() + _RELEASE_SECONDS
        while device := self._device():
            if time.monotonic() > deadline:
                raise HeldError(
                    f"{device} is still in use although {self.path} was unmounted: another mount "
                    f"namespace keeps it alive ({_holders(self.path)}); end that, and try again"
                )
            time.sleep(_LOOK_SECONDS)

    def _device(self) -> str:
        """Return the loop device that still has the image; empty if none has."""
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if path.read_text(encoding="utf-8").rstrip("\n") == str(self._image):
                    return f"/dev/{path.parts[-3]}"
        return ""

    def _mounted(self) -> bool:
        # Not by a look at the path: a filesystem that is shut down answers EIO.
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
            return any(line.split()[1] == str(self.path) for line in mounts)

    @property
    def free(self) -> float:
        """The part of it that is not used, 0 to 1."""
        status = os.statvfs(self.path)
        return status.f_bavail / status.f_blocks


def _holders(path: Path) -> str:
    """Name processes that see something mounted at ``path``."""
    holders: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f" {path} " in (process / "mounts").read_text(encoding="utf-8", errors="replace"):
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                holders.append(f"process {process.name}, {name}")
    return "; ".join(holders[:_NAMED]) or "of no process that can be seen"


def shut_down(path: str, *, journal_first: bool = False) -> int:
    """Cut the power of the filesystem that is mounted at ``path``, as `Disk.cut` does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = struct.pack("I", _JOURNAL_FIRST if journal_first else _AT_ONCE)
        instant = time.monotonic_ns()
        fcntl.ioctl(descriptor, _SHUTDOWN, how)
    finally:
        os.close(descriptor)
    return instant


def copy_sparse(source: Path | str, target: Path | str) -> None:
    """Copy a file and leave its holes holes; raises CalledProcessError."""
    command = ["cp", "--sparse=always", "--", source, target]
    subprocess.run(command, check=True, capture_output=True)
