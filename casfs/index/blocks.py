"""The hashes of the blocks of large objects, by which parts of these can be checked alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.index.index import Index

_HASH_BYTES = 32


def block_hashes(indexes: Sequence[Index], digest: Digest) -> list[Digest]:
    """Return the hash of each block of the object, in order; empty if no record tells them.

    Raises IndexFault.
    """
    for index in indexes:
        query = "select hashes from blocks where hash = ? limit 1"
        for (hashes,) in index.select(query, (bytes.fromhex(digest),)):
            return [
                Digest(hashes[start : start + _HASH_BYTES].hex())
                for start in range(0, len(hashes), _HASH_BYTES)
            ]
    return []
