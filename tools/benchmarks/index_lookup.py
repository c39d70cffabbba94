"""Whether a lookup takes longer in a large archive than in a small one."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from functools import partial
from typing import TYPE_CHECKING

from casfs.archive import Archive
from casfs.index.mirror import rebuild
from casfs.timestamps import HOUR, NANOSECONDS
from tools.benchmarks.material import (
    BROADCAST,
    FIRST,
    GROUP_SECONDS,
    GROUPS_PER_HOUR,
    TRACK,
    new_archive,
    roots_below,
    write_manifest,
)
from tools.benchmarks.measuring import Contender, run_task, stopwatch, take_turns
from tools.benchmarks.reporting import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.benchmarks.bench import Bench

_LOOKUPS = 300


def against_a_small_index(bench: Bench) -> Iterator[Row]:
    """Compare lookups at random places of one track in a large index with those in a small one."""
    hours = 6
    copies = max(2, round(10_000_000 * bench.scale / (hours * GROUPS_PER_HOUR)))
    few = hours * GROUPS_PER_HOUR
    many = few * copies
    small, large = bench.directory / "index-small", bench.directory / "index-large"
    archive = new_archive(small)
    write_manifest(archive, few)
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    shutil.copytree(small, large)
    _multiply(Archive(roots_below(large)).index_path, copies, few)
    for kind, task in (("time", look_up_by_time), ("sequence", look_up_by_sequence)):
        names = f"lookup by {kind} in {many} groups", f"lookup by {kind} in {few} groups"
        contenders = [
            Contender(names[0], partial(run_task, task, str(large), many)),
            Contender(names[1], partial(run_task, task, str(small), few)),
        ]
        runs = take_turns(contenders, bench.rounds(5))
        yield Row(
            what=f"{names[0]}, {_LOOKUPS} times",
            subject="Reader",
            against=f"the same in {few} groups",
            aim=0.5,
            subject_runs=runs[names[0]],
            against_runs=runs[names[1]],
        )


def look_up_by_time(directory: str, groups: int) -> float:
    """Look up what was received at random instants and return the seconds."""
    source = random.Random(groups)
    with contextlib.closing(Archive(roots_below(directory)).reader()) as reader:
        track = reader.track(BROADCAST, TRACK)
        assert track is not None
        length = GROUP_SECONDS * NANOSECONDS

        def look_up(sequence: int) -> None:
            start = FIRST + sequence * length
            found = next(iter(reader.groups(track, start, start + length)))
            assert found.sequence == sequence

        look_up(0)
        chosen = [source.randrange(groups) for _ in range(_LOOKUPS)]
        with stopwatch() as seconds:
            for sequence in chosen:
                look_up(sequence)
    return seconds()


def look_up_by_sequence(directory: str, groups: int) -> float:
    """Look up random sequence numbers and return the seconds."""
    source = random.Random(groups)
    with contextlib.closing(Archive(roots_below(directory)).reader()) as reader:
        track = reader.track(BROADCAST, TRACK)
        assert track is not None
        chosen = [source.randrange(groups) for _ in range(_LOOKUPS)]
        assert reader.find(track, 1, 0) is not None
        with stopwatch() as seconds:
            for sequence in chosen:
                found = reader.find(track, 1, sequence)
                assert found is not None
    return seconds()


def _multiply(index_path: str, copies: int, groups: int) -> None:
    """Make an index of ``copies`` times the groups: the same, again and again, each time later.

    Its one journal stays as it was, so a reader takes the index for what the manifests say.
    """
    span = groups // GROUPS_PER_HOUR
    with contextlib.closing(sqlite3.connect(index_path)) as connection:
        connection.execute("pragma journal_mode = off")
        connection.execute("pragma synchronous = off")
        connection.execute("pragma cache_size = -262144")
        indexes = connection.execute(
            "select name, sql from sqlite_master where type = 'index' and sql is not null"
            " and tbl_name = 'groups'"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"drop index {name}")
        last_n = connection.execute("select max(n) from groups").fetchone()[0]
        shifted = {
            "n": f"n + :copy * {last_n}",
            "sequence": f"sequence + :copy * {groups}",
            "last_sequence": f"last_sequence + :copy * {groups}",
            "hash": "randomblob(32)",
            "received_start": f"received_start + :copy * {span * HOUR}",
            "last_start": f"last_start + :copy * {span * HOUR}",
            "received_end": f"received_end + :copy * {span * HOUR}",
            "hour": f"hour + :copy * {span}",
        }
        for table in ("groups", "hours"):
            connection.execute(f"create temp table first_copy as select * from main.{table}")
            columns = [row[1] for row in connection.execute(f"pragma main.table_info({table})")]
            values = ", ".join(shifted.get(column, f'"{column}"') for column in columns)
            connection.executemany(
                f"insert into main.{table} select {values} from first_copy",
                ({"copy": copy} for copy in range(1, copies)),
            )
            connection.execute("drop table first_copy")
        for _, sql in indexes:
            connection.execute(sql)
        connection.execute(
            "update journals set groups = groups * :copies, bytes = bytes * :copies,"
            " last = last + (:copies - 1) * :length where first is not null",
            {"copies": copies, "length": span * HOUR},
        )
        connection.commit()
        connection.execute("pragma journal_mode = wal")
