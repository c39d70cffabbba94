"""Who makes an archive on a filesystem with too few inodes is told before it is full."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from casfs.capacity import USUAL_OBJECT, inode_shortage, usual_object
from casfs.cli.program import run

if TYPE_CHECKING:
    from pathlib import Path


def status(*, files: int, free_files: int, free_bytes: int = 1 << 30) -> os.statvfs_result:
    """Return what a filesystem of 4 GiB with blocks of 4096 bytes says."""
    free = free_bytes >> 12
    return os.statvfs_result(
        (4096, 4096, 1 << 20, free, free, files, free_files, free_files, 0, 255)
    )


@pytest.mark.parametrize(
    ("found", "object_bytes", "short"),
    [
        (status(files=1 << 20, free_files=1 << 20), 400, False),
        (status(files=1 << 18, free_files=1 << 17), 400, True),
        (status(files=1 << 18, free_files=1 << 17), 8192, False),
        (status(files=1 << 10, free_files=1 << 9), USUAL_OBJECT, True),
        (status(files=0, free_files=0), 400, False),
    ],
    ids=["enough", "small objects", "larger objects", "few inodes", "no limit"],
)
def test_inodes_are_short_if_they_end_before_the_bytes_do(
    found: os.statvfs_result, object_bytes: float, *, short: bool
) -> None:
    assert (inode_shortage(found, object_bytes) is not None) is short


def test_what_a_filesystem_holds_tells_the_size_of_its_files() -> None:
    assert usual_object(status(files=1 << 20, free_files=(1 << 20) - 9)) == USUAL_OBJECT
    full = status(files=1 << 20, free_files=0)
    assert usual_object(full) == (3 << 30) / (1 << 20)


def test_init_and_stats_warn_on_stderr_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: status(files=99, free_files=9))
    for name, path in (("CASFS_CAS_ROOT", "cas"), ("CASFS_MANIFEST_ROOT", "manifests")):
        monkeypatch.setenv(name, str(tmp_path / path))
    for command in ("init", "stats"):
        assert run([command]) == 0
        warnings = [line for line in capfd.readouterr().err.splitlines() if "inodes" in line]
        assert len(warnings) == 1
        assert warnings[0].startswith("casfs: warning: the filesystem of ")
        assert "9 free inodes" in warnings[0]
