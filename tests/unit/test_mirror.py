"""The mirror: in step with the manifests, in nobody's way, and whole again by itself."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from casfs.errors import StorageError
from casfs.index import index as index_module
from casfs.index import mirror as mirror_module
from casfs.index.index import Index, IndexFault
from casfs.index.mirror import catch_up, open_or_rebuild, rebuild
from casfs.manifests.layout import JournalPlace, all_journals
from tests.fakes.store import (
    Clock,
    contents,
    copy_tree,
    group,
    journal_directory,
    known,
    make_archive,
    python,
    read_journal,
    row_known,
    segments,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from casfs.archive import Archive, BroadcastWriter
    from casfs.index.mirror import Mirror

PLACE = JournalPlace("news", "video0.m4s")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


@pytest.fixture
def writer(archive: Archive) -> Iterator[BroadcastWriter]:
    with archive.writer("news", clock=Clock()) as found:
        yield found


@pytest.fixture
def mirror(archive: Archive) -> Iterator[Mirror]:
    found = archive.mirror()
    yield found
    found.close()


def indexed(archive: Archive) -> list[int]:
    """Return the sequences that the index on disk holds, without any manifest."""
    index = Index.open_for_reading(archive.index_path, archive.store_id)
    with contextlib.closing(index):
        track = index.track("news", "video0.m4s")
        if track is None:
            return []
        rows = [row for hour in index.hours(track) for row in index.groups(track, hour, 0, 10**6)]
    return sorted(row.sequence for row in rows)


def test_a_step_applies_what_is_new_and_says_how_much(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror
) -> None:
    writer.commit([group(0)])
    # When it opens the index it looks at all journals: others may lag, too.
    assert mirror.step([PLACE]) == 4
    assert mirror.step([PLACE]) == 0
    writer.commit([group(1), group(2)])
    assert mirror.step([PLACE]) == 2
    assert indexed(archive) == [0, 1, 2]


def test_a_step_without_places_covers_all_journals(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror
) -> None:
    writer.commit([group(0), group(0, track="audio")])
    mirror.step(None)
    index = Index.open_for_reading(archive.index_path, archive.store_id)
    with contextlib.closing(index):
        assert [row.place for row in index.journals()] == [
            str(place) for place in all_journals(archive.roots.manifests)
        ]
        assert len(index.events(1, ["start", "stop"])) == 1


def test_lines_are_durable_before_they_are_applied(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.step([PLACE])
    writer.commit([group(0)])
    done: list[str] = []
    fdatasync, apply = os.fdatasync, Index.apply

    def sync(descriptor: int) -> None:
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)

    def noted_apply(*arguments: Any, **more: Any) -> bool:
        done.append("apply")
        return apply(*arguments, **more)

    monkeypatch.setattr(Index, "apply", noted_apply)
    mirror.step([PLACE])
    assert done == [
        os.path.basename(segments(PLACE.directory(archive.roots.manifests))[0]),
        "apply",
    ]


def test_an_index_that_was_deleted_is_made_again(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror
) -> None:
    writer.commit([group(0)])
    mirror.step(None)
    for ending in ("", "-wal", "-shm"):
        os.unlink(archive.index_path + ending)
    writer.commit([group(1)])
    mirror.step(None)
    assert mirror.trouble == ""
    assert indexed(archive) == [0, 1]


def test_an_index_that_was_replaced_is_gone_over_to(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror
) -> None:
    writer.commit([group(0)])
    mirror.step(None)
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    writer.commit([group(1)])
    mirror.step(None)
    assert indexed(archive) == [0, 1]


@pytest.mark.parametrize("kind", ["garbage", "empty", "inside", "foreign", "older schema"])
def test_an_index_that_cannot_be_used_is_rebuilt(
    archive: Archive, writer: BroadcastWriter, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer.commit([group(number) for number in range(200)])
    mirror = archive.mirror()
    mirror.step(None)
    mirror.close()
    path = archive.index_path
    if kind == "garbage":
        with open(path, "wb") as file:
            file.write(os.urandom(10_000))
    elif kind == "empty":
        os.truncate(path, 0)
    elif kind == "inside":
        with open(path, "r+b") as file:
            file.seek(4096 * 2)
            file.write(b"\xff" * (os.path.getsize(path) - 4096 * 2))
    elif kind == "foreign":
        os.unlink(path)
        Index.open(path, "another archive").close()
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("update archive set schema = schema - 1")
            connection.commit()
    writer.commit([group(200)])
    for _ in range(3):
        mirror.step(None)
    assert mirror.trouble == ""
    assert indexed(archive) == list(range(201))
    mirror.close()


def test_a_lock_held_too_long_is_trouble_and_no_reason_to_rebuild(
    archive: Archive, writer: BroadcastWriter, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(index_module, "_BUSY_SECONDS", 0.01)
    writer.commit([group(0)])
    mirror = archive.mirror()
    mirror.step(None)
    writer.commit([group(1)])
    inode = os.stat(archive.index_path).st_ino
    with contextlib.closing(sqlite3.connect(archive.index_path, isolation_level=None)) as other:
        other.execute("begin immediate")
        assert mirror.step(None) == 0
        assert "locked" in mirror.trouble
        assert mirror.step(None) == 0
        other.execute("rollback")
    assert len([record for record in caplog.records if "lags" in record.message]) == 1
    assert mirror.step(None) == 1
    assert mirror.trouble == ""
    assert os.stat(archive.index_path).st_ino == inode
    mirror.close()


def test_trouble_of_any_kind_never_leaves_a_step(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror, caplog: pytest.LogCaptureFixture
) -> None:
    writer.commit([group(0)])
    os.mkdir(archive.index_path)
    assert mirror.step(None) == 0
    assert mirror.trouble
    os.rmdir(archive.index_path)
    directory = os.path.dirname(archive.index_path)
    os.rename(directory, f"{directory}-away")
    assert mirror.step(None) == 0
    assert mirror.trouble
    os.rename(f"{directory}-away", directory)
    mirror.step(None)
    assert mirror.trouble == ""
    assert "caught up" not in mirror.trouble


def test_a_disk_that_is_gone_is_trouble_only(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def gone(path: str) -> None:
        raise OSError(5, "Input/output error", path)

    with open(archive.index_path, "wb") as file:
        file.write(b"garbage" * 1000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", gone)
        assert mirror.step(None) == 0
        assert "Input/output error" in mirror.trouble
    mirror.step(None)
    assert mirror.trouble == ""


def test_an_index_that_vanishes_while_it_is_opened_is_trouble_only(
    archive: Archive, writer: BroadcastWriter, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    writer.commit([group(0)])
    mirror = archive.mirror()
    check = index_module._check

    def vanish(connection: sqlite3.Connection, store: str) -> None:
        check(connection, store)
        os.unlink(archive.index_path)

    with monkeypatch.context() as patch:
        patch.setattr(index_module, "_check", vanish)
        assert mirror.step(None) == 0
    assert mirror.trouble
    mirror.step(None)
    assert mirror.trouble == ""
    mirror.close()


def test_manifests_of_an_older_copy_are_applied_anew(
    archive: Archive, tmp_path: Path, mirror: Mirror, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
    directory = journal_directory(archive, "news", "video0.m4s")
    copy_tree(directory, str(tmp_path / "backup"))
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(1)])
    mirror.step(None)
    assert indexed(archive) == [0, 1]
    copy_tree(str(tmp_path / "backup"), directory)
    mirror.step(None)
    assert mirror.trouble == ""
    assert indexed(archive) == [0]
    assert "made anew" in caplog.text


def test_two_mirrors_apply_each_line_once(archive: Archive, writer: BroadcastWriter) -> None:
    mirrors = [archive.mirror() for _ in range(4)]
    done = threading.Event()

    def follow(mirror: Mirror) -> None:
        while not done.is_set():
            mirror.step(None)
        mirror.step(None)

    threads = [threading.Thread(target=follow, args=(mirror,)) for mirror in mirrors]
    for thread in threads:
        thread.start()
    for number in range(60):
        writer.commit([group(number, complete=number % 3 != 0)])
    done.set()
    for thread in threads:
        thread.join()
    assert [mirror.trouble for mirror in mirrors] == [""] * 4
    assert indexed(archive) == list(range(60))
    expected = snapshot(archive)
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    assert snapshot(archive) == expected
    for mirror in mirrors:
        mirror.close()


def snapshot(archive: Archive) -> object:
    index = Index.open_for_reading(archive.index_path, archive.store_id)
    with contextlib.closing(index):
        track = index.track("news", "video0.m4s")
        assert track is not None
        hours = index.hours(track)
        rows = [row for hour in hours for row in index.groups(track, hour, 0, 10**6)]
        return rows, hours, index.summary(track)


def test_two_processes_apply_at_once(archive: Archive, writer: BroadcastWriter) -> None:
    script = (
        "import sys\nfrom casfs.archive import Archive\nfrom casfs.roots import Roots\n"
        "mirror = Archive(Roots.of(*sys.argv[1:])).mirror()\n"
        "while not sys.stdin.isatty() and not mirror.trouble:\n"
        " mirror.step(None)\n"
        " print(mirror.trouble, flush=True)\n"
        " if not sys.stdin.readline(): break\n"
        "mirror.close()\n"
    )
    command = python("-c", script, archive.roots.cas, archive.roots.manifests)
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for _ in range(2)
        ]
        for number in range(30):
            writer.commit([group(number)])
            for child in children:
                assert child.stdin is not None
                child.stdin.write(b"\n")
                child.stdin.flush()
        for child in children:
            output, _ = child.communicate()
            assert output.split() == []
            assert output.count(b"\n") >= 30
    assert indexed(archive) == list(range(30))


def test_a_rebuild_beside_running_writers_costs_nothing(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror
) -> None:
    for number in range(10):
        writer.commit([group(number)])
        if number % 3 == 0:
            rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
        mirror.step(None)
        assert mirror.trouble == ""
    assert indexed(archive) == list(range(10))
    names = os.listdir(os.path.dirname(archive.index_path))
    assert [name for name in names if name.endswith(".new")] == []


def test_a_rebuild_that_fails_leaves_the_old_index(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.commit([group(0)])
    mirror.step(None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", _fail)
        with pytest.raises(StorageError, match="rebuilding the index"):
            rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    assert [
        name for name in os.listdir(os.path.dirname(archive.index_path)) if ".new" in name
    ] == []
    assert contents(archive) == [known(group(0))]


def _fail(*_: object) -> None:
    raise OSError(5, "Input/output error")


def test_a_rebuild_reports_its_progress(archive: Archive, writer: BroadcastWriter) -> None:
    writer.commit([group(0), group(1)])
    seen: dict[str, int] = {}
    total = rebuild(
        archive.index_path,
        archive.roots.manifests,
        archive.store_id,
        progress=lambda place, lines: seen.__setitem__(str(place), lines),
    )
    assert seen == {"news/@broadcast": 2, "news/video0.m4s": 3}
    assert total == 5


def test_where_nothing_can_be_written_opening_fails(archive: Archive) -> None:
    path = os.path.join(archive.roots.manifests, "no", "such", "place.sqlite3")
    with pytest.raises(IndexFault):
        open_or_rebuild(path, archive.roots.manifests, archive.store_id)


def test_more_lines_than_a_batch_are_applied(
    archive: Archive, writer: BroadcastWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_module, "_LINES", 3)
    writer.commit([group(number) for number in range(20)])
    index = Index.temporary(archive.store_id)
    with contextlib.closing(index):
        assert catch_up(index, archive.roots.manifests) == 23
        track = index.track("news", "video0.m4s")
        assert track is not None
        assert index.summary(track).groups == 20


# What a record does to the rows


def test_a_later_record_stands_for_an_incomplete_one(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror
) -> None:
    for payload in (b"1", b"12", b"123"):
        writer.commit([group(0, payload, complete=False)])
    writer.commit([group(0, b"1234")])
    mirror.step(None)
    assert contents(archive) == [known(group(0, b"1234"))]


def test_a_complete_record_stands_for_ever(
    archive: Archive, writer: BroadcastWriter, mirror: Mirror
) -> None:
    writer.commit([group(0, b"first")])
    writer.commit([group(0, b"second")])
    writer.commit([group(0, b"third", complete=False)])
    mirror.step(None)
    assert contents(archive) == [known(group(0, b"first"))]
    index = Index.open_for_reading(archive.index_path, archive.store_id)
    with contextlib.closing(index):
        track = index.track("news", "video0.m4s")
        assert track is not None
        assert (index.summary(track).groups, index.summary(track).bytes) == (1, 5)


@pytest.mark.parametrize("complete", [True, False])
def test_a_record_that_is_applied_twice_changes_nothing(
    archive: Archive, writer: BroadcastWriter, *, complete: bool
) -> None:
    writer.commit([group(0, complete=False), group(1), group(0, b"newer", complete=complete)])
    lines, _ = read_journal(journal_directory(archive, "news", "video0.m4s"))
    index = Index.temporary(archive.store_id)
    with contextlib.closing(index):
        catch_up(index, archive.roots.manifests)
        track = index.track("news", "video0.m4s")
        assert track is not None
        before = index.summary(track), index.hours(track), index.groups(track, 0, 0, 10)
        position = index.position(PLACE)
        assert position is not None
        for again in (lines, lines[::-1]):
            assert index.apply(PLACE, again, position, since=position)
            assert before == (
                index.summary(track), index.hours(track), index.groups(track, 0, 0, 10)
            )  # fmt: skip
        newest = index.find(track, 1, 0)
        assert newest is not None
        assert row_known(newest) == known(group(0, b"newer", complete=complete))
