"""A journal read as a whole: which of its segments live, in which order, and up to where.

Each segment's first line names the place in an earlier segment where the journal continues. So
the living segments are found from the newest backwards; what no later segment continues from
(a segment that was begun and never acknowledged) is dead and passed over.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO

from msgspec import Struct

from casfs.errors import storage_error
from casfs.manifests.record import (
    MAX_LINE_BYTES,
    Line,
    Position,
    Record,
    SegmentRecord,
    parse_line,
)
from casfs.manifests.segment import Fault, Owner, SegmentName, SegmentScan, parse_segment_name

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


_SUM_BEFORE_END = 64 + len('"}\n')


class PositionLostError(Exception):
    """The journal no longer holds the place from which a follower wanted to go on."""


class Link(Struct, frozen=True):
    """A living segment."""

    name: SegmentName
    header: Line | None
    """Its first line; None if that line is damaged."""
    limit: Position | None
    """Where the next living segment continues; None for the last one."""
    fault: Fault | None
    """What is wrong with the link to the segment before it."""


def segment_names(directory: str) -> list[SegmentName]:
    """Return the names of a journal's segments in order; empty if there is no such directory."""
    try:
        entries = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, "listing", directory) from error
    return sorted(name for name in map(parse_segment_name, entries) if name is not None)


def read_header(directory: str, name: SegmentName) -> Line | None:
    """Return the first line of a segment, or None if it is torn or damaged."""
    path = os.path.join(directory, str(name))
    try:
        with open(path, "rb") as file:
            text = file.readline(MAX_LINE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, "reading", path) from error
    line = parse_line(text[:-1], 0) if text.endswith(b"\n") else None
    return line if line is not None and isinstance(line.record, SegmentRecord) else None


class JournalReader:
    """Yields every living line of the journal in ``directory``, and every fault among them.

    With ``since`` it goes on behind that place and raises `PositionLostError` if the journal does
    not hold it any more; ``newest`` limits it to that many segments at the end; ``trusted`` is a
    place that is known to have been durable, so that damage before it is never taken for a torn
    tail. After the iteration `position` is behind the last line (None if there was none at all)
    and `torn` counts the bytes of an unacknowledged tail. Raises StorageError.

    An iteration holds a file open: who may stop before its end closes it (`contextlib.closing`).
    """

    def __init__(
        self,
        directory: str,
        *,
        since: Position | None = None,
        newest: int | None = None,
        trusted: Position | None = None,
    ) -> None:
        self.directory = directory
        self._newest = newest
        self._trusted = trusted
        self._read: Position | None = since
        self._scan: SegmentScan | None = None
        self.torn = 0
        self._since = since
        self._owner: Owner | None = None

    @property
    def position(self) -> Position | None:
        """Behind the last line; None if there was none yet."""
        scan = self._scan
        return scan.position if scan is not None and scan.begun else self._read

    @property
    def segment(self) -> str:
        """The file name of the segment that is being read; empty before the first."""
        return self._scan.name if self._scan is not None else ""

    def __iter__(self) -> Generator[Line | Fault]:
        explained = False
        links = self.links()
        if self._newest is not None and links and links[0].header is not None:
            previous = links[0].header.prev
            self._read = Position("", 0, previous) if previous is not None else None
        for link in links:
            if link.fault is not None:
                explained = True
                yield link.fault
            with contextlib.closing(self._segment(link, explained=explained)) as items:
                for item in items:
                    explained = isinstance(item, Fault)
                    yield item

    def _segment(self, link: Link, *, explained: bool) -> Generator[Line | Fault]:
        """Read one segment; ``explained``: a fault before it explains a chain that does not fit."""
        name = str(link.name)
        following = self._since is not None and name == self._since.segment
        start = self._since.offset if following and self._since is not None else 0
        previous = self.position.hash if self.position is not None else None
        if not following and link.header is not None and link.header.prev != previous:
            previous = link.header.prev
            if not explained:
                yield Fault(name, 0, 0, "does not continue the lines before it")
        if link.header is not None and isinstance(link.header.record, Record):
            record = link.header.record
            self._owner = Owner(record.number, record.track, record.n)
        trusted = self._trusted if self._trusted and self._trusted.segment == name else None
        path = os.path.join(self.directory, name)
        try:
            with open(path, "rb") as file:
                if following:
                    _check_place(file, start, previous, link.limit)
                scan = SegmentScan(
                    file,
                    name,
                    start=start,
                    previous=previous,
                    limit=link.limit,
                    trusted=trusted,
                    owner=self._owner,
                )
                self._read, self._scan = self.position, scan
                yield from scan
                self.torn = scan.torn
        except FileNotFoundError:
            # Its writer has taken it back a moment ago: nothing in it ever counted.
            if following:
                raise PositionLostError from None
        except OSError as error:
            raise storage_error(error, "reading", path) from error

    def links(self) -> Sequence[Link]:
        """Return the living segments from the place ``since`` on, in order.

        Raises PositionLostError if that place is in none of them, StorageError.
        """
        names = segment_names(self.directory)
        if self._since is not None:
            since = parse_segment_name(self._since.segment)
            if since is None or since not in names:
                raise PositionLostError
            names = names[names.index(since) :]
        links: list[Link] = []
        limit: Position | None = None
        at = _last_living(self.directory, names, self._trusted or self._since)
        while at >= 0:
            header = read_header(self.directory, names[at])
            before, next_limit, fault = _predecessor(names, at, header)
            if self._since is not None and fault is not None:
                if at > 0:
                    raise PositionLostError
                fault = None
            links.append(Link(names[at], header, limit, fault))
            at, limit = before, next_limit
        if self._since is not None and (not links or str(links[-1].name) != self._since.segment):
            raise PositionLostError
        links.reverse()
        return links if self._newest is None else links[-self._newest :]


def reaches(directory: str, position: Position) -> bool:
    """Say whether the journal still goes as far as ``position``, damaged or not.

    An older copy does not: it lacks bytes, or holds other lines there. Raises StorageError.
    """
    reader = JournalReader(directory, trusted=position)
    link = next((link for link in reader.links() if str(link.name) == position.segment), None)
    if link is None or (link.limit is not None and link.limit.offset < position.offset):
        return False
    path = os.path.join(directory, position.segment)
    try:
        with open(path, "rb") as file:
            with contextlib.suppress(PositionLostError):
                _check_place(file, position.offset, position.hash, link.limit)
                return True
            # The text of the sum may be what is damaged, or a line before it is gone.
            whole = os.fstat(file.fileno()).st_size >= position.offset
            for item in SegmentScan(file, position.segment, limit=link.limit, trusted=position):
                if isinstance(item, Line) and item.sum == position.hash:
                    return True
                whole = whole and not (isinstance(item, Line) and item.end == position.offset)
            return whole
    except OSError as error:
        raise storage_error(error, "reading", path) from error


def _check_place(file: BinaryIO, start: int, previous: str | None, limit: Position | None) -> None:
    """Raise PositionLostError unless a follower can go on at ``start``, behind ``previous``."""
    if start > os.fstat(file.fileno()).st_size or (limit is not None and start > limit.offset):
        raise PositionLostError
    # The line before ends with its sum, a quote, a brace and a newline.
    file.seek(max(0, start - _SUM_BEFORE_END))
    if file.read(64) != (previous or "").encode():
        raise PositionLostError


def _last_living(directory: str, names: Sequence[SegmentName], trusted: Position | None) -> int:
    """Return the index of the newest segment that holds any line, or -1.

    A segment whose creation was torn holds none. One whose first line alone is damaged still
    lives if a later line vouches for it, or whoever trusts a place in it.
    """
    for at in range(len(names) - 1, -1, -1):
        name = str(names[at])
        if read_header(directory, names[at]) is not None:
            return at
        path = os.path.join(directory, name)
        place = trusted if trusted is not None and trusted.segment == name else None
        try:
            with open(path, "rb") as file:
                if place is not None and os.fstat(file.fileno()).st_size >= place.offset:
                    return at
                scan = SegmentScan(file, name, trusted=place)
                if any(isinstance(item, Line) for item in scan):
                    return at
        except FileNotFoundError:
            continue
        except OSError as error:
            raise storage_error(error, "reading", path) from error
    return -1


def _predecessor(
    names: Sequence[SegmentName], at: int, header: Line | None
) -> tuple[int, Position | None, Fault | None]:
    """Return (index or -1, where it is continued, fault) of the segment before ``names[at]``."""
    own = str(names[at])
    if header is None or not isinstance(header.record, SegmentRecord):
        # The scan of this segment reports the damaged line itself.
        return at - 1, None, None
    continues = header.record.continues
    if continues is None:
        return -1, None, None
    for before in range(at - 1, -1, -1):
        if str(names[before]) == continues.segment:
            return before, continues, None
    reason = f"the segment before it, {continues.segment}, is missing"
    return at - 1, None, Fault(own, 0, 0, reason)
