"""The BLAKE3-256 digest that names an object.

Everything that casfs stores is named by the 32-byte BLAKE3 hash of its bytes (the BLAKE3 paper,
section 2, default output length), written as 64 lower-case hexadecimal digits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NewType

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Digest = NewType("Digest", str)
"""64 lower-case hexadecimal digits."""

DIGEST_LENGTH = 64
"""Characters in a digest."""

SHARD_LENGTH = 2
"""Leading characters of a digest that name its shard directory."""

BLOCK_BYTES = 8 << 20
"""Objects above this size carry a hash for each block of this size in their record."""

_JOINED_BYTES = 1 << 20

_DIGEST = re.compile(r"[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """Return ``text`` as a digest; raise ValueError if it is not 64 lower-case hex digits."""
    if _DIGEST.fullmatch(text) is None:
        raise ValueError(f"not a BLAKE3 digest: {text[:80]!r}")
    return Digest(text)


def is_digest(text: str) -> bool:
    """Say whether ``text`` is 64 lower-case hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes | bytearray | memoryview) -> Digest:
    """Return the digest of ``data``."""
    return Digest(blake3(data).hexdigest())


def digest_of_parts(parts: Iterable[bytes]) -> Digest:
    """Return the digest of the concatenation of ``parts``, joining at most a part more than 1 MiB.

    Small parts are joined first: hashing each by itself costs more than copying them, and takes
    turns with other threads at each.
    """
    hasher = Hasher()
    small: list[bytes] = []
    held = 0
    for part in parts:
        small.append(part)
        held += len(part)
        if held >= _JOINED_BYTES:
            hasher.update(b"".join(small) if len(small) > 1 else part)
            small, held = [], 0
    hasher.update(b"".join(small))
    return hasher.digest()


class Hasher:
    """An incremental BLAKE3-256 over the bytes given to `update`, in order."""

    __slots__ = ("_blake3", "size")

    def __init__(self) -> None:
        self._blake3 = blake3()
        self.size = 0
        """Bytes hashed so far."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Hash ``data`` after what was hashed before."""
        self._blake3.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        """Return the digest of everything given so far; more may follow."""
        return Digest(self._blake3.hexdigest())


class BlockHasher:
    """The digests of blocks of `BLOCK_BYTES` each of the bytes given to `update`, in order."""

    __slots__ = ("_block", "_done")

    def __init__(self) -> None:
        self._block = Hasher()
        self._done: list[Digest] = []

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Hash ``data`` after what was hashed before."""
        view = memoryview(data)
        while view:
            piece = view[: BLOCK_BYTES - self._block.size]
            self._block.update(piece)
            view = view[len(piece) :]
            if self._block.size == BLOCK_BYTES:
                self._done.append(self._block.digest())
                self._block = Hasher()

    def digests(self) -> list[Digest]:
        """Return the digest of each block so far, the last one maybe of fewer bytes."""
        return [*self._done, self._block.digest()] if self._block.size else list(self._done)


def block_digests(parts: Sequence[bytes]) -> list[Digest] | None:
    """Return the digest of each block of ``parts``; None if they are of `BLOCK_BYTES` or less."""
    if sum(map(len, parts)) <= BLOCK_BYTES:
        return None
    hasher = BlockHasher()
    for part in parts:
        hasher.update(part)
    return hasher.digests()
