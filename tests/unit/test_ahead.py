"""A rebuild whose manifests another process reads: the same index, whatever befalls that one."""

from __future__ import annotations

import os
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest

from casfs.children import how_it_ended
from casfs.digest import BLOCK_BYTES
from casfs.index import ahead
from casfs.index import mirror as mirror_module
from casfs.index.ahead import PreparedBatch, ReadAhead, ReadAheadError
from casfs.index.mirror import rebuild
from tests.fakes.store import Clock, group, journal_directory, make_archive, segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from casfs.archive import Archive

GROUPS = ahead.LINES * 2 + 50
TABLES = ("journals", "groups", "blocks", "hours", "events", "expired")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    found = make_archive(tmp_path)
    with found.writer("news", clock=Clock()) as writer:
        writer.commit([group(0, complete=False), group(GROUPS, bytes(BLOCK_BYTES + 1))])
        writer.commit([group(number) for number in range(GROUPS)])
        writer.commit([group(number, track="audio") for number in range(3)])
    return found


@pytest.fixture(autouse=True)
def any_archive_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_WORTHWHILE_BYTES", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def rows(archive: Archive) -> dict[str, list[tuple[object, ...]]]:
    """Rebuild the index and return all that it holds."""
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    connection = sqlite3.connect(archive.index_path)
    try:
        return {
            table: sorted(connection.execute(f"select * from {table}"), key=repr)
            for table in TABLES
        }
    finally:
        connection.close()


def rows_read_in_process(archive: Archive) -> dict[str, list[tuple[object, ...]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "ReadAhead", _not_to_be_started)
        patch.setattr(ahead, "_WORTHWHILE_BYTES", 1 << 60)
        return rows(archive)


def _not_to_be_started() -> ReadAhead:
    raise AssertionError


def test_what_was_read_ahead_makes_the_same_index(
    archive: Archive, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rows_read_in_process(archive)
    assert len(expected["groups"]) == GROUPS + 5
    assert expected["blocks"]
    # Nothing may be read here.
    monkeypatch.setattr(mirror_module, "catch_up_journal", _not_to_be_started)
    assert rows(archive) == expected
    assert not caplog.records


def test_all_lines_are_durable_before_the_index_is_put_in_its_place(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = mirror_module._sync, os.rename

    def noted_sync(path: str) -> None:
        done.append(path)
        sync(path)

    def noted_rename(source: str, target: str) -> None:
        done.append(target)
        rename(source, target)

    monkeypatch.setattr(mirror_module, "_sync", noted_sync)
    monkeypatch.setattr(os, "rename", noted_rename)
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    *journals, index, place = done
    assert place == archive.index_path
    assert index.startswith(place)
    tracks = ("video0.m4s", "audio", "@broadcast")
    newest = [segments(journal_directory(archive, "news", track))[-1] for track in tracks]
    assert sorted(journals) == sorted(newest)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
@pytest.mark.parametrize("after", [0, 1])
def test_a_reading_process_that_dies_is_done_without(
    archive: Archive,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    after: int,
) -> None:
    class Dying(ReadAhead):
        def batches(self) -> Iterator[PreparedBatch]:
            for taken, batch in enumerate(super().batches()):
                if taken == after:
                    os.kill(self.pid, number)
                    raise ReadAheadError(how_it_ended(self._child.wait()))
                yield batch

    expected = rows_read_in_process(archive)
    monkeypatch.setattr(ahead, "ReadAhead", Dying)
    assert rows(archive) == expected
    assert f"ended by {number.name}" in caplog.text


def test_an_end_without_a_word_is_told_from_the_end_of_a_journal(archive: Archive) -> None:
    directory = journal_directory(archive, "news", "video0.m4s")
    with ReadAhead() as reading:
        os.kill(reading.pid, signal.SIGKILL)
        reading.ask(str(directory), None)
        with pytest.raises(ReadAheadError, match="was ended by SIGKILL"):
            list(reading.batches())


def test_a_process_that_cannot_be_started_is_done_without(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = rows_read_in_process(archive)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert rows(archive) == expected
    assert "can be started" in caplog.text


def test_a_journal_that_cannot_be_read_is_left_to_the_parent(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_text("no journal")
    with ReadAhead() as reading:
        for directory in (path, tmp_path / "nothing"):
            reading.ask(str(directory), None)
        with pytest.raises(ReadAheadError):
            list(reading.batches())
        assert list(reading.batches()) == []


def test_a_small_archive_is_read_in_process(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(ahead, "ReadAhead", _not_to_be_started)
    assert rows(archive)["groups"]
