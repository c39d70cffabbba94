"""Opening a stored file for a reader: verified, counted, and reported when it is damaged."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from casfs.digest import BLOCK_BYTES
from casfs.errors import CasfsError, DamagedObjectError, ObjectNotFoundError
from casfs.mount.mountpoint import may_hang
from casfs.mount.openfiles import OpenObject
from casfs.mount.status import LISTED_GROUPS, DamagedObject, GroupIdentity
from casfs.mount.verified import Verification, VerifiedObjects
from casfs.timestamps import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
        self._preparing: dict[Digest, threading.Event] = {}

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
            return self._opened(node, again, known=True)
        blocks = await self._block_hashes(node.payload)
        try:
            opened = await self._workers.open(self._open, node.payload, blocks)
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

    def _opened(self, node: StoredFile, opened: OpenedObject, *, known: bool = False) -> OpenObject:
        report = partial(self._report, node, read=True)
        return OpenObject(node, opened, self._workers, report, known=known)

    async def prepare(self, files: Sequence[StoredFile]) -> None:
        """Have the files' objects verified and in the page cache, for opens that will come.

        What cannot be opened is passed over: nobody was refused yet.
        """
        wanted = [(file.payload, await self._block_hashes(file.payload)) for file in files]
        self._counters.prefetched += await self._workers.prepare(self._prepare, wanted)

    def _prepare(self, wanted: Sequence[tuple[ObjectRange, Sequence[Digest]]]) -> int:
        """Return how many of them are prepared; the disk is told of all of them first."""
        announced = []
        for payload, blocks in wanted:
            with _passed_over():
                announced.append((self._objects.announce(payload), payload, blocks))
        return sum([self._prepare_one(*one) for one in announced])

    def _prepare_one(self, descriptor: int, wanted: ObjectRange, blocks: Sequence[Digest]) -> bool:
        """Take over the descriptor of an object and say whether the object is prepared."""
        done = threading.Event()
        if self._preparing.setdefault(wanted.digest, done) is not done:
            os.close(descriptor)
            return False
        try:
            with _passed_over():
                opened = self._objects.make_sure(descriptor, wanted, blocks)
                try:
                    if opened.blocks is not None:
                        size = min(wanted.size, BLOCK_BYTES)
                        for block in opened.blocks.unchecked(wanted.offset, size):
                            opened.blocks.check(descriptor, block)
                finally:
                    os.close(descriptor)
                return True
        finally:
            del self._preparing[wanted.digest]
            done.set()
        return False

    def _open(self, wanted: ObjectRange, blocks: Sequence[Digest]) -> OpenedObject:
        """Open an object, after whoever is just reading it ahead."""
        preparing = self._preparing.get(wanted.digest)
        if preparing is not None:
            preparing.wait()
        return self._objects.open(wanted, blocks)

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


@contextlib.contextmanager
def _passed_over() -> Iterator[None]:
    """Leave it to whoever opens an object to tell what is wrong with it."""
    try:
        yield
    except (CasfsError, OSError) as error:
        log.debug("an object was not prepared: %s", error)
