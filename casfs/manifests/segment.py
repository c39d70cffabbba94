"""One segment of a journal: its name, and its lines read back with whatever befell them.

A scan goes forward and decides at each bad place whether bytes that had been synced were damaged
(reported as a fault, then on with the next intact line) or whether this is the torn tail of an
unclean end (the scan stops there: nobody was ever told that those lines are safe). Bytes count as
synced up to ``limit`` where the next segment continues, up to ``trusted`` where the caller knows
more, and up to what any later intact line vouches for by its ``synced`` member.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

from msgspec import Struct

from casfs.manifests.record import MAX_LINE_BYTES, Line, Position, parse_line

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d{3,9})\.jsonl")
_CHUNK = 1 << 20


class SegmentName(Struct, frozen=True, order=True):
    """``<UTC date>.<nnn>.jsonl``; orders as written: by date, then by number."""

    date: str
    """Of the commit that opened the segment, ``2026-11-22``; never before its predecessor's."""
    ordinal: int
    """From 0; at least three digits in the file name."""

    def __str__(self) -> str:
        return f"{self.date}.{self.ordinal:03d}.jsonl"


def parse_segment_name(text: str) -> SegmentName | None:
    """Return the name if ``text`` is that of a segment, else None."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    name = SegmentName(match[1], int(match[2]))
    return name if str(name) == text else None


class Fault(Struct, frozen=True):
    """A stretch of a journal that is not what was written and synced."""

    segment: str
    """The segment's file name."""
    offset: int
    end: int
    """Where the stretch ends, bytes; equal to ``offset`` if something is missing there."""
    reason: str


class SegmentScan:
    """Reads the lines of one segment from ``start`` on, in order; iterate to drive it.

    ``previous`` is the sum of the line before ``start`` (None at a journal's first line).
    ``limit`` is where the next segment continues, or None if this is the last one.
    After the iteration `position` is behind the last line, and `torn` counts the bytes of the
    tail that were left unread.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        *,
        start: int = 0,
        previous: str | None = None,
        limit: int | None = None,
        trusted: int = 0,
    ) -> None:
        self._file = file
        self._name = name
        self._limit = limit
        self._trusted = limit if limit is not None else max(start, trusted)
        self._offset = start
        self._previous = previous
        self._broken = False
        self.torn = 0
        """Bytes behind the last line that were never acknowledged."""

    @property
    def position(self) -> Position:
        """Behind the last line that was read."""
        return Position(self._name, self._offset, self._previous or "")

    def __iter__(self) -> Iterator[Line | Fault]:
        for offset, text in _raw_lines(self._file, self._offset, self._limit):
            line = None if text is None else parse_line(text, offset)
            if line is not None and (line.prev == self._previous or self._broken):
                if offset > self._offset:
                    yield self._fault(self._offset, offset, "not a line that was written")
                yield self._accept(line)
            elif not self._was_synced(max(self._offset, offset)):
                break
            elif line is None:
                self._broken = True
            else:
                yield self._fault(
                    offset, offset, "the chain is broken: a line is missing or out of place"
                )
                yield self._accept(line)
        yield from self._finish()

    def _accept(self, line: Line) -> Line:
        self._offset = line.end
        self._previous = line.sum
        self._trusted = max(self._trusted, line.synced)
        self._broken = False
        return line

    def _finish(self) -> Iterator[Fault]:
        size = self._file.seek(0, 2)
        if self._limit is not None:
            if self._offset < min(size, self._limit):
                yield self._fault(
                    self._offset, min(size, self._limit), "not a line that was written"
                )
            if size < self._limit:
                yield self._fault(size, self._limit, "the segment is cut short")
            return
        if self._offset < self._trusted:
            yield self._fault(self._offset, self._trusted, "the segment is cut short or damaged")
        self.torn = max(0, size - self._offset)

    def _fault(self, offset: int, end: int, reason: str) -> Fault:
        return Fault(self._name, offset, end, reason)

    def _was_synced(self, offset: int) -> bool:
        """Say whether the byte at ``offset`` was durable once, by looking for a later witness."""
        if offset < self._trusted:
            return True
        for place, text in _raw_lines(self._file, offset, self._limit):
            line = None if text is None else parse_line(text, place)
            # A stale block of another file could hold intact lines; one that vouches for
            # more than lies before it is not of this segment.
            if line is not None and offset < line.synced <= line.offset:
                self._trusted = line.synced
                return True
        return False


def _raw_lines(file: BinaryIO, start: int, limit: int | None) -> Iterator[tuple[int, bytes | None]]:
    """Yield (offset, text without newline) of each finished line from ``start`` up to ``limit``.

    The text is None for a line that is too long to be one. What follows the last newline is not
    yielded: it was never finished.
    """
    offset = start
    pieces: list[bytes] = []
    held = 0
    at = start
    while limit is None or at < limit:
        file.seek(at)
        chunk = file.read(_CHUNK if limit is None else min(_CHUNK, limit - at))
        if not chunk:
            return
        at += len(chunk)
        begin = 0
        while (newline := chunk.find(b"\n", begin)) >= 0:
            held += newline - begin
            if held > MAX_LINE_BYTES:
                yield offset, None
            else:
                pieces.append(chunk[begin:newline])
                yield offset, b"".join(pieces)
            offset += held + 1
            pieces, held, begin = [], 0, newline + 1
        held += len(chunk) - begin
        if held > MAX_LINE_BYTES:
            pieces = []
        else:
            pieces.append(chunk[begin:])
