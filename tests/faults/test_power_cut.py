"""The power goes while a recorder writes, on real filesystems: one short round each.

``xfs_io -x -c shutdown`` makes a filesystem forget everything that was not synced, as a power cut
does; afterwards it is mounted again, journal recovery and all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs.archive import Archive
from casfs.digest import digest_of
from casfs.roots import Roots, create
from tests.fakes.record_groups import payload
from tests.fakes.store import check, contents, python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can mount a filesystem and shut it down"
)

SIZES = {"ext4": "64M", "xfs": "320M"}
_ACKNOWLEDGED = 60


class Disk:
    """A filesystem in an image file; the loop device goes with the mount."""

    def __init__(self, directory: Path, kind: str) -> None:
        for tool in (f"mkfs.{kind}", "xfs_io", "mount", "umount"):
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is not installed")
        self.path = directory / "mounted"
        self.path.mkdir()
        self.mounted = False
        self._image = directory / "image"
        with open(self._image, "wb") as file:
            file.truncate(int(SIZES[kind][:-1]) << 20)
        subprocess.run([f"mkfs.{kind}", "-q", self._image], check=True, capture_output=True)

    def mount(self) -> None:
        done = subprocess.run(
            ["mount", "-o", "loop", self._image, self.path],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"no image can be mounted here: {done.stderr.strip()}")
        self.mounted = True

    def cut(self) -> None:
        subprocess.run(["xfs_io", "-x", "-c", "shutdown", self.path], check=True)

    def unmount(self, *, lazily: bool = False) -> None:
        if self.mounted:
            how = ["--lazy"] if lazily else []
            subprocess.run(["umount", *how, self.path], check=True)
            self.mounted = False


@pytest.fixture(params=SIZES)
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    found = Disk(tmp_path, request.param)
    try:
        yield found
    finally:
        found.unmount(lazily=True)


def record_until_the_cut(disk: Disk, roots: Roots, first: int, *options: str) -> list[int]:
    """Cut the power while groups are committed; return what was acknowledged before."""
    kept: list[int] = []
    arguments = [roots.cas, roots.manifests, str(first), "100000", *options]
    child = subprocess.Popen(
        python("-m", "tests.fakes.record_groups", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stderr is not None
        for line in child.stdout:
            if line.startswith("kept "):
                kept.append(int(line.split()[1]))
                if len(kept) == _ACKNOWLEDGED:
                    # It goes on committing while the power goes.
                    disk.cut()
        errors = child.stderr.read()
    assert child.returncode == 7, errors
    assert "Traceback" not in errors
    disk.unmount()
    disk.mount()
    return kept


@pytest.fixture
def archive(disk: Disk) -> Archive:
    disk.mount()
    roots = Roots.of(str(disk.path / "cas"), str(disk.path / "manifests"))
    create(roots)
    os.sync()
    return Archive(roots)


def test_what_was_acknowledged_survives_a_power_cut(disk: Disk, archive: Archive) -> None:
    kept: list[int] = []
    for _ in range(2):
        kept += record_until_the_cut(disk, archive.roots, kept[-1] + 1 if kept else 0)
        found = {item.sequence: item for item in contents(archive)}
        assert [sequence for sequence in kept if sequence not in found] == []
        for sequence in kept:
            assert found[sequence].hash == digest_of(payload(sequence))
        report = check(archive)
        assert report.sound, report
    # And recording goes on as after any other crash.
    with archive.writer("news"):
        pass
    assert check(archive).sound


def test_a_writer_that_never_syncs_does_not_survive_it(disk: Disk, archive: Archive) -> None:
    """So the cut is one, and the test above could fail."""
    kept = record_until_the_cut(disk, archive.roots, 0, "--careless")
    found = {item.sequence for item in contents(archive)}
    assert not found.issuperset(kept)
