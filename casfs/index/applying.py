"""Adds prepared rows of one journal to the index. Whoever calls holds the transaction.

What a track gets is nearly always new, so a batch is inserted at once; only a batch in which some
record meets another of its identity, or one that is there already, is gone through one by one.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.index.expiring import ExpiredHours
from casfs.index.extents import EXTENT_COLUMNS, extent_row
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.index.preparing import Prepared, PreparedRow

_BEFORE_CURRENT = 9  # columns of "groups" between journal and current


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


class JournalRows:
    """Adds rows to the journal with this id, which is that of a track (None: of a broadcast).

    ``below``: the index that this one overlays. It knows what expired, too.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        journal: int,
        track: str | None,
        *,
        below: sqlite3.Connection | None,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._track = track
        self._below = below
        self._expired = ExpiredHours(below or connection)
        self.hides = False
        """Whether a record of the index below was superseded."""

    def add(self, prepared: Prepared) -> None:
        """Add them, in their order.

        Raises sqlite3.Error; OverflowError if a number is none that a record can mean.
        """
        self._connection.executemany(
            f"insert into events values (?, ?, {self._journal}, ?, ?, ?) on conflict do nothing",
            prepared.events,
        )
        if prepared.rows and not self._add_new(prepared.rows):
            for row in prepared.rows:
                self._add_one(row)
        self._connection.executemany(
            f"insert into blocks values (?, {self._journal}, ?) on conflict do nothing",
            prepared.blocks,
        )

    def _add_new(self, rows: Sequence[PreparedRow]) -> bool:
        """Add groups of which nothing is known yet; return False, with nothing done, if it is."""
        if self._below is not None or self._meets_a_run(rows):
            return False
        living, expired = self._told_apart(rows)
        self._connection.execute("savepoint new_groups")
        try:
            self._connection.executemany(self._insert(current=True, expired=False), living)
            self._connection.executemany(self._insert(current=True, expired=True), expired)
        except sqlite3.IntegrityError:
            self._connection.execute("rollback to new_groups")
            return False
        finally:
            self._connection.execute("release new_groups")
        hours: Counter[int] = Counter()
        size = 0
        for row in living:
            hours[row.received_start // HOUR] += row.groups
            size += row.size
        for hour, count in hours.items():
            self._count_hour(hour, count)
        self._count(hours.total(), size)
        self._widen(rows, living)
        return True

    def _told_apart(
        self, rows: Sequence[PreparedRow]
    ) -> tuple[Sequence[PreparedRow], Sequence[PreparedRow]]:
        """Return the rows that are not expired, and those that are."""
        hours = {(row.number, row.received_start // HOUR) for row in rows}
        lowest = min(row.n for row in rows)
        if all(self._expired.hour(*hour).through < lowest for hour in hours):
            return rows, ()
        expired = [row for row in rows if self._is_expired(row)]
        return [row for row in rows if not self._is_expired(row)], expired

    def _is_expired(self, row: PreparedRow) -> bool:
        return self._expired.name(row.number, row.received_start // HOUR, row.n)

    def _insert(self, *, current: bool, expired: bool) -> str:
        before = ", ".join("?" * _BEFORE_CURRENT)
        return (
            f"insert into groups values (?, ?, {self._journal}, {before}, {current:d},"
            f" {expired:d}, ?, ?, ?, ?)"
        )

    def _meets_a_run(self, rows: Sequence[PreparedRow]) -> bool:
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

    def _add_one(self, row: PreparedRow) -> None:
        members = row.taken_apart()
        place = (row.epoch, row.sequence, row.last_sequence)
        found = standing(self._connection, self._journal, *place)
        if self._below is not None:
            found = self._standing_below(self._below, row) | found
        stands: list[bool] = []
        for member in members:
            before = found.get(member.sequence)
            # A complete group stands for ever; an incomplete one gives way to any later record.
            # Damage may bring a record twice or out of order: that changes nothing.
            stands.append(before is None or not (before.complete or before.n >= member.n))
            if before is not None and stands[-1]:
                self._supersede(before)
        parts: list[PreparedRow] = []
        for current, stretch in itertools.groupby(range(len(members)), stands.__getitem__):
            part = row.of([members[at] for at in stretch])
            expired = self._is_expired(part)
            insert = self._insert(current=current, expired=expired)
            self._connection.execute(f"{insert} on conflict do nothing", part)
            parts.append(part)
            if current and not expired:
                self._count_hour(part.received_start // HOUR, part.groups)
                self._count(part.groups, part.size)
        self._widen(parts, [part for part in parts if not self._is_expired(part)])

    def _standing_below(self, below: sqlite3.Connection, row: PreparedRow) -> dict[int, Standing]:
        journal = below.execute(
            "select id from journals where number = ? and track = ?", (row.number, self._track)
        ).fetchone()
        if journal is None:
            return {}
        return standing(below, journal[0], row.epoch, row.sequence, row.last_sequence)

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

    def _widen(self, rows: Sequence[PreparedRow], living: Sequence[PreparedRow]) -> None:
        span = max(row.last_sequence - row.sequence for row in rows)
        if span:
            self._connection.execute(
                "update journals set span = max(span, ?) where id = ?", (span, self._journal)
            )
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
