"""Looks at one object: whether it is there, how long it is, and what its bytes hash to."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import Digest, Hasher
from casfs.errors import ObjectNotFoundError, StorageError

if TYPE_CHECKING:
    from casfs.objects.local import LocalStore
    from casfs.verify.pace import Throttle


class Looked(Struct, frozen=True):
    """What was seen of an object."""

    read: int = 0
    """Bytes."""
    reason: str | None = None
    """What is wrong with it; None if nothing is."""
    missing: bool = False


class ObjectChecker:
    """Looks at objects of ``store``; may be used by several threads."""

    def __init__(
        self, store: LocalStore, throttle: Throttle, *, quick: bool, from_disk: bool
    ) -> None:
        self._store = store
        self._throttle = throttle
        self._quick = quick
        self._from_disk = from_disk
        self._stopped = False

    def stop(self) -> None:
        """Have every look end at once; what it then returns means nothing."""
        self._stopped = True

    def look(self, digest: Digest, needed: int | None) -> Looked:
        """Look at an object of which records need so many bytes. Whatever fails is a finding."""
        try:
            return self._stat(digest, needed) if self._quick else self._read(digest, needed)
        except ObjectNotFoundError:
            return Looked(reason="missing", missing=True)
        except StorageError as error:
            return Looked(reason=error.message)

    def _stat(self, digest: Digest, needed: int | None) -> Looked:
        found = self._store.stat(digest)
        if not stat.S_ISREG(found.st_mode):
            return Looked(reason="is no regular file")
        return Looked(reason=_too_short(found.st_size, needed))

    def _read(self, digest: Digest, needed: int | None) -> Looked:
        descriptor = self._store.open(digest)
        read = 0
        hasher = Hasher()
        try:
            if self._from_disk:
                _evict(descriptor)
            most = self._throttle.read_bytes
            while not self._stopped and (chunk := os.pread(descriptor, most, read)):
                hasher.update(chunk)
                read += len(chunk)
                self._throttle.wait(len(chunk))
            if self._from_disk:
                # Nobody asked for it to be in memory.
                _evict(descriptor)
        except OSError as error:
            return Looked(read, f"cannot be read: {error.strerror}")
        finally:
            os.close(descriptor)
        actual = hasher.digest()
        if actual != digest:
            return Looked(read, f"hashes to {actual}")
        return Looked(read, _too_short(read, needed))


def _too_short(size: int, needed: int | None) -> str | None:
    if needed is None or size >= needed:
        return None
    return f"has {size} bytes, but records need {needed}"


def _evict(descriptor: int) -> None:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
