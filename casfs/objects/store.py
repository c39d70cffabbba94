"""The interface of an object store. `casfs.objects.local.LocalStore` is the one that exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from casfs.digest import Digest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class Payload(Struct, frozen=True):
    """Bytes to be stored."""

    parts: Sequence[bytes]
    """One after the other."""
    digest: Digest | None = None
    """Of all of them, where the caller has computed it."""


class Staged(Struct, frozen=True):
    """An object's bytes, written to a file that has no name in the store yet.

    It goes into one put, which gives it its name or, whatever happens, removes it.
    """

    digest: Digest
    size: int
    """Bytes."""
    blocks: list[Digest] | None
    """For an object above `casfs.digest.BLOCK_BYTES`: the digest of each of its blocks."""
    temporary: str
    """Where the file is."""
    descriptor: int
    """The one that wrote it: errors of writing show when it is synced."""


class Stored(Struct, frozen=True):
    """What a put did."""

    digest: Digest
    size: int
    """Bytes."""
    new: bool
    """False if the same bytes were there already, and were checked."""
    healed: bool = False
    """True if a damaged file of this name was replaced."""


class Batch(Protocol):
    """Puts that share their syncs. Their shards are safe from collection while it is open."""

    def put(self, payloads: Sequence[Payload | Staged]) -> list[Stored]:
        """Make each payload durable under its name.

        Data is durable before its name exists, and the name is durable on return: also that of an
        object which was there before. Raises StorageError; then nothing new stands under a name
        that it does not deserve, and the payloads may be put again. (What was staged may not:
        it is gone, and its bytes have to come once more.)
        """


class ObjectStore(Protocol):
    """Objects by digest."""

    def batch(self) -> AbstractContextManager[Batch]:
        """Open a batch. Keep it open until the manifest lines that name its objects are durable."""

    def open(self, digest: Digest) -> int:
        """Return a descriptor to read the object; raises ObjectNotFoundError, StorageError."""

    def stat(self, digest: Digest) -> os.stat_result:
        """Return the object's status; raises ObjectNotFoundError, StorageError."""

    def shards(self) -> Sequence[str]:
        """Return the names of all shards, in order."""

    def shard(self, name: str) -> Iterator[Digest]:
        """Yield the digests that one shard holds, in no order; raises StorageError."""
