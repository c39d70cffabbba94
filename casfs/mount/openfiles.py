"""The files that are open in the mount, and how their bytes are read.

A read is answered from the page cache at once where the kernel can do that (``RWF_NOWAIT``), and in
a worker thread where the disk is needed, so that one slow read never holds up another.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Protocol

from casfs.errors import DamagedObjectError, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from casfs.mount.tree import StoredFile
    from casfs.mount.verified import CheckedBlocks, OpenedObject
    from casfs.mount.workers import Workers

# What a filesystem answers that cannot tell whether a read would have to wait.
_CANNOT_TELL = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL})


class OpenBytes:
    """A generated file: what it was when it was opened."""

    node: StoredFile | None = None

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``; fewer only at the end."""
        return self._content[offset : offset + size]

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


class OpenObject:
    """A range of an object that is verified before it is read. Owns the descriptor.

    ``report`` is told of damage that a read meets.
    """

    def __init__(
        self,
        node: StoredFile,
        opened: OpenedObject,
        workers: Workers,
        report: Callable[[DamagedObjectError], Awaitable[None]],
        *,
        known: bool = False,
    ) -> None:
        self.node = node
        self.known = known
        """Whether the object was open already, for somebody else or ahead of whoever opened it."""
        self._descriptor = opened.descriptor
        self._blocks = opened.blocks
        self._contents = opened.contents
        self._start = node.payload.offset
        self._size = node.payload.size
        self._workers = workers
        self._report = report

    async def read(self, offset: int, size: int) -> memoryview:
        """Return ``size`` bytes from ``offset``; fewer only at the end of the range.

        Raises DamagedObjectError, after the damage was reported; StorageError if the disk has
        fewer, OSError if it fails: never wrong bytes.
        """
        wanted = max(0, min(size, self._size - offset))
        part = self._held(offset, wanted)
        if part is not None:
            return part
        buffer = memoryview(bytearray(wanted))
        await self._fill(buffer, offset)
        return buffer

    async def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset`` on; return how many bytes that is, as `read` does."""
        wanted = max(0, min(len(buffer), self._size - offset))
        part = self._held(offset, wanted)
        if part is None:
            await self._fill(buffer[:wanted], offset)
            return wanted
        buffer[: len(part)] = part
        return len(part)

    def _held(self, offset: int, size: int) -> memoryview | None:
        """Return these bytes if they are at hand."""
        if self._contents is None:
            return None
        return self._contents.part(self.node.payload.digest, self._start + offset, size)

    async def _fill(self, buffer: memoryview, offset: int) -> None:
        position = self._start + offset
        if self._blocks is not None and buffer:
            await self._check(self._blocks, position, len(buffer))
        done = self._read_cached(buffer, position)
        if done < len(buffer):
            await self._workers.read(self._read_rest, buffer[done:], position + done)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    async def _check(self, blocks: CheckedBlocks, position: int, size: int) -> None:
        for block in blocks.unchecked(position, size):
            try:
                await self._workers.open(blocks.check, self._descriptor, block)
            except DamagedObjectError as error:
                await self._report(error)
                raise

    def _read_cached(self, buffer: memoryview, position: int) -> int:
        """Fill what the page cache holds; return how many bytes that was."""
        if not buffer:
            return 0
        try:
            return os.preadv(self._descriptor, [buffer], position, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in _CANNOT_TELL:
                return 0
            raise

    def _read_rest(self, buffer: memoryview, position: int) -> None:
        while buffer:
            count = os.preadv(self._descriptor, [buffer], position)
            if count == 0:
                raise StorageError(f"{self.node.payload.digest} ended at byte {position}")
            buffer = buffer[count:]
            position += count


class OpenFile(Protocol):
    """A file that somebody has open."""

    @property
    def node(self) -> StoredFile | None:
        """Return the stored file that it is; None if it is of another kind."""

    async def read(self, offset: int, size: int) -> bytes | bytearray | memoryview:
        """Return up to ``size`` bytes from ``offset``; fewer only at the end."""

    def close(self) -> None:
        """Give back what it holds."""


class OpenFiles:
    """Open files by handle, and the stored files among them by inode number.

    A group that was superseded keeps its attributes as long as somebody has it open.
    """

    def __init__(self) -> None:
        self._files: dict[int, OpenFile] = {}
        self._nodes: dict[int, list[StoredFile]] = {}
        self._last_handle = 0

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, handle: int) -> OpenFile:
        return self._files[handle]

    def add(self, file: OpenFile) -> int:
        """Take over an open file and return its handle."""
        self._last_handle += 1
        self._files[self._last_handle] = file
        if file.node is not None:
            self._nodes.setdefault(file.node.inode, []).append(file.node)
        return self._last_handle

    def node(self, inode: int) -> StoredFile | None:
        """Return the stored file with this number if it is open."""
        nodes = self._nodes.get(inode)
        return nodes[-1] if nodes else None

    def close(self, handle: int) -> None:
        """Close the file with this handle."""
        file = self._files.pop(handle)
        if file.node is not None:
            nodes = self._nodes[file.node.inode]
            nodes.pop()
            if not nodes:
                del self._nodes[file.node.inode]
        file.close()

    def close_all(self) -> None:
        """Close whatever is open."""
        for handle in list(self._files):
            self.close(handle)
