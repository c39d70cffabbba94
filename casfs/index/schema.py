"""The tables of the index. Every column is said; SQL lives in this package alone.

The index holds nothing that the manifests do not say: deleting it loses nothing. A change here
raises `SCHEMA_VERSION`, and an index of another version is rebuilt, never migrated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.timestamps import HOUR

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

SCHEMA_VERSION = 4


def create_tables(connection: sqlite3.Connection, store: str) -> None:
    """Create all tables of an index of the archive ``store``; they must not exist."""
    # Only who makes an index needs it, and it brings much along.
    import sqlite_utils

    database = sqlite_utils.Database(connection)
    # One row: what this file is a mirror of.
    database.table("archive").create(
        {
            "schema": int,  # SCHEMA_VERSION
            "store": str,  # the archive's id, as in format.json
        },
    )
    # One row a journal, a broadcast's own journal included.
    database.table("journals").create(
        {
            "id": int,
            "place": str,  # "<broadcast directory>/<track directory>" below the manifest root
            "number": int,  # the broadcast's number
            "broadcast": str,  # its full name
            "track": str,  # the full name of the track; null: the broadcast's own journal
            "first_n": int,  # commit number of the first record
            "segment": str,  # file name of the segment up to which lines are applied
            "offset": int,  # bytes of that segment which are applied
            "hash": str,  # sum of the last applied line
            "groups": int,  # shown groups: those of rows that are current and not expired
            "bytes": int,  # the sum of their sizes
            "first": int,  # earliest received_start of rows that are not expired, ns UTC, or null
            "last": int,  # their latest last_start
            "span": int,  # the most by which last_sequence of a row is above sequence; 0: no runs
        },
        pk="id",
        not_null={"place", "number", "broadcast", "first_n", "segment", "offset", "hash"},
        defaults={"groups": 0, "bytes": 0, "span": 0},
    )
    database.table("journals").create_index(["place"], unique=True)
    database.table("journals").create_index(["number", "track"])
    # One row an extent (casfs/index/extents.py): a group record, or groups of a run that lie one
    # behind another. (number, n) names it for ever.
    database.table("groups").create(
        {
            "number": int,  # the broadcast's number
            "n": int,  # commit number, of the last group; those of the others come before it
            "journal": int,  # journals.id
            "epoch": int,
            "sequence": int,  # of the first group; below 2**62
            "hash": bytes,  # 32 bytes: the object
            "offset": int,  # of the first payload in the object, bytes
            "size": int,  # of all payloads, bytes
            "received_start": int,  # ns UTC, the earliest; all groups of a row began in one hour
            "received_end": int,  # ns UTC, the latest
            "complete": int,  # 1 if the publisher ended the group, or all groups
            "init": bytes,  # 32 bytes: what a player needs first; null if unknown
            "current": int,  # 0 if another record of the same identity stands for the group
            "expired": int,  # 1 if an expiry names the record
            "groups": int,  # how many
            "last_sequence": int,  # of the last group
            "last_start": int,  # ns UTC: the latest received_start
            "members": bytes,  # what each group of a run says for itself; null for a group record
        },
        pk=("number", "n"),
        defaults={"expired": 0, "groups": 1},
    )
    # Listings go hour by hour; within an hour in the order of commits.
    database.execute(
        f"create index groups_by_hour on groups (journal, received_start / {HOUR}, n)"
        " where not expired"
    )
    database.execute(
        "create unique index groups_by_sequence on groups (journal, epoch, sequence) where current"
    )
    database.execute("create index groups_by_hash on groups (hash)")
    database.execute("create index groups_by_init on groups (init) where init is not null")
    # One row an object of more than one block, by each journal that says so.
    database.table("blocks").create(
        {
            "hash": bytes,  # 32 bytes: the object
            "journal": int,  # journals.id
            "hashes": bytes,  # 32 bytes for each of its blocks, in order
        },
        pk=("hash", "journal"),
    )
    # One row for each hour of a broadcast of which something is expired.
    database.table("expired").create(
        {
            "number": int,  # the broadcast's number
            "hour": int,  # received_start in hours since the Unix epoch
            "through": int,  # the highest commit number that is expired
            "keep": str,  # JSON array of commit numbers that are not
        },
        pk=("number", "hour"),
    )
    # One row for each hour of a journal that holds shown groups.
    database.table("hours").create(
        {
            "journal": int,  # journals.id
            "hour": int,  # received_start in hours since the Unix epoch
            "groups": int,  # how many; 0 once all were superseded or expired
        },
        pk=("journal", "hour"),
    )
    # Records that are not groups: start, stop, gap and so on.
    database.table("events").create(
        {
            "number": int,  # the broadcast's number
            "n": int,  # commit number
            "journal": int,  # journals.id
            "kind": str,  # as in the manifest
            "time": int,  # when the record was made, ns UTC
            "body": str,  # the record as JSON
        },
        pk=("number", "n"),
    )
    # In an overlay only: records of the index below it which are superseded by one in here.
    database.table("hidden").create(
        {
            "number": int,
            "n": int,
            "journal": int,  # journals.id, of the overlay
        },
        pk=("number", "n"),
    )
    database.table("archive").insert({"schema": SCHEMA_VERSION, "store": store})


STATEMENTS = "select sql from sqlite_master where sql is not null and name not like 'sqlite%'"
"""What made the tables of an index, as rows of one column."""


def create_same_tables(
    connection: sqlite3.Connection, store: str, statements: Iterable[Sequence[str]]
) -> None:
    """Create the tables that `STATEMENTS` tells of another index of the archive ``store``."""
    for (statement,) in statements:
        connection.execute(statement)
    connection.execute("insert into archive (schema, store) values (?, ?)", (SCHEMA_VERSION, store))
