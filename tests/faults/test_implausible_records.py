"""Lines with right sums that cannot be meant: skipped, told of, and nothing is lost around them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.archive import Run
from casfs.cli.program import run
from casfs.collect import collect
from casfs.errors import UnsupportedFormatError
from casfs.export.files import export_files
from casfs.export.manifest import Span
from casfs.index import ahead
from casfs.index.mirror import rebuild
from casfs.manifests.plausible import check_sequence, implausible
from casfs.manifests.record import GroupRecord, Record, encode_line
from casfs.names import encode_name
from casfs.timestamps import HOUR
from casfs.verify import verify
from tests.fakes.store import (
    NOON,
    Clock,
    Known,
    contents,
    group,
    journal_directory,
    known,
    make_archive,
    read_journal,
    segments,
)

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive

ODD: list[dict[str, object]] = [
    {"sequence": str(1 << 62)},
    {"sequence": str(1 << 80)},
    {"sequence": "-1"},
    {"sequence": "seven"},
    {"n": 1 << 70},
    {"epoch": -(1 << 64)},
    {"size": 1 << 63},
    {"hash": "no digest"},
    {"init": "zz" * 32},
    {"blocks": ["ab"]},
    {"received_start": "yesterday"},
    {"time": "soon", "received_end": "later"},
    {"received_start": "9999-01-01T00:00:00.000000000Z"},
]
ODD_RUNS: list[dict[str, object]] = [
    {"sequences": ["5", "6", str(1 << 62)]},
    {"sequences": ["-1", "6", "7"]},
    {"sequences": ["five", "6", "7"]},
    {"sequences": ["5", "7", "6"]},
    {"sequences": ["5", "5", "6"]},
    {"sizes": [1, 2, 3]},
    {"sizes": [-1, 1 << 63, 0]},
    {"hashes": ["no digest"] * 3},
    {"starts": [0, -1, 0]},
    {"starts": [0, 0, HOUR]},
    {"ends": [0, 0, 1 << 63]},
    {"n": 2},
    {"n": 1 << 70},
    {"epoch": 0},
    {"offset": (1 << 63) - 1},
    {"hash": "no digest"},
    {"init": "zz" * 32},
    {"received_start": "yesterday"},
    {"received_end": "later"},
]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


def append(archive: Archive, *changes: dict[str, object], broadcast: str = "news") -> None:
    """Append lines, each as the last one but for these members, as a foreign writer might."""
    directory = journal_directory(archive, encode_name(broadcast), "video0.m4s")
    lines, _ = read_journal(directory)
    last = lines[-1]
    meant = last.record
    assert isinstance(meant, GroupRecord)
    with open(os.path.join(directory, segments(directory)[-1]), "ab") as file:
        for change in changes:
            record: Record = msgspec.structs.replace(meant, **change)
            text, last = encode_line(record, offset=last.end, synced=last.end, prev=last.sum)
            file.write(text)


def append_run(archive: Archive, elsewhere: Path, change: dict[str, object]) -> None:
    """Append a run of sequences 5 to 7 to what stands, as a foreign writer might."""
    other = Run(tuple(group(number) for number in (5, 6, 7)))
    with make_archive(elsewhere).writer("news", clock=Clock()) as writer:
        (done,) = writer.commit([other])
    directory = journal_directory(archive, "news", "video0.m4s")
    lines, _ = read_journal(directory)
    last = lines[-1]
    changes = {"n": last.record.n + 3} | change
    record: Record = msgspec.structs.replace(done.record, **changes)
    text, _ = encode_line(record, offset=last.end, synced=last.end, prev=last.sum)
    with open(os.path.join(directory, segments(directory)[-1]), "ab") as file:
        file.write(text)


def prepare(archive: Archive, *odd: dict[str, object]) -> list[Known]:
    """Keep groups before and behind odd lines; return what is to be found."""
    groups = [group(0), group(1)]
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit(groups)
    lines, _ = read_journal(journal_directory(archive, "news", "video0.m4s"))
    n = lines[-1].record.n
    append(archive, *odd, {"sequence": "7", "n": n + 500})
    seven = msgspec.structs.replace(groups[1], sequence=7)
    return [known(item) for item in (*groups, seven)]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_implausible_line_is_left_out_and_the_rest_is_indexed(
    archive: Archive,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    odd: dict[str, object],
) -> None:
    expected = prepare(archive, odd)
    assert contents(archive, index=False) == expected
    mirror = archive.mirror()
    with caplog.at_level(logging.WARNING):
        mirror.step(None)
        mirror.step(None)
    assert mirror.trouble == ""
    mirror.close()
    assert [record.message.count("leaves out") for record in caplog.records] == [1]
    assert contents(archive) == expected
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    assert contents(archive) == expected
    # What another process reads ahead of a rebuild is told of just so.
    monkeypatch.setattr(ahead, "_WORTHWHILE_BYTES", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    assert [record.message.count("leaves out") for record in caplog.records] == [1]
    assert contents(archive) == expected


def test_verify_names_each_implausible_line(archive: Archive) -> None:
    prepare(archive, *ODD)
    report = verify(archive)
    assert not report.sound
    assert len(report.manifest_errors) == len(ODD)
    assert {error.journal for error in report.manifest_errors} == {"news/video0.m4s"}
    lines, _ = read_journal(journal_directory(archive, "news", "video0.m4s"))
    places = [(line.offset, line.end) for line in lines[-len(ODD) - 1 : -1]]
    assert [(error.offset, error.end) for error in report.manifest_errors] == places
    assert report.missing == []


@pytest.mark.parametrize("odd", [{"n": 1 << 70}, {"received_start": "yesterday"}], ids=str)
def test_an_export_passes_over_an_implausible_line_and_says_so(
    odd: dict[str, object], archive: Archive, tmp_path: Path
) -> None:
    prepare(archive, odd)
    exported = export_files(archive, Span("news"), str(tmp_path / "out"))
    assert exported.groups == 3
    assert exported.target.endswith("out.incomplete")
    (passed_over,) = exported.passed_over
    assert passed_over.track == "video0.m4s"
    assert "cannot be meant so" in passed_over.reason
    roots = ["--cas-root", archive.roots.cas, "--manifest-root", archive.roots.manifests]
    assert run(["export", "news", str(tmp_path / "again"), *roots]) == 3


def test_nothing_is_collected_beside_an_implausible_line(archive: Archive) -> None:
    """It may be what needs an object, by numbers that only its writer understands."""
    prepare(archive, {"sequence": str(1 << 62)})
    with pytest.raises(UnsupportedFormatError, match="cannot be meant"):
        collect(archive, grace=0, act=True)


def test_the_highest_sequence_is_plausible() -> None:
    assert check_sequence((1 << 62) - 1) == (1 << 62) - 1
    assert check_sequence(0) == 0


def test_every_record_of_a_writer_is_plausible(archive: Archive) -> None:
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit([group(0)])
        writer.note_epoch(2, "began again")
        writer.note_alive(connected=True, since=1)
        writer.seal_hours(-(1 << 50))
    for track in ("video0.m4s", "@broadcast"):
        lines, _ = read_journal(journal_directory(archive, "news", track))
        assert lines
        for line in lines:
            assert isinstance(line.record, Record)
            assert implausible(line.record) is None


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_the_next_writer_goes_on_behind_an_implausible_line(
    archive: Archive, odd: dict[str, object]
) -> None:
    expected = prepare(archive, odd)
    with archive.writer("news", clock=Clock(NOON + HOUR)) as writer:
        recent = writer.recent_groups()
        assert [int(kept.record.sequence) for kept in recent] == [0, 1, 7]
        writer.commit([group(8)])
    assert contents(archive) == [*expected, known(group(8))]


@pytest.mark.parametrize("odd", ODD_RUNS, ids=str)
def test_an_implausible_run_is_left_out_and_told_of(
    archive: Archive, tmp_path: Path, odd: dict[str, object]
) -> None:
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit([group(0)])
    append_run(archive, tmp_path / "elsewhere", odd)
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    assert contents(archive) == [known(group(0))]
    (error,) = verify(archive).manifest_errors
    assert "run record that cannot be meant" in error.reason
    with pytest.raises(UnsupportedFormatError, match="cannot be meant"):
        collect(archive, grace=0, act=True)
    with archive.writer("news", clock=Clock(NOON + HOUR)) as writer:
        assert [kept.record.sequence for kept in writer.recent_groups()] == ["0"]


@pytest.mark.parametrize("ends", [[0, 1, 2], [-5, -4, -3]])
def test_a_run_is_plausible_also_if_a_clock_was_set_back(
    archive: Archive, tmp_path: Path, ends: list[int]
) -> None:
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit([group(0)])
    append_run(archive, tmp_path / "elsewhere", {"ends": ends})
    assert [item.sequence for item in contents(archive)] == [0, 5, 6, 7]
    assert verify(archive).manifest_errors == []
