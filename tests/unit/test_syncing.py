"""How a batch becomes durable: which strategy, by which calls, in which order."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from casfs.cli.options import RootFlags
from casfs.digest import digest_of
from casfs.errors import ConfigError, DiskFullError
from casfs.objects import syncing, syscalls, writing
from casfs.objects.commit import LocalCommitter
from casfs.objects.store import Payload
from casfs.objects.syncing import choose_strategy, kernel_version
from tests.fakes.store import make_archive

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive
    from casfs.objects.local import LocalStore

BTRFS = 0x9123683E
EXT4 = 0xEF53


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return make_archive(tmp_path).objects


class Uname:
    def __init__(self, release: str) -> None:
        self.release = release


def chosen(root: Path, wanted: syncing.StrategyName = "auto") -> str:
    strategy = choose_strategy(str(root), wanted)
    strategy.close()
    return strategy.name


@pytest.mark.parametrize(
    ("magic", "release", "name"),
    [
        (BTRFS, "5.8.0-generic", "syncfs"),
        (BTRFS, "6.18.44", "syncfs"),
        (BTRFS, "5.7.19", "fsync"),
        (EXT4, "6.18.44", "fsync"),
        (0, "unheard-of", "fsync"),
    ],
)
def test_the_filesystem_chooses_unless_its_syncfs_would_hide_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, magic: int, release: str, name: str
) -> None:
    monkeypatch.setattr(syscalls, "filesystem_type", lambda _: magic)
    monkeypatch.setattr(os, "uname", lambda: Uname(release))
    assert chosen(tmp_path) == name


def test_a_user_overrides_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "filesystem_type", lambda _: BTRFS)
    assert chosen(tmp_path, "fsync") == "fsync"
    monkeypatch.setattr(syscalls, "filesystem_type", lambda _: EXT4)
    assert chosen(tmp_path, "syncfs") == "syncfs"


def test_a_syncfs_that_hides_errors_is_refused(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: Uname("5.4.0"))
    with pytest.raises(ConfigError, match=r"Linux 5\.4\.0"), LocalCommitter(store.root, "syncfs"):
        pass
    assert os.listdir(os.path.join(store.root, ".casfs", "tmp")) == []


@pytest.mark.parametrize(
    ("release", "version"), [("5.8", (5, 8)), ("10.0.1-rc1", (10, 0)), ("plan9", (0, 0))]
)
def test_kernel_versions(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version


def test_the_type_of_a_filesystem_is_the_kernels(tmp_path: Path) -> None:
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        assert any(line.split()[1:3] == ["/proc", "proc"] for line in mounts)
    assert syscalls.filesystem_type("/proc") == 0x9FA0
    with pytest.raises(FileNotFoundError):
        syscalls.filesystem_type(str(tmp_path / "missing"))


def test_a_batch_by_syncfs_syncs_data_then_names_and_each_once(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    syncfs, rename = syscalls.syncfs, os.rename

    def traced_syncfs(descriptor: int) -> None:
        syncfs(descriptor)
        calls.append("syncfs")

    def traced_rename(source: str, target: str) -> None:
        rename(source, target)
        calls.append("rename")

    monkeypatch.setattr(syscalls, "syncfs", traced_syncfs)
    monkeypatch.setattr(os, "rename", traced_rename)
    payloads = [Payload((f"{number}".encode(),)) for number in range(20)]
    with LocalCommitter(store.root, "syncfs") as committer:
        with committer.batch() as batch:
            batch.put(payloads)
        assert calls == ["syncfs", *["rename"] * 20, "syncfs"]
        calls.clear()
        with committer.batch() as batch:
            batch.put(payloads[:1])
        # A name that was there before is made as durable as a new one.
        assert calls == ["syncfs"]


def test_settings_reach_the_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = make_archive(tmp_path).roots
    flags = RootFlags(roots.cas, roots.manifests, config=None)
    monkeypatch.delenv("CASFS_SYNC_STRATEGY", raising=False)
    assert flags.archive().sync_strategy == "auto"
    monkeypatch.setenv("CASFS_SYNC_STRATEGY", "syncfs")
    archive: Archive = flags.archive()
    assert archive.sync_strategy == "syncfs"
    assert flags.archive(sync_strategy="fsync").sync_strategy == "fsync"
    with archive.writer("news") as writer:
        assert writer._committer.strategy.name == "syncfs"
    monkeypatch.setenv("CASFS_SYNC_STRATEGY", "sometimes")
    with pytest.raises(ConfigError, match="sometimes"):
        flags.archive()


# Reserving space


def test_a_large_object_has_its_space_reserved_before_it_is_written(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PREALLOCATED_BYTES", 1000)

    def full(_descriptor: int, size: int) -> bool:
        assert size == 1000
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(syscalls, "preallocate", full)
    with LocalCommitter(store.root) as committer, committer.batch() as batch:
        (small,) = batch.put([Payload((b"x" * 999,))])
        with pytest.raises(DiskFullError):
            batch.put([Payload((b"y" * 1000,))])
    assert store.check(small.digest) is None
    assert not os.path.exists(store.path(digest_of(b"y" * 1000)))


def test_a_filesystem_without_reserving_is_asked_once(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PREALLOCATED_BYTES", 1)
    asked: list[int] = []

    def has_it_not(_descriptor: int, size: int) -> bool:
        asked.append(size)
        return False

    monkeypatch.setattr(syscalls, "preallocate", has_it_not)
    with LocalCommitter(store.root) as committer:
        for data in (b"one", b"another"):
            with committer.batch() as batch:
                batch.put([Payload((data,))])
    assert asked == [3]


def test_reserved_space_does_not_show_in_the_size(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    try:
        if not syscalls.preallocate(descriptor, 1 << 20):
            pytest.skip("this filesystem has no fallocate")
        assert os.fstat(descriptor).st_size == 0
        assert os.fstat(descriptor).st_blocks * 512 >= 1 << 20
        with pytest.raises(OSError, match=r"File too large|No space"):
            syscalls.preallocate(descriptor, 1 << 62)
    finally:
        os.close(descriptor)
