"""Turns records into the values of rows, as far as that needs no look into the index. Pure.

So it can be done ahead and elsewhere (`casfs.index.ahead`). What is left to whoever applies them
(`casfs.index.applying`) is which journal it is, and who stands and who is expired.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from casfs.digest import parse_digest
from casfs.index.extents import Member, members_of, pack_members, unpack_members
from casfs.manifests.plausible import check_run, check_sequence
from casfs.manifests.record import GroupRecord, Record, RunRecord
from casfs.timestamps import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class PreparedRow(NamedTuple):
    """A row of "groups": its columns in their order, but for journal, current and expired."""

    number: int
    n: int
    epoch: int
    sequence: int
    hash: bytes
    offset: int
    size: int
    received_start: int
    received_end: int
    complete: bool
    init: bytes | None
    groups: int
    last_sequence: int
    last_start: int
    members: bytes | None

    def taken_apart(self) -> list[Member]:
        """Return the groups of the row, in the order of their commit numbers."""
        if self.members is not None:
            first = self.n - self.groups + 1
            return unpack_members(
                self.members, first, self.sequence, self.offset, self.received_start
            )
        place = (self.n, self.sequence, self.offset, self.size)
        return [Member(*place, self.received_start, self.received_end, b"")]

    def of(self, members: Sequence[Member]) -> PreparedRow:
        """Return the row of some of its groups that lie one behind another."""
        if len(members) == self.groups:
            return self
        return self._replace(
            n=members[-1].n,
            sequence=members[0].sequence,
            offset=members[0].offset,
            size=sum(member.size for member in members),
            received_start=min(member.received_start for member in members),
            received_end=max(member.received_end for member in members),
            groups=len(members),
            last_sequence=members[-1].sequence,
            last_start=max(member.received_start for member in members),
            members=pack_members(members),
        )


class PreparedBlocks(NamedTuple):
    """A row of "blocks", but for its journal."""

    hash: bytes
    hashes: bytes


class PreparedEvent(NamedTuple):
    """A row of "events", but for its journal."""

    number: int
    n: int
    kind: str
    time: int
    body: str


class Origin(NamedTuple):
    """Whose journal it is, as its first record says."""

    number: int
    broadcast: str
    track: str | None
    n: int


class Prepared(Struct, frozen=True, array_like=True):
    """What the records of a stretch of one journal add to the index, in their order."""

    origin: Origin | None
    """None if there is no record of a known kind."""
    rows: list[PreparedRow]
    blocks: list[PreparedBlocks]
    events: list[PreparedEvent]


def origin_of(first: Record) -> Origin:
    """Return what the first record of a journal says of it."""
    return Origin(first.number, first.broadcast, first.track, first.n)


def prepare(records: Iterable[Record]) -> Prepared:
    """Return what records of one journal add; raises ValueError if one cannot be meant so."""
    rows: list[PreparedRow] = []
    blocks: list[PreparedBlocks] = []
    events: list[PreparedEvent] = []
    first: Record | None = None
    for record in records:
        if first is None:
            first = record
        if isinstance(record, GroupRecord):
            rows.append(_group_row(record))
            if record.blocks:
                packed = bytes.fromhex("".join(map(parse_digest, record.blocks)))
                blocks.append(PreparedBlocks(bytes.fromhex(record.hash), packed))
        elif isinstance(record, RunRecord):
            check_run(record)
            rows.append(_run_row(record))
        else:
            events.append(_event(record))
    origin = None if first is None else origin_of(first)
    return Prepared(origin, rows, blocks, events)


def _group_row(record: GroupRecord) -> PreparedRow:
    sequence = check_sequence(int(record.sequence))
    start = parse_time(record.received_start)
    return PreparedRow(
        record.number,
        record.n,
        record.epoch,
        sequence,
        bytes.fromhex(record.hash),
        record.offset,
        record.size,
        start,
        parse_time(record.received_end),
        record.complete,
        bytes.fromhex(record.init) if record.init is not None else None,
        1,
        sequence,
        start,
        None,
    )


def _run_row(record: RunRecord) -> PreparedRow:
    members = members_of(record)
    return PreparedRow(
        record.number,
        members[-1].n,
        record.epoch,
        members[0].sequence,
        bytes.fromhex(record.hash),
        record.offset,
        record.size,
        min(member.received_start for member in members),
        max(member.received_end for member in members),
        True,
        bytes.fromhex(record.init) if record.init is not None else None,
        len(members),
        members[-1].sequence,
        max(member.received_start for member in members),
        pack_members(members),
    )


def _event(record: Record) -> PreparedEvent:
    return PreparedEvent(
        record.number,
        record.n,
        str(record.__struct_config__.tag),
        parse_time(record.time),
        msgspec.json.encode(record).decode(),
    )
