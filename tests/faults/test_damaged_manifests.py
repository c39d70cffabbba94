"""Damage in what was synced: found exactly there, reported, and never spreading further."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from casfs.errors import ForeignRootError
from casfs.manifests.chain import JournalReader
from casfs.manifests.record import Line, parse_line
from casfs.timestamps import DAY
from tests.fakes.store import (
    Clock,
    check,
    contents,
    flip_bit,
    group,
    journal_directory,
    known,
    make_archive,
    read_journal,
    segments,
    sequences,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from casfs.archive import Archive

BROADCAST, TRACK = "news", "video0.m4s"


class Journal:
    """A track with three segments of four lines each (the first its header), cleanly stopped."""

    def __init__(self, directory: Path) -> None:
        self.archive: Archive = make_archive(directory)
        self.clock = Clock()
        for day in range(3):
            with self.archive.writer(BROADCAST, clock=self.clock) as writer:
                for number in range(3):
                    writer.commit([group(day * 3 + number)])
            self.clock.now += DAY
        self.clock.now -= DAY
        self.directory = journal_directory(self.archive, BROADCAST, TRACK)
        self.paths = segments(self.directory)
        assert len(self.paths) == 3

    def lines(self, segment: int) -> list[bytes]:
        with open(self.paths[segment], "rb") as file:
            return file.read().splitlines(keepends=True)

    def write(self, segment: int, lines: list[bytes]) -> None:
        with open(self.paths[segment], "wb") as file:
            file.write(b"".join(lines))

    def offset(self, segment: int, line: int) -> int:
        return sum(map(len, self.lines(segment)[:line]))

    def errors(self) -> list[tuple[str, int, int]]:
        """Return (segment, offset, end) of each manifest error that verify reports."""
        report = check(self.archive)
        assert report.sound is not bool(report.manifest_errors)
        assert all(error.journal == f"{BROADCAST}/{TRACK}" for error in report.manifest_errors)
        return [(error.segment, error.offset, error.end) for error in report.manifest_errors]

    def name(self, segment: int) -> str:
        return os.path.basename(self.paths[segment])

    def read(self) -> list[int]:
        return sequences(read_journal(self.directory)[0])

    def listed(self) -> list[int]:
        return sorted(item.sequence for item in contents(self.archive))

    def record_more(self) -> None:
        with self.archive.writer(BROADCAST, clock=self.clock) as writer:
            writer.commit([group(100)])
            writer.commit([group(101)])


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def test_an_undamaged_journal_is_sound(journal: Journal) -> None:
    assert journal.errors() == []
    assert journal.read() == journal.listed() == list(range(9))


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("line", [0, 1, 2, 3])
@pytest.mark.parametrize("where", ["start", "middle", "sum", "newline"])
def test_a_flipped_bit_is_reported_at_its_line(
    journal: Journal, segment: int, line: int, where: str
) -> None:
    start, end = journal.offset(segment, line), journal.offset(segment, line + 1)
    at = {"start": start, "middle": (start + end) // 2, "sum": end - 10, "newline": end - 1}[where]
    flip_bit(journal.paths[segment], at)
    assert journal.errors() == [(journal.name(segment), start, end)]
    gone = {segment * 3 + line - 1} if line else set()
    assert journal.read() == [number for number in range(9) if number not in gone]
    assert journal.listed() == journal.read()


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("line", [0, 1, 2, 3])
def test_a_writer_goes_on_behind_a_damaged_line_and_buries_none(
    journal: Journal, segment: int, line: int
) -> None:
    start, end = journal.offset(segment, line), journal.offset(segment, line + 1)
    flip_bit(journal.paths[segment], (start + end) // 2)
    before = journal.read()
    journal.record_more()
    assert journal.read() == [*before, 100, 101]
    assert journal.listed() == journal.read()
    # It is as visible as before: going on does not make it good.
    assert journal.errors() == [(journal.name(segment), start, end)]


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("line", [0, 1, 2])
def test_garbage_between_two_lines_is_reported_there(
    journal: Journal, segment: int, line: int
) -> None:
    lines = journal.lines(segment)
    at = journal.offset(segment, line + 1)
    journal.write(segment, [*lines[: line + 1], b"what is this?\n", *lines[line + 1 :]])
    assert journal.errors() == [(journal.name(segment), at, at + 14)]
    assert journal.read() == list(range(9))
    journal.record_more()
    assert journal.read() == [*range(9), 100, 101]


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_deleted_line_is_reported_where_it_was(journal: Journal, segment: int, line: int) -> None:
    lines = journal.lines(segment)
    at = journal.offset(segment, line)
    journal.write(segment, [*lines[:line], *lines[line + 1 :]])
    assert journal.errors() == [(journal.name(segment), at, at)]
    rest = [number for number in range(9) if line == 0 or number != segment * 3 + line - 1]
    assert journal.read() == journal.listed() == rest
    journal.record_more()
    assert journal.read() == [*rest, 100, 101]
    assert journal.errors() == [(journal.name(segment), at, at)]


@pytest.mark.parametrize("segment", [0, 1])
def test_a_deleted_last_line_shows_by_the_next_segment(journal: Journal, segment: int) -> None:
    lines = journal.lines(segment)
    at = journal.offset(segment, 3)
    journal.write(segment, lines[:-1])
    assert journal.errors() == [(journal.name(segment), at, at + len(lines[-1]))]
    assert journal.read() == [number for number in range(9) if number != segment * 3 + 2]


def test_a_deleted_very_last_line_shows_by_the_head(journal: Journal) -> None:
    lines = journal.lines(2)
    at = journal.offset(2, 3)
    journal.write(2, lines[:-1])
    assert journal.errors() == [(journal.name(2), at, at + len(lines[-1]))]
    assert journal.read() == list(range(8))
    # That is what an older copy of the manifests looks like: nobody may write to it.
    with pytest.raises(ForeignRootError):
        journal.record_more()


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_two_lines_that_changed_places_are_reported_there(journal: Journal, segment: int) -> None:
    lines = journal.lines(segment)
    begin, end = journal.offset(segment, 1), journal.offset(segment, 3)
    journal.write(segment, [lines[0], lines[2], lines[1], lines[3]])
    errors = journal.errors()
    assert errors[0] == (journal.name(segment), begin, begin)
    assert all(name == journal.name(segment) and at <= end for name, at, _ in errors)
    assert sorted(journal.read()) == journal.listed() == list(range(9))
    journal.record_more()
    assert journal.listed() == [*range(9), 100, 101]


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_line_that_stands_twice_is_reported_and_counts_once(
    journal: Journal, segment: int, line: int
) -> None:
    lines = journal.lines(segment)
    at = journal.offset(segment, line + 1)
    journal.write(segment, [*lines[: line + 1], lines[line], *lines[line + 1 :]])
    errors = journal.errors()
    # Behind the last acknowledged line of a segment it is no damage: nobody relies on what follows.
    assert errors == ([(journal.name(segment), at, at)] if line < 3 else [])
    assert journal.listed() == list(range(9))
    journal.record_more()
    assert journal.listed() == [*range(9), 100, 101]


@pytest.mark.parametrize("segment", [0, 1])
@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_segment_cut_short_is_reported_and_the_next_is_read(
    journal: Journal, segment: int, left: int
) -> None:
    size = os.path.getsize(journal.paths[segment])
    at = journal.offset(segment, left)
    os.truncate(journal.paths[segment], at + 7)
    errors = journal.errors()
    assert errors[0][:2] == (journal.name(segment), at)
    assert errors[-1] == (journal.name(segment), at + 7, size)
    gone = range(segment * 3 + max(0, left - 1), segment * 3 + 3)
    assert journal.read() == [number for number in range(9) if number not in gone]


@pytest.mark.parametrize("segment", [0, 1])
def test_a_missing_segment_is_reported_by_the_one_behind_it(journal: Journal, segment: int) -> None:
    os.unlink(journal.paths[segment])
    assert journal.errors() == [(journal.name(segment + 1), 0, 0)]
    rest = [number for number in range(9) if number // 3 != segment]
    assert journal.read() == journal.listed() == rest
    journal.record_more()
    assert journal.read() == [*rest, 100, 101]


def test_a_missing_last_segment_shows_by_the_head(journal: Journal) -> None:
    size = os.path.getsize(journal.paths[2])
    os.unlink(journal.paths[2])
    assert journal.errors() == [(journal.name(2), size, size)]
    assert journal.read() == list(range(6))
    with pytest.raises(ForeignRootError):
        journal.record_more()


def test_a_missing_track_shows_by_the_head(journal: Journal) -> None:
    for path in journal.paths:
        os.unlink(path)
    os.rmdir(journal.directory)
    assert [name for name, _, _ in journal.errors()] == [journal.name(2)]


def test_every_lost_journal_is_reported(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    with archive.writer(BROADCAST, clock=Clock()) as writer:
        for track in ("audio", "video", "text"):
            writer.commit([group(0, track=track)])
    for track in ("audio", "video"):
        for path in segments(journal_directory(archive, BROADCAST, track)):
            os.unlink(path)
    journals = {error.journal for error in check(archive).manifest_errors}
    assert journals == {f"{BROADCAST}/audio", f"{BROADCAST}/video"}


def test_damage_in_several_places_is_reported_in_each(journal: Journal) -> None:
    expected = []
    for segment, line in ((0, 1), (1, 0), (1, 2), (2, 2)):
        start, end = journal.offset(segment, line), journal.offset(segment, line + 1)
        expected.append((journal.name(segment), start, end))
    for name, start, _ in expected:
        flip_bit(os.path.join(journal.directory, name), start + 20)
    assert journal.errors() == expected
    assert journal.read() == [number for number in range(9) if number not in {0, 4, 7}]


def test_lines_of_another_journal_over_synced_lines_are_not_taken_for_its_own(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    other = journal.archive.writer("other", clock=journal.clock)
    with other as writer:
        for number in range(20):
            writer.commit([group(number, track=TRACK)])
    with open(segments(journal_directory(journal.archive, "other", TRACK))[0], "rb") as file:
        stale = file.read().splitlines(keepends=True)[3]
    lines = journal.lines(1)
    journal.write(1, [lines[0], stale, *lines[2:]])
    assert journal.errors()[0][:2] == (journal.name(1), journal.offset(1, 1))
    assert journal.read() == [number for number in range(9) if number != 3]


def test_a_head_that_names_other_lines_is_an_older_manifest(tmp_path: Path) -> None:
    """Same length, other history: recorded anew after the manifests were rolled back by hand."""
    one, other = Journal(tmp_path / "one"), Journal(tmp_path / "other")
    for mine, foreign in zip(one.paths, other.paths, strict=True):
        with open(foreign, "rb") as file:
            data = file.read()
        assert len(data) == os.path.getsize(mine)
        with open(mine, "wb") as file:
            file.write(data)
    assert not check(one.archive).sound
    with pytest.raises(ForeignRootError):
        one.record_more()


def test_a_damaged_head_is_a_finding_and_the_rest_is_still_verified(journal: Journal) -> None:
    cas = journal.archive.roots.cas
    with open(os.path.join(cas, ".casfs/heads", f"{BROADCAST}.json"), "wb") as file:
        file.write(b"{")
    report = check(journal.archive)
    assert [error.journal for error in report.manifest_errors] == [BROADCAST]
    assert report.objects == 9
    assert not report.sound


def test_lost_heads_are_a_finding(journal: Journal) -> None:
    heads = os.path.join(journal.archive.roots.cas, ".casfs/heads")
    for name in os.listdir(heads):
        os.unlink(os.path.join(heads, name))
    os.rmdir(heads)
    report = check(journal.archive)
    assert [error.segment for error in report.manifest_errors] == [".casfs/heads"]
    assert report.objects == 9


@pytest.mark.parametrize("damage", [lambda size: b"\0" * size, os.urandom])
def test_a_block_lost_in_the_middle_costs_only_the_lines_in_it(
    tmp_path: Path, damage: Callable[[int], bytes]
) -> None:
    archive = make_archive(tmp_path)
    with archive.writer(BROADCAST, clock=Clock()) as writer:
        for number in range(40):
            writer.commit([group(number)])
    directory = journal_directory(archive, BROADCAST, TRACK)
    (path,) = segments(directory)
    with open(path, "r+b") as file:
        data = file.read()
        file.seek(4096)
        file.write(damage(4096))
    with open(path, "rb") as file:
        left = file.read()
    intact: list[int] = []
    offset = 0
    for line in data.splitlines(keepends=True):
        end = offset + len(line)
        if end <= 4096 or offset >= 8192:
            assert left[offset:end] == line
            parsed = parse_line(line[:-1], offset)
            assert parsed is not None
            intact += sequences([parsed])
        offset = end
    assert 30 <= len(intact) < 40
    assert sequences(read_journal(directory)[0]) == intact
    (error,) = check(archive).manifest_errors
    assert error.offset <= 4096 < 8192 <= error.end
    assert {item.sequence for item in contents(archive)} == set(intact)


def test_the_lines_that_are_left_still_chain_for_a_follower(journal: Journal) -> None:
    """A mirror that stands before the damage goes on behind it."""
    lines, _ = read_journal(journal.directory)
    second = next(line for line in lines if sequences([line]) == [1])
    flip_bit(journal.paths[1], journal.offset(1, 0) + 30)
    reader = JournalReader(journal.directory)
    position = None
    for item in reader:
        if item == second:
            position = reader.position
            break
    assert position is not None
    following = list(JournalReader(journal.directory, since=position))
    assert sequences([item for item in following if isinstance(item, Line)]) == list(range(2, 9))


def test_everything_known_before_is_known_after(journal: Journal) -> None:
    """Damage to manifests never touches what other tracks hold."""
    with journal.archive.writer(BROADCAST, clock=journal.clock) as writer:
        other = group(5, track="audio0.m4s")
        writer.commit([other])
    flip_bit(journal.paths[0], 40)
    assert known(other) in contents(journal.archive)
