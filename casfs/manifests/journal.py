"""The writing end of a journal: append lines, sync them, never touch what is written.

The crash protocol:

1. lines are appended to the newest segment, then synced; only then, and if the filesystem still
   lives, do they count (`acknowledged`);
2. after anything unclean (a crash, a failed write or sync, damage) the writer leaves that segment
   for ever and begins a new one, whose first line names the last acknowledged place; what lies
   behind that place is dead;
3. a segment is continued after a restart only if it ends exactly where a clean stop left it;
4. a new segment's name is durable before any of its lines is acknowledged.

The caller holds the broadcast's lock: there is one writer.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.durable import check_alive, sync_directory, write_fully
from casfs.errors import storage_error
from casfs.manifests.chain import segment_names
from casfs.manifests.record import Line, Position, Record, SegmentRecord, encode_line
from casfs.manifests.segment import SegmentName
from casfs.timestamps import date_of, format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class JournalIdentity(Struct, frozen=True):
    """Whose lines these are, and who writes them."""

    store: str
    broadcast: str
    number: int
    track: str | None
    writer: str
    recorder: str


class Journal:
    """Appends to the journal in ``directory``, which exists.

    ``position`` is the last valid place there (None in an empty journal). ``appendable`` says
    that its segment was left in good order and may be continued. ``next_number`` gives the commit
    numbers of segment headers; ``clock`` nanoseconds UTC.
    """

    def __init__(
        self,
        directory: str,
        identity: JournalIdentity,
        *,
        position: Position | None,
        appendable: bool,
        next_number: Callable[[], int],
        clock: Callable[[], int],
    ) -> None:
        self.directory = directory
        self.identity = identity
        self.acknowledged = position
        """Behind the last line that is durable; None if there is none."""
        self._appendable = appendable
        self._next_number = next_number
        self._clock = clock
        self._descriptor: int | None = None
        self._segment: SegmentName | None = None
        self._offset = 0
        self._previous = position.hash if position is not None else None
        self._synced = 0
        self._name_durable = False
        self._reason = "first" if position is None else "restart"

    def open_segment(self) -> None:
        """Have a segment of today's date open; called before the records take their numbers.

        Raises StorageError.
        """
        try:
            self._open_segment()
        except OSError as error:
            self._leave_segment()
            raise storage_error(error, "opening a segment in", self.directory) from error

    def append(self, records: Sequence[Record]) -> list[Line]:
        """Write one line for each record, not yet durable: `sync` acknowledges them.

        Call `open_segment` first. Raises StorageError; then none of them counts, nor any earlier
        unsynced line.
        """
        try:
            return self._write(records)
        except OSError as error:
            self._leave_segment()
            raise storage_error(error, "writing the manifest in", self.directory) from error

    def sync(self) -> None:
        """Make every appended line durable. Raises StorageError; then they do not count."""
        if self._descriptor is None or self._segment is None or self._previous is None:
            return
        if self._name_durable and self._synced == self._offset:
            return
        try:
            os.fdatasync(self._descriptor)
            if not self._name_durable:
                sync_directory(self.directory)
                self._name_durable = True
            check_alive(os.path.join(self.directory, str(self._segment)))
        except OSError as error:
            self._leave_segment()
            raise storage_error(error, "syncing the manifest in", self.directory) from error
        self._synced = self._offset
        self.acknowledged = Position(str(self._segment), self._offset, self._previous)

    def close(self) -> None:
        """Let go of the segment. Appended lines that were not synced do not count."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open_segment(self) -> None:
        date = date_of(self._clock())
        if self._descriptor is not None and self._segment is not None:
            if date <= self._segment.date:
                return
            self.sync()
            self.close()
            self._reason = "date"
        names = segment_names(self.directory)
        if self._appendable and self.acknowledged is not None:
            self._appendable = False
            newest = names[-1]
            if str(newest) == self.acknowledged.segment and date <= newest.date:
                self._continue_segment(newest, self.acknowledged)
                return
            self._reason = "date"
        self._begin_segment(names, date)

    def _continue_segment(self, name: SegmentName, position: Position) -> None:
        path = os.path.join(self.directory, str(name))
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._segment = name
        self._offset = self._synced = position.offset
        self._name_durable = True

    def _begin_segment(self, names: Sequence[SegmentName], date: str) -> None:
        newest = names[-1] if names else None
        if newest is not None:
            date = max(date, newest.date)
        ordinal = newest.ordinal + 1 if newest is not None and newest.date == date else 0
        name = SegmentName(date, ordinal)
        self._descriptor = os.open(
            os.path.join(self.directory, str(name)),
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
            mode=0o644,
        )
        self._segment = name
        self._offset = self._synced = 0
        self._name_durable = False
        identity = self.identity
        header = SegmentRecord(
            broadcast=identity.broadcast,
            number=identity.number,
            track=identity.track,
            n=self._next_number(),
            time=format_time(self._clock()),
            store=identity.store,
            writer=identity.writer,
            recorder=identity.recorder,
            reason=self._reason,
            continues=self.acknowledged,
        )
        self._previous = self.acknowledged.hash if self.acknowledged is not None else None
        self._write([header])

    def _write(self, records: Sequence[Record]) -> list[Line]:
        assert self._descriptor is not None
        lines: list[Line] = []
        texts: list[bytes] = []
        offset, previous = self._offset, self._previous
        for record in records:
            text, line = encode_line(record, offset=offset, synced=self._synced, prev=previous)
            texts.append(text)
            lines.append(line)
            offset, previous = line.end, line.sum
        write_fully(self._descriptor, texts)
        self._offset, self._previous = offset, previous
        return lines

    def _leave_segment(self) -> None:
        """Never write to this segment again; what was not acknowledged in it is dead."""
        if self._descriptor is None or self._segment is None:
            return
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = None
        if self._synced == 0:
            # Nothing in it ever counted and we alone know of it: a full disk that is tried again
            # and again would else fill with such stumps.
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.directory, str(self._segment)))
        self._segment = None
        self._reason = "failure"
