"""tools/crash as a command: what it leaves behind, and what its exit code says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from tools.crashes import __main__ as command
from tools.crashes.disk import Disk, UnavailableError
from tools.crashes.recording import ROOT
from tools.crashes.results import Found, Row, as_table

if TYPE_CHECKING:
    from collections.abc import Iterator


def row(*, passed: bool) -> Row:
    return Row(
        campaign="power",
        subject="ext4, one writer",
        rounds=3,
        events=3,
        kept=60,
        found=() if passed else (Found(2, "name-is-content", "1 objects: ab"),),
        passed=passed,
        verdict="of interest",
        seconds=1.0,
    )


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_broken_promise_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    passed: bool,
) -> None:
    monkeypatch.setattr(sys, "argv", ["tools/crash", "power", "--rounds", "3", *options])
    monkeypatch.setattr(command, "power", lambda *_: iter([row(passed=True), row(passed=passed)]))
    monkeypatch.setattr(command, "end_on_signals", lambda: None)
    assert command.main() == (0 if passed else 1)
    captured = capsys.readouterr()
    assert ("name-is-content" in captured.out + captured.err) is not passed
    if options:
        assert msgspec.json.decode(captured.out)["passed"] is passed
    else:
        assert as_table([row(passed=True), row(passed=passed)]) in captured.out


def mounted_below(directory: Path) -> Iterator[str]:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        if line.split()[1].startswith(f"{directory}/"):
            yield line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_stays_mounted_after_an_interruption(
    tmp_path: Path, number: signal.Signals
) -> None:
    directory = tmp_path / "temporary"
    directory.mkdir()
    try:
        with Disk(tmp_path / "probe", "ext4"):
            pass
    except UnavailableError as error:
        pytest.skip(str(error))
    options = ["-m", "tools.crashes", "power", "--rounds", "1000", "--filesystem", "ext4"]
    process = subprocess.Popen(
        [sys.executable, "-P", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(directory)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert "1000 rounds" in process.stderr.readline()
        process.send_signal(number)
        assert "interrupted" in process.stderr.read()
    assert process.returncode == 128 + number
    assert list(mounted_below(directory)) == []
    assert list(directory.iterdir()) == []


def test_a_disk_is_freed_when_its_user_fails_even_after_a_cut(tmp_path: Path) -> None:
    def use() -> None:
        with Disk(tmp_path / "disk", "xfs" if shutil.which("mkfs.xfs") else "ext4") as disk:
            (disk.path / "file").write_text("lost")
            disk.cut()
            raise ValueError

    try:
        with pytest.raises(ValueError, match=r"^$"):
            use()
    except UnavailableError as error:
        pytest.skip(str(error))
    assert list(mounted_below(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
