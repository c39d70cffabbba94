"""What the bytes of a recording are made of: its head, ranges of objects, and small overlays.

Media is never copied: a reader asks `Layout.pieces` what a range of the file consists of, reads
those ranges of the objects, and lets `Layout.overlay` put lengths where the objects have start
codes (see `casfs.media.samples.StartCodes`). A start code of four bytes is as long as a length; one
of three bytes gets a byte before it that no object has.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

NAL_LENGTH: Final = 4
"""Bytes of a NAL unit's length."""

_NO_OBJECT: Final = -1


class Extent(Struct, frozen=True):
    """A range of an object."""

    digest: Digest
    offset: int
    length: int


class Literal(Struct, frozen=True):
    """Bytes that are in no object."""

    data: bytes


class Layout(Struct, frozen=True):
    """A file, in columns: a day can have millions of ranges."""

    head: bytes | memoryview
    """``ftyp``, ``moov`` and the header of the ``mdat``."""
    size: int
    """Bytes of the file."""
    objects: Sequence[Digest]
    positions: Sequence[int]
    """``Q``: where in the file each range begins; the last one ends with the file."""
    sources: Sequence[int]
    """``i``: index into ``objects`` of each range; -1 for zeros that an overlay fills."""
    offsets: Sequence[int]
    """``Q``: where each range begins in its object."""
    overlay_positions: Sequence[int]
    """``Q``: where in the file a NAL unit's length stands, rising."""
    overlay_values: Sequence[int]
    """``I``: that length, which has four bytes, most significant first."""

    def pieces(self, position: int = 0, length: int | None = None) -> Iterator[Literal | Extent]:
        """Yield what ``length`` bytes of the file from ``position`` consist of, in order.

        Ranges of objects are yielded as they are stored: `overlay` is still to be applied. Beyond
        the end of the file there is nothing.
        """
        end = self.size if length is None else min(self.size, position + length)
        if position < min(end, len(self.head)):
            yield Literal(bytes(self.head[position:end]))
            position = len(self.head)
        index = bisect_right(self.positions, position) - 1
        while position < end:
            last = index + 1 == len(self.positions)
            stop = min(end, self.size if last else self.positions[index + 1])
            source = self.sources[index]
            if source == _NO_OBJECT:
                yield Literal(bytes(stop - position))
            else:
                within = self.offsets[index] + position - self.positions[index]
                yield Extent(self.objects[source], within, stop - position)
            position = stop
            index += 1

    def overlay(self, data: bytearray, position: int) -> None:
        """Write the lengths into ``data``, which are the file's bytes from ``position`` on."""
        end = position + len(data)
        index = bisect_left(self.overlay_positions, position - NAL_LENGTH + 1)
        while index < len(self.overlay_positions):
            place = self.overlay_positions[index]
            if place >= end:
                return
            value = self.overlay_values[index].to_bytes(NAL_LENGTH, "big")
            first, last = max(place, position), min(place + NAL_LENGTH, end)
            data[first - position : last - position] = value[first - place : last - place]
            index += 1


class LayoutBuilder:
    """Puts payloads one behind the other. Positions count from the first byte of the media."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes so far."""
        self._objects: dict[Digest, int] = {}
        self._positions = array("Q")
        self._sources = array("i")
        self._offsets = array("Q")
        self._overlay_positions = array("Q")
        self._overlay_values = array("I")

    def add(self, digest: Digest, offset: int, length: int, holes: array[int]) -> int:
        """Add a range of an object and return where it begins.

        ``holes`` (``I``, rising) are the offsets from the begin of the range before which one byte
        is put in.
        """
        begin = self.size
        source = self._objects.setdefault(digest, len(self._objects))
        done = 0
        for hole in holes:
            self._append(source, offset + done, hole - done)
            self._append(_NO_OBJECT, 0, 1)
            done = hole
        self._append(source, offset + done, length - done)
        return begin

    def add_length(self, position: int, value: int) -> None:
        """Put a NAL unit's length at ``position``, behind all that were put before."""
        self._overlay_positions.append(position)
        self._overlay_values.append(value)

    def finish(self, head: bytes | memoryview) -> Layout:
        """Return the layout of the file that begins with ``head``."""
        shift = len(head).__add__
        return Layout(
            head=head,
            size=len(head) + self.size,
            objects=tuple(self._objects),
            positions=array("Q", map(shift, self._positions)),
            sources=self._sources,
            offsets=self._offsets,
            overlay_positions=array("Q", map(shift, self._overlay_positions)),
            overlay_values=self._overlay_values,
        )

    def _append(self, source: int, offset: int, length: int) -> None:
        if length > 0:
            self._positions.append(self.size)
            self._sources.append(source)
            self._offsets.append(offset)
            self.size += length
