"""Finds lines by their commit number, without reading a journal from its beginning.

Commit numbers rise through a journal, and the first line of each segment has one: so the segment
that holds a record is known from the first lines alone.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from casfs.errors import storage_error
from casfs.manifests.chain import JournalReader
from casfs.manifests.record import Line
from casfs.manifests.runs import names_group

if TYPE_CHECKING:
    from collections.abc import Generator


class PlacedLine(Struct, frozen=True):
    """A line, and the segment that holds it."""

    segment: str
    """The segment's file name."""
    line: Line


def lines_from(directory: str, n: int) -> Generator[PlacedLine]:
    """Yield the living lines of a journal in order, from one before commit number ``n`` on.

    Where the journal is damaged, what is sound is yielded. Who may stop before the end closes it
    (`contextlib.closing`). Raises StorageError.
    """
    links = JournalReader(directory).links()
    first = 0
    for at, link in enumerate(links):
        # A segment whose first line is damaged may begin anywhere.
        if link.header is not None and link.header.record.n <= n:
            first = at
    if not links:
        return
    reader = JournalReader(directory, newest=len(links) - first)
    with contextlib.closing(iter(reader)) as items:
        for item in items:
            if isinstance(item, Line) and reader.position is not None:
                yield PlacedLine(reader.position.segment, item)


def find_line(directory: str, n: int) -> PlacedLine | None:
    """Return the line of the record with this commit number, or None; raises StorageError.

    The line of a run has the numbers of all its groups.
    """
    with contextlib.closing(lines_from(directory, n)) as lines:
        for placed in lines:
            if placed.line.record.n >= n:
                return placed if names_group(placed.line.record, n) else None
    return None


class LineTexts:
    """Reads the text of lines as it stands on disk; a context manager that keeps a segment open."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._segment = ""
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def text(self, placed: PlacedLine) -> bytes:
        """Return a line with its newline; raises StorageError."""
        path = os.path.join(self._directory, placed.segment)
        try:
            if placed.segment != self._segment:
                self._close()
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._segment = placed.segment
            line = placed.line
            return os.pread(self._descriptor, line.end - line.offset, line.offset)
        except OSError as error:
            raise storage_error(error, "reading", path) from error

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._segment = -1, ""
