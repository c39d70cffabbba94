"""Who may write to a broadcast, and with which number."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from casfs.errors import ClockError, ForeignRootError, StorageError, WriterLockedError
from casfs.heads import Heads, read_heads, remembered_broadcasts, unreachable, write_heads
from casfs.manifests.layout import JournalPlace
from casfs.manifests.record import Position
from casfs.timestamps import DAY, HOUR
from tests.fakes.store import (
    Clock,
    contents,
    copy_tree,
    crash,
    flip_bit,
    group,
    journal_directory,
    make_archive,
    python,
    segments,
)

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


# One writer


def test_a_second_writer_is_refused_and_leaves_no_trace(archive: Archive, clock: Clock) -> None:
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
        with pytest.raises(WriterLockedError, match="being recorded by another process"):
            archive.writer("news", clock=clock).__enter__()
        writer.commit([group(1)])
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(2)])
    assert [item.sequence for item in contents(archive)] == [0, 1, 2]


def test_the_lock_is_that_of_the_name_not_of_the_spelling_on_disk(
    archive: Archive, clock: Clock
) -> None:
    with archive.writer("a/b", clock=clock), archive.writer("a%2Fb", clock=clock) as other:
        other.commit([group(0)])


# Clocks


def test_a_clock_more_than_a_day_behind_is_refused(archive: Archive, clock: Clock) -> None:
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
    clock.now -= DAY + HOUR
    with pytest.raises(ClockError, match="the clock says 2026-11-21T11"):
        archive.writer("news", clock=clock).__enter__()
    # It is a matter of the broadcast: another one has no newer records.
    with archive.writer("sport", clock=clock) as writer:
        writer.commit([group(0)])


def test_a_clock_somewhat_behind_is_not(archive: Archive, clock: Clock) -> None:
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
    clock.now -= DAY - HOUR
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(1)])
    assert [item.sequence for item in contents(archive)] == [0, 1]


# Heads


def test_heads_read_back_as_written(archive: Archive) -> None:
    heads = Heads(
        store=archive.store_id, broadcast="a/b", number=7, time="t",
        journals={"video": Position("2026-11-22.000.jsonl", 5, "ab" * 32)},
    )  # fmt: skip
    write_heads(archive.roots.cas, "a%2Fb", heads)
    assert read_heads(archive.roots.cas, "a%2Fb") == heads
    assert read_heads(archive.roots.cas, "news") is None
    assert remembered_broadcasts(archive.roots.cas) == ["a%2Fb"]


@pytest.mark.parametrize("text", [b"", b"{}", b"\0" * 60, b'{"v":1'])
def test_heads_that_cannot_be_understood_stop_the_writer(
    archive: Archive, clock: Clock, text: bytes
) -> None:
    with archive.writer("news", clock=clock):
        pass
    path = os.path.join(archive.roots.cas, ".casfs", "heads", "news.json")
    with open(path, "wb") as file:
        file.write(text)
    with pytest.raises(ForeignRootError, match="cannot be understood"):
        archive.writer("news", clock=clock).__enter__()


def test_heads_that_cannot_be_listed_stop_the_writer(archive: Archive, clock: Clock) -> None:
    os.rmdir(os.path.join(archive.roots.cas, ".casfs", "heads"))
    with pytest.raises(StorageError, match="listing"):
        archive.writer("news", clock=clock).__enter__()


def test_manifests_older_than_the_heads_are_refused(
    archive: Archive, clock: Clock, tmp_path: Path
) -> None:
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
    backup = str(tmp_path / "backup")
    copy_tree(archive.roots.manifests, backup)
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(1)])
    copy_tree(backup, archive.roots.manifests)
    with pytest.raises(ForeignRootError, match="older than the CAS root remembers: news/"):
        archive.writer("news", clock=clock).__enter__()
    heads = read_heads(archive.roots.cas, "news")
    assert heads is not None
    assert unreachable(heads, archive.roots.manifests, "news") == [
        JournalPlace("news", "@broadcast"),
        JournalPlace("news", "video0.m4s"),
    ]


@pytest.mark.parametrize("lost", ["news", "news/video0.m4s", "news/@broadcast"])
def test_manifests_that_lack_a_directory_are_refused(
    archive: Archive, clock: Clock, lost: str
) -> None:
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
    shutil.rmtree(os.path.join(archive.roots.manifests, lost))
    with pytest.raises(ForeignRootError):
        archive.writer("news", clock=clock).__enter__()


def test_a_lost_broadcast_stops_the_writers_of_all(archive: Archive, clock: Clock) -> None:
    """The root is restored by half, and who knows what else is missing."""
    for name in ("news", "sport"):
        with archive.writer(name, clock=clock):
            pass
    shutil.rmtree(os.path.join(archive.roots.manifests, "sport"))
    with pytest.raises(ForeignRootError, match="sport"):
        archive.writer("news", clock=clock).__enter__()
    assert sorted(os.listdir(archive.roots.manifests)) == [".casfs", "news"]


def test_manifests_newer_than_the_heads_are_welcome(archive: Archive, clock: Clock) -> None:
    """A crash: the heads are as old as the last hour."""
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
    writer = archive.writer("news", clock=clock)
    writer.__enter__()
    writer.commit([group(1)])
    crash(writer)
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(2)])
    assert [item.sequence for item in contents(archive)] == [0, 1, 2]


# Numbers


def test_numbers_are_unique_under_concurrent_first_recordings(archive: Archive) -> None:
    script = (
        "import sys\nfrom casfs.archive import Archive\nfrom casfs.roots import Roots\n"
        "archive = Archive(Roots.of(*sys.argv[1:3]))\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "for name in sys.argv[3:]:\n"
        " with archive.writer(name) as writer: print(writer.number, flush=True)\n"
    )
    names = [[f"{child}-{number}" for number in range(8)] for child in range(4)]
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    python("-c", script, archive.roots.cas, archive.roots.manifests, *own),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for own in names
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        numbers = []
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
        for child in children:
            output, _ = child.communicate()
            numbers += list(map(int, output.split()))
            assert child.returncode == 0
    assert sorted(numbers) == list(range(1, 33))


def test_threads_get_unique_numbers_too(archive: Archive) -> None:
    numbers: list[int] = []

    def record(name: str) -> None:
        with archive.writer(name, clock=Clock()) as writer:
            numbers.append(writer.number)

    threads = [threading.Thread(target=record, args=(f"b{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))


def test_a_number_is_not_given_twice_because_its_first_line_is_damaged(
    archive: Archive, clock: Clock
) -> None:
    with archive.writer("news", clock=clock) as writer:
        assert writer.number == 1
    (path,) = segments(journal_directory(archive, "news", "@broadcast"))
    flip_bit(path, 30)
    with archive.writer("sport", clock=clock) as writer:
        assert writer.number == 2
    # Nor because nothing at all can be read: the head knows it.
    with open(path, "r+b") as file:
        size = os.path.getsize(path)
        file.write(os.urandom(size))
    with archive.writer("weather", clock=clock) as writer:
        assert writer.number == 3
    with archive.writer("news", clock=clock) as writer:
        assert writer.number == 1


def test_a_number_that_was_not_recorded_is_not_taken(
    archive: Archive, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageError):
            archive.writer("news", clock=clock).__enter__()
    with archive.writer("sport", clock=clock) as writer:
        assert writer.number == 1
    with archive.writer("news", clock=clock) as writer:
        assert writer.number == 2
