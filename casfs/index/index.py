"""One SQLite file (or memory) of index rows: apply manifest lines, answer lookups.

A transaction applies lines and moves the journal's position together, so the file always says
exactly what the manifests say up to its positions. Two processes may apply at once: whoever comes
second finds the position moved and applies nothing. An overlay is a second index, in memory, which
holds what a first one lacks.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from typing import TYPE_CHECKING, Any, Self

from casfs.digest import Digest
from casfs.index import sequences
from casfs.index.applying import JournalRows
from casfs.index.expiring import apply_expiries, forget_expiries
from casfs.index.extents import EXTENT_COLUMNS, ExtentRow, extent_row
from casfs.index.preparing import origin_of, prepare
from casfs.index.replacement import replacement_lock
from casfs.index.rows import (
    BroadcastRow,
    EventRow,
    GroupRow,
    JournalRow,
    TrackRow,
    TrackSummary,
)
from casfs.index.schema import SCHEMA_VERSION, STATEMENTS, create_same_tables, create_tables
from casfs.manifests.record import Line, Position, Record
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from casfs.index.preparing import Origin, Prepared
    from casfs.manifests.layout import JournalPlace

IndexFault = sqlite3.Error
"""What SQLite raises: locked for too long, corrupt, no space. Never a reason to fail a commit."""

_BUSY_SECONDS = 30.0
_PAGE = 1000
_LOG_BYTES = 16 << 20
_LOG_WAIT_MILLISECONDS = 500
_ALL_HOURS = 1 << 62
_SHOWN = "g.current and not g.expired"
_FROM_GROUPS = (
    f"select {EXTENT_COLUMNS}, {_SHOWN} from groups g join journals j on j.id = g.journal"
)


class Index:
    """An open index. Use it from one thread at a time; methods raise `IndexFault`."""

    def __init__(
        self, connection: sqlite3.Connection, path: str | None, *, immutable: bool = False
    ) -> None:
        self._connection = connection
        self._path = path
        self._immutable = immutable
        self._hides_any = False
        try:
            self._stamp = self._file_stamp()
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from error

    @classmethod
    def open(cls, path: str, store: str) -> Self:
        """Open the index at ``path`` for writing; create it if it is not there.

        An index of another archive or schema raises sqlite3.DatabaseError: rebuild it.
        """
        # Going over to a write-ahead log does not wait for others who do: one alone makes the file.
        new = not os.path.exists(path) or not os.path.getsize(path)
        with replacement_lock(path, exclusive=new):
            connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("pragma journal_mode = wal")
                connection.execute("pragma synchronous = normal")
                connection.execute("pragma journal_size_limit = 67108864")
                connection.execute("begin immediate")
                with connection:
                    if not connection.execute("select 1 from sqlite_master limit 1").fetchall():
                        create_tables(connection, store)
                _check(connection, store)
                return cls(connection, path)
            except BaseException:
                connection.close()
                raise

    @classmethod
    def open_for_reading(cls, path: str, store: str) -> Self:
        """Open an index that we may not write to; raises sqlite3.Error if that cannot be done."""
        # Without a WAL nobody writes, and "immutable" spares the files that we may not create. It
        # takes no locks either: `replaced` says when someone has begun to write.
        immutable = not os.path.exists(f"{path}-wal")
        mode = "mode=ro&immutable=1" if immutable else "mode=ro"
        connection = sqlite3.connect(
            f"file:{_uri_path(path)}?{mode}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            index = cls(connection, path, immutable=immutable)
            _check(connection, store)
            return index
        except BaseException:
            connection.close()
            raise

    @classmethod
    def temporary(cls, store: str, like: Index | None = None) -> Self:
        """Return an empty index that is gone when closed; SQLite spills it to disk as needed.

        With ``like``, an index of the same archive, its tables are copied, which is quicker.
        """
        connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        if like is None:
            create_tables(connection, store)
        else:
            create_same_tables(connection, store, like.select(STATEMENTS))
        return cls(connection, None)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def settle(self) -> None:
        """Bring the write-ahead log home, so that the one file holds everything."""
        self._connection.execute("pragma wal_checkpoint(truncate)")

    def shorten_log(self, most: int = _LOG_BYTES) -> None:
        """Bring a write-ahead log of more than ``most`` bytes home and cut it off.

        SQLite does that by itself while nobody reads. Where there is always a reader, someone must
        wait for the moment in which none needs the log; if it does not come at once, next time.
        """
        try:
            if os.stat(f"{self._path}-wal").st_size <= most:
                return
        except OSError:
            return
        self._connection.execute(f"pragma busy_timeout = {_LOG_WAIT_MILLISECONDS}")
        try:
            self._connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        finally:
            self._connection.execute(f"pragma busy_timeout = {int(_BUSY_SECONDS * 1000)}")

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Make it fast to apply a whole archive: what only lookups need is made at the end.

        For an index that nobody else knows of yet. A power cut within the block, or before the
        file is synced after it, leaves the file of no use.
        """
        connection = self._connection
        late = connection.execute(
            "select name, sql from sqlite_master where type = 'index' and tbl_name = 'groups'"
            " and sql is not null and sql not like 'create unique%'"
        ).fetchall()
        connection.execute("pragma journal_mode = memory")
        connection.execute("pragma synchronous = off")
        for name, _ in late:
            connection.execute(f"drop index {name}")
        yield
        for _, statement in late:
            connection.execute(statement)
        connection.execute("pragma synchronous = normal")
        if self._path is not None:
            connection.execute("pragma journal_mode = wal")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Answer every lookup within the block as of one instant."""
        self._connection.execute("begin")
        try:
            yield
        finally:
            self._connection.execute("rollback")

    def replaced(self) -> bool:
        """Say whether the file was deleted or replaced since it was opened.

        Also whether someone writes to it while we have it open without any locks: then answers of
        before this call may be wrong.
        """
        try:
            return self._file_stamp() != self._stamp
        except OSError:
            return True

    @property
    def immutable(self) -> bool:
        """Whether it is read without locks, on the promise that nobody writes."""
        return self._immutable

    def _file_stamp(self) -> tuple[int, ...]:
        if self._path is None:
            return ()
        status = os.stat(self._path)
        if not self._immutable:
            return (status.st_ino,)
        written = os.path.exists(f"{self._path}-wal")
        return (status.st_ino, status.st_size, status.st_mtime_ns, written)

    # Applying lines

    def position(self, place: JournalPlace) -> Position | None:
        """Return up to where the journal is applied; None if nothing of it is."""
        row = self._one("select segment, offset, hash from journals where place = ?", (str(place),))
        return Position(*row) if row is not None else None

    def apply(
        self,
        place: JournalPlace,
        lines: Sequence[Line],
        position: Position,
        *,
        since: Position | None,
        below: Index | None = None,
    ) -> bool:
        """Apply ``lines``, which lead from ``since`` to ``position``; False if others were faster.

        ``below``: the index that this one overlays. Raises ValueError, OverflowError, with nothing
        applied, if a record is not `casfs.manifests.plausible`.
        """
        known = [line.record for line in lines if isinstance(line.record, Record)]
        if not place.of_expiries:
            return self.apply_prepared(place, prepare(known), position, since=since, below=below)
        with self._applying(
            place, origin_of(known[0]) if known else None, position, since, below
        ) as journal:
            if journal is not None:
                apply_expiries(self._connection, known)
        return journal is not None

    def apply_prepared(
        self,
        place: JournalPlace,
        prepared: Prepared,
        position: Position,
        *,
        since: Position | None,
        below: Index | None = None,
    ) -> bool:
        """Do what `apply` does, for what was prepared of the lines of a track or a broadcast."""
        with self._applying(place, prepared.origin, position, since, below) as journal:
            if journal is not None:
                track = prepared.origin.track if prepared.origin is not None else None
                base = None if below is None else below._connection  # noqa: SLF001  the same class
                rows = JournalRows(self._connection, journal, track, below=base)
                rows.add(prepared)
                self._hides_any |= rows.hides
        return journal is not None

    @contextlib.contextmanager
    def _applying(
        self,
        place: JournalPlace,
        origin: Origin | None,
        position: Position,
        since: Position | None,
        below: Index | None,
    ) -> Iterator[int | None]:
        """Move a journal on to ``position`` with what the block does to it, or None if it moved."""
        connection = self._connection
        connection.execute("begin immediate")
        with connection:
            moved = below is None and self.position(place) != since
            journal = None if moved else self._journal(place, origin)
            yield journal
            connection.execute(
                "update journals set segment = ?, offset = ?, hash = ? where id = ?",
                (position.segment, position.offset, position.hash, journal),
            )

    def forget(self, place: JournalPlace) -> None:
        """Drop everything of one journal, so that it is applied anew."""
        connection = self._connection
        connection.execute("begin immediate")
        with connection:
            row = self._one("select id from journals where place = ?", (str(place),))
            if row is not None:
                if place.of_expiries:
                    forget_expiries(connection, *row)
                for table in ("groups", "blocks", "hours", "events", "hidden"):
                    connection.execute(f"delete from {table} where journal = ?", row)
                connection.execute("delete from journals where id = ?", row)

    def _journal(self, place: JournalPlace, origin: Origin | None) -> int | None:
        row = self._one("select id from journals where place = ?", (str(place),))
        if row is not None:
            return int(row[0])
        if origin is None:
            return None
        cursor = self._connection.execute(
            "insert into journals (place, number, broadcast, track, first_n, segment, offset, hash)"
            " values (?, ?, ?, ?, ?, '', 0, '')",
            (str(place), *origin),
        )
        return cursor.lastrowid

    # Lookups

    def journals(self) -> Iterator[JournalRow]:
        """Yield every journal that is applied in part or whole, by place."""
        for row in self._connection.execute(
            "select id, place, segment, offset, hash, number, broadcast, track, first_n"
            " from journals order by place"
        ).fetchall():
            broadcast = BroadcastRow(row[5], row[6])
            track = TrackRow(broadcast, row[7], row[8]) if row[7] is not None else None
            yield JournalRow(row[0], row[1], Position(*row[2:5]), track, broadcast)

    def broadcasts(self) -> list[BroadcastRow]:
        """Return every broadcast, by number."""
        rows = self._connection.execute(
            "select distinct number, broadcast from journals order by number"
        )
        return [BroadcastRow(*row) for row in rows.fetchall()]

    def tracks(self, number: int) -> list[TrackRow]:
        """Return a broadcast's tracks, by name."""
        rows = self._connection.execute(
            "select number, broadcast, track, first_n from journals"
            " where number = ? and track is not null order by track",
            (number,),
        )
        return [TrackRow(BroadcastRow(row[0], row[1]), row[2], row[3]) for row in rows.fetchall()]

    def track(self, broadcast: str, track: str) -> TrackRow | None:
        """Return the track with these full names."""
        row = self._one(
            "select number, broadcast, track, first_n from journals"
            " where broadcast = ? and track = ?",
            (broadcast, track),
        )
        return TrackRow(BroadcastRow(row[0], row[1]), row[2], row[3]) if row else None

    def summary(self, track: TrackRow) -> TrackSummary:
        """Return the track's totals."""
        row = self._one(
            "select groups, bytes, first, last from journals where number = ? and track = ?",
            (track.broadcast.number, track.name),
        ) or (0, 0, None, None)
        return TrackSummary(track, *row)

    def hours(
        self, track: TrackRow, first: int = -_ALL_HOURS, last: int = _ALL_HOURS
    ) -> dict[int, int]:
        """Return how many current groups each hour holds (an overlay: how many more).

        Of the hours from ``first`` to ``last``, since the Unix epoch.
        """
        rows = self._connection.execute(
            "select h.hour, h.groups from hours h join journals j on j.id = h.journal"
            " where j.number = ? and j.track = ? and h.hour between ? and ? and h.groups != 0",
            (track.broadcast.number, track.name, first, last),
        )
        return {row[0]: row[1] for row in rows.fetchall()}

    def extents(self, track: TrackRow, hour: int, after: int, most: int) -> list[ExtentRow]:
        """Return up to ``most`` extents of current groups of one hour in rising ``n > after``."""
        rows = self._connection.execute(
            f"{_FROM_GROUPS} where g.journal = (select id from journals where number = ?"
            f" and track = ?) and g.received_start / {HOUR} = ? and g.n > ? and {_SHOWN}"
            " order by g.n limit ?",
            (track.broadcast.number, track.name, hour, after, most),
        )
        return [extent_row(row) for row in rows.fetchall()]

    def groups(self, track: TrackRow, hour: int, after: int, most: int) -> list[GroupRow]:
        """Return the current groups of ``most`` extents of one hour in rising ``n > after``."""
        extents = self.extents(track, hour, after, most)
        return [row for extent in extents for row in extent.group_rows() if row.n > after]

    def newest(self, track: TrackRow, *, complete: bool) -> GroupRow | None:
        """Return the current group of the highest epoch and sequence."""
        return sequences.newest(self, track, complete=complete)

    def extent(self, number: int, n: int) -> ExtentRow | None:
        """Return the extent with the current group that has this commit number."""
        row = self._one(
            f"{_FROM_GROUPS} where g.number = ? and g.n >= ? order by g.n limit 1", (number, n)
        )
        extent = extent_row(row) if row is not None and row[-1] else None
        return extent if extent is not None and extent.n - extent.groups < n else None

    def group(self, number: int, n: int) -> GroupRow | None:
        """Return the current group that has this commit number."""
        extent = self.extent(number, n)
        return extent.numbered(n) if extent is not None else None

    def extent_of(self, track: TrackRow, epoch: int, sequence: int) -> ExtentRow | None:
        """Return the extent with the current group of this identity."""
        return sequences.extent_of(self, track, epoch, sequence)

    def find(self, track: TrackRow, epoch: int, sequence: int) -> GroupRow | None:
        """Return the current group of this identity."""
        extent = self.extent_of(track, epoch, sequence)
        return extent.group_of(sequence) if extent is not None else None

    def referencing(self, digest: Digest) -> list[GroupRow]:
        """Return the groups whose payload lies in this object, superseded ones too."""
        rows = self._connection.execute(
            f"{_FROM_GROUPS} where g.hash = ? and not g.expired order by g.number, g.n",
            (bytes.fromhex(digest),),
        )
        return [group for row in rows.fetchall() for group in extent_row(row).group_rows()]

    def objects(self, shard: str) -> Iterator[tuple[Digest, int | None]]:
        """Yield each object of a shard that a record needs, and the bytes it must have at least.

        What expired needs nothing. None for an object that is known only as the init of others.
        """
        first = bytes.fromhex(shard).ljust(32, b"\x00")
        last = bytes.fromhex(shard).ljust(32, b"\xff")
        cursor = self._connection.execute(
            "select hash, max(size) from (select hash, offset + size as size from groups"
            " where hash between ?1 and ?2 and not expired union all select init, null from groups"
            " where init between ?1 and ?2 and not expired) group by hash",
            (first, last),
        )
        while rows := cursor.fetchmany(_PAGE):
            for row in rows:
                yield Digest(row[0].hex()), row[1]

    def neighbours(
        self, track: TrackRow, epoch: int, sequence: int
    ) -> tuple[GroupRow | None, GroupRow | None]:
        """Return the current groups of the epoch with the next lower and next higher sequence."""
        return sequences.neighbours(self, track, epoch, sequence)

    def epochs(self, track: TrackRow) -> list[int]:
        """Return the epochs in which the track has current groups, in order."""
        return sequences.epochs(self, track)

    def select(self, query: str, values: Sequence[object] = ()) -> Iterator[Any]:
        """Yield the rows that a module of this package asks for, a few in memory at a time."""
        cursor = self._connection.execute(query, values)
        while rows := cursor.fetchmany(_PAGE):
            yield from rows

    def events(self, number: int, kinds: Sequence[str]) -> list[EventRow]:
        """Return a broadcast's records of these kinds in rising n."""
        marks = ", ".join("?" * len(kinds))
        rows = self._connection.execute(
            f"select number, n, kind, time, body from events where number = ? and kind in ({marks})"
            " order by n",
            (number, *kinds),
        )
        return [EventRow(*row) for row in rows.fetchall()]

    def hides(self, number: int, n: int) -> bool:
        """Say whether this overlay supersedes that record of the index below it."""
        if not self._hides_any:  # asked for every row of a listing
            return False
        return self._one("select 1 from hidden where number = ? and n = ?", (number, n)) is not None

    def _one(self, query: str, values: Sequence[object]) -> Any:  # noqa: ANN401  a row of SQLite
        return self._connection.execute(query, values).fetchone()


def _check(connection: sqlite3.Connection, store: str) -> None:
    found = connection.execute("select schema, store from archive").fetchone()
    if found != (SCHEMA_VERSION, store):
        raise sqlite3.DatabaseError(f"not an index of archive {store}, schema {SCHEMA_VERSION}")


def _uri_path(path: str) -> str:
    return urllib.parse.quote(os.fsencode(os.path.abspath(path)))
