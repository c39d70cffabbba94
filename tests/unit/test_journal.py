"""The writing end of a journal, what a restart recovers, and what every disk error leaves."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from casfs.durable import write_fully
from casfs.errors import DiskFullError, StorageError
from casfs.manifests import journal as journal_module
from casfs.manifests.chain import JournalReader, PositionLostError, reaches
from casfs.manifests.journal import Journal, JournalIdentity
from casfs.manifests.lag import journal_lag
from casfs.manifests.record import AliveRecord, Line, Position, SegmentRecord
from casfs.manifests.recovery import recover_tail
from casfs.timestamps import DAY, HOUR
from tests.fakes.store import Clock, read_journal, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from casfs.manifests.segment import Fault

IDENTITY = JournalIdentity(
    store="5t0re", broadcast="news", number=7, track="video", writer="test", recorder="r"
)


class Writer:
    """A journal whose records carry a mark each, so that what is read can be told apart."""

    def __init__(self, directory: Path, *, clean: bool = True, clock: Clock | None = None) -> None:
        self.directory = str(directory)
        self.clock = clock or Clock()
        tail = recover_tail(self.directory)
        self.numbers = itertools.count(tail.last_n + 1)
        self.journal = Journal(
            self.directory,
            IDENTITY,
            position=tail.position,
            appendable=clean and tail.whole and tail.position is not None,
            next_number=lambda: next(self.numbers),
            clock=self.clock,
        )

    def append(self, *marks: str) -> None:
        self.journal.open_segment()
        self.journal.append([self.record(mark) for mark in marks])

    def write(self, *marks: str) -> None:
        self.append(*marks)
        self.journal.sync()

    def record(self, mark: str) -> AliveRecord:
        return AliveRecord(
            broadcast="news", number=7, track="video", n=next(self.numbers), time=TIME,
            connected=True, since=mark, recorder="r",
        )  # fmt: skip

    def restart(self, *, clean: bool) -> Writer:
        self.journal.close()
        return Writer(Path(self.directory), clean=clean, clock=self.clock)


TIME = "2026-11-22T12:00:00.000000000Z"


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def marks(directory: str) -> list[str]:
    lines, faults = read_journal(directory)
    assert faults == []
    return _marks(lines)


def headers(directory: str) -> list[SegmentRecord]:
    lines, _ = read_journal(directory)
    return [line.record for line in lines if isinstance(line.record, SegmentRecord)]


def names(directory: str) -> list[str]:
    return [os.path.basename(path) for path in segments(directory)]


def lines_of(directory: str) -> list[Line]:
    return read_journal(directory)[0]


def test_lines_are_read_back_in_order(writer: Writer) -> None:
    writer.write("a", "b")
    writer.write("c")
    assert marks(writer.directory) == ["a", "b", "c"]
    assert names(writer.directory) == ["2026-11-22.000.jsonl"]
    assert [line.record.n for line in lines_of(writer.directory)] == [1, 2, 3, 4]


def test_each_line_says_how_much_was_durable_before_it(writer: Writer) -> None:
    writer.write("a", "b")
    writer.write("c")
    lines = lines_of(writer.directory)
    assert [line.synced for line in lines] == [0, 0, 0, lines[2].end]
    assert [line.prev for line in lines] == [None, *(line.sum for line in lines[:-1])]


def test_nothing_counts_before_it_is_synced(writer: Writer) -> None:
    writer.append("a")
    assert writer.journal.acknowledged is None
    writer.journal.sync()
    (header, line) = lines_of(writer.directory)
    assert header.end == line.offset
    assert writer.journal.acknowledged == Position("2026-11-22.000.jsonl", line.end, line.sum)


def test_a_new_segments_name_is_durable_before_its_lines_count(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append("data"))
    monkeypatch.setattr(journal_module, "sync_directory", synced.append)
    writer.write("a")
    writer.write("b")
    assert synced == ["data", writer.directory, "data"]


def test_a_clean_restart_continues_the_segment(writer: Writer) -> None:
    writer.write("a")
    again = writer.restart(clean=True)
    again.write("b")
    assert marks(writer.directory) == ["a", "b"]
    assert len(names(writer.directory)) == 1


def test_an_unclean_restart_begins_a_segment_that_names_the_place(writer: Writer) -> None:
    writer.write("a")
    place = writer.journal.acknowledged
    again = writer.restart(clean=False)
    again.write("b")
    assert marks(writer.directory) == ["a", "b"]
    assert names(writer.directory) == ["2026-11-22.000.jsonl", "2026-11-22.001.jsonl"]
    first, second = headers(writer.directory)
    assert (first.reason, first.continues) == ("first", None)
    assert (second.reason, second.continues) == ("restart", place)


def test_midnight_begins_a_segment(writer: Writer) -> None:
    writer.write("a")
    writer.clock.now += 12 * HOUR
    writer.write("b")
    writer.write("c")
    assert marks(writer.directory) == ["a", "b", "c"]
    assert names(writer.directory) == ["2026-11-22.000.jsonl", "2026-11-23.000.jsonl"]
    assert [header.reason for header in headers(writer.directory)] == ["first", "date"]


def test_what_was_not_synced_at_midnight_is_synced_first(writer: Writer) -> None:
    writer.append("a")
    writer.clock.now += DAY
    writer.write("b")
    assert marks(writer.directory) == ["a", "b"]


def test_a_clock_that_goes_back_begins_no_segment(writer: Writer) -> None:
    writer.clock.now += DAY
    writer.write("a")
    writer.clock.now -= DAY
    writer.write("b")
    assert names(writer.directory) == ["2026-11-23.000.jsonl"]


@pytest.mark.parametrize("clean", [True, False])
def test_no_segment_is_older_than_the_newest(writer: Writer, clean: bool) -> None:
    writer.clock.now += DAY
    writer.write("a")
    writer.clock.now -= DAY
    writer.restart(clean=clean).write("b")
    expected = ["2026-11-23.000.jsonl"] if clean else [
        "2026-11-23.000.jsonl", "2026-11-23.001.jsonl",
    ]  # fmt: skip
    assert names(writer.directory) == expected
    assert marks(writer.directory) == ["a", "b"]


def test_an_empty_sync_is_no_sync(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", _fail_with(errno.EIO))
    writer.journal.sync()
    assert names(writer.directory) == []


# Disk errors


def _fail_with(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def _short_write(code: int) -> Callable[[int, Sequence[bytes]], int]:
    """Return a write that puts half on disk and fails."""

    def write(descriptor: int, parts: Sequence[bytes]) -> int:
        data = b"".join(parts)
        write_fully(descriptor, [data[: len(data) // 2]])
        raise OSError(code, os.strerror(code))

    return write


CODES = [(errno.EIO, StorageError), (errno.ENOSPC, DiskFullError)]


@pytest.mark.parametrize(("code", "error"), CODES)
@pytest.mark.parametrize("call", ["write", "short write", "sync", "sync of the directory"])
def test_a_disk_error_in_a_new_journal_loses_nothing(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, call: str, code: int, error: type[Exception]
) -> None:
    with monkeypatch.context() as patch:
        _break(patch, call, code)
        for _ in range(3):
            with pytest.raises(error):
                writer.write("lost")
    # A disk that is full for hours and tried again and again does not fill with stumps.
    assert names(writer.directory) == []
    assert writer.journal.acknowledged is None
    writer.write("kept")
    assert marks(writer.directory) == ["kept"]


@pytest.mark.parametrize(("code", "error"), CODES)
@pytest.mark.parametrize("call", ["write", "short write", "sync"])
def test_a_disk_error_in_a_segment_leaves_it_for_ever(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, call: str, code: int, error: type[Exception]
) -> None:
    writer.write("a")
    place = writer.journal.acknowledged
    size = os.path.getsize(segments(writer.directory)[0])
    with monkeypatch.context() as patch:
        _break(patch, call, code)
        with pytest.raises(error):
            writer.write("lost")
        assert writer.journal.acknowledged == place
    dead = os.path.getsize(segments(writer.directory)[0])
    writer.write("b")
    assert marks(writer.directory) == ["a", "b"]
    assert names(writer.directory) == ["2026-11-22.000.jsonl", "2026-11-22.001.jsonl"]
    assert headers(writer.directory)[1].continues == place
    assert headers(writer.directory)[1].reason == "failure"
    # Nothing is ever cut off or written over.
    assert os.path.getsize(segments(writer.directory)[0]) == dead >= size
    numbers = [line.record.n for line in lines_of(writer.directory)]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(("code", "error"), CODES)
def test_a_segment_that_cannot_be_opened_is_tried_again(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    writer.write("a")
    writer.clock.now += DAY
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _fail_with(code))
        for _ in range(2):
            with pytest.raises(error, match="opening a segment"):
                writer.write("lost")
    writer.write("b")
    assert marks(writer.directory) == ["a", "b"]
    assert headers(writer.directory)[1].reason == "date"


def test_a_failed_sync_at_midnight_loses_only_what_was_not_acknowledged(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write("a")
    writer.append("lost")
    writer.clock.now += DAY
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _fail_with(errno.EIO))
        with pytest.raises(StorageError, match="syncing"):
            writer.write("b")
    writer.write("b")
    assert marks(writer.directory) == ["a", "b"]


def test_a_failed_sync_is_never_repeated_on_the_same_file(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def fail(descriptor: int) -> None:
        tried.append(os.fstat(descriptor).st_ino)
        raise OSError(errno.EIO, "Input/output error")

    writer.write("a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        for _ in range(3):
            with pytest.raises(StorageError):
                writer.write("lost")
            writer.journal.sync()
    assert os.stat(segments(writer.directory)[0]).st_ino == tried[0]
    assert tried[0] not in tried[1:]


def test_no_descriptor_is_left_open_by_failures(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write("a")
    before = len(os.listdir("/proc/self/fd"))
    for call in ("write", "sync"):
        with monkeypatch.context() as patch:
            _break(patch, call, errno.EIO)
            with pytest.raises(StorageError):
                writer.write("lost")
        writer.write("b")
    assert len(os.listdir("/proc/self/fd")) == before
    writer.journal.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def _break(patch: pytest.MonkeyPatch, call: str, code: int) -> None:
    if call == "write":
        patch.setattr(journal_module, "write_fully", _fail_with(code))
    elif call == "short write":
        patch.setattr(journal_module, "write_fully", _short_write(code))
    elif call == "sync":
        patch.setattr(os, "fdatasync", _fail_with(code))
    else:
        patch.setattr(journal_module, "sync_directory", _fail_with(code))


# Recovery


def test_an_empty_journal_has_no_end(tmp_path: Path) -> None:
    tail = recover_tail(str(tmp_path))
    assert (tail.position, tail.last, tail.last_n, tail.number) == (None, None, 0, None)
    assert recover_tail(str(tmp_path / "missing")).position is None


def test_the_end_is_found_and_made_durable(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.append("a", "b")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    tail = recover_tail(writer.directory)
    last = lines_of(writer.directory)[-1]
    assert tail.position == Position("2026-11-22.000.jsonl", last.end, last.sum)
    assert (tail.whole, tail.number, tail.last_n, tail.last) == (True, 7, 3, last.record)
    # The name too: its writer may have died between creating and syncing it.
    assert synced == [segments(writer.directory)[0], writer.directory]


def test_a_torn_end_is_not_whole(writer: Writer) -> None:
    writer.write("a")
    with open(segments(writer.directory)[0], "ab") as file:
        file.write(b'{"kind"')
    tail = recover_tail(writer.directory)
    assert not tail.whole
    assert tail.position == writer.journal.acknowledged


def test_the_highest_number_is_found_also_where_lines_changed_places(writer: Writer) -> None:
    writer.write("a")
    writer.write("b")
    path = segments(writer.directory)[0]
    with open(path, "rb") as file:
        first, second, third = file.read().splitlines(keepends=True)
    with open(path, "wb") as file:
        file.write(first + third + second)
    assert recover_tail(writer.directory).last_n == 3


# Following


def test_a_follower_goes_on_where_it_was(writer: Writer) -> None:
    writer.write("a")
    position = writer.journal.acknowledged
    writer.write("b")
    writer.clock.now += DAY
    writer.write("c")
    reader = JournalReader(writer.directory, since=position)
    found = _marks(reader)
    assert found == ["b", "c"]
    assert reader.position == writer.journal.acknowledged
    assert list(JournalReader(writer.directory, since=reader.position)) == []


def _marks(items: Iterable[Line | Fault]) -> list[str]:
    records = [item.record for item in items if isinstance(item, Line)]
    return [record.since for record in records if isinstance(record, AliveRecord)]


def test_a_follower_of_lines_that_died_has_lost_its_place(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write("a")
    place = writer.journal.acknowledged
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _fail_with(errno.EIO))
        with pytest.raises(StorageError):
            writer.write("dead")
    reader = JournalReader(writer.directory)
    dead = [reader.position for _ in reader][-1]
    assert dead is not None
    writer.write("b")
    with pytest.raises(PositionLostError):
        list(JournalReader(writer.directory, since=dead))
    assert place is not None
    assert len(list(JournalReader(writer.directory, since=place))) == 2
    assert reaches(writer.directory, place)
    assert not reaches(writer.directory, dead)


def _cut(path: str) -> None:
    os.truncate(path, os.path.getsize(path) - 1)


def _vanish(path: str) -> None:
    os.unlink(path)


def _rewrite(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(-40, os.SEEK_END)
        file.write(b"0123456789")


@pytest.mark.parametrize("damage", [_cut, _vanish, _rewrite])
def test_a_place_that_is_not_there_any_more_is_lost(
    writer: Writer, damage: Callable[[str], None]
) -> None:
    writer.write("a")
    place = writer.journal.acknowledged
    damage(segments(writer.directory)[0])
    with pytest.raises(PositionLostError):
        list(JournalReader(writer.directory, since=place))


def test_a_segment_taken_back_while_it_is_read_never_counted(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write("a")
    writer.clock.now += DAY
    writer.append("never synced")
    reader = JournalReader(writer.directory)
    links = reader.links()
    monkeypatch.setattr(reader, "links", lambda: links)
    os.unlink(segments(writer.directory)[1])
    found = _marks(reader)
    assert found == ["a"]


def test_the_newest_segments_alone_can_be_read(writer: Writer) -> None:
    for mark in "abcd":
        writer.write(mark)
        writer.clock.now += DAY
    items = list(JournalReader(writer.directory, newest=2))
    found = _marks(items)
    assert found == ["c", "d"]


@pytest.mark.parametrize("fault", [errno.EIO, errno.EACCES])
def test_a_segment_that_cannot_be_read_is_a_storage_error(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    writer.write("a")
    monkeypatch.setattr("builtins.open", _fail_with(fault))
    with pytest.raises(StorageError, match=r"2026-11-22\.000\.jsonl"):
        list(JournalReader(writer.directory))


def test_files_that_are_no_segments_are_passed_over(writer: Writer, tmp_path: Path) -> None:
    writer.write("a")
    for stray in ("README", "2026-11-22.jsonl", "2026-11-22.0.jsonl", "2026-11-22.001.jsonl~"):
        (tmp_path / stray).write_text("stray")
    assert marks(writer.directory) == ["a"]


def test_the_thousandth_segment_of_a_day_sorts_last(tmp_path: Path) -> None:
    for ordinal in (999, 1000):
        (tmp_path / f"2026-11-22.{ordinal}.jsonl").touch()
    writer = Writer(tmp_path)
    writer.write("a")
    assert "2026-11-22.1001.jsonl" in names(writer.directory)
    assert marks(writer.directory) == ["a"]


def test_the_lag_is_what_lies_behind_a_place(writer: Writer) -> None:
    assert journal_lag(writer.directory, None) == 0
    writer.write("a")
    place = writer.journal.acknowledged
    writer.write("b")
    writer.clock.now += DAY
    writer.write("c")
    sizes = list(map(os.path.getsize, segments(writer.directory)))
    assert place is not None
    assert journal_lag(writer.directory, None) == sum(sizes)
    assert journal_lag(writer.directory, place) == sum(sizes) - place.offset
    assert journal_lag(writer.directory, writer.journal.acknowledged) == 0
