"""One segment of a journal: its name, and its lines read back with whatever befell them.

A scan goes forward and decides at each bad place whether bytes that had been synced were damaged
(reported as a fault, then on with the next intact line) or whether this is the torn tail of an
unclean end (the scan stops there: nobody was ever told that those lines are safe). Bytes count as
synced up to ``limit`` where the next segment continues, up to ``trusted`` where the caller knows
more, and up to what any later intact line of this journal vouches for by its ``synced`` member.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

from msgspec import Struct

from casfs.manifests.record import (
    LINE_START,
    MAX_LINE_BYTES,
    Line,
    Position,
    Record,
    parse_line,
)

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


class Owner(Struct, frozen=True):
    """Whose lines belong in a segment. A stale block on disk may hold intact lines of others."""

    number: int
    """The broadcast's number."""
    track: str | None
    lowest: int
    """The commit number of the segment's first line, or of an earlier one."""

    def owns(self, line: Line) -> bool:
        """Say whether this can be a line of the segment, whatever place it came to."""
        record = line.record
        if record.n < self.lowest:
            return False
        if isinstance(record, Record):
            return (record.number, record.track) == (self.number, self.track)
        return line.synced <= line.offset


class SegmentScan:
    """Reads the lines of one segment from ``start`` on, in order; iterate to drive it.

    ``previous`` is the sum of the line before ``start`` (None at a journal's first line).
    ``limit`` is where the next segment continues, or None if this is the last one. ``trusted`` is
    a place which is known to have been synced, ``owner`` whose lines these are (where unknown, the
    first line says it).
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
        limit: Position | None = None,
        trusted: Position | None = None,
        owner: Owner | None = None,
    ) -> None:
        self._file = file
        self.name = name
        """The segment's file name."""
        self._end = limit or trusted
        self._limit = limit
        self._trusted = max(start, self._end.offset) if self._end is not None else start
        self._owner = owner
        self._start = start
        self._offset = start
        self._previous = previous
        self._broken = False
        self._reached = self._end is not None and self._end.hash == previous
        self.torn = 0
        """Bytes behind the last line that were never acknowledged."""

    @property
    def position(self) -> Position:
        """Behind the last line that was read."""
        return Position(self.name, self._offset, self._previous or "")

    @property
    def begun(self) -> bool:
        """Whether any line was read."""
        return self._offset > self._start

    def __iter__(self) -> Iterator[Line | Fault]:
        if self._limit is None:
            yield from self._lines(None)
        else:
            yield from self._lines(self._limit.offset)
            if not self._reached:
                # Bytes that were put in before it move the end; what lies behind it stays dead.
                self._trusted = self._moved_end(self._limit)
                yield from self._lines(self._trusted)
        yield from self._finish()

    def _lines(self, limit: int | None) -> Iterator[Line | Fault]:
        for offset, text in _raw_lines(self._file, self._offset, limit):
            line = None if text is None else _line_within(text, offset)
            if line is not None and (line.offset, line.prev) == (self._offset, self._previous):
                yield self._accept(line)
                continue
            belongs = line is not None and self._belongs(line)
            if not (belongs and self._broken) and not self._was_synced(offset, limit):
                return
            if line is None or not belongs:
                self._broken = True
                continue
            if line.offset > self._offset:
                yield self._fault(self._offset, line.offset, "not a line that was written")
            else:
                yield self._fault(
                    offset, offset, "the chain is broken: a line is missing or out of place"
                )
            yield self._accept(line)

    def _accept(self, line: Line) -> Line:
        self._offset = line.end
        self._previous = line.sum
        self._broken = False
        if self._end is not None and line.sum == self._end.hash:
            self._reached = True
        if self._owner is None and isinstance(line.record, Record):
            self._owner = Owner(line.record.number, line.record.track, line.record.n)
        return line

    def _finish(self) -> Iterator[Fault]:
        size = self._file.seek(0, 2)
        if not self._reached and self._offset < self._trusted:
            written = min(size, self._trusted)
            if self._offset < written:
                yield self._fault(self._offset, written, "not a line that was written")
            if size < self._trusted:
                yield self._fault(size, self._trusted, "the segment is cut short")
        if self._limit is None:
            self.torn = max(0, size - self._offset)

    def _fault(self, offset: int, end: int, reason: str) -> Fault:
        return Fault(self.name, offset, end, reason)

    def _belongs(self, line: Line) -> bool:
        if self._owner is None:
            return line.synced <= line.offset or line.offset < self._trusted
        return self._owner.owns(line)

    def _was_synced(self, offset: int, limit: int | None) -> bool:
        """Say whether the byte at ``offset`` was durable once, by looking for a later witness."""
        if offset < self._trusted:
            return True
        for place, text in _raw_lines(self._file, offset, limit):
            line = None if text is None else _line_within(text, place)
            if line is None or not self._belongs(line):
                continue
            # It vouches for the place; or it was written when everything before it was durable,
            # and does not follow it; or something was put in before it.
            at_once = line.offset == offset == line.synced
            if line.synced > offset or at_once or line.prev == self._previous:
                # Where a line was taken out, later ones speak of more than lies before them.
                self._trusted = max(offset + 1, min(line.synced, line.end))
                return True
        return False

    def _moved_end(self, limit: Position) -> int:
        """Return the end of the line that ``limit`` names, if it lies behind that place."""
        for place, text in _raw_lines(self._file, self._offset, None):
            line = None if text is None else _line_within(text, place)
            if line is not None and line.sum == limit.hash:
                return max(line.end, limit.offset)
        return limit.offset


def _line_within(text: bytes, offset: int) -> Line | None:
    """Return the line in ``text``, also if damaged bytes have swallowed the newline before it."""
    line = parse_line(text, offset)
    if line is None and (at := text.rfind(LINE_START)) > 0:
        line = parse_line(text[at:], offset + at)
    return line


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
            elif not pieces:
                yield offset, chunk[begin:newline]
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
