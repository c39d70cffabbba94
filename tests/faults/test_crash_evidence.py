"""tools/crash keeps what is left of a round that went wrong, and tells apart whose fault it was."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs.roots import Roots, create
from tools.crashes import disk as disks
from tools.crashes import power as cutting
from tools.crashes import recording as recordings
from tools.crashes.disk import Disk, HeldError, UnavailableError
from tools.crashes.evidence import Evidence
from tools.crashes.power import VARIANTS, power
from tools.crashes.promises import DURABLE, UNFINISHED, Violation
from tools.crashes.recording import Recording
from tools.crashes.results import found_in, judged

if TYPE_CHECKING:
    from pathlib import Path


def test_all_that_is_left_of_a_round_that_went_wrong_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = Violation(DURABLE, "news0: 1 of 9 acknowledged groups are not found")
    monkeypatch.setattr(cutting, "violations", lambda *_: [lost])
    evidence = Evidence(tmp_path)
    try:
        (row,) = power(["ext4"], 1, 7, VARIANTS[:1], evidence=evidence)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert not row.passed
    assert row.verdict.startswith("1 promises broken")
    assert evidence.directory is not None
    (case,) = evidence.directory.iterdir()
    assert str(case) in capsys.readouterr().err
    assert lost.what in (case / "found.txt").read_text()
    account = (case / "account.txt").read_text()
    assert "> recording" in account
    assert "ended with 7" in account
    assert (case / "disk0.left").stat().st_size > 0
    assert list((case / "disk0.found" / "manifests" / "news0").iterdir())


def test_a_writer_that_is_not_heard_of_in_time_has_broken_no_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = Roots.of(str(tmp_path / "cas"), str(tmp_path / "manifests"))
    create(roots)
    monkeypatch.setattr(recordings, "MOST_SECONDS", 0.2)
    with Recording(roots, "--stepwise") as recording:
        while recording.read():
            pass
        recording.finish()
    assert recording.late
    assert "did not end within" in recording.whole_account()
    late, broken = Violation(UNFINISHED, "hung"), Violation(DURABLE, "lost")
    assert judged(found_in(1, [late]), "well") == "1 could not finish in time"
    assert judged(found_in(1, [late, broken]), "well").startswith("1 promises broken, 1 could not")
    assert judged([], "well") == "well"


def test_a_filesystem_that_lives_on_elsewhere_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "_RELEASE_SECONDS", 0.1)
    try:
        disk = Disk(tmp_path / "disk", "ext4")
        with disk:
            # As a container does that begins meanwhile.
            command = ["unshare", "--mount", "--propagation", "private", "cat"]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as holder:
                assert holder.stdin is not None
                assert holder.stdout is not None
                holder.stdin.write("ready\n")
                holder.stdin.flush()
                assert holder.stdout.readline() == "ready\n"
                disk.cut()
                with pytest.raises(HeldError, match=f"process {holder.pid}, cat"):
                    disk.unmount()
    except UnavailableError as error:
        pytest.skip(str(error))
