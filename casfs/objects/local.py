"""Objects in a sharded directory: ``objects/blake3/aa/<64 hex>.bin`` below the CAS root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from typing import TYPE_CHECKING

from casfs.digest import SHARD_LENGTH, Digest, Hasher, is_digest
from casfs.durable import open_directory
from casfs.errors import CasfsError, ObjectNotFoundError, storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OBJECTS = os.path.join("objects", "blake3")
"""Where the shards lie below the CAS root."""

SUFFIX = ".bin"
"""The ending of an object's file name."""

_READ_BYTES = 1 << 20


def object_path(digest: Digest) -> str:
    """Return the object's path relative to the CAS root."""
    return f"{OBJECTS}/{digest[:SHARD_LENGTH]}/{digest}{SUFFIX}"


def shard_names() -> list[str]:
    """Return the names of the 256 shards, in order."""
    return [f"{number:02x}" for number in range(256)]


def hash_descriptor(descriptor: int, start: int = 0, stop: int = sys.maxsize) -> tuple[Digest, int]:
    """Return the digest and size of a file's bytes from ``start`` to ``stop``, or to its end.

    Raises OSError.
    """
    hasher = Hasher()
    offset = start
    while chunk := os.pread(descriptor, min(_READ_BYTES, stop - offset), offset):
        hasher.update(chunk)
        offset += len(chunk)
    return hasher.digest(), offset - start


class LocalStore:
    """Reads objects below ``root``. Knows nothing of manifests."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, digest: Digest) -> str:
        """Return the absolute path of an object, whether or not it is there."""
        return os.path.join(self.root, object_path(digest))

    def open(self, digest: Digest) -> int:
        """Return a descriptor to read the object; raises ObjectNotFoundError, StorageError."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise self._error(error, "opening", digest) from error

    def stat(self, digest: Digest) -> os.stat_result:
        """Return the object's status; raises ObjectNotFoundError, StorageError."""
        try:
            return os.stat(self.path(digest), follow_symlinks=False)
        except OSError as error:
            raise self._error(error, "looking up", digest) from error

    def shards(self) -> Sequence[str]:
        """Return the names of all shards, in order."""
        return shard_names()

    def shard(self, name: str) -> Iterator[Digest]:
        """Yield the digests that one shard holds, in no order; raises StorageError."""
        directory = os.path.join(self.root, OBJECTS, name)
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    stem = entry.name.removesuffix(SUFFIX)
                    if stem != entry.name and is_digest(stem) and stem.startswith(name):
                        yield Digest(stem)
        except OSError as error:
            raise storage_error(error, "listing", directory) from error

    def check(self, digest: Digest, size: int | None = None) -> str | None:
        """Read the whole object; return None if it is sound, else what is wrong with it.

        Raises ObjectNotFoundError, and StorageError if the disk fails (but an unreadable sector is
        a finding, not an exception).
        """
        descriptor = self.open(digest)
        try:
            found = os.fstat(descriptor).st_size
            if size is not None and found != size:
                return f"has {found} bytes instead of {size}"
            actual, _ = hash_descriptor(descriptor)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        finally:
            os.close(descriptor)
        return None if actual == digest else f"hashes to {actual}"

    def _error(self, error: OSError, doing: str, digest: Digest) -> CasfsError:
        if isinstance(error, FileNotFoundError):
            return ObjectNotFoundError(
                f"object {digest} is not in the store at {self.root}",
                advice="run casfs verify to see what else is missing",
            )
        return storage_error(error, doing, self.path(digest))


@contextlib.contextmanager
def exclusive_shard(store: LocalStore, shard: str) -> Iterator[int]:
    """Hold a shard with no writer between its look and its line; gives its descriptor.

    Raises OSError.
    """
    with open_directory(os.path.join(store.root, OBJECTS, shard)) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
