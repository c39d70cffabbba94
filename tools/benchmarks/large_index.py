"""Indexes of very many groups, made by the database itself: no journal holds so many lines.

What a reader lists comes from the index alone; only the first groups stand in a journal, too.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from casfs.index.mirror import rebuild
from casfs.timestamps import HOUR
from tools.benchmarks.material import FIRST, new_archive, roots_below, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.roots import Roots

_WRITTEN = 100


def index_of(directory: Path, groups: int, *, per_hour: int) -> Roots:
    """Return the roots of a new archive in ``directory`` whose index holds so many groups.

    They are groups of one track, evenly spread over the hours from `FIRST` on.
    """
    archive = new_archive(directory)
    write_manifest(archive, _WRITTEN)
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    gap = HOUR // per_hour
    with contextlib.closing(sqlite3.connect(archive.index_path)) as connection:
        connection.execute("pragma journal_mode = off")
        connection.execute("pragma synchronous = off")
        connection.execute("pragma cache_size = -262144")
        indexes = connection.execute(
            "select name, sql from sqlite_master where type = 'index' and sql is not null"
            " and tbl_name = 'groups'"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"drop index {name}")
        columns = [row[1] for row in connection.execute("pragma table_info(groups)")]
        place = f"{FIRST} + sequence * {gap}"
        made = {
            "n": "last.n + i",
            "sequence": "last.sequence + i",
            "last_sequence": "last.sequence + i",
            "hash": "randomblob(32)",
        }
        values = ", ".join(made.get(column, f'last."{column}"') for column in columns)
        connection.execute(
            "with recursive numbers(i) as"
            " (select 1 union all select i + 1 from numbers where i < ?)"
            f" insert into groups select {values} from numbers,"
            " (select * from groups order by n desc limit 1) as last",
            (groups - _WRITTEN,),
        )
        connection.execute(
            f"update groups set received_start = {place}, last_start = {place},"
            f" received_end = {place} + 9"
        )
        for _, sql in indexes:
            connection.execute(sql)
        connection.execute("delete from hours")
        connection.execute(
            f"insert into hours select journal, received_start / {HOUR}, count(*) from groups"
            " group by 1, 2"
        )
        connection.execute(
            "update journals set groups = ?, first = ?, last = ? where track is not null",
            (groups, FIRST, FIRST + (groups - 1) * gap),
        )
        connection.commit()
        connection.execute("pragma journal_mode = wal")
    return roots_below(directory)
