"""The writer of one broadcast: what it promises, and what it does when a disk does not."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING

import pytest

from casfs import archive as archive_module
from casfs.archive import WRITER, Archive
from casfs.digest import BLOCK_BYTES, digest_of
from casfs.errors import DiskFullError, InvalidNameError, StorageError
from casfs.heads import read_heads
from casfs.manifests import journal as journal_module
from casfs.manifests.record import (
    AliveRecord,
    EpochRecord,
    GapRecord,
    GroupRecord,
    LostSessionRecord,
    Record,
    SealRecord,
    SegmentRecord,
    StartRecord,
    StopRecord,
)
from casfs.objects import commit as commit_module
from casfs.timestamps import DAY, HOUR, format_time
from tests.fakes.store import (
    NOON,
    Clock,
    check,
    contents,
    crash,
    flip_bit,
    group,
    journal_directory,
    known,
    make_archive,
    object_file,
    read_journal,
    segments,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def records(archive: Archive, broadcast: str, track: str = "video0.m4s") -> list[Record]:
    lines, faults = read_journal(journal_directory(archive, broadcast, track))
    assert faults == []
    return [line.record for line in lines if isinstance(line.record, Record)]


def kinds(archive: Archive, broadcast: str) -> list[type[Record]]:
    return [type(record) for record in records(archive, broadcast, "@broadcast")]


def test_a_group_is_recorded_with_everything_that_is_known_of_it(
    archive: Archive, clock: Clock
) -> None:
    init = digest_of(b"init")
    with archive.writer("news", relay="https://relay:443", clock=clock) as writer:
        item = archive_module.Group(
            track="video0.m4s", epoch=3, sequence=2**62 - 1, frames=(b"abc", b"", b"de"),
            timestamps=(0, 2**63, 5), timescale=90000, received_start=NOON,
            received_end=NOON + 5, complete=False, reason="reset", lacking=7, init=init,
            protocol="moq-lite-05",
        )  # fmt: skip
        (done,) = writer.commit([item])
        recorder = writer.recorder
    record = records(archive, "news")[1]
    assert record == done.record
    assert record == GroupRecord(
        broadcast="news", number=1, track="video0.m4s", n=record.n, time=record.time, epoch=3,
        sequence=str(2**62 - 1), hash=digest_of(b"abcde"),
        path=f"objects/blake3/{digest_of(b'abcde')[:2]}/{digest_of(b'abcde')}.bin", offset=0,
        size=5, frame_sizes=[3, 0, 2], lacking=7, frame_timestamps=["0", str(2**63), "5"],
        timescale="90000", blocks=None, init=init, received_start=format_time(NOON),
        received_end=format_time(NOON + 5), complete=False, reason="reset",
        relay="https://relay:443", protocol="moq-lite-05", recorder=recorder, writer=WRITER,
    )  # fmt: skip
    assert (done.new, done.healed) == (True, False)


def test_a_large_object_has_a_hash_for_each_block(archive: Archive, clock: Clock) -> None:
    data = bytes(BLOCK_BYTES) + b"x" * 10
    with archive.writer("news", clock=clock) as writer:
        kept = writer.commit([group(0, data), group(1, data[:BLOCK_BYTES])])
    large, small = (item.record for item in kept if isinstance(item.record, GroupRecord))
    assert large.blocks == [digest_of(bytes(BLOCK_BYTES)), digest_of(b"x" * 10)]
    assert small.blocks is None


def test_a_session_is_framed_by_start_and_stop(archive: Archive, clock: Clock) -> None:
    with archive.writer("news", relay="https://relay:443", clock=clock) as writer:
        writer.stop_reason = "interrupted"
    first, start, stop = records(archive, "news", "@broadcast")
    assert isinstance(first, SegmentRecord)
    assert isinstance(start, StartRecord)
    assert isinstance(stop, StopRecord)
    assert (start.relay, start.writer, start.recorder) == (
        "https://relay:443", WRITER, writer.recorder,
    )  # fmt: skip
    assert stop.reason == "interrupted"


def test_a_lost_session_is_recorded_by_the_next(archive: Archive, clock: Clock) -> None:
    lost = archive.writer("news", clock=clock)
    lost.__enter__()
    lost.commit([group(0)])
    newest = records(archive, "news")[-1].time
    crash(lost)
    with archive.writer("news", clock=clock) as writer:
        pass
    # Its own journal ends where the head of the first start says: it may go on in that segment.
    assert kinds(archive, "news") == [
        SegmentRecord, StartRecord, LostSessionRecord, StartRecord, StopRecord,
    ]  # fmt: skip
    record = records(archive, "news", "@broadcast")[2]
    assert isinstance(record, LostSessionRecord)
    assert (record.lost, record.recorder) == (lost.recorder, writer.recorder)
    assert record.last == newest


def test_a_clean_stop_is_no_lost_session(archive: Archive, clock: Clock) -> None:
    for _ in range(3):
        with archive.writer("news", clock=clock):
            pass
    assert LostSessionRecord not in kinds(archive, "news")
    assert len(segments(journal_directory(archive, "news", "@broadcast"))) == 1


def test_an_error_elsewhere_still_ends_the_session_in_order(archive: Archive, clock: Clock) -> None:
    writer = archive.writer("news", clock=clock)
    with contextlib.suppress(RuntimeError), writer:
        writer.commit([group(0)])
        raise RuntimeError
    assert kinds(archive, "news")[-1] is StopRecord
    heads = read_heads(archive.roots.cas, "news")
    assert heads is not None
    assert set(heads.journals) == {"@broadcast", "video0.m4s"}


def test_commit_numbers_rise_over_all_tracks_and_sessions(archive: Archive, clock: Clock) -> None:
    for session in range(3):
        writer = archive.writer("news", clock=clock)
        writer.__enter__()
        for number in range(2):
            tracks = ("a", "b")
            writer.commit([group(session * 2 + number, track=track) for track in tracks])
        if session == 1:
            crash(writer)
        else:
            writer.__exit__(None, None, None)
    found = [
        [record.n for record in records(archive, "news", track)]
        for track in ("a", "b", "@broadcast")
    ]
    assert all(numbers == sorted(numbers) for numbers in found)
    everything = sorted(number for numbers in found for number in numbers)
    assert everything == list(range(1, len(everything) + 1))


def test_a_broadcast_keeps_its_number(archive: Archive, clock: Clock) -> None:
    for name, number in (("news", 1), ("sport", 2), ("news", 1), ("weather", 3), ("sport", 2)):
        with archive.writer(name, clock=clock) as writer:
            assert writer.number == number


def test_what_was_recorded_lately_is_known_at_the_next_start(
    archive: Archive, clock: Clock
) -> None:
    with archive.writer("news", clock=clock) as writer:
        assert writer.recent_groups() == []
        done = writer.commit([group(0), group(1), group(0, track="audio")])
    with archive.writer("news", clock=clock) as writer:
        found = [kept.record for kept in writer.recent_groups()]
    assert sorted(found, key=lambda record: record.n) == [item.record for item in done]


def test_notes_stand_in_the_right_journal(archive: Archive, clock: Clock) -> None:
    with archive.writer("news", clock=clock) as writer:
        writer.note_gap("video0.m4s", epoch=1, start=NOON, end=NOON + 5, reason="lost", first=3)
        writer.note_epoch(2, "announced anew")
        writer.note_alive(connected=False, since=NOON)
    gap = records(archive, "news")[1]
    assert isinstance(gap, GapRecord)
    assert (gap.first, gap.last, gap.start, gap.reason) == ("3", None, format_time(NOON), "lost")
    assert kinds(archive, "news") == [
        SegmentRecord, StartRecord, EpochRecord, AliveRecord, StopRecord,
    ]  # fmt: skip


def test_an_hour_is_sealed_once_and_says_what_belongs_to_it(archive: Archive, clock: Clock) -> None:
    with archive.writer("news", clock=clock) as writer:
        (done,) = writer.commit([group(0, received=NOON)])
        assert writer.seal_hours(60 * 10**9) == 0
        clock.now = NOON + HOUR + 61 * 10**9
        assert writer.seal_hours(60 * 10**9) == 1
        writer.commit([group(1, received=NOON)])
        assert writer.seal_hours(60 * 10**9) == 0
    seals = [r for r in records(archive, "news", "@broadcast") if isinstance(r, SealRecord)]
    assert [(seal.hour, seal.through >= done.record.n) for seal in seals] == [
        (format_time(NOON), True)
    ]


def test_odd_names_make_safe_directories(archive: Archive, clock: Clock) -> None:
    names = ["a/b", "../../etc", "@broadcast", ".hidden", "a\0b", "ü" * 500, ""]
    for name in names:
        with archive.writer(name, clock=clock) as writer:
            writer.commit([group(0, track=name)])
    found = set(os.listdir(archive.roots.manifests)) - {".casfs"}
    assert len(found) == len(names)
    with archive.writer("a/b", clock=clock) as writer:
        assert writer.number == 1
    reader = archive.reader()
    assert [row.name for row in reader.broadcasts()] == names
    reader.close()
    assert check(archive).sound


def test_an_impossible_track_name_is_refused_and_the_rest_goes_on(
    archive: Archive, clock: Clock
) -> None:
    with archive.writer("news", clock=clock) as writer:
        with pytest.raises(InvalidNameError):
            writer.commit([group(0), group(0, track="x" * 5000)])
        writer.commit([group(0)])
    assert check(archive).sound
    with pytest.raises(InvalidNameError):
        archive.writer("\ud800", clock=clock)


def test_nothing_to_keep_is_kept_at_once(archive: Archive, clock: Clock) -> None:
    with archive.writer("news", clock=clock) as writer:
        assert writer.commit([]) == []


# Disk errors in the middle of a commit


def fail_with(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


BROKEN = {
    "temporary": (commit_module, "write_fully"),
    "object sync": (os, "fsync"),
    "rename": (os, "rename"),
    "line": (journal_module, "write_fully"),
    "manifest sync": (os, "fdatasync"),
    "directory of the segment": (journal_module, "sync_directory"),
    "directory of the track": (archive_module, "make_directory"),
}


@pytest.mark.parametrize(
    ("code", "error"), [(errno.EIO, StorageError), (errno.ENOSPC, DiskFullError)]
)
@pytest.mark.parametrize("place", BROKEN)
def test_a_commit_that_fails_keeps_nothing_and_can_be_repeated(
    archive: Archive,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    code: int,
    error: type[Exception],
) -> None:
    groups = [group(1), group(2), group(1, track="audio0.m4s")]
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
        with monkeypatch.context() as patch:
            patch.setattr(*BROKEN[place], fail_with(code))
            for _ in range(2):
                with pytest.raises(error):
                    writer.commit(groups)
        # Lines whose sync failed may show until the next commit; what was acknowledged does.
        assert known(group(0)) in contents(archive)
        assert len(_temporaries(archive)) == 0
        # What stands under a final name is whole, also now.
        assert check(archive).sound
        writer.commit(groups)
    assert contents(archive) == [
        known(groups[2]),
        known(group(0)),
        known(groups[0]),
        known(groups[1]),
    ]
    assert check(archive).sound


def _temporaries(archive: Archive) -> list[str]:
    base = os.path.join(archive.roots.cas, ".casfs", "tmp")
    return [name for own in os.listdir(base) for name in os.listdir(os.path.join(base, own))]


def test_a_straggling_sync_never_acknowledges_what_came_after_it(
    archive: Archive, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One track's sync fails while another's still runs: the caller hears of it when both ended."""
    running: list[int] = []
    failed: list[int] = []
    fdatasync = os.fdatasync

    def sync(descriptor: int) -> None:
        running.append(descriptor)
        try:
            if not failed:
                failed.append(descriptor)
                raise OSError(errno.EIO, "Input/output error")
            fdatasync(descriptor)
        finally:
            running.remove(descriptor)

    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0, track="a"), group(0, track="b")])
        groups = [group(1, track="a"), group(1, track="b")]
        monkeypatch.setattr(os, "fdatasync", sync)
        with pytest.raises(StorageError):
            writer.commit(groups)
        assert running == []
        writer.commit(groups)
    assert len(contents(archive)) == 4
    assert check(archive).sound


def test_heads_that_cannot_be_written_fail_no_commit(
    archive: Archive,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The groups are durable by then: to call that a failure would record them again and again."""
    with archive.writer("news", clock=clock) as writer:
        clock.now += HOUR
        with monkeypatch.context() as patch:
            patch.setattr("casfs.heads.replace_file", fail_with(errno.ENOSPC))
            writer.commit([group(0)])
            writer.commit([group(1)])
        assert "heads" in caplog.text
        before = read_heads(archive.roots.cas, "news")
        writer.commit([group(2)])
        after = read_heads(archive.roots.cas, "news")
    assert before is not None
    assert after is not None
    assert "video0.m4s" not in before.journals
    assert after.journals["video0.m4s"].offset > 0
    assert [item.sequence for item in contents(archive)] == [0, 1, 2]


def test_heads_follow_every_hour_and_every_stop(archive: Archive, clock: Clock) -> None:
    def head() -> object:
        heads = read_heads(archive.roots.cas, "news")
        return heads and heads.journals.get("video0.m4s")

    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
        assert head() is None
        clock.now += HOUR
        writer.commit([group(1)])
        hourly = head()
        assert hourly is not None
        writer.commit([group(2)])
        assert head() == hourly
    assert head() not in (None, hourly)


def test_a_writer_that_failed_on_its_disk_writes_no_stop(
    archive: Archive, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.suppress(StorageError), archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
        monkeypatch.setattr(os, "fdatasync", fail_with(errno.EIO))
        writer.commit([group(1)])
        pytest.fail("it was kept")
    monkeypatch.undo()
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(1)])
    assert LostSessionRecord in kinds(archive, "news")
    assert [item.sequence for item in contents(archive)] == [0, 1]


def test_a_start_that_fails_lets_go_of_everything(
    archive: Archive, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail_with(errno.EIO))
        with pytest.raises(StorageError), archive.writer("news", clock=clock):
            pytest.fail("it entered")
    assert len(os.listdir("/proc/self/fd")) == before
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
    assert len(os.listdir("/proc/self/fd")) == before


def test_midnight_passes_while_recording(archive: Archive, clock: Clock) -> None:
    with archive.writer("news", clock=clock) as writer:
        for number in range(4):
            writer.commit([group(number, received=clock.now)])
            clock.now += DAY // 2
    names = [
        os.path.basename(path)
        for path in segments(journal_directory(archive, "news", "video0.m4s"))
    ]
    assert names == [f"2026-11-{day}.000.jsonl" for day in (22, 23, 24)]
    assert [item.sequence for item in contents(archive)] == [0, 1, 2, 3]
    assert check(archive).sound


def test_a_line_is_what_the_format_says(archive: Archive, clock: Clock) -> None:
    """Read with nothing of ours but the format: JSON lines, a chain, a sum."""
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
        writer.commit([group(1)])
    (path,) = segments(journal_directory(archive, "news", "video0.m4s"))
    with open(path, "rb") as file:
        texts = file.read().splitlines()
    previous = None
    for text in texts:
        members = json.loads(text)
        assert members["prev"] == previous
        head, _, rest = text.rpartition(b',"sum":')
        assert rest == f'"{digest_of(head)}"}}'.encode()
        previous = members["sum"]
    assert [json.loads(text)["kind"] for text in texts] == ["segment", "group", "group"]


def test_a_damaged_object_is_healed_by_the_next_commit_of_its_bytes(
    archive: Archive, clock: Clock
) -> None:
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0, b"the same in every hour")])
        path = object_file(archive, group(0, b"the same in every hour"))
        flip_bit(path, 2)
        assert not check(archive).sound
        (done,) = writer.commit([group(1, b"the same in every hour")])
    assert (done.new, done.healed) == (False, True)
    assert check(archive).sound
