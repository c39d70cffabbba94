"""tools/mount-trial, for a few seconds of it: hard use of a mount beneath which groups come."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.test_mount_filesystem import _why_not

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(_why_not() is not None, reason=f"cannot mount: {_why_not()}")
def test_hard_use_of_a_mount_under_ingest_meets_no_fault() -> None:
    options = ("--seconds", "1", "--kills", "1", "--opens", "3000")
    done = subprocess.run(
        [sys.executable, "-m", "tools.mount_trial", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "FAULT" not in done.stderr
    assert "opening and closing 3000 files" in done.stderr
    for program in ("fio", "stress-ng"):
        left_out = f"{program} is not installed: left out" in done.stderr
        assert left_out is (shutil.which(program) is None)
