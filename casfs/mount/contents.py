"""The bytes of objects that were verified a moment ago, for the reads that follow an open.

What a reader then gets are the very bytes that were hashed, and they are copied once less. It is
bounded in bytes, and what has been read to its end is let go of. Safe to use from several threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from casfs.digest import Digest

CONTENT_BYTES = 16 << 20
"""How many bytes are held at most; what was verified first goes first."""


class VerifiedContents:
    """Whole objects by digest, ``most`` bytes of them together."""

    def __init__(self, most: int = CONTENT_BYTES) -> None:
        self._most = most
        self._held: OrderedDict[Digest, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Return how many bytes are held."""
        return self._size

    def hold(self, digest: Digest, content: bytes) -> None:
        """Hold the content of the object, which was found sound."""
        with self._lock:
            self._let_go(digest)
            self._held[digest] = content
            self._size += len(content)
            while self._size > self._most:
                self._let_go(next(iter(self._held)))

    def part(self, digest: Digest, start: int, size: int) -> memoryview | None:
        """Return bytes of the object from ``start`` on, as many as it has; None if it is not held.

        After its last byte the object is let go of.
        """
        content = self._held.get(digest)
        if content is None:
            return None
        if start + size >= len(content):
            with self._lock:
                self._let_go(digest)
        return memoryview(content)[start : start + size]

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._held.clear()
            self._size = 0

    def _let_go(self, digest: Digest) -> None:
        content = self._held.pop(digest, None)
        if content is not None:
            self._size -= len(content)
