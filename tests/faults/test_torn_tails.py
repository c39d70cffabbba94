"""What a crash may leave behind the last sync: it heals, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from casfs.manifests.record import Line, SegmentRecord
from tests.fakes.store import (
    Clock,
    check,
    contents,
    crash,
    flip_bit,
    group,
    journal_directory,
    make_archive,
    read_journal,
    segments,
    sequences,
)

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive

BROADCAST, TRACK = "news", "video0.m4s"
ACKNOWLEDGED = [0, 1, 2, 3]


class Crashed:
    """A track whose writer died: four groups acknowledged, the fifth batch not synced yet."""

    def __init__(self, directory: Path) -> None:
        self.archive: Archive = make_archive(directory)
        self.clock = Clock()
        writer = self.archive.writer(BROADCAST, clock=self.clock)
        writer.__enter__()
        for number in ACKNOWLEDGED:
            writer.commit([group(number)])
        self.directory = journal_directory(self.archive, BROADCAST, TRACK)
        (self.path,) = segments(self.directory)
        self.synced = os.path.getsize(self.path)
        # What is behind `synced` from here on was never acknowledged, as far as a test says so.
        writer.commit([group(4), group(5), group(6)])
        crash(writer)
        with open(self.path, "rb") as file:
            self.data = file.read()

    def leave(self, tail: bytes) -> None:
        """Let the power cut have left this behind the synced bytes."""
        with open(self.path, "wb") as file:
            file.write(self.data[: self.synced] + tail)

    def go_on(self) -> None:
        with self.archive.writer(BROADCAST, clock=self.clock) as writer:
            writer.commit([group(100)])
            writer.commit([group(101)])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    return Crashed(tmp_path_factory.mktemp("crashed"))


@pytest.fixture
def crashed(tmp_path: Path) -> Crashed:
    return Crashed(tmp_path)


def verify_healed(crashed: Crashed, kept: list[int]) -> None:
    """Check that a writer goes on in a new segment that names the place, in order, all sound."""
    lines, faults = read_journal(crashed.directory)
    assert faults == []
    assert sequences(lines) == kept
    end = lines[-1]
    crashed.go_on()
    lines, faults = read_journal(crashed.directory)
    assert faults == []
    assert sequences(lines) == [*kept, 100, 101]
    headers = [line.record for line in lines if isinstance(line.record, SegmentRecord)]
    place = headers[-1].continues
    assert place is not None
    assert headers[-1].reason == "restart"
    assert (place.segment, place.offset) == (os.path.basename(crashed.path), end.end)
    assert place.hash == end.sum
    numbers = [line.record.n for line in lines]
    assert numbers == sorted(set(numbers))
    assert check(crashed.archive).sound
    assert [item.sequence for item in contents(crashed.archive)] == sorted([*kept, 100, 101])


def test_a_segment_cut_at_every_byte_of_its_last_two_lines_opens(template: Crashed) -> None:
    lines, _ = read_journal(template.directory)
    whole = [(line.end, sequences([line])) for line in lines]
    try:
        for size in range(lines[-2].offset, len(template.data) + 1):
            os.truncate(template.path, 0)
            with open(template.path, "wb") as file:
                file.write(template.data[:size])
            read, faults = read_journal(template.directory)
            assert faults == []
            assert sequences(read) == [n for end, own in whole if end <= size for n in own]
    finally:
        template.leave(template.data[template.synced :])


def test_a_writer_goes_on_wherever_the_tail_was_cut(tmp_path: Path, template: Crashed) -> None:
    lines, _ = read_journal(template.directory)
    last = lines[-1]
    for cut in (0, 1, 40, last.end - last.offset - 1, last.end - last.offset):
        copy = tmp_path / str(cut)
        shutil.copytree(os.path.dirname(template.archive.roots.cas), copy)
        crashed = _reopen(template, copy)
        os.truncate(crashed.path, last.offset + cut)
        kept = [0, 1, 2, 3, 4, 5] + [6] * (last.offset + cut == last.end)
        verify_healed(crashed, kept)


def _reopen(template: Crashed, directory: Path) -> Crashed:
    from casfs.archive import Archive
    from casfs.roots import Roots

    crashed = Crashed.__new__(Crashed)
    crashed.archive = Archive(Roots.of(str(directory / "cas"), str(directory / "manifests")))
    crashed.clock = Clock(template.clock.now)
    crashed.directory = journal_directory(crashed.archive, BROADCAST, TRACK)
    crashed.path = os.path.join(crashed.directory, os.path.basename(template.path))
    crashed.synced, crashed.data = template.synced, template.data
    return crashed


def test_nuls_in_the_unsynced_part_heal(crashed: Crashed) -> None:
    crashed.leave(b"\0" * 3000)
    verify_healed(crashed, ACKNOWLEDGED)


def test_garbage_in_the_unsynced_part_heals(crashed: Crashed) -> None:
    crashed.leave(os.urandom(1000) + b"\n" + os.urandom(1000))
    verify_healed(crashed, ACKNOWLEDGED)


@pytest.mark.parametrize("lost", [1, 2])
def test_nuls_before_intact_lines_heal(crashed: Crashed, lost: int) -> None:
    """The lines behind them were never acknowledged, and do not come to life."""
    tail = crashed.data[crashed.synced :]
    ends = [len(text) for text in tail.splitlines(keepends=True)]
    gone = sum(ends[:lost])
    crashed.leave(b"\0" * gone + tail[gone:])
    verify_healed(crashed, ACKNOWLEDGED)


def test_nuls_over_half_a_line_before_intact_lines_heal(crashed: Crashed) -> None:
    tail = crashed.data[crashed.synced :]
    crashed.leave(b"\0" * 300 + tail[300:])
    verify_healed(crashed, ACKNOWLEDGED)


def _foreign_lines(crashed: Crashed, track: str, broadcast: str) -> bytes:
    with crashed.archive.writer(broadcast, clock=crashed.clock) as writer:
        for number in range(200, 230):
            writer.commit([group(number, track=track)])
    (path,) = segments(journal_directory(crashed.archive, broadcast, track))
    with open(path, "rb") as file:
        # With the greatest commit numbers, and claims to have much synced before them.
        return b"".join(file.read().splitlines(keepends=True)[-8:])


def test_stale_lines_of_another_journal_heal(crashed: Crashed) -> None:
    stale = _foreign_lines(crashed, TRACK, "other")
    crashed.leave(stale)
    lines, faults = read_journal(crashed.directory)
    assert faults == []
    assert sequences(lines) == ACKNOWLEDGED


def test_stale_lines_of_another_journal_before_intact_lines_heal(crashed: Crashed) -> None:
    stale = _foreign_lines(crashed, TRACK, "other")
    tail = crashed.data[crashed.synced :]
    first = len(tail.splitlines(keepends=True)[0])
    crashed.leave(stale[-first:] + tail[first:])
    lines, faults = read_journal(crashed.directory)
    assert faults == []
    assert sequences(lines) == ACKNOWLEDGED
    crashed.go_on()
    assert sequences(read_journal(crashed.directory)[0]) == [*ACKNOWLEDGED, 100, 101]
    assert check(crashed.archive).sound


def test_stale_lines_of_the_same_journal_heal(crashed: Crashed) -> None:
    """A block of an earlier segment of this very track, which was retired meanwhile."""
    earlier = crashed.data[: crashed.synced].splitlines(keepends=True)
    crashed.go_on()
    last = segments(crashed.directory)[-1]
    synced = os.path.getsize(last)
    with open(last, "ab") as file:
        file.write(b"".join(earlier))
    lines, faults = read_journal(crashed.directory)
    assert faults == []
    assert sequences(lines) == [0, 1, 2, 3, 4, 5, 6, 100, 101]
    crashed.clock.now += 1
    with crashed.archive.writer(BROADCAST, clock=crashed.clock) as writer:
        writer.commit([group(102)])
    lines, faults = read_journal(crashed.directory)
    assert faults == []
    assert sequences(lines)[-1] == 102
    header = [line.record for line in lines if isinstance(line.record, SegmentRecord)][-1]
    assert header.continues is not None
    assert header.continues.offset == synced
    assert check(crashed.archive).sound


def test_a_segment_whose_creation_was_torn_is_passed_over(crashed: Crashed) -> None:
    torn = os.path.join(crashed.directory, "2026-11-22.001.jsonl")
    for content in (b"", b"\0" * 512, b'{"kind":"segment","v":1'):
        with open(torn, "wb") as file:
            file.write(content)
        lines, faults = read_journal(crashed.directory)
        assert faults == []
        assert sequences(lines) == [0, 1, 2, 3, 4, 5, 6]
    crashed.go_on()
    assert os.path.exists(torn)
    lines, faults = read_journal(crashed.directory)
    assert faults == []
    assert sequences(lines) == [0, 1, 2, 3, 4, 5, 6, 100, 101]
    assert check(crashed.archive).sound


def test_what_lies_behind_the_place_of_continuation_stays_dead(crashed: Crashed) -> None:
    """Unacknowledged lines that were torn apart: the intact ones must not come back later."""
    tail = crashed.data[crashed.synced :]
    first = len(tail.splitlines(keepends=True)[0])
    crashed.leave(b"\0" * first + tail[first:])
    crashed.go_on()
    # Not even when the damage that had hidden them is gone.
    crashed.leave(tail)
    assert sequences(read_journal(crashed.directory)[0]) == [*ACKNOWLEDGED, 100, 101]
    assert check(crashed.archive).sound


def test_many_crashes_in_a_row_keep_the_order(tmp_path: Path) -> None:
    archive, clock = make_archive(tmp_path), Clock()
    directory = journal_directory(archive, BROADCAST, TRACK)
    for number in range(6):
        writer = archive.writer(BROADCAST, clock=clock)
        writer.__enter__()
        writer.commit([group(number)])
        crash(writer)
        with open(segments(directory)[-1], "ab") as file:
            file.write(b'{"kind":"gr' if number % 2 else b"\0" * 700)
    lines, faults = read_journal(directory)
    assert faults == []
    assert sequences(lines) == list(range(6))
    assert len(segments(directory)) == 6
    assert check(archive).sound
    lost = [type(line.record).__name__ for line in _broadcast_lines(archive)]
    assert lost.count("LostSessionRecord") == 5


def _broadcast_lines(archive: Archive) -> list[Line]:
    return read_journal(journal_directory(archive, BROADCAST, "@broadcast"))[0]


def test_damage_before_a_torn_tail_is_still_damage(crashed: Crashed) -> None:
    lines, _ = read_journal(crashed.directory)
    flip_bit(crashed.path, lines[2].offset + 30)
    crashed_size = os.path.getsize(crashed.path)
    os.truncate(crashed.path, crashed_size - 10)
    read, faults = read_journal(crashed.directory)
    assert [(fault.offset, fault.end) for fault in faults] == [(lines[2].offset, lines[2].end)]
    assert sequences(read) == [0, 2, 3, 4, 5]
