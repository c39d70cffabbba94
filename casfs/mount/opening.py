"""Opening a stored file for a reader: verified, counted, and reported when it is damaged."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import trio

from casfs.digest import BLOCK_BYTES
from casfs.errors import CasfsError, DamagedObjectError, ObjectNotFoundError
from casfs.mount.mountpoint import may_hang
from casfs.mount.openfiles import OpenObject
from casfs.mount.status import LISTED_GROUPS, DamagedObject, GroupIdentity
from casfs.mount.verified import Verification, VerifiedObjects
from casfs.timestamps import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from casfs.digest import Digest
    from casfs.mount.status import Counters
    from casfs.mount.tree import ObjectRange, StoredFile
    from casfs.mount.verified import OpenedObject
    from casfs.mount.views import ArchiveView
    from casfs.mount.workers import Workers

log = logging.getLogger(__name__)


class ObjectOpener:
    """Opens the stored files of one mount and keeps its ``counters``."""

    def __init__(
        self,
        view: ArchiveView,
        counters: Counters,
        workers: Workers,
        verification: Verification = Verification.OPEN,
    ) -> None:
        self._lookup = view.lookup
        self._objects = VerifiedObjects(view.objects, verification=verification)
        self._counters = counters
        self._workers = workers
        self._disk_may_hang = may_hang(view.objects.root)
        self._preparing: dict[Digest, trio.Event] = {}

    def close(self) -> None:
        """Close what is kept open for the next reader."""
        self._objects.close()

    async def open(self, node: StoredFile) -> OpenObject:
        """Return the file, its object verified, or to be verified as it is read.

        Raises DamagedObjectError or ObjectNotFoundError, after the log and the counters have it;
        StorageError if the disk does not let us open it.
        """
        again = None if self._disk_may_hang else self._objects.open_again(node.payload)
        if again is not None:
            self._counters.opened(hashed=False)
            return self._opened(node, again)
        preparing = self._preparing.get(node.payload.digest)
        if preparing is not None:
            await preparing.wait()
        blocks = await self._block_hashes(node.payload)
        try:
            opened = await self._workers.open(self._objects.open, node.payload, blocks)
        except (DamagedObjectError, ObjectNotFoundError) as error:
            await self._report(node, error)
            raise
        self._counters.opened(hashed=opened.hashed)
        return self._opened(node, opened)

    async def open_together(
        self, digests: Sequence[Digest], node_of: Callable[[Digest, int], StoredFile]
    ) -> list[OpenObject]:
        """Open many small objects in one visit to a thread; ``node_of`` makes a file of each.

        Those that are large, and those with which something is wrong, are left out: `open` tells.
        """
        found = await self._workers.open(self._open_each, digests)
        for _, opened in found:
            self._counters.opened(hashed=opened.hashed)
        return [self._opened(node_of(each.digest, each.size), opened) for each, opened in found]

    def _open_each(self, digests: Sequence[Digest]) -> list[tuple[ObjectRange, OpenedObject]]:
        found = []
        for digest in digests:
            with contextlib.suppress(CasfsError):
                opened = self._objects.open_small(digest)
                if opened is not None:
                    found.append(opened)
        return found

    def _opened(self, node: StoredFile, opened: OpenedObject) -> OpenObject:
        return OpenObject(node, opened, self._workers, partial(self._report, node, read=True))

    async def prepare(self, node: StoredFile) -> None:
        """Have the file's object verified and in the page cache, for an open that will come.

        Raises what `open` raises, but reports nothing: nobody was refused yet.
        """
        digest = node.payload.digest
        if digest in self._preparing:
            return
        self._preparing[digest] = done = trio.Event()
        try:
            blocks = await self._block_hashes(node.payload)
            await self._workers.prepare(self._read_ahead, node.payload, blocks)
            self._counters.prefetched += 1
        finally:
            del self._preparing[digest]
            done.set()

    def _read_ahead(self, wanted: ObjectRange, blocks: Sequence[Digest]) -> None:
        opened = self._objects.open(wanted, blocks)
        try:
            size = min(wanted.size, BLOCK_BYTES)
            os.posix_fadvise(opened.descriptor, wanted.offset, size, os.POSIX_FADV_WILLNEED)
            if opened.blocks is not None:
                for block in opened.blocks.unchecked(wanted.offset, size):
                    opened.blocks.check(opened.descriptor, block)
        finally:
            os.close(opened.descriptor)

    async def _block_hashes(self, wanted: ObjectRange) -> Sequence[Digest]:
        if not self._objects.wants_blocks(wanted):
            return ()
        return await self._workers.ask(self._lookup.block_hashes, wanted.digest)

    async def _report(self, node: StoredFile, error: CasfsError, *, read: bool = False) -> None:
        """Count the damage, and say once which object it is and which groups need it."""
        digest = node.payload.digest
        groups = await self._workers.ask(
            lambda: list(islice(self._lookup.referencing(digest), LISTED_GROUPS))
        )
        damaged = DamagedObject(
            hash=digest,
            reason=error.message,
            found=format_time(time.time_ns()),
            groups=tuple(GroupIdentity.of(group) for group in groups),
        )
        if self._counters.refused(damaged, read=read):
            needed = "; ".join(str(group) for group in damaged.groups) or "no group"
            log.warning("refused to serve damaged bytes: %s; needed by: %s", error.message, needed)
