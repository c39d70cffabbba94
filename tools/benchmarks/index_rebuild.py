"""How fast, and in how little memory, the index is made from the manifests."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from casfs.archive import Archive
from casfs.index.mirror import rebuild
from tools.benchmarks.material import new_archive, roots_below, write_manifest
from tools.benchmarks.measuring import Contender, Measurement, run_task, stopwatch, take_turns
from tools.benchmarks.reporting import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tools.benchmarks.bench import Bench


def against_inserting(bench: Bench) -> Iterator[Row]:
    """Compare a rebuild with inserting the same rows, and with itself at a quarter of the size."""
    count = bench.scaled(200_000)
    large, small = bench.directory / "manifest-large", bench.directory / "manifest-small"
    write_manifest(new_archive(large), count)
    write_manifest(new_archive(small), count // 4)
    subject, fewer, other = "index rebuild", "index rebuild of a quarter", "executemany"
    _rebuild(large)
    runs = take_turns(
        [
            Contender(subject, lambda: _rebuild(large)),
            Contender(other, lambda: _insert(large)),
            Contender(fewer, lambda: _rebuild(small)),
        ],
        bench.rounds(3),
    )
    yield Row(
        what=f"index rebuild, {count} groups",
        subject=subject,
        against="executemany of the same rows, held in memory",
        aim=0.5,
        subject_runs=runs[subject],
        against_runs=runs[other],
    )
    yield Row(
        what=f"index rebuild, {count} groups: peak memory",
        subject=subject,
        against=f"the same of {count // 4} groups",
        aim=0.8,
        subject_runs=runs[subject],
        against_runs=runs[fewer],
        quantity="peak_bytes",
    )


def rebuild_index(directory: str) -> float:
    """Rebuild the index of the archive in ``directory`` and return the seconds."""
    archive = Archive(roots_below(directory))
    with stopwatch() as seconds:
        rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    return seconds()


def insert_rows(index_path: str, target: str) -> float:
    """Insert all rows of an index into a new file of the same schema and return the seconds."""
    with contextlib.closing(sqlite3.connect(index_path)) as source:
        schema = source.execute("select name, sql from sqlite_master where sql is not null")
        statements = schema.fetchall()
        tables = [name for name, sql in statements if sql.upper().startswith("CREATE TABLE")]
        rows = {name: source.execute(f"select * from {name}").fetchall() for name in tables}
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")
        for _, sql in statements:
            connection.execute(sql)
        with stopwatch() as seconds:
            connection.execute("begin immediate")
            for name in tables:
                if rows[name]:
                    marks = ", ".join("?" * len(rows[name][0]))
                    connection.executemany(f"insert into {name} values ({marks})", rows[name])
            connection.execute("commit")
            connection.execute("pragma wal_checkpoint(truncate)")
    return seconds()


def _rebuild(directory: Path) -> Measurement:
    return run_task(rebuild_index, str(directory))


def _insert(directory: Path) -> Measurement:
    target = str(directory / "inserted.sqlite3")
    try:
        return run_task(insert_rows, Archive(roots_below(directory)).index_path, target)
    finally:
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target + ending)
