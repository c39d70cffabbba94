"""``casfs verify`` as it is typed: its options, what it says, and its exit codes."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import click
import msgspec
import pytest
from msgspec import Struct

from casfs.cli.program import run
from casfs.cli.quantities import Share, Size
from casfs.cli.verify import ProgressText
from casfs.verify import Progress
from tests.fakes.store import (
    Clock,
    check,
    flip_bit,
    group,
    journal_directory,
    make_archive,
    object_file,
    segments,
)

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive

COUNT = 20


class Said(Struct, frozen=True):
    """Some members of the JSON report."""

    sound: bool
    complete: bool
    objects: int
    skipped: int


class Program:
    """Runs ``casfs verify`` on an archive."""

    def __init__(self, archive: Archive, output: pytest.CaptureFixture[bytes]) -> None:
        self.archive = archive
        self._output = output
        self.out = b""
        self.err = b""

    def verify(self, *arguments: str, code: int = 0) -> bytes:
        self._output.readouterr()
        assert run(["verify", *arguments]) == code
        self.out, self.err = self._output.readouterr()
        return self.out

    def json(self, *arguments: str, code: int = 0) -> Said:
        return msgspec.json.decode(self.verify("--json", *arguments, code=code), type=Said)


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Program:
    archive = make_archive(tmp_path / "archive")
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit([group(number) for number in range(COUNT)])
    monkeypatch.setenv("CASFS_CAS_ROOT", archive.roots.cas)
    monkeypatch.setenv("CASFS_MANIFEST_ROOT", archive.roots.manifests)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Program(archive, capsysbinary)


def test_what_was_sound_is_remembered_from_run_to_run(program: Program, tmp_path: Path) -> None:
    assert program.json().objects == COUNT
    assert (tmp_path / "state" / "casfs" / program.archive.store_id).is_dir()
    said = program.json("--max-age", "30d")
    assert (said.objects, said.skipped) == (0, COUNT)
    elsewhere = ("--state-dir", str(tmp_path / "elsewhere"))
    assert program.json("--max-age", "30d", *elsewhere).objects == COUNT
    assert program.json("--max-age", "30d", *elsewhere).objects == 0


def test_nothing_of_it_lies_in_the_roots(program: Program) -> None:
    def files() -> set[str]:
        return {
            os.path.join(directory, name)
            for root in (program.archive.roots.cas, program.archive.roots.manifests)
            for directory, _, names in os.walk(root)
            for name in names
        }

    before = files()
    program.verify("--max-age", "1d", "--max-duration", "1h")
    assert files() == before


def test_a_run_that_its_time_stopped_is_no_failure(program: Program) -> None:
    said = program.json("--max-duration", "0.000001")
    assert (said.sound, said.complete, said.objects) == (True, False, 1)
    program.verify("--max-duration", "0.000001")
    assert b"not complete" in program.out
    assert b"the archive is sound" not in program.out


def test_every_way_to_choose_is_understood(program: Program) -> None:
    assert program.json("--quick").objects == COUNT
    assert program.json("--manifests").objects == 0
    assert program.json("--broadcast", "news", "--since", "2026-11-22T00:00Z").objects == COUNT
    assert program.json("--until", "2026-11-22T00:00Z").objects == 0
    assert 0 <= program.json("--sample", "5%").objects < COUNT
    assert program.json("--from-disk", "--bwlimit", "50M", "--threads", "3").objects == COUNT
    program.verify("--quick")
    assert b"20 objects looked up" in program.out
    program.verify("--manifests")
    assert b"manifests read" in program.out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--quick", "--manifests"], 2),
        (["--quick", "--from-disk"], 2),
        (["--sample", "120%"], 2),
        (["--bwlimit", "fast"], 2),
        (["--broadcast", "nobody"], 4),
        (["--repair-from", "/nowhere"], 5),
    ],
)
def test_what_it_refuses(program: Program, arguments: list[str], code: int) -> None:
    program.verify(*arguments, code=code)
    assert program.out == b""
    assert program.err.count(b"\n") == 1


def test_a_state_directory_that_cannot_be_used_is_an_error_if_it_was_named(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    program.verify("--state-dir", str(blocked), code=7)
    monkeypatch.setenv("STATE_DIRECTORY", str(blocked))
    program.verify("--max-age", "1d", code=7)
    assert program.json().sound


def test_the_report_is_written_to_a_file_too(program: Program, tmp_path: Path) -> None:
    flip_bit(object_file(program.archive, group(1)), 1)
    target = tmp_path / "report.json"
    target.write_text("an old one")
    program.verify("--report", str(target), code=3)
    assert b"damaged" in program.out
    assert not msgspec.json.decode(target.read_bytes(), type=Said).sound
    assert program.verify("--json", "--report", str(target), code=3) == target.read_bytes()
    program.verify("--report", str(tmp_path / "no" / "where"), code=7)
    assert b"writing the report" in program.err


def test_findings_are_mended_and_said(program: Program, tmp_path: Path) -> None:
    archive = program.archive
    backup = tmp_path / "backup"
    shutil.copytree(archive.roots.cas, backup)
    flip_bit(object_file(archive, group(1)), 1)
    os.unlink(object_file(archive, group(2)))
    program.verify(code=3)
    assert b"2 finding(s)" in program.err
    assert b"nothing was changed" in program.err
    program.verify("--quarantine", "--repair-from", str(backup))
    assert b"moved to .casfs/quarantine/" in program.out
    assert program.out.count(b"repaired  ") == 2
    assert check(archive).sound


def test_what_could_not_be_mended_is_said(program: Program, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    shutil.copytree(program.archive.roots.cas, backup)
    for root in (program.archive.roots.cas, str(backup)):
        path = object_file(program.archive, group(1))
        os.unlink(os.path.join(root, os.path.relpath(path, program.archive.roots.cas)))
    os.unlink(object_file(program.archive, group(2)))
    program.verify("--repair-from", str(backup), code=3)
    assert b"unmended  " in program.out
    assert b"1 finding(s)" in program.err
    assert b"nothing was changed" not in program.err


def test_a_manifest_error_is_said(program: Program) -> None:
    (path,) = segments(journal_directory(program.archive, "news", "video0.m4s"))
    flip_bit(path, 50)
    program.verify("--manifests", code=3)
    assert b"manifest  news/video0.m4s/" in program.out


def test_progress_tells_rate_and_what_is_left() -> None:
    progress = Progress(lines=7)
    text = ProgressText(progress)
    assert text() == "manifests: 7 lines, 0 findings"
    progress.stage = "objects"
    assert text().startswith("objects: 0%, 0 objects")
    progress.due, progress.shards, progress.bytes, progress.findings = 100, 50, 10**6, 2
    said = text()
    assert said.startswith("objects: 50%")
    assert "MB/s, about " in said
    assert said.endswith("s left, 2 findings")
    # The shards that are not due pass at the end.
    progress.shards = 256
    assert text().startswith("objects: 100%")


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65536), ("500K", 5e5), ("50M", 5e7), ("2GB", 2e9), ("1.5k", 1500)]
)
def test_a_size_is_read(text: str, size: float) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "M", "0", "-5M", "5X", "nan", "inf"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Size().convert(text, None, None)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("100%", 1), ("1", 1)])
def test_a_share_is_read(text: str, share: float) -> None:
    assert Share().convert(text, None, None) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "0", "0%", "101%", "-1%", "half", "nan"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Share().convert(text, None, None)
