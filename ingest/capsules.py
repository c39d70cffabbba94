"""Capsules (RFC 9297, section 3.2): what a WebTransport session says about itself.

They come on the stream of the CONNECT request; here they are cut out of it, without I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.errors import ProtocolError
from ingest.moq.varint import encode_varint, read_varint

if TYPE_CHECKING:
    from collections.abc import Iterable


class Capsule(Struct, frozen=True):
    """A capsule of a kind that the reader asked for."""

    kind: int
    value: bytes


def encode_capsule(capsule: Capsule) -> bytes:
    """Return the bytes of ``capsule``."""
    return encode_varint(capsule.kind) + encode_varint(len(capsule.value)) + capsule.value


class CapsuleParser:
    """Cuts capsules out of a stream that comes in pieces.

    Only the kinds in ``known`` are returned, and these may have ``longest`` bytes at most. Of
    others nothing is kept, however long they are.
    """

    def __init__(self, known: Iterable[int], longest: int) -> None:
        self._known = frozenset(known)
        self._longest = longest
        self._buffer = b""
        self._skip = 0

    def feed(self, data: bytes) -> list[Capsule]:
        """Take bytes, return the capsules that they complete.

        Raises:
            ProtocolError: one of a known kind is longer than it may be.
        """
        capsules: list[Capsule] = []
        if self._skip >= len(data):
            self._skip -= len(data)
            return capsules
        buffer = self._buffer + data[self._skip :]
        self._skip = 0
        offset = 0
        while header := _read_header(buffer, offset):
            kind, start, end = header
            if kind in self._known:
                if end - start > self._longest:
                    raise ProtocolError(f"the relay sent a capsule of {end - start} bytes")
                if end > len(buffer):
                    break
                capsules.append(Capsule(kind, buffer[start:end]))
            elif end > len(buffer):
                self._skip = end - len(buffer)
                end = len(buffer)
            offset = end
        self._buffer = buffer[offset:]
        return capsules


def _read_header(buffer: bytes, offset: int) -> tuple[int, int, int] | None:
    """Return kind, start and end of the value; None when more bytes are needed."""
    kind = read_varint(buffer, offset)
    length = kind and read_varint(buffer, kind[1])
    if not kind or not length:
        return None
    return kind[0], length[1], length[1] + length[0]
