"""The sample tables of payloads, in a SQLite file of its own beside the index.

What a payload holds follows from its bytes and from the init that it needs, so rows are named by
content: they outlive a rebuild of the index, and nothing that the manifests say can make them
wrong. The file is a cache. Without it, or of another version, tables are derived from the objects
again as they are needed; whoever may not write to it keeps what it derives in memory.

Every method may be called from any thread, and none raises for the file's sake: what cannot be
read is not known, what cannot be written is forgotten.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from msgspec import Struct

from casfs.media.boxes import MalformedMediaError
from casfs.media.descriptions import decode_description, encode_description
from casfs.media.packing import description_of, pack_table, unpack_table
from casfs.media.samples import GroupSamples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from casfs.digest import Digest
    from casfs.index.payload_names import PayloadName
    from casfs.media.descriptions import SampleDescription

SAMPLES_VERSION: Final = 3
"""Of the tables and of how they are derived: rows of another version are dropped."""

SUFFIX: Final = "-samples"
"""What the file's name has behind that of the index."""

_LOG = logging.getLogger(__name__)
_BUSY_SECONDS = 5.0
_MOST_TIME: Final = (1 << 63) - 1

_TABLES = """
-- One row a payload: a group, or adjacent groups of a run.
create table payloads (
    object blob not null,  -- 32 bytes: its object
    part blob not null,    -- 8 bytes: of the digest of offset, size, track and init
    tables blob not null,  -- msgpack of the packed tables and of why there are none
    primary key (object, part)
) without rowid;
-- One row a sample description that tables name.
create table descriptions (
    digest blob primary key,  -- 32 bytes
    body blob not null        -- its stored form
) without rowid;
-- One row a recording that was put together: how large it is need not be found out again.
create table recordings (
    name blob primary key,    -- 32 bytes: digest of what the recording is made of
    broadcast int not null,   -- the broadcast's number
    begins int not null,      -- nanoseconds since the Unix epoch: what it is a recording of
    ends int not null,
    sizes blob not null,      -- msgpack: bytes of each of its files
    reason text not null      -- why there is none, or what it lacks, or empty
) without rowid;
"""


class RecordingSizes(Struct, frozen=True):
    """What is remembered of a recording."""

    sizes: tuple[int, ...]
    """Bytes of its files: one, or more where a codec changes. None if it cannot be played."""
    reason: str = ""
    """Why there is none, or what it lacks; empty if nothing is amiss."""


class RememberedSpan(Struct, frozen=True):
    """What some remembered recordings are recordings of."""

    broadcast: int
    """The broadcast's number."""
    begins: int
    """Nanoseconds since the Unix epoch."""
    ends: int


class SampleCounts(Struct, frozen=True):
    """How much the file holds."""

    payloads: int
    recordings: int
    bytes: int
    """Of the file."""


class _Stored(Struct, frozen=True, array_like=True):
    tables: tuple[bytes, ...]
    reason: str = ""


class SampleIndex:
    """An open file of sample tables; close it when done."""

    def __init__(self, connection: sqlite3.Connection, path: str, *, writable: bool) -> None:
        self._connection = connection
        self._path = path
        self._lock = threading.Lock()
        self._descriptions: dict[Digest, SampleDescription] = {}
        self._trouble = ""
        self.writable = writable
        """Whether what is derived is kept; else it is known only as long as this is open."""
        self._derived = None if writable else SampleIndex.temporary()

    @classmethod
    def open(cls, index_path: str) -> Self:
        """Open the file beside the index; one that cannot be used is made anew or done without."""
        path = index_path + SUFFIX
        for attempt in range(2):
            try:
                return cls(_open(path), path, writable=True)
            except sqlite3.OperationalError as error:
                _LOG.debug("%s cannot be written: %s", path, error)
                break
            except sqlite3.DatabaseError as error:
                _LOG.warning("%s cannot be used (%s) and is made anew", path, error)
                if attempt == 0:
                    _remove(path)
        return cls.open_for_reading(index_path)

    @classmethod
    def open_for_reading(cls, index_path: str) -> Self:
        """Open the file beside the index, and do not write to it; it need not be there."""
        path = index_path + SUFFIX
        with contextlib.suppress(sqlite3.Error):
            return cls(_open_for_reading(path), path, writable=False)
        return cls.temporary()

    @classmethod
    def temporary(cls) -> Self:
        """Return an empty one that is gone when closed; SQLite spills it to disk as needed."""
        connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        connection.executescript(_TABLES)
        return cls(connection, "", writable=True)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
        if self._derived is not None:
            self._derived.close()

    def get(self, name: PayloadName) -> GroupSamples | None:
        """Return what a payload holds, if that is known."""
        key = name.key()
        with self._lock:
            row = self._one("select tables from payloads where object = ? and part = ?", key)
        if row is None:
            return None if self._derived is None else self._derived.get(name)
        try:
            stored = msgspec.msgpack.decode(row[0], type=_Stored)
            tables = tuple(unpack_table(table) for table in stored.tables)
            named = dict.fromkeys(table.description for table in tables)
            descriptions = tuple(self._description(digest) for digest in named)
        except (MalformedMediaError, msgspec.DecodeError):
            return None
        return GroupSamples(tables, descriptions, stored.reason)

    def put(self, found: Iterable[tuple[PayloadName, GroupSamples]]) -> None:
        """Keep what payloads hold."""
        if self._derived is not None:
            self._derived.put(found)
            return
        rows, descriptions = [], {}
        for name, samples in found:
            stored = _Stored(tuple(map(pack_table, samples.tables)), samples.reason)
            rows.append((*name.key(), msgspec.msgpack.encode(stored)))
            for item in samples.descriptions:
                descriptions[bytes.fromhex(item.digest)] = encode_description(item)
        if rows:
            self._write(
                ("insert or ignore into descriptions values (?, ?)", list(descriptions.items())),
                ("insert or replace into payloads values (?, ?, ?)", rows),
            )

    def forget(self, objects: Iterable[Digest]) -> None:
        """Drop what is known of payloads in these objects: they are gone.

        So do descriptions that nothing else names.
        """
        gone = [(bytes.fromhex(digest),) for digest in objects]
        named = self._described(gone)
        self._write(("delete from payloads where object = ?", gone))
        # Whoever needs one that was named again meanwhile derives it again.
        unnamed = [(digest,) for digest in named if not self._is_described(digest)]
        if unnamed:
            self._write(("delete from descriptions where digest = ?", unnamed))

    def _described(self, objects: Sequence[tuple[bytes]]) -> set[bytes]:
        """Return the descriptions that tables of payloads in these objects name."""
        named: set[bytes] = set()
        for values in objects:
            for row in self._all("select tables from payloads where object = ?", values):
                with contextlib.suppress(MalformedMediaError, msgspec.DecodeError):
                    tables = msgspec.msgpack.decode(row[0], type=_Stored).tables
                    named |= {bytes.fromhex(description_of(table)) for table in tables}
        return named

    def _is_described(self, digest: bytes) -> bool:
        """Say whether any table names this description; most are found among the first."""
        return bool(
            self._all("select 1 from payloads where instr(tables, ?) > 0 limit 1", (digest,))
        )

    def spans(self) -> list[RememberedSpan]:
        """Return of which spans recordings are remembered."""
        rows = self._all("select distinct broadcast, begins, ends from recordings", ())
        return [RememberedSpan(*row) for row in rows]

    def forget_recordings(self, spans: Iterable[RememberedSpan]) -> None:
        """Drop what is remembered of recordings of these spans."""
        self._write(
            (
                "delete from recordings where broadcast = ? and begins = ? and ends = ?",
                [(span.broadcast, span.begins, span.ends) for span in spans],
            )
        )

    def recording(self, name: Digest) -> RecordingSizes | None:
        """Return what is remembered of a recording."""
        with self._lock:
            row = self._one(
                "select sizes, reason from recordings where name = ?", (bytes.fromhex(name),)
            )
        if row is None:
            return None
        try:
            sizes = msgspec.msgpack.decode(row[0], type=tuple[int, ...])
        except msgspec.DecodeError:
            return None
        return RecordingSizes(sizes, row[1])

    def remember(self, name: Digest, span: RememberedSpan, recording: RecordingSizes) -> None:
        """Keep how large a recording is."""
        sizes = msgspec.msgpack.encode(recording.sizes)
        begins, ends = (min(time, _MOST_TIME) for time in (span.begins, span.ends))
        row = (bytes.fromhex(name), span.broadcast, begins, ends, sizes, recording.reason)
        self._write(("insert or replace into recordings values (?, ?, ?, ?, ?, ?)", [row]))

    def counts(self) -> SampleCounts:
        """Return how much the file holds."""
        with self._lock:
            payloads = self._one("select count(*) from payloads", ()) or (0,)
            recordings = self._one("select count(*) from recordings", ()) or (0,)
        size = os.path.getsize(self._path) if self._path and os.path.exists(self._path) else 0
        return SampleCounts(payloads[0], recordings[0], size)

    def _description(self, digest: Digest) -> SampleDescription:
        known = self._descriptions.get(digest)
        if known is None:
            with self._lock:
                row = self._one(
                    "select body from descriptions where digest = ?", (bytes.fromhex(digest),)
                )
            if row is None:
                raise MalformedMediaError(f"no sample description {digest}")
            known = self._descriptions[digest] = decode_description(row[0])
        return known

    def _one(self, query: str, values: Sequence[object]) -> Any:  # noqa: ANN401  a row of SQLite
        try:
            return self._connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            self._note(error)
            return None

    def _all(self, query: str, values: Sequence[object]) -> list[Any]:
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                self._note(error)
                return []

    def _write(self, *statements: tuple[str, Sequence[Sequence[object]]]) -> None:
        if not self.writable:
            return
        with self._lock:
            try:
                self._connection.execute("begin immediate")
                with self._connection:
                    for statement, rows in statements:
                        self._connection.executemany(statement, rows)
            except sqlite3.Error as error:
                self._note(error)

    def _note(self, error: sqlite3.Error) -> None:
        if str(error) != self._trouble:
            _LOG.warning("sample tables: %s: %s", self._path, error)
        self._trouble = str(error)


def _open(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("pragma journal_mode = wal")
        # A power cut may take the last rows: they are derived again.
        connection.execute("pragma synchronous = normal")
        connection.execute("begin immediate")
        with connection:
            if not connection.execute("select 1 from sqlite_master limit 1").fetchone():
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute(f"pragma user_version = {SAMPLES_VERSION}")
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_for_reading(path: str) -> sqlite3.Connection:
    immutable = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
    connection = sqlite3.connect(
        f"file:{_quoted(path)}?mode=ro{immutable}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("pragma user_version").fetchone()
    if version != SAMPLES_VERSION:
        raise sqlite3.DatabaseError(f"version {version}")


def _quoted(path: str) -> str:
    return urllib.parse.quote(os.fsencode(os.path.abspath(path)))


def _remove(path: str) -> None:
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            os.unlink(path + ending)
