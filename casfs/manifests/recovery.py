"""What a writer must know of a journal before it goes on: its end, and what was recorded lately."""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec import Struct

from casfs.errors import storage_error
from casfs.manifests.chain import JournalReader
from casfs.manifests.record import AnyRecord, GroupRecord, Line, Position, Record
from casfs.manifests.segment import Fault
from casfs.timestamps import parse_time

_SEGMENTS = 2
"""How many segments back the recent groups are gathered: at least the day before a rollover."""


class JournalTail(Struct, frozen=True):
    """The end of a journal."""

    position: Position | None
    """Behind the last valid line; None if there is none."""
    whole: bool
    """The newest segment ends right there, and nothing in the tail is damaged."""
    number: int | None
    """The broadcast's number, where any record tells it."""
    last_n: int
    """The highest commit number; 0 if there is no record."""
    last_time: int
    """When the last record was made, nanoseconds UTC; 0 if there is none."""
    last: AnyRecord | None
    groups: Sequence[GroupRecord]
    """The groups of the newest segments in the order of commits."""
    faults: Sequence[Fault]


def recover_tail(directory: str) -> JournalTail:
    """Read the end of a journal and make it durable; raises StorageError."""
    reader = JournalReader(directory, newest=_SEGMENTS)
    groups: list[GroupRecord] = []
    faults: list[Fault] = []
    last: AnyRecord | None = None
    last_record: Record | None = None
    for item in reader:
        if isinstance(item, Line):
            last = item.record
            if isinstance(item.record, Record):
                last_record = item.record
            if isinstance(item.record, GroupRecord):
                groups.append(item.record)
        else:
            faults.append(item)
    position = reader.position if last is not None else None
    if position is not None:
        _sync(os.path.join(directory, position.segment))
    return JournalTail(
        position=position,
        whole=reader.torn == 0 and not faults,
        number=last_record.number if last_record is not None else None,
        last_n=last.n if last is not None else 0,
        last_time=parse_time(last_record.time) if last_record is not None else 0,
        last=last,
        groups=groups,
        faults=faults,
    )


def _sync(path: str) -> None:
    # The lines may have come to the page cache alone before their writer died.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(error, "syncing", path) from error
