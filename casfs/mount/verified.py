"""Opening objects such that a first read never returns anything but what was stored.

An object is hashed as a whole when it is opened, before its first byte is served, and remembered as
sound by the identity of its file: device, inode number, change time and size. A file that was
written to since has another change time and is hashed again. All of this blocks and belongs into a
worker thread; any number of threads may open at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.errors import DamagedObjectError, storage_error
from casfs.objects.local import hash_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.mount.objects import ObjectReader
    from casfs.mount.tree import ObjectRange

REMEMBERED_SECONDS = 300.0
"""How long after its last use an object counts as sound without being read again."""

REMEMBERED_FILES = 16_384
"""How many files are remembered; the one that was not used for longest goes first."""


class FileIdentity(Struct, frozen=True):
    """What tells a file, and any change of it, from every other."""

    device: int
    inode: int
    changed: int
    """Change time, nanoseconds."""
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """Return the identity of the file that has this status."""
        return cls(status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)


class SoundFiles:
    """The files that were hashed and found sound lately. Safe to use from several threads."""

    def __init__(
        self, capacity: int = REMEMBERED_FILES, lifetime: float = REMEMBERED_SECONDS
    ) -> None:
        self._capacity = capacity
        self._lifetime = lifetime
        self._last_use: OrderedDict[FileIdentity, float] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._last_use)

    def recall(self, file: FileIdentity, now: float) -> bool:
        """Say whether the file is known to be sound; if so, this counts as a use."""
        with self._lock:
            last_use = self._last_use.pop(file, None)
            if last_use is None or now - last_use > self._lifetime:
                return False
            self._last_use[file] = now
            return True

    def remember(self, file: FileIdentity, now: float) -> None:
        """Note that the file was found sound."""
        with self._lock:
            self._last_use[file] = now
            self._last_use.move_to_end(file)
            if len(self._last_use) > self._capacity:
                self._last_use.popitem(last=False)


class OpenedObject(Struct, frozen=True):
    """An object that was found sound. Whoever gets it closes ``descriptor``."""

    descriptor: int
    hashed: bool
    """False if the object was remembered, and not read."""


class VerifiedObjects:
    """Opens the objects of ``store``; ``clock`` gives seconds that never run backwards."""

    def __init__(
        self,
        store: ObjectReader,
        *,
        sound: SoundFiles | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._sound = SoundFiles() if sound is None else sound
        self._clock = clock

    def open(self, wanted: ObjectRange) -> OpenedObject:
        """Open the object that holds these bytes and make sure of its content.

        Raises DamagedObjectError if the content does not hash to the name, cannot be read, or ends
        before the range does; ObjectNotFoundError; StorageError if the file cannot be opened.
        """
        descriptor = self._store.open(wanted.digest)
        try:
            hashed = self._make_sure(descriptor, wanted)
        except BaseException:
            os.close(descriptor)
            raise
        return OpenedObject(descriptor, hashed)

    def _make_sure(self, descriptor: int, wanted: ObjectRange) -> bool:
        """Raise if the object is not sound; return whether it had to be read for that."""
        digest = wanted.digest
        try:
            file = FileIdentity.of(os.fstat(descriptor))
        except OSError as error:
            raise storage_error(error, "looking at object", digest) from error
        hashed = not self._sound.recall(file, self._clock())
        if hashed:
            try:
                actual, _ = hash_descriptor(descriptor)
            except OSError as error:
                raise _damaged(digest, f"cannot be read: {error.strerror}") from error
            if actual != digest:
                raise _damaged(digest, f"hashes to {actual}")
            self._sound.remember(file, self._clock())
        if wanted.offset + wanted.size > file.size:
            raise _damaged(
                digest,
                f"has {file.size} bytes, and {wanted.size} at {wanted.offset} are recorded",
            )
        return hashed


def _damaged(digest: str, reason: str) -> DamagedObjectError:
    return DamagedObjectError(f"object {digest} {reason}", advice="run casfs verify")
