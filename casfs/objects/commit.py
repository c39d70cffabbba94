"""Many puts, few syncs: the writing end of the local store.

The crash protocol of a batch:

1. the shard is locked (shared), then it is looked up whether the object is there;
2. new data goes to ``.casfs/tmp/<process>/`` and is made durable there, files in parallel, the
   first while later ones are still hashed and looked up (`casfs.objects.syncing` says how);
3. only then is each file renamed to its final name;
4. each touched shard directory is made durable, also for objects that were there before, and the
   filesystem is asked whether it still lives: its syncs may have ended well because it does not;
5. the batch stays open, its shards locked, until the caller's manifest lines are durable.

So a file under a final name is whole at every instant, and a collector, which takes the lock
exclusively, never removes an object between the look and the line.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self, TypeVar

from msgspec import Struct

from casfs.digest import SHARD_LENGTH, Digest, digest_of_parts
from casfs.durable import check_alive, open_directory, write_fully
from casfs.errors import storage_error
from casfs.objects.local import OBJECTS, SUFFIX, hash_descriptor
from casfs.objects.store import Payload, Staged, Stored
from casfs.objects.syncing import StrategyName, SyncStrategy, choose_strategy
from casfs.objects.temporaries import Temporaries
from casfs.objects.writing import ObjectWriter, Preallocation, create_temporary, drop_staged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")

_SYNC_THREADS = 16


class _Pending(Struct, frozen=True):
    """An object on its way to its name."""

    digest: Digest
    size: int
    source: Payload | Staged
    temporary: str


class LocalCommitter:
    """Puts objects below ``root``; use it as a context manager, by one thread at a time.

    While it is open it holds a locked directory for temporaries; those of dead processes are
    swept when it opens. Raises StorageError.
    """

    def __init__(self, root: str, strategy: StrategyName = "auto") -> None:
        self.root = root
        self.preallocation = Preallocation()
        self._wanted = strategy
        self._temporaries: Temporaries
        self._strategy: SyncStrategy
        self._resources = contextlib.ExitStack()
        self._threads = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="casfs-sync")

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            resources.callback(self._threads.shutdown)
            try:
                self._strategy = choose_strategy(self.root, self._wanted)
                resources.callback(self._strategy.close)
                self._temporaries = Temporaries(self.root)
                resources.callback(self._temporaries.close)
            except OSError as error:
                raise storage_error(error, "preparing", self.root) from error
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def strategy(self) -> SyncStrategy:
        """How batches become durable."""
        return self._strategy

    @contextlib.contextmanager
    def batch(self) -> Iterator[LocalBatch]:
        """Open a batch; its shards stay locked until the block ends."""
        with contextlib.ExitStack() as shards:
            yield LocalBatch(self, shards)

    def in_parallel(self, work: Callable[[Item], None], items: Sequence[Item]) -> None:
        """Do ``work`` on each item, a few at a time: syncs overlap well.

        Returns when all have ended, failed ones too; then raises what the first of those raised.
        """
        if len(items) > 1:
            with self.beside(work) as begin:
                for item in items:
                    begin(item)
        elif items:
            work(items[0])

    @contextlib.contextmanager
    def beside(self, work: Callable[[Item], None]) -> Iterator[Callable[[Item], None]]:
        """Have ``work`` done on each item that is handed over, a few at a time, beside the block.

        Its end waits until all have ended, failed ones too; then raises what the first of those
        raised.
        """
        # A few workers and a queue: a future for each item costs more than most of their syncs.
        items: SimpleQueue[Item | None] = SimpleQueue()
        workers: list[Future[None]] = []
        failures: list[Exception] = []

        def attempt(item: Item) -> None:
            try:
                work(item)
            except Exception as error:  # noqa: BLE001  the caller hears of it
                failures.append(error)

        def run() -> None:
            while (item := items.get()) is not None:
                attempt(item)
            items.put(None)

        def begin(item: Item) -> None:
            if len(workers) < _SYNC_THREADS:
                try:
                    workers.append(self._threads.submit(run))
                except RuntimeError:  # no thread can be had
                    if not workers:
                        attempt(item)
                        return
            items.put(item)

        try:
            yield begin
        finally:
            # Who is told of a failure cleans up and tries again: no straggler may still be at work.
            items.put(None)
            wait(workers)
        if failures:
            raise failures[0]

    def stage(self, expected: int | None = None) -> ObjectWriter:
        """Return a writer for an object that comes in pieces; in any thread, beside batches.

        ``expected``: its size in bytes, where that is known. Raises StorageError.
        """
        return ObjectWriter(self._temporaries, self.preallocation, expected)

    def temporary_path(self) -> str:
        """Return a path on the store's filesystem that nobody else uses."""
        return self._temporaries.path()


class LocalBatch:
    """One batch of a `LocalCommitter`."""

    def __init__(self, committer: LocalCommitter, shards: contextlib.ExitStack) -> None:
        self._committer = committer
        self._locks = shards
        self._shards: dict[str, int] = {}

    def put(self, payloads: Sequence[Payload | Staged]) -> list[Stored]:
        """Make each payload durable under its name, as `casfs.objects.store.Batch` promises."""
        pending: dict[Digest, _Pending] = {}
        try:
            results = self._write_new(payloads, pending)
            for item in pending.values():
                os.rename(item.temporary, self._final(item.digest))
            touched = sorted({result.digest[:SHARD_LENGTH] for result in results})
            shards = [self._shards[name] for name in touched]
            if shards:
                self._committer.strategy.names(shards, self._committer.in_parallel)
                check_alive(self._final(results[-1].digest))
        except OSError as error:
            for item in pending.values():
                with contextlib.suppress(OSError):
                    os.unlink(item.temporary)
            raise storage_error(error, "storing objects in", self._committer.root) from error
        finally:
            for payload in payloads:
                if isinstance(payload, Staged):
                    drop_staged(payload)
        return results

    def _write_new(
        self, payloads: Sequence[Payload | Staged], pending: dict[Digest, _Pending]
    ) -> list[Stored]:
        """Make durable what is not there yet; each is written while the next ones are hashed."""
        results: list[Stored] = []
        with contextlib.ExitStack() as ended:
            begin: Callable[[_Pending], None] = self._write
            if len(payloads) > 1:
                begin = ended.enter_context(self._committer.beside(self._write))
            for payload in payloads:
                digest, size = _identity(payload)
                new, healed = False, False
                if digest not in pending:
                    sound = self._existing(digest, size)
                    new, healed = sound is None, sound is False
                    if not sound:
                        pending[digest] = item = self._pending(payload, digest, size)
                        begin(item)
                results.append(Stored(digest=digest, size=size, new=new, healed=healed))
        if pending:
            self._committer.strategy.data()
        return results

    def _pending(self, source: Payload | Staged, digest: Digest, size: int) -> _Pending:
        path = source.temporary if isinstance(source, Staged) else self._committer.temporary_path()
        return _Pending(digest, size, source, path)

    def _write(self, item: _Pending) -> None:
        """Write a temporary."""
        if isinstance(item.source, Staged):
            # Written before this batch, whoever heard of its errors by syncfs since then.
            os.fsync(item.source.descriptor)
            return
        descriptor = create_temporary(item.temporary)
        try:
            self._committer.preallocation.reserve(descriptor, item.size)
            write_fully(descriptor, item.source.parts)
            self._committer.strategy.written(descriptor)
        finally:
            os.close(descriptor)

    def _existing(self, digest: Digest, size: int) -> bool | None:
        """Say whether a sound object of this name is there; None if there is none at all."""
        self._lock(digest[:SHARD_LENGTH])
        try:
            descriptor = os.open(self._final(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError:
            return False
        try:
            if os.fstat(descriptor).st_size != size or hash_descriptor(descriptor)[0] != digest:
                return False
            # It may have come by a copy that nobody synced.
            os.fsync(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _lock(self, shard: str) -> None:
        if shard not in self._shards:
            path = os.path.join(self._committer.root, OBJECTS, shard)
            descriptor = self._locks.enter_context(open_directory(path))
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            self._shards[shard] = descriptor

    def _final(self, digest: Digest) -> str:
        root = self._committer.root
        return os.path.join(root, OBJECTS, digest[:SHARD_LENGTH], digest + SUFFIX)


def _identity(payload: Payload | Staged) -> tuple[Digest, int]:
    if isinstance(payload, Staged):
        return payload.digest, payload.size
    return payload.digest or digest_of_parts(payload.parts), sum(map(len, payload.parts))
