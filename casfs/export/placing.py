"""Puts an object at another place, by sharing its blocks where that can be done, and proves it.

Three ways, tried in this order unless one is asked for:

- ``reflink``: a file of its own that shares the blocks until one of them is written to (FICLONE of
  ioctl_ficlone(2): Btrfs, XFS, bcachefs, the same filesystem);
- ``hard``: another name of the same file. It costs nothing, and whoever writes to it writes to the
  archive: objects are read-only files for that reason;
- ``copy``.

Whatever the way, the bytes are read and compared with the hash before the object counts as placed.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from casfs.digest import Digest, Hasher
from casfs.durable import write_fully
from casfs.errors import ConfigError, DamagedObjectError, storage_error
from casfs.objects.local import hash_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from casfs.objects.local import LocalStore

# From linux/fs.h: _IOW(0x94, 9, int). Python's fcntl does not name it yet.
_FICLONE = 0x40049409
_READ_BYTES = 1 << 20
_CANNOT = frozenset(
    {
        *(errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS),
        *(errno.EPERM, errno.EACCES, errno.EMLINK),
    }
)


class Way(enum.Enum):
    """How an object is put at another place."""

    AUTO = "auto"
    """The first that works."""
    REFLINK = "reflink"
    HARD = "hard"
    COPY = "copy"


class Placer:
    """Places objects of a store; may be used by several threads."""

    def __init__(self, store: LocalStore, way: Way) -> None:
        self._store = store
        self._asked = way
        self._ways = [Way.REFLINK, Way.HARD, Way.COPY] if way is Way.AUTO else [way]

    def place(self, digest: Digest, path: str) -> Way:
        """Put an object at ``path``, which is not there, and return in which way; durable data.

        The name is durable once its directory is synced. Raises ObjectNotFoundError,
        DamagedObjectError, ConfigError if it cannot be done in the way that was asked for,
        StorageError; then nothing is left at ``path``.
        """
        source = self._store.open(digest)
        try:
            for way in self._ways:
                try:
                    self._place(way, digest, source, path)
                except _CannotError as error:
                    cause = error.cause
                    if self._asked is not Way.AUTO:
                        raise ConfigError(
                            f"{path} cannot be made as a {way.value} link of the archive's object: "
                            f"{cause.strerror}",
                            advice="--link=auto copies where nothing better can be done",
                        ) from error
                    # One file may have too many names already; anything else holds for all.
                    if cause.errno != errno.EMLINK:
                        self._ways = [other for other in self._ways if other is not way]
                    continue
                return way
        finally:
            os.close(source)
        raise AssertionError("a copy can always be made or fails with its own error")

    def _place(self, way: Way, digest: Digest, source: int, path: str) -> None:
        if way is Way.HARD:
            self._link(digest, source, path)
            return
        with _new_file(path) as descriptor:
            if way is Way.REFLINK:
                try:
                    fcntl.ioctl(descriptor, _FICLONE, source)
                except OSError as error:
                    if error.errno in _CANNOT:
                        raise _CannotError(error) from error
                    raise storage_error(error, "cloning to", path) from error
                self._check(digest, descriptor)
            else:
                self._copy(digest, source, descriptor, path)
            try:
                status = os.fstat(source)
                os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
                os.fsync(descriptor)
            except OSError as error:
                raise storage_error(error, "syncing", path) from error

    def _link(self, digest: Digest, source: int, path: str) -> None:
        self._check(digest, source)
        try:
            os.link(self._store.path(digest), path, follow_symlinks=False)
        except OSError as error:
            if error.errno in _CANNOT:
                raise _CannotError(error) from error
            raise storage_error(error, "linking", path) from error
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(source), os.stat(path)):
                return
        # The object was replaced since it was read.
        os.unlink(path)
        raise _CannotError(OSError(errno.EMLINK, "it was replaced meanwhile"))

    def _check(self, digest: Digest, descriptor: int) -> None:
        try:
            found, _ = hash_descriptor(descriptor)
        except OSError as error:
            raise _damaged(digest, f"cannot be read: {error.strerror}") from error
        if found != digest:
            raise _damaged(digest, f"hashes to {found}")

    def _copy(self, digest: Digest, source: int, descriptor: int, path: str) -> None:
        hasher = Hasher()
        while True:
            try:
                chunk = os.pread(source, _READ_BYTES, hasher.size)
            except OSError as error:
                raise _damaged(digest, f"cannot be read: {error.strerror}") from error
            if not chunk:
                break
            hasher.update(chunk)
            try:
                write_fully(descriptor, [chunk])
            except OSError as error:
                raise storage_error(error, "writing", path) from error
        if hasher.digest() != digest:
            raise _damaged(digest, f"hashes to {hasher.digest()}")


class _CannotError(Exception):
    """This way cannot be gone here."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[int]:
    """Hold a new read-only file open to be written; it is gone if the block fails."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, mode=0o444)
    except OSError as error:
        raise storage_error(error, "creating", path) from error
    try:
        yield descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _damaged(digest: Digest, reason: str) -> DamagedObjectError:
    return DamagedObjectError(f"object {digest} {reason}")
