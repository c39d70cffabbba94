"""Open virtual files: bytes put together from verified objects as they are read.

Objects are opened, and so verified, when a read first needs them, and are kept open for a while:
all readers of a mount share them. Those of one read are opened together, in one visit to a thread,
and a sequential reader finds the next ones open.
"""

from __future__ import annotations

import contextlib
import errno
from collections import OrderedDict
from functools import partial
from itertools import filterfalse, islice
from typing import TYPE_CHECKING

import trio

from casfs.errors import DamagedObjectError, ObjectNotFoundError
from casfs.media.layout import Literal
from casfs.mount.tree import Attributes, Kind, ObjectRange, StoredFile, Validity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from casfs.digest import Digest
    from casfs.media.layout import Extent
    from casfs.mount.objects import ObjectReader
    from casfs.mount.openfiles import OpenObject
    from casfs.mount.opening import ObjectOpener
    from casfs.mount.tree import FileLayout, VirtualFile
    from casfs.mount.workers import Workers

_OPEN_OBJECTS = 256
_OPENED_TOGETHER = 64
_AHEAD_BYTES = 4 << 20
_AHEAD_OBJECTS = 128
_READS_APART = 8 << 20
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

    async def make_ready(self, wanted: Iterable[Extent]) -> None:
        """Have the objects open that these ranges lie in, as far as there is nothing to say of it.

        An object that is large, damaged or missing is left to `read`.
        """
        digests = iter(dict.fromkeys(extent.digest for extent in wanted))
        while missing := list(islice(filterfalse(self._is_known, digests), _OPENED_TOGETHER)):
            await self._open_together(missing)

    async def read_into(self, buffer: memoryview, extent: Extent) -> int:
        """Fill ``buffer`` with a range of an object that was verified; return how far it goes.

        Raises DamagedObjectError if it is damaged or missing, StorageError.
        """
        shared = self._open.get(extent.digest)
        if shared is None:
            shared = await self._get(extent.digest)
        else:
            self._open.move_to_end(extent.digest)
        shared.users += 1
        try:
            return await shared.file.read_into(buffer, extent.offset)
        finally:
            shared.users -= 1
            shared.close_if_unused()

    def close(self) -> None:
        """Let go of all of them."""
        while self._open:
            self._drop(next(iter(self._open)))

    def _is_known(self, digest: Digest) -> bool:
        return digest in self._open or digest in self._opening

    async def _open_together(self, digests: Sequence[Digest]) -> None:
        for digest in digests:
            self._opening[digest] = lock = trio.Lock()
            lock.acquire_nowait()
        try:
            for file in await self._opener.open_together(digests, WholeObject):
                self._keep(file)
        finally:
            for digest in digests:
                self._opening[digest].release()
                self._forget_lock(digest)

    def _forget_lock(self, digest: Digest) -> None:
        """Drop an object's lock unless somebody holds it by now, who will."""
        if digest in self._opening and not self._opening[digest].locked():
            del self._opening[digest]

    def _keep(self, file: OpenObject) -> _Shared:
        shared = self._open[file.node.payload.digest] = _Shared(file)
        while len(self._open) > _OPEN_OBJECTS:
            self._drop(next(iter(self._open)))
        return shared

    async def _get(self, digest: Digest) -> _Shared:
        lock = self._opening.setdefault(digest, trio.Lock())
        try:
            async with lock:
                shared = self._open.get(digest)
                return shared or self._keep(await self._open_object(digest))
        finally:
            self._forget_lock(digest)

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
        self._furthest = 0
        self._ready_to = 0

    async def read(self, offset: int, size: int) -> bytes | bytearray:
        """Return ``size`` bytes from ``offset``; fewer only at the end of what is there.

        Raises DamagedObjectError, StorageError, OSError: never wrong bytes.
        """
        if self._file.growing and offset + size > self._layout.size:
            await self._look_again()
        layout = self._layout
        pieces = await self._pieces(layout, offset, size)
        extents = [piece for piece in pieces if not isinstance(piece, Literal)]
        if len(extents) > 1:
            await self._objects.make_ready(extents)
        # What grows is asked for as it comes, and what it is made of is known to a database.
        if not self._file.growing:
            self._look_ahead(offset, offset + size)
        data = bytearray(max(0, min(size, layout.size - offset)))
        position = 0
        with memoryview(data) as view:
            for piece in pieces:
                if isinstance(piece, Literal):
                    stop = position + len(piece.data)
                    view[position:stop] = piece.data
                else:
                    stop = position + piece.length
                    found = await self._objects.read_into(view[position:stop], piece)
                    if found != piece.length:
                        raise OSError(errno.EIO, f"object {piece.digest} is too short")
                position = stop
        if self._file.growing:
            await self._workers.read(layout.overlay, data, offset)
        else:
            layout.overlay(data, offset)
        return data

    async def _pieces(self, layout: FileLayout, offset: int, size: int) -> list[Literal | Extent]:
        """Return what these bytes consist of: of a file that grows that may wait for a disk."""
        if self._file.growing:
            return await self._workers.read(lambda: list(layout.pieces(offset, size)))
        return list(layout.pieces(offset, size))

    def _look_ahead(self, begin: int, end: int) -> None:
        """Have what a sequential reader will ask for next made ready. Never waits."""
        # The kernel asks for several stretches at once, in any order.
        follows = self._furthest > 0 and abs(begin - self._furthest) < _READS_APART
        self._furthest = max(end, self._furthest) if follows else end
        if not follows:
            self._ready_to = 0
            return
        start = max(self._furthest, self._ready_to)
        if start - self._furthest < _AHEAD_BYTES // 2:
            extents: list[Extent] = []
            for piece in self._layout.pieces(start, _AHEAD_BYTES):
                if isinstance(piece, Literal):
                    start += len(piece.data)
                elif len(extents) < _AHEAD_OBJECTS:
                    start += piece.length
                    extents.append(piece)
            self._ready_to = start
            if extents:
                self._workers.in_background(partial(self._objects.make_ready, extents))

    def close(self) -> None:
        """Do nothing: objects are shared."""

    async def _look_again(self) -> None:
        if trio.current_time() >= self._fresh_until:
            self._layout = await self._workers.build(self._file.layout)
            self._fresh_until = trio.current_time() + _FRESH_SECONDS
