"""Turns the records of one journal into rows. Whoever calls holds the transaction.

What a track gets is nearly always new, so a batch is inserted at once; only a batch in which some
record meets another of its identity, or one that is there already, is gone through one by one.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.manifests.record import GroupRecord, Record
from casfs.timestamps import HOUR, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from casfs.index.expiring import ExpiredHours

_INSERT = "insert into groups values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Standing(Struct, frozen=True):
    """The record that stands for a group until now."""

    number: int
    n: int
    complete: bool
    size: int
    received_start: int
    expired: bool


class _Row(Struct, frozen=True):
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
        below: Callable[[GroupRecord, int], Standing | None] | None,
        expired: ExpiredHours,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._below = below
        self._expired = expired
        self.hides = False
        """Whether a record of the index below was superseded."""

    def add(self, records: Sequence[Record]) -> None:
        """Add them, in their order; raises sqlite3.Error."""
        groups: list[GroupRecord] = []
        for record in records:
            if isinstance(record, GroupRecord):
                groups.append(record)
            else:
                self._add_event(record)
        if groups and not self._add_new(groups):
            for group in groups:
                self._add_group(group)
        self._connection.executemany(
            "insert into blocks values (?, ?, ?) on conflict do nothing",
            [
                (bytes.fromhex(group.hash), self._journal, bytes.fromhex("".join(group.blocks)))
                for group in groups
                if group.blocks
            ],
        )

    def _add_new(self, groups: Sequence[GroupRecord]) -> bool:
        """Add groups of which nothing is known yet; return False, with nothing done, if it is."""
        if self._below is not None:
            return False
        rows = [self._row(group, current=True) for group in groups]
        self._connection.execute("savepoint new_groups")
        try:
            self._connection.executemany(_INSERT, map(msgspec.structs.astuple, rows))
        except sqlite3.IntegrityError:
            self._connection.execute("rollback to new_groups")
            return False
        finally:
            self._connection.execute("release new_groups")
        shown = [row for row in rows if row.shown]
        for hour, count in Counter(row.received_start // HOUR for row in shown).items():
            self._count_hour(hour, count)
        self._count(len(shown), sum(row.size for row in shown))
        self._widen(rows)
        return True

    def _add_group(self, record: GroupRecord) -> None:
        row = self._row(record, current=True)
        before = self._standing(row, record)
        if before is not None:
            # A complete group stands for ever; an incomplete one gives way to any later record.
            # Damage may bring a record twice or out of order: that changes nothing.
            if before.complete or before.n >= record.n:
                row = msgspec.structs.replace(row, current=False)
            else:
                self._supersede(before)
        self._connection.execute(f"{_INSERT} on conflict do nothing", msgspec.structs.astuple(row))
        if row.shown:
            self._count_hour(row.received_start // HOUR, 1)
            self._count(1, row.size)
        self._widen([row])

    def _standing(self, row: _Row, record: GroupRecord) -> Standing | None:
        found = self._connection.execute(
            "select number, n, complete, size, received_start, expired from groups"
            " where journal = ? and epoch = ? and sequence = ? and current",
            (row.journal, row.epoch, row.sequence),
        ).fetchone()
        if found is not None:
            return Standing(*found)
        return self._below(record, row.sequence) if self._below is not None else None

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
        starts = [row.received_start for row in rows if not row.expired]
        if not starts:
            return
        self._connection.execute(
            "update journals set first = min(coalesce(first, ?1), ?1),"
            " last = max(coalesce(last, ?2), ?2) where id = ?3",
            (min(starts), max(starts), self._journal),
        )

    def _row(self, record: GroupRecord, *, current: bool) -> _Row:
        received_start = parse_time(record.received_start)
        return _Row(
            record.number,
            record.n,
            self._journal,
            record.epoch,
            int(record.sequence),
            bytes.fromhex(record.hash),
            record.offset,
            record.size,
            received_start,
            parse_time(record.received_end),
            record.complete,
            bytes.fromhex(record.init) if record.init is not None else None,
            current,
            self._expired.name(record.number, received_start // HOUR, record.n),
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
