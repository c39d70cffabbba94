"""ISO BMFF boxes (ISO/IEC 14496-12, section 4.2): found without trust, written without surprise.

`walk` takes bytes of any origin. It reads nothing outside the range that it was given, yields a
bounded number of boxes, and never recurses: who wants what lies in a box walks that box, so the
reader's own code is the limit of depth. Whatever does not hold raises `MalformedMediaError`.

Unknown boxes are yielded like any other; what a box means is not known here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BOXES: Final = 1 << 18
"""Boxes at one level. A group of ten minutes with a fragment for each frame has a fifth of it."""

_HEADER: Final = struct.Struct(">I4s")
_LARGE: Final = struct.Struct(">Q")
_TO_THE_END: Final = 0
_LARGE_FOLLOWS: Final = 1


class MalformedMediaError(ValueError):
    """Media bytes that are not what their format asks for.

    Who derives tables from a payload or reads a catalog does not meet it: those give a reason.
    """


class Box(Struct, frozen=True):
    """Where a box lies, in bytes from the start of the data."""

    kind: bytes
    """Four bytes, such as ``b"moof"``."""
    start: int
    body: int
    """Behind size and type."""
    end: int
    whole: bool = True
    """False for a box of the outermost level that claims more bytes than there are."""


def walk(
    data: bytes, start: int = 0, end: int | None = None, *, outermost: bool = False
) -> Iterator[Box]:
    """Yield the boxes that lie in ``data`` from ``start`` to ``end``, in order.

    At the ``outermost`` level the last box may reach to the end of the data (size 0), may claim
    more than there is (it is yielded with ``whole`` false, and ends with the data), and too few
    bytes for a header end the walk. Inside a box all of these are lies.

    Raises:
        MalformedMediaError: a size that does not fit where the box lies, or too many boxes.
    """
    limit = len(data) if end is None else min(end, len(data))
    count = 0
    while start < limit:
        if limit - start < _HEADER.size:
            if outermost:
                return
            raise MalformedMediaError(f"{limit - start} bytes where a box should begin")
        count += 1
        if count > MAX_BOXES:
            raise MalformedMediaError(f"more than {MAX_BOXES} boxes at one level")
        size, kind = _HEADER.unpack_from(data, start)
        body = start + _HEADER.size
        if size == _LARGE_FOLLOWS:
            if limit - body < _LARGE.size:
                if outermost:
                    return
                raise MalformedMediaError(f"no room for the size of a {kind!r} box")
            (size,) = _LARGE.unpack_from(data, body)
            body += _LARGE.size
        elif size == _TO_THE_END and outermost:
            size = limit - start
        if size < body - start:
            raise MalformedMediaError(f"a {kind!r} box of {size} bytes")
        whole = size <= limit - start
        if not whole and not outermost:
            raise MalformedMediaError(f"a {kind!r} box of {size} bytes in {limit - start}")
        stop = start + size if whole else limit
        yield Box(kind, start, body, stop, whole)
        start = stop


def children(data: bytes, parent: Box, *, skip: int = 0) -> Iterator[Box]:
    """Yield the boxes in ``parent``, whose own fields take the first ``skip`` bytes of its body.

    Raises:
        MalformedMediaError: as `walk`, and when ``parent`` has no room for its fields.
    """
    if parent.body + skip > parent.end:
        raise MalformedMediaError(f"a {parent.kind!r} box of {parent.end - parent.start} bytes")
    return walk(data, parent.body + skip, parent.end)


def find(data: bytes, parent: Box, *path: bytes) -> Box | None:
    """Return the first box at ``path`` in ``parent``, or None.

    Raises:
        MalformedMediaError: as `walk`.
    """
    found: Box | None = parent
    for kind in path:
        if found is None:
            return None
        found = next((box for box in children(data, found) if box.kind == kind), None)
    return found


def require(data: bytes, parent: Box, *path: bytes) -> Box:
    """Return the first box at ``path`` in ``parent``.

    Raises:
        MalformedMediaError: as `walk`, and when there is none.
    """
    box = find(data, parent, *path)
    if box is None:
        raise MalformedMediaError(f"no {b'/'.join(path)!r} in {parent.kind!r}")
    return box


class Fields:
    """Reads the fields of one box, one after the other, and never past its end.

    Each method raises `MalformedMediaError` when the box ends too early.
    """

    __slots__ = ("_box", "_data", "position")

    def __init__(self, data: bytes, box: Box) -> None:
        self._data = data
        self._box = box
        self.position = box.body
        """Of the next field, in bytes from the start of the data."""

    def version_and_flags(self) -> tuple[int, int]:
        """Read what every FullBox begins with (section 4.2.2): version and 24 flags."""
        word = self.unsigned(4)
        return word >> 24, word & 0xFF_FFFF

    def unsigned(self, length: int) -> int:
        """Read a big-endian integer of ``length`` bytes."""
        return int.from_bytes(self.take(length), "big")

    def signed(self, length: int) -> int:
        """Read a big-endian integer in two's complement of ``length`` bytes."""
        return int.from_bytes(self.take(length), "big", signed=True)

    def words(self, count: int) -> tuple[int, ...]:
        """Read ``count`` unsigned integers of 32 bits."""
        return struct.unpack(f">{count}I", self.take(4 * count))

    def take(self, length: int) -> bytes:
        """Read ``length`` bytes as they are."""
        begin = self.position
        self.skip(length)
        return self._data[begin : self.position]

    def skip(self, length: int) -> None:
        """Leave out ``length`` bytes."""
        if length > self._box.end - self.position:
            kind, size = self._box.kind, self._box.end - self._box.start
            raise MalformedMediaError(f"a {kind!r} box of {size} bytes ends within its fields")
        self.position += length


# Writing


def header(kind: bytes, size: int) -> bytes:
    """Return the header of a box of ``size`` bytes, with its header; it must stay below 4 GiB."""
    return _HEADER.pack(size, kind)


def box(kind: bytes, *parts: bytes) -> bytes:
    """Return a box of ``kind`` whose body is ``parts``; it must stay below 4 GiB."""
    return b"".join((header(kind, _HEADER.size + sum(map(len, parts))), *parts))


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    """Return a FullBox (section 4.2.2) of ``kind``: version and flags, then ``parts``."""
    return box(kind, (version << 24 | flags).to_bytes(4, "big"), *parts)


LARGE_HEADER: Final = 16
"""Bytes of what `large_header` returns."""


def large_header(kind: bytes, body: int) -> bytes:
    """Return the header of a box with ``body`` bytes, in its 64-bit form whatever the size."""
    return _HEADER.pack(_LARGE_FOLLOWS, kind) + _LARGE.pack(LARGE_HEADER + body)
