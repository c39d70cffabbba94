"""What a verification reports, and that nothing keeps it from going on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.digest import digest_of
from casfs.errors import StorageError
from casfs.objects.local import LocalStore
from casfs.verify import Plan, Progress, verify
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
    from casfs.verify import Level


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    found = make_archive(tmp_path)
    with found.writer("news", clock=Clock()) as writer:
        writer.commit([group(number) for number in range(4)])
        writer.commit([group(number, track="audio0.m4s") for number in range(4)])
    return found


def put_alone(archive: Archive, data: bytes) -> str:
    """Leave an object that no record names, as a crash between the two does."""
    path = archive.objects.path(digest_of(data))
    with open(path, "wb") as file:
        file.write(data)
    return path


def test_a_sound_archive_is_sound(archive: Archive) -> None:
    report = check(archive)
    assert report.sound
    assert report.objects == 8
    assert report.bytes == sum(
        len(b"".join(group(number, track=track).frames))
        for number in range(4)
        for track in ("video0.m4s", "audio0.m4s")
    )
    assert (report.damaged, report.missing, report.manifest_errors) == ([], [], [])
    assert report.unreferenced == 0


def test_an_empty_archive_is_sound(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    report = check(make_archive(tmp_path / "empty"))
    assert report.sound
    assert (report.objects, report.bytes) == (0, 0)


def test_the_report_keeps_its_shape(archive: Archive) -> None:
    flip_bit(object_file(archive, group(0)), 0)
    os.unlink(object_file(archive, group(1)))
    flip_bit(segments(journal_directory(archive, "news", "audio0.m4s"))[0], 50)
    shape = json.loads(msgspec.json.encode(check(archive)))
    assert set(shape) == {
        "sound", "complete", "level", "objects", "skipped", "bytes", "damaged", "missing",
        "repaired", "unmended", "unreferenced", "manifest_errors", "seconds",
    }  # fmt: skip
    assert shape["sound"] is False
    named = {"hash", "path", "groups", "groups_total"}
    assert set(shape["damaged"][0]) == named | {"reason", "quarantined"}
    assert set(shape["missing"][0]) == named
    assert set(shape["damaged"][0]["groups"][0]) == {
        "broadcast", "track", "epoch", "sequence", "n",
    }  # fmt: skip
    assert set(shape["manifest_errors"][0]) == {"journal", "segment", "offset", "end", "reason"}


@pytest.mark.parametrize("damage", ["bit", "cut", "longer", "empty"])
def test_a_damaged_object_is_named_with_the_groups_that_need_it(
    archive: Archive, damage: str
) -> None:
    path = object_file(archive, group(2))
    if damage == "bit":
        flip_bit(path, 7, 3)
    elif damage == "longer":
        os.chmod(path, 0o644)
        with open(path, "ab") as file:
            file.write(b"\0")
    else:
        os.truncate(path, 0 if damage == "empty" else 5)
    report = check(archive)
    assert not report.sound
    assert report.missing == []
    assert report.objects == 8
    (found,) = report.damaged
    assert found.hash == digest_of(b"".join(group(2).frames))
    assert found.path == os.path.relpath(path, archive.roots.cas)
    assert found.reason.startswith("hashes to ")
    assert [(g.broadcast, g.track, g.epoch, g.sequence) for g in found.groups] == [
        ("news", "video0.m4s", 1, "2")
    ]
    assert found.groups_total == 1


def test_a_missing_object_is_named_with_the_groups_that_need_it(archive: Archive) -> None:
    os.unlink(object_file(archive, group(3, track="audio0.m4s")))
    report = check(archive)
    assert not report.sound
    assert report.damaged == []
    (found,) = report.missing
    assert [(g.track, g.sequence) for g in found.groups] == [("audio0.m4s", "3")]


def test_everything_is_reported_not_only_the_first(archive: Archive) -> None:
    for number in (0, 2):
        flip_bit(object_file(archive, group(number)), 0)
    for number in (1, 3):
        os.unlink(object_file(archive, group(number)))
    flip_bit(segments(journal_directory(archive, "news", "audio0.m4s"))[0], 50)
    flip_bit(segments(journal_directory(archive, "news", "@broadcast"))[0], 50)
    report = check(archive)
    assert {found.groups[0].sequence for found in report.damaged} == {"0", "2"}
    assert {found.groups[0].sequence for found in report.missing} == {"1", "3"}
    assert {error.journal for error in report.manifest_errors} == {
        "news/@broadcast", "news/audio0.m4s",
    }  # fmt: skip


def test_an_object_that_many_need_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    archive = make_archive(tmp_path / "many")
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit([group(number, b"silence") for number in range(150)])
    flip_bit(object_file(archive, group(0, b"silence")), 0)
    (found,) = check(archive).damaged
    assert found.groups_total == 150
    assert [name.sequence for name in found.groups] == [str(number) for number in range(100)]


def test_an_init_that_is_needed_only_by_others_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "init").mkdir()
    archive = make_archive(tmp_path / "init")
    init = digest_of(b"init")
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit([group(0, init=init)])
    assert [found.hash for found in check(archive).missing] == [init]
    put_alone(archive, b"init")
    assert check(archive).sound


def test_an_unreferenced_object_is_counted_and_no_damage(archive: Archive) -> None:
    path = put_alone(archive, b"nobody asked for this")
    os.truncate(path, 3)
    report = check(archive)
    assert report.unreferenced == 1
    assert report.sound


def test_an_object_that_came_while_verifying_is_not_unreferenced(archive: Archive) -> None:
    put_alone(archive, b"on its way to its record")
    report = verify(archive, clock=lambda: 0.0)
    assert report.unreferenced == 0


def test_an_unreadable_object_is_a_finding(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = os.stat(object_file(archive, group(1))).st_ino
    pread = os.pread

    def read(descriptor: int, size: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", read)
    report = check(archive)
    (found,) = report.damaged
    assert found.reason == "cannot be read: Input/output error"
    assert report.objects == 8


@pytest.mark.parametrize(("level", "call"), [("quick", "stat"), ("full", "open")])
def test_an_object_that_cannot_be_reached_is_a_finding(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, level: Level, call: str
) -> None:
    bad = object_file(archive, group(1))
    real = getattr(os, call)

    def fail(path: str, *arguments: int, **more: bool) -> object:
        if path == bad:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, call, fail)
    report = verify(archive, Plan(level=level), threads=1)
    assert [found.groups[0].sequence for found in report.damaged] == ["1"]
    assert report.objects == 8


def test_a_link_in_the_place_of_an_object_is_a_finding(archive: Archive) -> None:
    path = object_file(archive, group(1))
    os.rename(path, f"{path}.away")
    os.symlink(f"{path}.away", path)
    assert [found.groups[0].sequence for found in check(archive).damaged] == ["1"]


def test_a_shard_that_cannot_be_listed_is_a_finding(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = LocalStore.shard

    def fail(store: LocalStore, name: str) -> object:
        if name == "07":
            raise StorageError("failed listing 07: Input/output error")
        return shard(store, name)

    monkeypatch.setattr(LocalStore, "shard", fail)
    report = check(archive)
    assert [error.segment for error in report.manifest_errors] == ["objects/blake3/07"]
    assert report.objects == 8


def test_a_manifest_that_cannot_be_read_is_a_finding_and_the_others_are_verified(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = segments(journal_directory(archive, "news", "audio0.m4s"))[0]
    real = open

    def fail(path: str, mode: str = "r") -> object:
        if path == bad:
            raise OSError(errno.EIO, "Input/output error", path)
        return real(path, mode)

    monkeypatch.setattr("builtins.open", fail)
    report = check(archive)
    (error,) = report.manifest_errors
    assert error.journal == "news/audio0.m4s"
    assert "Input/output error" in error.reason
    assert report.objects == 4


def test_a_broadcast_that_cannot_be_listed_is_a_finding_and_the_others_are_verified(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with archive.writer("sport", clock=Clock()) as writer:
        writer.commit([group(0, b"goal")])
    for name in ("news", "sport"):
        os.unlink(os.path.join(archive.roots.cas, ".casfs", "heads", f"{name}.json"))
    scandir = os.scandir
    bad = os.path.join(archive.roots.manifests, "news")

    def fail(path: str) -> object:
        if path == bad:
            raise OSError(errno.EIO, "Input/output error", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    report = check(archive)
    assert [error.journal for error in report.manifest_errors] == ["news"]
    assert report.objects == 1


def test_the_index_is_never_believed(archive: Archive) -> None:
    """It could hide what the manifests have lost."""
    mirror = archive.mirror()
    mirror.step(None)
    mirror.close()
    with open(archive.index_path, "r+b") as file:
        file.write(os.urandom(100))
    assert check(archive).sound
    (path,) = segments(journal_directory(archive, "news", "video0.m4s"))
    os.unlink(path)
    assert not check(archive).sound


def test_nothing_is_changed(archive: Archive) -> None:
    flip_bit(object_file(archive, group(0)), 0)
    roots = (archive.roots.cas, archive.roots.manifests)

    def state() -> list[tuple[str, int, int]]:
        return [
            (path, os.stat(path).st_size, os.stat(path).st_mtime_ns)
            for root in roots
            for directory, _, names in os.walk(root)
            for path in (directory, *(os.path.join(directory, name) for name in names))
        ]

    before = state()
    check(archive)
    assert state() == before


def test_it_can_run_beside_a_recorder(archive: Archive) -> None:
    with archive.writer("news", clock=Clock(Clock().now + 10**12)) as writer:
        writer.commit([group(10)])
        report = check(archive)
        assert report.sound
        assert report.objects == 9


@pytest.mark.parametrize("threads", [1, 4])
def test_progress_can_be_watched(archive: Archive, threads: int) -> None:
    progress = Progress()
    report = verify(archive, progress=progress, threads=threads)
    assert progress.shards == 256
    assert (progress.objects, progress.bytes) == (report.objects, report.bytes)
    assert progress.lines == 8 + 2 + 3
    assert progress.findings == 0


def test_no_descriptor_is_left_open(archive: Archive) -> None:
    flip_bit(object_file(archive, group(0)), 0)
    check(archive)
    before = len(os.listdir("/proc/self/fd"))
    check(archive)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_root_that_fails_as_a_whole_is_an_error(archive: Archive) -> None:
    os.chmod(archive.roots.manifests, 0o700)
    with contextlib.suppress(FileNotFoundError):
        os.rename(archive.roots.manifests, f"{archive.roots.manifests}-away")
    report = check(archive)
    # Its heads are known, so all that is gone is named.
    assert {error.journal for error in report.manifest_errors} == {
        "news/@broadcast", "news/audio0.m4s", "news/video0.m4s",
    }  # fmt: skip
    assert report.unreferenced == 8
