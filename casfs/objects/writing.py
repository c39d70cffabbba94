"""An object written piece by piece, in bounded memory, on its way into a batch.

Its bytes go to a temporary file as they come and are hashed on the way, as a whole and block by
block. What is staged that way is put like any payload (`casfs.objects.store.Batch.put`): durable
first, named then. Unlike a payload it cannot be put again after a failure: its bytes are nowhere
else.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Self

from casfs.digest import BLOCK_BYTES, BlockHasher, Hasher
from casfs.durable import write_fully
from casfs.errors import storage_error
from casfs.objects import syscalls
from casfs.objects.store import Staged

if TYPE_CHECKING:
    from casfs.objects.temporaries import Temporaries

PREALLOCATED_BYTES = 8 << 20
"""From this size on space is reserved first, so that a full disk shows before the bytes are there.

Measured with a sync of each file: up to 1 MB it costs as much as it takes to write 20 kB (a third
more for objects of 50 kB), from 8 MiB on a twentieth at the most.
"""


class Preallocation:
    """Reserves space for large files where the filesystem can, and remembers if it cannot."""

    def __init__(self) -> None:
        self.available = True

    def reserve(self, descriptor: int, size: int) -> bool:
        """Reserve ``size`` bytes if that is worth it; say whether it was done. Raises OSError."""
        if size < PREALLOCATED_BYTES or not self.available:
            return False
        self.available = syscalls.preallocate(descriptor, size)
        return self.available


def create_temporary(path: str) -> int:
    """Return a descriptor of a new file for an object's bytes; raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode=0o444)


class ObjectWriter:
    """Takes an object's bytes; a context manager that drops them unless they were staged.

    For one thread, which may be another than the one that commits. ``expected``: the bytes that
    will come, where that is known. Raises StorageError.
    """

    def __init__(
        self, temporaries: Temporaries, preallocation: Preallocation, expected: int | None = None
    ) -> None:
        self._path = temporaries.path()
        self._hasher = Hasher()
        self._blocks = BlockHasher()
        self._descriptor = -1
        try:
            self._descriptor = create_temporary(self._path)
            self._reserved = preallocation.reserve(self._descriptor, expected or 0)
        except OSError as error:
            self.close()
            raise storage_error(error, "staging an object in", self._path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._hasher.size

    def write(self, *parts: bytes | bytearray | memoryview) -> None:
        """Append ``parts``, one after the other; after an error the writer takes no more."""
        for part in parts:
            self._hasher.update(part)
            self._blocks.update(part)
        try:
            write_fully(self._descriptor, parts)
        except OSError as error:
            self.close()
            raise storage_error(error, "staging an object in", self._path) from error

    def stage(self) -> Staged:
        """Return what was written, to be put; close it if it is not put after all."""
        if self._reserved:
            try:
                # More may have been reserved than came.
                os.ftruncate(self._descriptor, self.size)
            except OSError as error:
                self.close()
                raise storage_error(error, "staging an object in", self._path) from error
        descriptor, self._descriptor = self._descriptor, -1
        return Staged(
            digest=self._hasher.digest(),
            size=self.size,
            blocks=self._blocks.digests() if self.size > BLOCK_BYTES else None,
            temporary=self._path,
            descriptor=descriptor,
        )

    def close(self) -> None:
        """Drop what was written, unless it was staged."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def drop_staged(staged: Staged) -> None:
    """Close and remove what was staged and did not get its name."""
    with contextlib.suppress(OSError):
        os.close(staged.descriptor)
    with contextlib.suppress(OSError):
        os.unlink(staged.temporary)
