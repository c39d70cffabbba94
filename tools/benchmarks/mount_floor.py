"""What pyfuse3 costs by itself: a filesystem that shows a directory and does nothing else.

``python -m tools.benchmarks.mount_floor DIRECTORY MOUNTPOINT``. It knows all names and attributes
when it begins, never leaves its event loop, and checks nothing: no filesystem of pyfuse3 answers
sooner. What it takes longer than its peers is what no tree and no cache of ours could win back.
"""

from __future__ import annotations

import os
import stat
import sys
from errno import ENOENT, EOPNOTSUPP
from typing import TYPE_CHECKING

import pyfuse3
import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROOT = 1
_LASTING = 300.0


class Directory:
    """A directory that was read once."""

    def __init__(self) -> None:
        self.entries: list[tuple[bytes, pyfuse3.InodeT, int, int]] = []
        """Name, inode number, mode and size of each."""
        self.numbers: dict[bytes, pyfuse3.InodeT] = {}


class Floor(pyfuse3.Operations):
    """Shows what is below ``directory`` as it was when it was made."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._paths = ["", directory]
        self._modes = [0, stat.S_IFDIR | 0o555]
        self._sizes = [0, 0]
        self._directories: dict[int, Directory] = {}
        self._read(_ROOT)

    def _read(self, inode: int) -> None:
        self._directories[inode] = found = Directory()
        for entry in sorted(os.scandir(self._paths[inode]), key=lambda entry: entry.name):
            number = pyfuse3.InodeT(len(self._paths))
            status = entry.stat()
            self._paths.append(entry.path)
            self._modes.append(status.st_mode)
            self._sizes.append(status.st_size)
            name = os.fsencode(entry.name)
            found.entries.append((name, number, status.st_mode, status.st_size))
            found.numbers[name] = number
            if entry.is_dir():
                self._read(number)

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: bytes, _ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        inode = self._directories[parent_inode].numbers.get(name)
        if inode is None:
            raise pyfuse3.FUSEError(ENOENT)
        return self._entry(inode)

    async def getattr(
        self, inode: pyfuse3.InodeT, _ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(inode)

    async def getxattr(
        self, _inode: pyfuse3.InodeT, _name: bytes, _ctx: pyfuse3.RequestContext
    ) -> bytes:
        raise pyfuse3.FUSEError(EOPNOTSUPP)

    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        pass

    async def open(
        self, inode: pyfuse3.InodeT, _flags: pyfuse3.FlagT, _ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        descriptor = os.open(self._paths[inode], os.O_RDONLY | os.O_CLOEXEC)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(descriptor), keep_cache=True)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        return os.pread(fh, size, off)

    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        os.close(fh)

    async def opendir(
        self, inode: pyfuse3.InodeT, _ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        attributes = self._entry(_ROOT)
        entries = self._directories[fh].entries
        for place in range(start_id, len(entries)):
            name, attributes.st_ino, mode, attributes.st_size = entries[place]
            attributes.st_mode = pyfuse3.ModeT(mode)
            if not pyfuse3.readdir_reply(token, name, attributes, place + 1):
                return

    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        pass

    def _entry(self, inode: int) -> pyfuse3.EntryAttributes:
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = pyfuse3.InodeT(inode)
        attributes.st_mode = pyfuse3.ModeT(self._modes[inode])
        attributes.st_size = self._sizes[inode]
        attributes.entry_timeout = attributes.attr_timeout = _LASTING
        return attributes


def main() -> None:
    """Serve until it is unmounted."""
    directory, mountpoint = sys.argv[1:]
    options = {*pyfuse3.default_options, "ro", "fsname=floor"}
    pyfuse3.init(Floor(os.path.realpath(directory)), mountpoint, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
