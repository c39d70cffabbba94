"""What expiries do to the rows of an index: who is expired, and who needs an object after all.

A row is expired if the newest record of its broadcast and hour in the journal of expiries names it.
Journals may be applied in any order: a row that comes later looks up what was expired before.
Which record stands for a group does not depend on expiry, so a restored hour is what it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from casfs.digest import Digest
from casfs.manifests.expiry import NOTHING_EXPIRED, ExpiredHour, expired_hour
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from casfs.index.index import Index
    from casfs.manifests.record import Record

_SHOWN = f"journal = ? and received_start / {HOUR} = ? and current and not expired"


class ExpiredHours:
    """Looks up what is expired; asks for each hour once, so it is good for one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[int, int], ExpiredHour] = {}

    def name(self, number: int, hour: int, n: int) -> bool:
        """Say whether the record ``n`` of a broadcast, received in this hour, is expired."""
        return self.hour(number, hour).names(n)

    def hour(self, number: int, hour: int) -> ExpiredHour:
        """Return what is expired of an hour."""
        found = self._known.get((number, hour))
        if found is None:
            row = self._connection.execute(
                "select through, keep from expired where number = ? and hour = ?", (number, hour)
            ).fetchone()
            found = NOTHING_EXPIRED if row is None else _state(*row)
            self._known[number, hour] = found
        return found


def expired_hours(index: Index, number: int) -> dict[int, ExpiredHour]:
    """Return what is expired of a broadcast, by hour; raises `IndexFault`."""
    rows = index.select("select hour, through, keep from expired where number = ?", (number,))
    return {hour: _state(through, keep) for hour, through, keep in rows}


def apply_expiries(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Apply lines of a journal of expiries, in their order; raises sqlite3.Error."""
    changes: dict[int, dict[int, ExpiredHour]] = {}
    for record in records:
        told = expired_hour(record)
        if told is not None:
            hour, state = told
            changes.setdefault(record.number, {})[hour] = state
    for number, hours in changes.items():
        _change(connection, number, hours)


def forget_expiries(connection: sqlite3.Connection, journal: int) -> None:
    """Let nothing be expired of the broadcast whose journal of expiries this is."""
    row = connection.execute("select number from journals where id = ?", (journal,)).fetchone()
    hours = connection.execute("select hour from expired where number = ?", row).fetchall()
    _change(connection, row[0], {hour: NOTHING_EXPIRED for (hour,) in hours})


def _change(connection: sqlite3.Connection, number: int, hours: dict[int, ExpiredHour]) -> None:
    journals = [
        row[0]
        for row in connection.execute(
            "select id from journals where number = ? and track is not null", (number,)
        )
    ]
    before = ExpiredHours(connection)
    loosened = [
        hour for hour, state in hours.items() if not state.covers(before.hour(number, hour))
    ]
    totals = {journal: _totals(connection, journal, hours) for journal in journals}
    for hour, state in hours.items():
        connection.execute(
            "insert into expired values (?, ?, ?, ?) on conflict do update"
            " set through = excluded.through, keep = excluded.keep",
            (number, hour, state.through, msgspec.json.encode(sorted(state.keep)).decode()),
        )
    if loosened:
        connection.execute(
            "update groups set expired = 0 where number = ? and expired"
            f" and received_start / {HOUR} in (select value from json_each(?))",
            (number, msgspec.json.encode(loosened).decode()),
        )
    for journal in journals:
        for hour, state in hours.items():
            connection.execute(
                f"update groups set expired = 1 where journal = ? and received_start / {HOUR} = ?"
                " and n <= ? and not expired and n not in (select value from json_each(?))",
                (journal, hour, state.through, msgspec.json.encode(sorted(state.keep)).decode()),
            )
        _recount(connection, journal, totals[journal], _totals(connection, journal, hours))


_Totals = dict[int, tuple[int, int]]
"""Groups and bytes that show, by hour."""


def _totals(connection: sqlite3.Connection, journal: int, hours: dict[int, ExpiredHour]) -> _Totals:
    query = f"select coalesce(sum(groups), 0), coalesce(sum(size), 0) from groups where {_SHOWN}"
    return {hour: connection.execute(query, (journal, hour)).fetchone() for hour in hours}


def _recount(connection: sqlite3.Connection, journal: int, before: _Totals, after: _Totals) -> None:
    for hour, (groups, _) in after.items():
        connection.execute(
            "update hours set groups = ? where journal = ? and hour = ?", (groups, journal, hour)
        )
        if groups and not before[hour][0]:
            connection.execute(
                "insert or ignore into hours values (?, ?, ?)", (journal, hour, groups)
            )
    groups, size = (
        sum(total[at] for total in after.values()) - sum(total[at] for total in before.values())
        for at in (0, 1)
    )
    first, last = (
        connection.execute(
            f"select {function} from groups where journal = ?1 and not expired"
            f" and received_start / {HOUR} = (select received_start / {HOUR} from groups"
            f" where journal = ?1 and not expired order by received_start / {HOUR} {order}"
            " limit 1)",
            (journal,),
        ).fetchone()[0]
        for function, order in (("min(received_start)", "asc"), ("max(last_start)", "desc"))
    )
    connection.execute(
        "update journals set groups = groups + ?, bytes = bytes + ?, first = ?, last = ?"
        " where id = ?",
        (groups, size, first, last, journal),
    )


def _state(through: int, keep: str) -> ExpiredHour:
    return ExpiredHour(through, frozenset(msgspec.json.decode(keep, type=list[int])))


# Objects

_NAMED = (
    "select hash, max(size) from (select hash, offset + size as size, expired from groups"
    " where hash between ?1 and ?2 union all select init, null, expired from groups"
    " where init between ?1 and ?2) group by hash"
)


def expired_objects(index: Index, shard: str) -> Iterator[tuple[Digest, int | None]]:
    """Yield each object of a shard that expired records alone name, and the bytes that they use.

    None for an object that is known only as the init of others. Raises `IndexFault`.
    """
    for digest, size in index.select(f"{_NAMED} having min(expired) = 1", _bounds(shard)):
        yield Digest(digest.hex()), size


def named_objects(index: Index, shard: str) -> set[Digest]:
    """Return the objects of a shard that any record names, expired or not; raises `IndexFault`."""
    return {Digest(digest.hex()) for digest, _ in index.select(_NAMED, _bounds(shard))}


def is_needed(index: Index, digest: Digest) -> bool:
    """Say whether a record that is not expired needs the object; raises `IndexFault`."""
    query = (
        "select 1 from groups where hash = ?1 and not expired"
        " union all select 1 from groups where init = ?1 and not expired limit 1"
    )
    return any(True for _ in index.select(query, (bytes.fromhex(digest),)))


def _bounds(shard: str) -> tuple[bytes, bytes]:
    prefix = bytes.fromhex(shard)
    return prefix.ljust(32, b"\x00"), prefix.ljust(32, b"\xff")


def hours_naming(index: Index, number: int, digest: Digest) -> set[int]:
    """Return the hours of a broadcast with a record whose payload lies in the object.

    Raises `IndexFault`.
    """
    rows = index.select(
        f"select distinct received_start / {HOUR} from groups where hash = ? and number = ?",
        (bytes.fromhex(digest), number),
    )
    return {row[0] for row in rows}


def revived_objects(index: Index, number: int, hour: int, state: ExpiredHour) -> set[Digest]:
    """Return the objects that are needed again if this is all that is expired of an hour.

    Raises `IndexFault`.
    """
    found: set[Digest] = set()
    for n, *digests in index.select(
        f"select n, hash, init from groups where number = ? and received_start / {HOUR} = ?"
        " and expired",
        (number, hour),
    ):
        if not state.names(n):
            found.update(Digest(digest.hex()) for digest in digests if digest is not None)
    return found
