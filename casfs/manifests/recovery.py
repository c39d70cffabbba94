"""What a writer must know of a journal before it goes on: its end, and what was recorded lately."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from casfs.durable import sync_directory
from casfs.errors import storage_error
from casfs.manifests.chain import JournalReader
from casfs.manifests.plausible import implausible
from casfs.manifests.record import (
    AnyRecord,
    GroupRecord,
    Line,
    Position,
    Record,
    RunRecord,
    SealRecord,
)
from casfs.manifests.runs import KeptGroup, first_number, kept_groups
from casfs.manifests.segment import Fault, parse_segment_name
from casfs.timestamps import HOUR, parse_time

_SEGMENTS = 2
"""How many segments back the recent groups are gathered: at least the day before a rollover."""

RECENT_GROUPS = 1 << 15
"""More than what a recorder remembers of a track; four million may have come in a day."""


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
    groups: Sequence[KeptGroup]
    """The last `RECENT_GROUPS` groups (or somewhat more) of the newest segments, by commits."""
    hours: frozenset[int]
    """The hours in which groups of the newest segments began, since the Unix epoch."""
    sealed: int
    """The newest hour that a seal of the newest segments closes, in hours since the Unix epoch; 0
    if there is none."""
    faults: Sequence[Fault]


def recover_tail(directory: str, trusted: Position | None = None) -> JournalTail:
    """Read the end of a journal and make it durable; raises StorageError.

    ``trusted``: a place that is known to have been acknowledged. If what lies before it is damaged,
    the journal still goes on behind it, so that the damage stays in the living part and is seen.
    """
    reader = JournalReader(directory, newest=_SEGMENTS, trusted=trusted)
    recent: deque[GroupRecord | RunRecord] = deque()
    recent_groups = 0
    hours: set[int] = set()
    faults: list[Fault] = []
    last: AnyRecord | None = None
    last_record: Record | None = None
    last_n = sealed = 0
    for item in reader:
        if isinstance(item, Line):
            last = item.record
            if isinstance(last, Record) and implausible(last) is not None:
                # Whoever wrote it counts and dates like nobody else: go on from the others.
                continue
            last_n = max(last_n, last.n)
            if isinstance(item.record, Record):
                last_record = item.record
            if isinstance(item.record, GroupRecord | RunRecord):
                recent.append(item.record)
                hours.add(parse_time(item.record.received_start) // HOUR)
                recent_groups += _count(recent[-1])
                if recent_groups - _count(recent[0]) >= RECENT_GROUPS:
                    recent_groups -= _count(recent.popleft())
            if isinstance(item.record, SealRecord):
                sealed = max(sealed, parse_time(item.record.hour) // HOUR)
        else:
            faults.append(item)
    position = reader.position if last is not None else None
    if trusted is not None and (position is None or _lies_before(position, trusted)):
        position = trusted
    if position is not None:
        _sync(directory, position.segment)
    return JournalTail(
        position=position,
        whole=reader.torn == 0 and not faults,
        number=last_record.number if last_record is not None else None,
        last_n=last_n,
        last_time=parse_time(last_record.time) if last_record is not None else 0,
        last=last,
        groups=[group for record in recent for group in kept_groups(record)],
        hours=frozenset(hours),
        sealed=sealed,
        faults=faults,
    )


def _count(record: GroupRecord | RunRecord) -> int:
    return record.n - first_number(record) + 1


def _lies_before(position: Position, trusted: Position) -> bool:
    if position.hash == trusted.hash:
        return False
    one, other = parse_segment_name(position.segment), parse_segment_name(trusted.segment)
    if one is None or other is None:
        return False
    return (one, position.offset) < (other, trusted.offset)


def _sync(directory: str, segment: str) -> None:
    # Lines and name may have come to the page cache alone before their writer died.
    path = os.path.join(directory, segment)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(directory)
    except OSError as error:
        raise storage_error(error, "syncing", path) from error
