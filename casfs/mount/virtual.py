"""Open virtual files: bytes put together from verified objects as they are read.

Objects are opened, and so verified, when a read first needs them, and are kept open for a while:
all readers of a mount share them.
"""

from __future__ import annotations

import contextlib
import errno
from collections import OrderedDict
from typing import TYPE_CHECKING

import trio

from casfs.errors import DamagedObjectError, ObjectNotFoundError
from casfs.media.layout import Literal
from casfs.mount.tree import Attributes, Kind, ObjectRange, StoredFile, Validity

if TYPE_CHECKING:
    from casfs.digest import Digest
    from casfs.media.layout import Extent
    from casfs.mount.objects import ObjectReader
    from casfs.mount.openfiles import OpenObject
    from casfs.mount.opening import ObjectOpener
    from casfs.mount.tree import FileLayout, VirtualFile
    from casfs.mount.workers import Workers

_OPEN_OBJECTS = 128
_FRESH_SECONDS = 0.2


class WholeObject(StoredFile):
    """An object as recordings need it. Never shown by itself."""

    def __init__(self, digest: Digest, size: int) -> None:
        self._range = ObjectRange(digest, 0, size)

    @property
    def inode(self) -> int:
        """Return no number that anything has."""
        return 0

    @property
    def payload(self) -> ObjectRange:
        """Return the whole object."""
        return self._range

    def attributes(self) -> Attributes:
        """Return its size."""
        return Attributes(
            inode=0, kind=Kind.FILE, size=self._range.size, modified=0, validity=Validity.NONE
        )


class _Shared:
    """An open object, and how many reads use it right now."""

    def __init__(self, file: OpenObject) -> None:
        self.file = file
        self.users = 0
        self.dropped = False

    def close_if_unused(self) -> None:
        if self.dropped and self.users == 0:
            self.file.close()


class SharedObjects:
    """The objects that virtual files are being read from. Use it in one event loop."""

    def __init__(self, opener: ObjectOpener, store: ObjectReader, workers: Workers) -> None:
        self._opener = opener
        self._store = store
        self._workers = workers
        self._open: OrderedDict[Digest, _Shared] = OrderedDict()
        self._opening: dict[Digest, trio.Lock] = {}

    async def read(self, extent: Extent) -> bytes | memoryview:
        """Return a range of an object that was verified.

        Raises DamagedObjectError if it is damaged or missing, StorageError.
        """
        shared = self._open.get(extent.digest)
        if shared is None:
            shared = await self._get(extent.digest)
        else:
            self._open.move_to_end(extent.digest)
        shared.users += 1
        try:
            return await shared.file.read(extent.offset, extent.length)
        finally:
            shared.users -= 1
            shared.close_if_unused()

    def close(self) -> None:
        """Let go of all of them."""
        while self._open:
            self._drop(next(iter(self._open)))

    async def _get(self, digest: Digest) -> _Shared:
        lock = self._opening.setdefault(digest, trio.Lock())
        try:
            async with lock:
                shared = self._open.get(digest)
                if shared is None:
                    shared = self._open[digest] = _Shared(await self._open_object(digest))
                    while len(self._open) > _OPEN_OBJECTS:
                        self._drop(next(iter(self._open)))
                return shared
        finally:
            if not lock.statistics().tasks_waiting:
                self._opening.pop(digest, None)

    async def _open_object(self, digest: Digest) -> OpenObject:
        size = 0
        with contextlib.suppress(ObjectNotFoundError):  # the opener tells everybody
            size = (await self._workers.read(self._store.stat, digest)).st_size
        try:
            return await self._opener.open(WholeObject(digest, size))
        except ObjectNotFoundError as error:
            # Not found is the object, not the file that is read.
            raise DamagedObjectError(error.message, advice="run casfs verify") from error

    def _drop(self, digest: Digest) -> None:
        shared = self._open.pop(digest)
        shared.dropped = True
        shared.close_if_unused()


class OpenVirtual:
    """A virtual file that somebody reads."""

    node: StoredFile | None = None

    def __init__(
        self, file: VirtualFile, layout: FileLayout, objects: SharedObjects, workers: Workers
    ) -> None:
        self._file = file
        self._layout = layout
        self._objects = objects
        self._workers = workers
        self._fresh_until = trio.current_time() + _FRESH_SECONDS

    async def read(self, offset: int, size: int) -> bytes | bytearray:
        """Return ``size`` bytes from ``offset``; fewer only at the end of what is there.

        Raises DamagedObjectError, StorageError, OSError: never wrong bytes.
        """
        if self._file.growing and offset + size > self._layout.size:
            await self._look_again()
        layout = self._layout
        data = bytearray()
        for piece in layout.pieces(offset, size):
            if isinstance(piece, Literal):
                data += piece.data
                continue
            found = await self._objects.read(piece)
            if len(found) != piece.length:
                raise OSError(errno.EIO, f"object {piece.digest} is too short")
            data += found
        layout.overlay(data, offset)
        return data

    def close(self) -> None:
        """Do nothing: objects are shared."""

    async def _look_again(self) -> None:
        if trio.current_time() >= self._fresh_until:
            self._layout = await self._workers.build(self._file.layout)
            self._fresh_until = trio.current_time() + _FRESH_SECONDS
