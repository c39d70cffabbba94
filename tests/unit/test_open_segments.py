"""Whoever reads a journal and stops before its end leaves no segment open."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.admission import next_broadcast_number
from casfs.collect import collect
from casfs.errors import UnsupportedFormatError
from casfs.export.manifest import Span
from casfs.export.selection import Commits, Selection
from casfs.index.index import Index, IndexFault
from casfs.index.mirror import catch_up_journal
from casfs.manifests.chain import JournalReader
from casfs.manifests.layout import JournalPlace
from casfs.manifests.locate import find_line, lines_from
from casfs.manifests.record import GroupRecord, Record, encode_line
from casfs.timestamps import HOUR
from tests.fakes.store import (
    NOON,
    Clock,
    group,
    journal_directory,
    make_archive,
    read_journal,
    segments,
)

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive

TV, TRACK = "news", "video0.m4s"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = make_archive(tmp_path)
    with archive.writer(TV, clock=Clock()) as writer:
        writer.commit([group(number) for number in range(20)])
    return archive


def open_segments(archive: Archive) -> list[str]:
    """Return the segments of this archive that this process has open."""
    names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    targets = [os.readlink(name) for name in names if os.path.lexists(name)]
    root = os.path.realpath(archive.roots.manifests)
    return [name for name in targets if name.startswith(root) and name.endswith(".jsonl")]


def test_an_iteration_that_is_closed_closes_its_segment(archive: Archive) -> None:
    directory = journal_directory(archive, TV, TRACK)
    for items in (iter(JournalReader(directory)), lines_from(directory, 3)):
        next(items)
        assert len(open_segments(archive)) == 1
        items.close()
        assert open_segments(archive) == []


def test_a_line_is_found_with_nothing_left_open(archive: Archive) -> None:
    assert find_line(journal_directory(archive, TV, TRACK), 4) is not None
    assert open_segments(archive) == []


def test_lines_of_a_selection_close_what_they_read(archive: Archive) -> None:
    with contextlib.closing(archive.reader()) as reader:
        selection = Selection(archive, reader, Span(TV, ()))
        (track,) = selection.tracks()
        lines = selection.lines(track, Commits(1, 1 << 40, 20))
        next(lines)
        assert len(open_segments(archive)) == 1
        lines.close()
        assert open_segments(archive) == []


def test_an_index_that_fails_leaves_nothing_open(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **_members: object) -> bool:
        raise IndexFault("no space")

    monkeypatch.setattr(Index, "apply", fail)
    monkeypatch.setattr("casfs.index.mirror._LINES", 5)
    place = JournalPlace(*journal_directory(archive, TV, TRACK).split("/")[-2:])
    with contextlib.closing(Index.temporary(archive.store_id)) as index:
        with pytest.raises(IndexFault) as caught:
            catch_up_journal(index, archive.roots.manifests, place, sync=False)
        # As long as somebody has the error, its frames live.
        assert caught.value.__traceback__ is not None
        assert open_segments(archive) == []


def test_a_collection_that_is_refused_leaves_nothing_open(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = journal_directory(archive, TV, TRACK)
    lines, _ = read_journal(directory)
    last, record = lines[-1], lines[-1].record
    assert isinstance(record, GroupRecord)
    odd: Record = msgspec.structs.replace(record, sequence="seven")
    text, _ = encode_line(odd, offset=last.end, synced=last.end, prev=last.sum)
    with open(os.path.join(directory, segments(directory)[-1]), "ab") as file:
        file.write(text)
    with archive.writer(TV, clock=Clock(NOON + HOUR)) as writer:
        writer.commit([group(30)])
    monkeypatch.setattr("casfs.collect._LINES", len(lines) + 1)
    with pytest.raises(UnsupportedFormatError) as caught:
        collect(archive, grace=0, act=True)
    assert caught.value.__traceback__ is not None
    assert open_segments(archive) == []


def test_a_number_is_given_with_nothing_left_open(archive: Archive) -> None:
    """Also where the first line of each journal is damaged, and lines are searched."""
    broadcast = os.path.dirname(journal_directory(archive, TV, TRACK))
    for journal in os.listdir(broadcast):
        directory = os.path.join(broadcast, journal)
        if not os.path.isdir(directory):
            continue
        path = os.path.join(directory, segments(directory)[0])
        with open(path, "r+b") as file:
            file.seek(20)
            file.write(b"#")
    with next_broadcast_number(archive.roots) as number:
        assert number == 2
        assert open_segments(archive) == []
