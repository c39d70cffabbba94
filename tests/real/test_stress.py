"""Everything at once upon one archive: tools/stress, for a few seconds of it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from casfs.follower import Follower
from tests.fakes.store import contents, group, known, make_archive
from tools.stressing.living import live
from tools.stressing.sharing import share_index

if TYPE_CHECKING:
    from pathlib import Path

MOST_LOG = 64 << 20


def test_two_recorders_a_verifier_a_collector_and_readers_at_once() -> None:
    found = live(4)
    assert found.faults == ()
    assert found.passed
    assert found.verified
    assert found.trashed
    assert found.read


def test_writers_readers_rebuilds_and_deletions_share_one_index() -> None:
    found = share_index(6, 2.5)
    assert found.locked == ()
    assert found.lost == ()
    assert found.passed
    assert found.requests
    assert found.rebuilt
    assert found.largest_log < MOST_LOG


def test_an_index_that_somebody_locks_delays_no_commit(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    with contextlib.closing(Follower(archive)) as follower, archive.writer("news") as writer:
        follower.step(None)
        locker = sqlite3.connect(archive.index_path, isolation_level=None)
        with contextlib.closing(locker):
            locker.execute("begin immediate")
            kept = [group(number) for number in range(20)]
            for item in kept:
                writer.commit([item])
            assert contents(archive) == list(map(known, kept))


def test_a_log_that_has_grown_is_cut_off_among_readers(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    log = f"{archive.index_path}-wal"
    with (
        contextlib.closing(archive.mirror()) as mirror,
        contextlib.closing(archive.reader()) as reader,
        archive.writer("news") as writer,
    ):
        mirror.step(None)
        writer.commit([group(number) for number in range(50)])
        mirror.step(writer.places)
        assert reader.broadcasts()
        assert mirror._index is not None
        grown = os.path.getsize(log)
        with reader._base.snapshot() if reader._base else contextlib.nullcontext():
            # It waits for a moment only, and tries again.
            mirror._index.shorten_log(0)
        mirror._index.shorten_log(0)
        assert os.path.getsize(log) == 0 < grown
        assert reader.broadcasts()
