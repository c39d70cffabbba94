"""Turns the records of one journal into rows. Whoever calls holds the transaction.

What a track gets is nearly always new, so a batch is inserted at once; only a batch in which some
record meets another of its identity, or one that is there already, is gone through one by one.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.digest import parse_digest
from casfs.index.extents import EXTENT_COLUMNS, Member, extent_row, members_of, pack_members
from casfs.manifests.plausible import check_run, check_sequence
from casfs.manifests.record import GroupRecord, Record, RunRecord
from casfs.timestamps import HOUR, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from casfs.index.expiring import ExpiredHours

_INSERT = f"insert into groups values ({', '.join('?' * 18)})"


class Standing(Struct, frozen=True):
    """The record that stands for a group until now."""

    number: int
    n: int
    complete: bool
    size: int
    received_start: int
    expired: bool


def standing(
    connection: sqlite3.Connection, journal: int, epoch: int, first: int, last: int
) -> dict[int, Standing]:
    """Return what stands for the groups of a journal between two sequences, inclusive."""
    found: dict[int, Standing] = {}
    for *row, expired in connection.execute(
        f"select {EXTENT_COLUMNS}, g.expired from groups g join journals j on j.id = g.journal"
        " where g.journal = ?1 and g.epoch = ?2 and g.sequence between ?3 - j.span and ?4"
        " and g.last_sequence >= ?3 and g.current",
        (journal, epoch, first, last),
    ):
        for group in extent_row(row).group_rows():
            found[group.sequence] = Standing(
                *(group.broadcast.number, group.n, group.complete, group.size),
                *(group.received_start, bool(expired)),
            )
    return found


class _Row(Struct, frozen=True, gc=False):
    """A row of "groups", in the order of its columns."""

    number: int
    n: int
    journal: int
    epoch: int
    sequence: int
    hash: bytes
    offset: int
    size: int
    received_start: int
    received_end: int
    complete: bool
    init: bytes | None
    current: bool
    expired: bool
    groups: int
    last_sequence: int
    last_start: int
    members: bytes | None

    @property
    def shown(self) -> bool:
        return self.current and not self.expired


class JournalRows:
    """Adds records of the journal with this id. ``below`` finds what stands in an index below.

    ``expired`` says what expiries name.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        journal: int,
        below: Callable[[Record, int, int, int], dict[int, Standing]] | None,
        expired: ExpiredHours,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._below = below
        self._expired = expired
        self.hides = False
        """Whether a record of the index below was superseded."""

    def add(self, records: Sequence[Record]) -> None:
        """Add them, in their order.

        Raises sqlite3.Error; ValueError, OverflowError if one cannot be meant so.
        """
        groups: list[GroupRecord | RunRecord] = []
        for record in records:
            if isinstance(record, GroupRecord):
                groups.append(record)
            elif isinstance(record, RunRecord):
                check_run(record)
                groups.append(record)
            else:
                self._add_event(record)
        if groups and not self._add_new(groups):
            for group in groups:
                self._add_one(group)
        self._connection.executemany(
            "insert into blocks values (?, ?, ?) on conflict do nothing",
            [
                (bytes.fromhex(group.hash), self._journal, _packed(group.blocks))
                for group in groups
                if isinstance(group, GroupRecord) and group.blocks
            ],
        )

    def _add_new(self, groups: Sequence[GroupRecord | RunRecord]) -> bool:
        """Add groups of which nothing is known yet; return False, with nothing done, if it is."""
        if self._below is not None:
            return False
        rows = [
            self._group_row(group)
            if isinstance(group, GroupRecord)
            else self._row(group, members_of(group), current=True)
            for group in groups
        ]
        if self._meets_a_run(rows):
            return False
        self._connection.execute("savepoint new_groups")
        try:
            self._connection.executemany(_INSERT, map(msgspec.structs.astuple, rows))
        except sqlite3.IntegrityError:
            self._connection.execute("rollback to new_groups")
            return False
        finally:
            self._connection.execute("release new_groups")
        shown = [row for row in rows if row.shown]
        hours: Counter[int] = Counter()
        for row in shown:
            hours[row.received_start // HOUR] += row.groups
        for hour, count in hours.items():
            self._count_hour(hour, count)
        self._count(sum(row.groups for row in shown), sum(row.size for row in shown))
        self._widen(rows)
        return True

    def _meets_a_run(self, rows: Sequence[_Row]) -> bool:
        """Say whether a run may hold a sequence that another row holds: no constraint would tell.

        Rows that lie across each other without sharing one are taken for meeting, too.
        """
        (span,) = self._connection.execute(
            "select span from journals where id = ?", (self._journal,)
        ).fetchone()
        if not span and all(row.members is None for row in rows):
            return False
        ranges = sorted((row.epoch, row.sequence, row.last_sequence) for row in rows)
        for before, after in itertools.pairwise(ranges):
            if before[0] == after[0] and after[1] <= before[2]:
                return True
        for epoch in {epoch for epoch, _, _ in ranges}:
            own = [(first, last) for other, first, last in ranges if other == epoch]
            first, last = own[0][0], own[-1][1]
            if self._connection.execute(
                "select 1 from groups where journal = ? and epoch = ? and sequence between ? and ?"
                " and last_sequence >= ? and current limit 1",
                (self._journal, epoch, first - span, last, first),
            ).fetchone():
                return True
        return False

    def _add_one(self, record: GroupRecord | RunRecord) -> None:
        members = members_of(record)
        found = self._standing(record, members)
        stands: list[bool] = []
        for member in members:
            before = found.get(member.sequence)
            # A complete group stands for ever; an incomplete one gives way to any later record.
            # Damage may bring a record twice or out of order: that changes nothing.
            stands.append(before is None or not (before.complete or before.n >= member.n))
            if before is not None and stands[-1]:
                self._supersede(before)
        rows: list[_Row] = []
        at = 0
        for current, part in itertools.groupby(stands):
            count = len(list(part))
            rows.append(self._row(record, members[at : at + count], current=current))
            at += count
        for row in rows:
            values = msgspec.structs.astuple(row)
            self._connection.execute(f"{_INSERT} on conflict do nothing", values)
            if row.shown:
                self._count_hour(row.received_start // HOUR, row.groups)
                self._count(row.groups, row.size)
        self._widen(rows)

    def _standing(
        self, record: GroupRecord | RunRecord, members: Sequence[Member]
    ) -> dict[int, Standing]:
        place = (record.epoch, members[0].sequence, members[-1].sequence)
        found = standing(self._connection, self._journal, *place)
        return found if self._below is None else self._below(record, *place) | found

    def _supersede(self, before: Standing) -> None:
        cursor = self._connection.execute(
            "update groups set current = 0 where number = ? and n = ? and current",
            (before.number, before.n),
        )
        if cursor.rowcount == 0:
            self.hides = True
            self._connection.execute(
                "insert or ignore into hidden values (?, ?, ?)",
                (before.number, before.n, self._journal),
            )
        if not before.expired:
            self._count_hour(before.received_start // HOUR, -1)
            self._count(-1, -before.size)

    def _count(self, groups: int, size: int) -> None:
        self._connection.execute(
            "update journals set groups = groups + ?, bytes = bytes + ? where id = ?",
            (groups, size, self._journal),
        )

    def _count_hour(self, hour: int, groups: int) -> None:
        self._connection.execute(
            "insert into hours values (?, ?, ?)"
            " on conflict do update set groups = groups + excluded.groups",
            (self._journal, hour, groups),
        )

    def _widen(self, rows: Sequence[_Row]) -> None:
        span = max(row.last_sequence - row.sequence for row in rows)
        if span:
            self._connection.execute(
                "update journals set span = max(span, ?) where id = ?", (span, self._journal)
            )
        living = [row for row in rows if not row.expired]
        if not living:
            return
        self._connection.execute(
            "update journals set first = min(coalesce(first, ?1), ?1),"
            " last = max(coalesce(last, ?2), ?2) where id = ?3",
            (
                min(row.received_start for row in living),
                max(row.last_start for row in living),
                self._journal,
            ),
        )

    def _row(
        self, record: GroupRecord | RunRecord, members: Sequence[Member], *, current: bool
    ) -> _Row:
        """Return the row of some groups of a record that lie one behind another."""
        received_start = min(member.received_start for member in members)
        return _Row(
            record.number,
            members[-1].n,
            self._journal,
            record.epoch,
            members[0].sequence,
            bytes.fromhex(record.hash),
            members[0].offset,
            sum(member.size for member in members),
            received_start,
            max(member.received_end for member in members),
            not isinstance(record, GroupRecord) or record.complete,
            bytes.fromhex(record.init) if record.init is not None else None,
            current,
            self._expired.name(record.number, received_start // HOUR, members[-1].n),
            len(members),
            members[-1].sequence,
            max(member.received_start for member in members),
            None if isinstance(record, GroupRecord) else pack_members(members),
        )

    def _group_row(self, record: GroupRecord) -> _Row:
        """Return what `_row` would, for the record that nearly every line is."""
        sequence = check_sequence(int(record.sequence))
        start = parse_time(record.received_start)
        return _Row(
            record.number,
            record.n,
            self._journal,
            record.epoch,
            sequence,
            bytes.fromhex(record.hash),
            record.offset,
            record.size,
            start,
            parse_time(record.received_end),
            record.complete,
            bytes.fromhex(record.init) if record.init is not None else None,
            True,
            self._expired.name(record.number, start // HOUR, record.n),
            1,
            sequence,
            start,
            None,
        )

    def _add_event(self, record: Record) -> None:
        self._connection.execute(
            "insert into events values (?, ?, ?, ?, ?, ?) on conflict do nothing",
            (
                record.number,
                record.n,
                self._journal,
                record.__struct_config__.tag,
                parse_time(record.time),
                msgspec.json.encode(record).decode(),
            ),
        )


def _packed(blocks: Sequence[str]) -> bytes:
    return bytes.fromhex("".join(map(parse_digest, blocks)))
