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

    def put(self, payloads: Sequence[Payload]) -> list[Stored]:
        """Make each payload durable under its name.

        Data is durable before its name exists, and the name is durable on return: also that of an
        object which was there before. Raises StorageError; then nothing new stands under a name
        that it does not deserve, and the payloads may be put again.
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
