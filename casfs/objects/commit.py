"""Many puts, few syncs: the writing end of the local store.

The crash protocol of a batch:

1. the shard is locked (shared), then it is looked up whether the object is there;
2. new data goes to ``.casfs/tmp/<process>/`` and is made durable there, files in parallel;
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
import secrets
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Self, TypeVar

from msgspec import Struct

from casfs.digest import SHARD_LENGTH, Digest, digest_of_parts
from casfs.durable import check_alive, open_directory, write_fully
from casfs.errors import storage_error
from casfs.objects.local import OBJECTS, SUFFIX, hash_descriptor
from casfs.objects.store import Payload, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Item = TypeVar("Item")

_SYNC_THREADS = 8
_TEMPORARY = os.path.join(".casfs", "tmp")


class _Pending(Struct, frozen=True):
    """An object on its way to its name."""

    digest: Digest
    parts: Sequence[bytes]
    temporary: str


class LocalCommitter:
    """Puts objects below ``root``; use it as a context manager, by one thread at a time.

    While it is open it holds a locked directory for temporaries; those of dead processes are
    swept when it opens. Raises StorageError.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._temporary = ""
        self._temporary_lock = -1
        self._count = 0
        self._threads = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="casfs-sync")

    def __enter__(self) -> Self:
        try:
            sweep_temporaries(self.root)
            self._open_temporary()
        except OSError as error:
            self._threads.shutdown()
            raise storage_error(error, "preparing", self.root) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        shutil.rmtree(self._temporary, ignore_errors=True)
        os.close(self._temporary_lock)

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
            # Who is told of a failure cleans up and tries again: no straggler may still be at work.
            futures = [self._threads.submit(work, item) for item in items]
            wait(futures)
            for future in futures:
                future.result()
        elif items:
            work(items[0])

    def _open_temporary(self) -> None:
        while True:
            name = f"{os.getpid()}-{secrets.token_hex(4)}"
            path = os.path.join(self.root, _TEMPORARY, name)
            os.mkdir(path, mode=0o700)
            # A sweeper may take it for a dead one before we have the lock.
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    os.stat(path)
                except OSError:
                    os.close(descriptor)
                    raise
                self._temporary, self._temporary_lock = path, descriptor
                return

    def temporary_path(self) -> str:
        """Return a path on the store's filesystem that nobody else uses."""
        self._count += 1
        return os.path.join(self._temporary, str(self._count))


class LocalBatch:
    """One batch of a `LocalCommitter`."""

    def __init__(self, committer: LocalCommitter, shards: contextlib.ExitStack) -> None:
        self._committer = committer
        self._locks = shards
        self._shards: dict[str, int] = {}

    def put(self, payloads: Sequence[Payload]) -> list[Stored]:
        """Make each payload durable under its name, as `casfs.objects.store.Batch` promises."""
        pending: dict[Digest, _Pending] = {}
        results: list[Stored] = []
        touched: set[str] = set()
        try:
            for payload in payloads:
                parts = payload.parts
                size = sum(map(len, parts))
                digest = payload.digest or digest_of_parts(parts)
                touched.add(digest[:SHARD_LENGTH])
                new, healed = False, False
                if digest not in pending:
                    sound = self._existing(digest, size)
                    new, healed = sound is None, sound is False
                    if not sound:
                        path = self._committer.temporary_path()
                        pending[digest] = _Pending(digest, parts, path)
                results.append(Stored(digest=digest, size=size, new=new, healed=healed))
            self._committer.in_parallel(_write_temporary, list(pending.values()))
            for item in pending.values():
                os.rename(item.temporary, self._final(item.digest))
            self._committer.in_parallel(os.fsync, [self._shards[name] for name in sorted(touched)])
            for stored in results[-1:]:
                check_alive(self._final(stored.digest))
        except OSError as error:
            for item in pending.values():
                with contextlib.suppress(OSError):
                    os.unlink(item.temporary)
            raise storage_error(error, "storing objects in", self._committer.root) from error
        return results

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


def _write_temporary(item: _Pending) -> None:
    descriptor = os.open(
        item.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode=0o444
    )
    try:
        write_fully(descriptor, item.parts)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_temporaries(root: str) -> int:
    """Remove the temporaries of processes that are dead; return how many there were.

    The kernel tells the living by the lock that each holds on its directory. What cannot be removed
    (another user's, say) stays. Raises OSError if there is no place for temporaries.
    """
    base = os.path.join(root, _TEMPORARY)
    swept = 0
    for name in os.listdir(base):
        path = os.path.join(base, name)
        with contextlib.suppress(OSError), open_directory(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
            swept += 1
    return swept
