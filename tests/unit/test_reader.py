"""What a reader answers from index and manifests, whatever state the index is in."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from casfs.errors import StorageError
from casfs.index import reader as reader_module
from casfs.index.index import Index
from casfs.index.mirror import rebuild
from casfs.index.reader import Reader
from casfs.timestamps import HOUR
from tests.fakes.store import (
    NOON,
    Clock,
    contents,
    copy_tree,
    group,
    hour_of,
    known,
    make_archive,
    python,
    row_known,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from casfs.archive import Archive, BroadcastWriter
    from casfs.index.rows import TrackRow


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


class Seconds:
    """A monotonic clock that is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def reader(archive: Archive, seconds: Seconds) -> Iterator[Reader]:
    found = Reader(archive.roots.manifests, archive.index_path, archive.store_id, clock=seconds)
    with contextlib.closing(found):
        yield found


@pytest.fixture
def writer(archive: Archive) -> Iterator[BroadcastWriter]:
    with archive.writer("news", clock=Clock()) as found:
        yield found


def video(reader: Reader) -> TrackRow:
    found = reader.track("news", "video0.m4s")
    assert found is not None
    return found


def step(archive: Archive) -> None:
    mirror = archive.mirror()
    mirror.step(None)
    assert mirror.trouble == ""
    mirror.close()


def numbers(reader: Reader, **limits: int) -> list[int]:
    return [row.sequence for row in reader.groups(video(reader), 0, 1 << 62, **limits)]


def test_an_empty_archive_has_no_answers(reader: Reader) -> None:
    assert list(reader.broadcasts()) == []
    assert reader.track("news", "video0.m4s") is None
    assert reader.group(1, 1) is None
    assert list(reader.referencing(digest_of(b""))) == []


def test_a_commit_is_seen_at_once_without_any_mirror(
    reader: Reader, writer: BroadcastWriter, seconds: Seconds
) -> None:
    for number in range(3):
        writer.commit([group(number)])
        seconds.now += 1
        assert numbers(reader) == list(range(number + 1))
    assert reader.newest(video(reader)) == reader.find(video(reader), 1, 2)


@pytest.mark.parametrize("question", ["group", "referencing", "tracks", "broadcasts", "summary"])
def test_every_answer_reflects_a_commit_of_a_second_ago(
    archive: Archive, reader: Reader, writer: BroadcastWriter, seconds: Seconds, question: str
) -> None:
    writer.commit([group(0)])
    step(archive)
    assert numbers(reader) == [0]
    (done,) = writer.commit([group(1, track="new" if question == "tracks" else "video0.m4s")])
    seconds.now += 1
    if question == "broadcasts":
        with archive.writer("sport", clock=Clock()):
            pass
        assert [row.name for row in reader.broadcasts()] == ["news", "sport"]
    elif question == "group":
        row = reader.group(1, done.record.n)
        assert row is not None
        assert row_known(row) == known(group(1))
    elif question == "referencing":
        assert [row.n for row in reader.referencing(done.record.hash)] == [done.record.n]
    elif question == "tracks":
        (broadcast,) = reader.broadcasts()
        assert [row.name for row in reader.tracks(broadcast)] == ["new", "video0.m4s"]
    else:
        assert reader.summary(video(reader)).groups == 2


def test_a_group_that_was_superseded_a_second_ago_is_not_shown(
    archive: Archive, reader: Reader, writer: BroadcastWriter, seconds: Seconds
) -> None:
    (old,) = writer.commit([group(0, complete=False)])
    step(archive)
    assert reader.group(1, old.record.n) is not None
    (new,) = writer.commit([group(0, b"all of it")])
    seconds.now += 1
    assert reader.group(1, old.record.n) is None
    assert reader.group(1, new.record.n) is not None


def test_within_a_moment_nothing_is_read_again(
    reader: Reader, writer: BroadcastWriter, seconds: Seconds
) -> None:
    writer.commit([group(0)])
    assert numbers(reader) == [0]
    writer.commit([group(1)])
    assert numbers(reader) == [0]
    seconds.now += 1
    assert numbers(reader) == [0, 1]


def mixed(archive: Archive, writer: BroadcastWriter, parts: int) -> None:
    """Half of the groups in the index, half beyond it; each tenth superseded across the border."""
    for number in range(parts):
        writer.commit([group(number, complete=number % 5 != 0, received=NOON + number * HOUR // 4)])
        if number == parts // 2:
            step(archive)
    for number in range(0, parts, 5):
        data = b"complete " + str(number).encode()
        writer.commit([group(number, data, received=NOON + number * HOUR // 4)])


@pytest.mark.parametrize("page", [1, 2, 3, 1000])
def test_groups_pages_through_index_and_overlay(
    archive: Archive,
    reader: Reader,
    writer: BroadcastWriter,
    monkeypatch: pytest.MonkeyPatch,
    page: int,
) -> None:
    mixed(archive, writer, 20)
    monkeypatch.setattr(reader_module, "_PAGE", page)
    found = list(reader.groups(video(reader), 0, 1 << 62))
    assert sorted(row.sequence for row in found) == list(range(20))
    assert all(row.complete for row in found)
    keys = [(hour_of(row.received_start), row.n) for row in found]
    assert keys == sorted(keys)
    # Within limits of time, and from any place on.
    track, (start, stop) = video(reader), (NOON + HOUR, NOON + 3 * HOUR)
    within = [row for row in found if start <= row.received_start < stop]
    assert list(reader.groups(track, start, stop)) == within
    middle = sorted(row.n for row in found)[10]
    rest = [row for row in found if row.n > middle]
    assert list(reader.groups(track, 0, 1 << 62, after=middle)) == rest


def test_totals_and_hours_add_up_over_index_and_overlay(
    archive: Archive, reader: Reader, writer: BroadcastWriter
) -> None:
    mixed(archive, writer, 20)
    expected = list(reader.groups(video(reader), 0, 1 << 62))
    summary = reader.summary(video(reader))
    assert summary.groups == 20
    assert summary.bytes == sum(row.size for row in expected)
    assert summary.first == NOON
    assert summary.last == NOON + 19 * HOUR // 4
    hours = [hour_of(NOON) + number for number in range(5)]
    assert list(reader.hours(video(reader))) == hours
    step(archive)
    assert reader.summary(video(reader)) == summary
    assert list(reader.hours(video(reader))) == hours


def test_an_hour_whose_only_group_moved_away_is_not_listed(
    archive: Archive, reader: Reader, writer: BroadcastWriter
) -> None:
    writer.commit([group(0, complete=False, received=NOON)])
    step(archive)
    writer.commit([group(0, b"later and whole", received=NOON + HOUR)])
    assert list(reader.hours(video(reader))) == [hour_of(NOON) + 1]
    assert numbers(reader) == [0]


def test_the_newest_is_the_newest_complete_one(
    archive: Archive, reader: Reader, writer: BroadcastWriter, seconds: Seconds
) -> None:
    writer.commit([group(0, complete=False)])
    newest = reader.newest(video(reader))
    assert newest is not None
    assert not newest.complete
    writer.commit([group(5), group(9, complete=False)])
    step(archive)
    seconds.now += 1
    newest = reader.newest(video(reader))
    assert newest is not None
    assert newest.sequence == 5
    writer.commit([group(1, epoch=2)])
    seconds.now += 1
    newest = reader.newest(video(reader))
    assert newest is not None
    assert (newest.epoch, newest.sequence) == (2, 1)


def test_paging_goes_on_while_the_index_catches_up(
    archive: Archive,
    reader: Reader,
    writer: BroadcastWriter,
    monkeypatch: pytest.MonkeyPatch,
    seconds: Seconds,
) -> None:
    monkeypatch.setattr(reader_module, "_PAGE", 2)
    writer.commit([group(number) for number in range(6)])
    step(archive)
    writer.commit([group(number) for number in range(6, 12)])
    listing = reader.groups(video(reader), 0, 1 << 62)
    found = [next(listing).sequence for _ in range(3)]
    step(archive)
    seconds.now += 1
    found += [next(listing).sequence for _ in range(3)]
    os.unlink(archive.index_path)
    seconds.now += 1
    found += [row.sequence for row in listing]
    assert found == list(range(12))


def break_index(archive: Archive, kind: str) -> None:
    path = archive.index_path
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ending)
    if kind == "missing":
        os.unlink(path)
    elif kind == "empty":
        os.truncate(path, 0)
    elif kind == "garbage":
        with open(path, "wb") as file:
            file.write(os.urandom(20_000))
    elif kind == "inside":
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (os.path.getsize(path) - 4096))
    elif kind == "directory":
        os.unlink(path)
        os.mkdir(path)
    else:
        os.unlink(path)
        Index.open(path, "another archive").close()


BROKEN = ["missing", "empty", "garbage", "inside", "foreign", "directory"]


@pytest.mark.parametrize("kind", BROKEN)
def test_an_unusable_index_disturbs_no_reader(
    archive: Archive, reader: Reader, writer: BroadcastWriter, seconds: Seconds, kind: str
) -> None:
    writer.commit([group(number) for number in range(5)])
    step(archive)
    assert numbers(reader) == list(range(5))
    break_index(archive, kind)
    seconds.now += 10
    assert numbers(reader) == list(range(5))
    assert contents(archive) == [known(group(number)) for number in range(5)]
    writer.commit([group(5)])
    seconds.now += 10
    assert numbers(reader) == list(range(6))
    assert reader.summary(video(reader)).groups == 6


def test_an_index_that_comes_late_is_taken_over(
    archive: Archive, reader: Reader, writer: BroadcastWriter, seconds: Seconds
) -> None:
    writer.commit([group(0)])
    assert numbers(reader) == [0]
    assert reader._base is None
    step(archive)
    writer.commit([group(1)])
    seconds.now += 10
    assert numbers(reader) == [0, 1]
    assert reader._base is not None
    assert [row.n for row in reader.referencing(digest_of(b"video0.m4s 1 0"))] == [2 + 2]
    assert reader.summary(video(reader)).groups == 2


def test_a_replaced_index_is_noticed(
    archive: Archive, reader: Reader, writer: BroadcastWriter, seconds: Seconds
) -> None:
    writer.commit([group(0)])
    step(archive)
    assert numbers(reader) == [0]
    before = reader._base
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    seconds.now += 10
    assert numbers(reader) == [0]
    assert reader._base is not before


def test_an_index_opened_without_locks_is_left_when_someone_begins_to_write(
    archive: Archive, reader: Reader, writer: BroadcastWriter, seconds: Seconds
) -> None:
    """Else pages that a checkpoint replaces would be mixed with pages that were read before."""
    writer.commit([group(0)])
    step(archive)
    assert numbers(reader) == [0]
    assert reader._base is not None
    assert reader._base.immutable
    mirror = archive.mirror()
    writer.commit([group(1)])
    mirror.step(None)
    seconds.now += 1
    assert numbers(reader) == [0, 1]
    assert not reader._base.immutable
    mirror.close()


def test_an_answer_that_was_read_while_a_writer_came_is_asked_again(
    archive: Archive, reader: Reader, writer: BroadcastWriter
) -> None:
    writer.commit([group(0)])
    step(archive)
    assert numbers(reader) == [0]
    mirror = archive.mirror()
    asked: list[bool] = []

    def question(indexes: Sequence[Index]) -> bool:
        if not asked:
            writer.commit([group(1)])
            mirror.step(None)
        asked.append(indexes[0].immutable)
        return asked[-1]

    assert reader._ask(list, question) is False
    assert asked == [True, False]
    mirror.close()


@pytest.mark.parametrize("live", [True, False])
def test_manifests_restored_from_an_older_copy_are_believed(
    archive: Archive, tmp_path: Path, seconds: Seconds, reader: Reader, *, live: bool
) -> None:
    """The index knows more than they do: they are the truth, and nothing shows twice."""
    clock = Clock()
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0), group(1, complete=False)])
    backup = str(tmp_path / "backup")
    copy_tree(os.path.join(archive.roots.manifests, "news"), backup)
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(1, b"whole"), group(2)])
    step(archive)
    if live:
        assert numbers(reader) == [0, 1, 2]
    copy_tree(backup, os.path.join(archive.roots.manifests, "news"))
    seconds.now += 10
    for _ in range(2):
        assert [row_known(row) for row in rows(reader)] == [
            known(group(0)),
            known(group(1, complete=False)),
        ]
        assert reader.summary(video(reader)).groups == 2
        seconds.now += 10
        # The mirror finds it out as well, and begins that journal anew.
        step(archive)
    assert contents(archive) == [known(group(0)), known(group(1, complete=False))]


def test_lines_that_died_after_they_were_shown_are_forgotten(
    archive: Archive,
    reader: Reader,
    writer: BroadcastWriter,
    seconds: Seconds,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer.commit([group(0, complete=False)])
    step(archive)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageError):
            writer.commit([group(0, b"whole"), group(1)])
    seconds.now += 1
    # They may show: nobody has said yet that they do not count.
    assert 0 in numbers(reader)
    writer.commit([group(7)])
    seconds.now += 1
    assert [row_known(row) for row in reader.groups(video(reader), 0, 1 << 62)] == [
        known(group(0, complete=False)),
        known(group(7)),
    ]
    assert reader.summary(video(reader)).groups == 2


def test_a_manifest_that_cannot_be_read_is_a_storage_error(
    archive: Archive, reader: Reader, writer: BroadcastWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.commit([group(0)])
    track = video(reader)
    monkeypatch.setattr("builtins.open", _refuse)
    fresh = archive.reader()
    with contextlib.closing(fresh), pytest.raises(StorageError, match="failed reading"):
        fresh.summary(track)


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_tables_made_after_those_of_an_index_are_the_same(archive: Archive) -> None:
    with (
        contextlib.closing(Index.temporary(archive.store_id)) as first,
        contextlib.closing(Index.temporary(archive.store_id, like=first)) as second,
    ):
        tables = "select name, sql from sqlite_master order by name"
        assert list(second.select(tables)) == list(first.select(tables))
        rows = "select * from archive"
        assert list(second.select(rows)) == list(first.select(rows))


def test_an_overlay_holds_many_groups(archive: Archive, writer: BroadcastWriter) -> None:
    writer.commit([group(number, b"same") for number in range(2500)])
    begun = time.monotonic()
    assert [item.sequence for item in contents(archive)] == list(range(2500))
    assert time.monotonic() - begun < 30


# Another user, who may read and not write

AS_ANOTHER_USER = """
import os, sys
from casfs.archive import Archive
from casfs.roots import Roots
from casfs.index.index import Index
Index.temporary("whatever is imported late is imported now").close()
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
archive = Archive(Roots.of(*sys.argv[1:3]))
reader = archive.reader()
(broadcast,) = reader.broadcasts()
(track,) = reader.tracks(broadcast)
print([group.sequence for group in reader.groups(track, 0, 1 << 62)])
print("index" if reader._base is not None else "no index")
for name in sys.argv[3:]:
    try:
        os.close(os.open(os.path.join(archive.roots.manifests, name), os.O_WRONLY | os.O_CREAT))
        print("it could write")
    except PermissionError:
        pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("state", ["closed", "being written", "missing"])
def test_a_user_who_may_not_write_sees_the_same(
    archive: Archive, writer: BroadcastWriter, tmp_path: Path, state: str
) -> None:
    for path in (tmp_path, *tmp_path.parents):
        if not _opened(path):
            pytest.skip(f"another user cannot come to {path}")
    writer.commit([group(0), group(1)])
    mirror = archive.mirror()
    if state != "missing":
        mirror.step(None)
    if state == "closed":
        mirror.close()
        assert not os.path.exists(archive.index_path + "-wal")
    writer.commit([group(2)])
    before = sorted(os.listdir(os.path.join(archive.roots.manifests, ".casfs")))
    done = subprocess.run(
        python("-c", AS_ANOTHER_USER, archive.roots.cas, archive.roots.manifests, "x", ".casfs/x"),
        capture_output=True,
        text=True,
        check=False,
    )
    mirror.close()
    assert done.stderr == ""
    usable = "no index" if state == "missing" else "index"
    assert done.stdout.splitlines() == ["[0, 1, 2]", usable]
    after = sorted(os.listdir(os.path.join(archive.roots.manifests, ".casfs")))
    assert [name for name in after if not name.startswith("index")] == [
        name for name in before if not name.startswith("index")
    ]


def _opened(path: Path) -> bool:
    """Let others pass through a directory of this test run; say whether they can."""
    if not path.stat().st_mode & stat.S_IXOTH and path.stat().st_uid == os.geteuid():
        if "pytest" not in path.name and "test_" not in path.name:
            return False
        path.chmod(path.stat().st_mode | 0o055)
    return bool(path.stat().st_mode & stat.S_IXOTH)


def test_the_index_never_outlives_a_wrong_promise(
    archive: Archive, writer: BroadcastWriter
) -> None:
    """A reader's file of another schema is no index: it is as if there were none."""
    writer.commit([group(0)])
    step(archive)
    with contextlib.closing(sqlite3.connect(archive.index_path)) as connection:
        connection.execute("update archive set schema = 999")
        connection.commit()
    assert contents(archive) == [known(group(0))]
