"""An export on a filesystem that can share blocks: XFS on a loop device."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from casfs.export.files import export_files
from casfs.export.manifest import Span
from casfs.export.placing import Way
from tests.fakes.store import Clock, group, make_archive, object_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_IMAGE_BYTES = 320 << 20

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mkfs.xfs", path="/usr/sbin:/sbin:/usr/bin") is None,
    reason="needs root and mkfs.xfs to make a filesystem",
)


@contextlib.contextmanager
def xfs(directory: Path) -> Iterator[Path]:
    """Mount a new XFS below ``directory`` for as long as the block lasts."""
    image, mountpoint = directory / "image", directory / "xfs"
    with open(image, "wb") as file:
        file.truncate(_IMAGE_BYTES)
    subprocess.run(["/usr/sbin/mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    mountpoint.mkdir()
    mounted = subprocess.run(
        ["mount", "-o", "loop", image, mountpoint], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a loop device cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)


def used(path: Path) -> int:
    os.sync()
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def test_an_export_shares_blocks_with_the_archive_and_changes_to_it_do_not_reach_there(
    tmp_path: Path,
) -> None:
    with xfs(tmp_path) as disk:
        archive = make_archive(disk / "archive")
        payloads = [bytes([number]) * (1 << 20) for number in range(20)]
        with archive.writer("tv", clock=Clock()) as writer:
            writer.commit([group(n, payload) for n, payload in enumerate(payloads)])
        before = used(disk)
        exported = export_files(archive, Span("tv"), str(disk / "out"))
        assert exported.reflinked == exported.objects == 20
        assert used(disk) - before < sum(map(len, payloads)) / 4
        digest = digest_of(payloads[3])
        place = f"{exported.target}/objects/blake3/{digest[:2]}/{digest}.bin"
        os.chmod(place, 0o600)
        with open(place, "r+b") as file:
            file.write(b"scribbled")
        assert archive.objects.check(digest) is None
        assert not os.path.samefile(place, object_file(archive, group(3, payloads[3])))
        with pytest.raises(Exception, match="exists"):
            export_files(archive, Span("tv"), exported.target, way=Way.REFLINK)


def test_an_export_to_another_filesystem_copies(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    with archive.writer("tv", clock=Clock()) as writer:
        writer.commit([group(number) for number in range(5)])
    with xfs(tmp_path) as disk:
        assert export_files(archive, Span("tv"), str(disk / "out")).copied == 5
