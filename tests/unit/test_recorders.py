"""What recorders report, and what of it is believed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.cli.program import run
from casfs.cli.status import render
from casfs.errors import WriterLockedError
from casfs.filesystems import filesystem_of
from casfs.outlook import look
from casfs.recorders import (
    RECORDERS,
    Remembered,
    SupervisedReport,
    SupervisorReport,
    is_recorded,
    is_supervised,
    lock_supervisor,
    read_remembered,
    read_reports,
    sweep_reports,
    write_remembered,
    write_report,
    write_supervisor_report,
)
from tests.fakes.reports import report
from tests.fakes.store import NOON, Clock, make_archive

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive

SECOND = 10**9


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


def test_a_report_tells_rates_of_the_last_minute() -> None:
    made = report(groups=7)
    assert (made.groups, made.bitrate, made.new_bitrate) == (7, 800.0, 400.0)
    assert made.tracks["video0.m4s"].last_sequence == 6
    assert made.last_group == made.tracks["video0.m4s"].last_group is not None


def test_a_report_is_believed_while_the_lock_is_held_and_no_longer(archive: Archive) -> None:
    roots = archive.roots
    write_report(roots, archive.directory_of("demo/tv"), report())
    with archive.writer("demo/tv", clock=Clock()):
        assert is_recorded(roots, archive.directory_of("demo/tv"))
        (item,) = look(roots, clock=lambda: NOON).recorders
        assert (item.running, item.late) == (True, 0)
        (item,) = look(roots, clock=lambda: NOON + 90 * SECOND).recorders
        assert item.late == 60
        sweep_reports(roots)
        assert read_reports(roots)
    (item,) = look(roots, clock=lambda: NOON).recorders
    assert not item.running
    sweep_reports(roots)
    assert not read_reports(roots)


def test_asking_whether_a_broadcast_is_recorded_keeps_no_recorder_out(archive: Archive) -> None:
    directory = archive.directory_of("demo/tv")
    code = (
        "import sys; from casfs.recorders import is_recorded; from casfs.roots import Roots\n"
        f"roots = Roots(cas={archive.roots.cas!r}, manifests={archive.roots.manifests!r})\n"
        f"print(flush=True)\nwhile True: is_recorded(roots, {directory!r})"
    )
    with archive.writer("demo/tv", clock=Clock()):
        pass
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        try:
            for _ in range(10):
                with archive.writer("demo/tv", clock=Clock()):
                    pass
        finally:
            asking.kill()


def test_only_one_supervisor_runs(archive: Archive) -> None:
    assert not is_supervised(archive.roots)
    with lock_supervisor(archive.roots):
        assert is_supervised(archive.roots)
        with (
            pytest.raises(WriterLockedError, match="another supervisor"),
            lock_supervisor(archive.roots),
        ):
            pass
    assert not is_supervised(archive.roots)


def test_what_is_remembered_is_for_our_eyes_alone(archive: Archive) -> None:
    assert read_remembered(archive.roots) == []
    recordings = [Remembered("demo/tv", "https://r.example/", ("t",))]
    write_remembered(archive.roots, recordings)
    assert read_remembered(archive.roots) == recordings
    path = os.path.join(archive.roots.manifests, RECORDERS, "@recording.json")
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_damaged_reports_are_no_reports(archive: Archive) -> None:
    directory = os.path.join(archive.roots.manifests, RECORDERS)
    os.makedirs(directory)
    for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", "\xff"), ("d", "{}")):
        with open(os.path.join(directory, name), "w", encoding="latin-1") as file:
            file.write(text)
    assert read_reports(archive.roots) == {}


def test_status_says_what_is_amiss(
    archive: Archive, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    write_report(archive.roots, "demo", report("demo"))
    write_supervisor_report(
        archive.roots,
        SupervisorReport(pid=1, host="h", since="", updated="", status="", room="low", min_free=5),
    )
    flags = ["--cas-root", archive.roots.cas, "--manifest-root", archive.roots.manifests]
    assert run(["status", *flags]) == 0
    said = capfdbinary.readouterr().out.decode()
    assert "its recorder" in said
    assert "the supervisor 1 is gone" in said
    assert run(["status", "--json", *flags]) == 0
    told = msgspec.json.decode(capfdbinary.readouterr().out)
    assert told["recorders"][0]["running"] is False
    assert [disk["root"] for disk in told["disks"]] == ["cas", "manifests"]


def test_status_says_of_every_broadcast_without_a_report_why(archive: Archive) -> None:
    from rich.console import Console

    phases = {"a": "recording", "b": "stopping", "c": "waiting"}
    write_supervisor_report(
        archive.roots,
        SupervisorReport(
            pid=1,
            host="h",
            since="",
            updated="",
            status="",
            room="ample",
            min_free=5,
            broadcasts=[
                SupervisedReport(
                    broadcast=name,
                    phase=phase,
                    listed=True,
                    pid=None,
                    restarts=0,
                    waiting_for="disk space is short" if phase == "waiting" else "",
                )
                for name, phase in phases.items()
            ],
        ),
    )
    console = Console(record=True, width=200, file=io.StringIO())
    with lock_supervisor(archive.roots):
        console.print(render(look(archive.roots), NOON))
    said = [line.strip() for line in console.export_text().splitlines()]
    for line in ("a: its recorder starts", "b: its recorder ends", "c: disk space is short"):
        assert line in said


def test_names_in_reports_do_not_steer_the_terminal(archive: Archive) -> None:
    from rich.console import Console

    write_report(archive.roots, "odd", report("\x1b[2Jodd"))
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(render(look(archive.roots), NOON))
    assert "\x1b[2J" not in console.export_text()


def test_the_filesystem_of_a_path_is_that_of_its_innermost_mount(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        "2 1 0:5 / /pool rw shared:1 - zfs pool rw\n"
        "3 2 0:6 / /pool/far\\040away rw - nfs4 host:/x rw\n"
        "4 1 0:7 / /poolside rw - cifs //h/x rw\n"
    )
    for path, kind in (
        ("/x", "ext4"),
        ("/pool/cas", "zfs"),
        ("/pool/far away/cas", "nfs4"),
        ("/poolside", "cifs"),
        ("/poolsides", "ext4"),
    ):
        assert filesystem_of(path, str(table)) == kind
    assert filesystem_of(str(tmp_path))


def test_init_refuses_a_network_filesystem_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("casfs.cli.init.filesystem_of", lambda _path: "nfs4")
    roots = ["--cas-root", str(tmp_path / "c"), "--manifest-root", str(tmp_path / "m")]
    assert run(["init", *roots]) == 2
    assert not (tmp_path / "c").exists()
    assert run(["init", "--on-network-filesystem", *roots]) == 0
    assert "lies on nfs4" in capfd.readouterr().err
