"""Real filesystems of a few megabytes that fill up while groups are committed."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs.archive import Archive
from casfs.errors import DiskFullError, NotInitialisedError
from casfs.roots import Roots, create
from tests.fakes.store import Clock, check, contents, group, known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from casfs.archive import BroadcastWriter, Group

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a filesystem")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Mount a tmpfs of some size at a name below the test's directory."""
    with contextlib.ExitStack() as mounted:

        def mount(name: str, size: str) -> Path:
            path = tmp_path / name
            path.mkdir(exist_ok=True)
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                pytest.skip(f"no filesystem can be mounted here: {done.stderr.strip()}")
            mounted.callback(subprocess.check_call, ["umount", "--lazy", path])
            return path

        yield mount


def grow(path: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", path], check=True)


def fill(writer: BroadcastWriter, size: int) -> tuple[list[Group], Group]:
    """Commit groups until the disk is full; return those that were kept and the one that failed."""
    kept: list[Group] = []
    for number in range(2000):
        item = group(number, os.urandom(size))
        try:
            writer.commit([item])
        except DiskFullError:
            return kept, item
        kept.append(item)
    pytest.fail("the disk never filled")


def temporaries(archive: Archive) -> list[str]:
    base = os.path.join(archive.roots.cas, ".casfs", "tmp")
    return [name for own in os.listdir(base) for name in os.listdir(os.path.join(base, own))]


def test_a_full_cas_root(tmp_path: Path, small: Callable[[str, str], Path]) -> None:
    cas = small("cas", "3m")
    roots = Roots.of(str(cas), str(tmp_path / "manifests"))
    create(roots)
    archive = Archive(roots)
    with archive.writer("news", clock=Clock()) as writer:
        kept, failed = fill(writer, 100_000)
        assert len(kept) > 10
        for _ in range(3):
            with pytest.raises(DiskFullError, match="storing objects"):
                writer.commit([failed])
        assert temporaries(archive) == []
        assert contents(archive) == list(map(known, kept))
        assert check(archive).sound
        # What is there already needs no space.
        writer.commit([kept[0]])
        grow(cas, "6m")
        writer.commit([failed])
    assert contents(archive) == list(map(known, [*kept, failed]))
    assert check(archive).sound


def test_a_full_manifest_root(tmp_path: Path, small: Callable[[str, str], Path]) -> None:
    manifests = small("manifests", "128k")
    roots = Roots.of(str(tmp_path / "cas"), str(manifests))
    create(roots)
    archive = Archive(roots, index_path=str(tmp_path / "index.sqlite3"))
    with archive.writer("news", clock=Clock()) as writer:
        kept, failed = fill(writer, 20)
        assert len(kept) > 10
        before = sorted(os.listdir(manifests / "news" / "video0.m4s"))
        for _ in range(3):
            with pytest.raises(DiskFullError, match=r"manifest|segment"):
                writer.commit([failed])
        # A disk that stays full is not filled with stumps of segments.
        assert sorted(os.listdir(manifests / "news" / "video0.m4s")) == before
        assert contents(archive)[: len(kept)] == list(map(known, kept))
        assert check(archive).sound
        grow(manifests, "1m")
        writer.commit([failed])
        assert contents(archive) == list(map(known, [*kept, failed]))
    assert check(archive).sound


def test_a_full_disk_of_the_index_delays_no_commit(
    tmp_path: Path, small: Callable[[str, str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    disk = small("index", "512k")
    roots = Roots.of(str(tmp_path / "cas"), str(tmp_path / "manifests"))
    create(roots)
    archive = Archive(roots, index_path=str(disk / "index.sqlite3"))
    mirror = archive.mirror()
    kept: list[Group] = []
    with archive.writer("news", clock=Clock()) as writer:
        for start in range(0, 6000, 200):
            batch = [group(number, b"same") for number in range(start, start + 200)]
            writer.commit(batch)
            kept += batch
            mirror.step(writer.places)
            if mirror.trouble:
                break
        assert "full" in mirror.trouble
        assert "lags" in caplog.text
        writer.commit([group(9999)])
        kept.append(group(9999))
        mirror.step(writer.places)
        assert mirror.trouble
        assert contents(archive) == list(map(known, kept))
        grow(disk, "20m")
        mirror.step(writer.places)
        assert mirror.trouble == ""
    mirror.close()
    assert contents(archive) == list(map(known, kept))


def test_init_on_a_full_disk_says_so(tmp_path: Path, small: Callable[[str, str], Path]) -> None:
    cas = small("cas", "4k")
    (cas / "lost+found").mkdir()
    (cas / "lost+found" / "filler").write_bytes(bytes(4096))
    roots = Roots.of(str(cas), str(tmp_path / "manifests"))
    with pytest.raises(DiskFullError, match="creating the archive"):
        create(roots)
    with pytest.raises(NotInitialisedError):
        Archive(roots)


def test_no_inodes_left_is_a_full_disk(tmp_path: Path, small: Callable[[str, str], Path]) -> None:
    cas = small("cas", "4m,nr_inodes=290")
    roots = Roots.of(str(cas), str(tmp_path / "manifests"))
    create(roots)
    archive = Archive(roots)
    with archive.writer("news", clock=Clock()) as writer:
        kept, _ = fill(writer, 10)
        assert 5 < len(kept) < 40
        grow(cas, "4m,nr_inodes=400")
    assert contents(archive) == list(map(known, kept))
    assert check(archive).sound
