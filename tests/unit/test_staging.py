"""Objects that come in pieces: staged in bounded memory, put like any other."""

from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from casfs.adopt import reading
from casfs.adopt.files import import_files
from casfs.archive import Group, Run
from casfs.digest import BLOCK_BYTES, BlockHasher, block_digests, digest_of
from casfs.errors import StorageError, UsageError
from casfs.groups import runs_of
from casfs.manifests.record import GroupRecord, RunRecord
from casfs.objects import syscalls
from casfs.objects.commit import LocalCommitter
from casfs.objects.store import Payload, Staged
from tests.fakes.store import make_archive
from tests.unit.test_objects import temporaries

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.adopt.source import Problem
    from casfs.archive import Archive


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


def staged(committer: LocalCommitter, *pieces: bytes, expected: int | None = None) -> Staged:
    with committer.stage(expected) as writer:
        for piece in pieces:
            writer.write(piece)
        return writer.stage()


@pytest.mark.parametrize("strategy", ["fsync", "syncfs"])
@pytest.mark.parametrize("expected", [None, 3, BLOCK_BYTES * 2])
def test_what_was_staged_is_put_like_a_payload(
    archive: Archive, strategy: str, expected: int | None
) -> None:
    store = archive.objects
    with LocalCommitter(store.root, strategy) as committer, committer.batch() as batch:  # type: ignore[arg-type]
        first = staged(committer, b"one ", b"", b"object", expected=expected)
        results = batch.put([first, Payload((b"another",))])
    assert [(item.digest, item.size, item.new) for item in results] == [
        (digest_of(b"one object"), 10, True),
        (digest_of(b"another"), 7, True),
    ]
    assert store.check(first.digest, 10) is None
    # What was reserved beyond its end is given back.
    assert store.stat(first.digest).st_blocks * 512 < 1 << 20
    assert store.stat(first.digest).st_mode & 0o222 == 0


def test_what_was_staged_is_durable_before_its_name(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def traced_fsync(descriptor: int) -> None:
        fsync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        calls.append("file" if "/.casfs/tmp/" in path else "shard")

    def traced_rename(source: str, target: str) -> None:
        rename(source, target)
        calls.append("rename")

    with LocalCommitter(archive.roots.cas, "fsync") as committer, committer.batch() as batch:
        one = staged(committer, b"one object")
        monkeypatch.setattr(os, "fsync", traced_fsync)
        monkeypatch.setattr(os, "rename", traced_rename)
        batch.put([one])
        monkeypatch.undo()
    assert [call for call in calls if call != "shard"] == ["file", "rename"]
    assert calls[-1] == "shard"


def test_what_is_there_already_is_not_kept_twice(archive: Archive) -> None:
    with LocalCommitter(archive.roots.cas) as committer:
        for new in (True, False):
            with committer.batch() as batch:
                (result,) = batch.put([staged(committer, b"one object")])
            assert result.new is new
        (own,) = temporaries(archive.objects)
        assert os.listdir(os.path.join(archive.roots.cas, ".casfs", "tmp", own)) == []


def test_a_writer_that_is_left_drops_what_it_had(archive: Archive) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with LocalCommitter(archive.roots.cas) as committer:
        with committer.stage() as writer:
            writer.write(b"half an object")
        (own,) = temporaries(archive.objects)
        assert os.listdir(os.path.join(archive.roots.cas, ".casfs", "tmp", own)) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_failed_batch_drops_what_was_staged(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    before = len(os.listdir("/proc/self/fd"))
    with LocalCommitter(archive.roots.cas, "fsync") as committer:
        one = staged(committer, b"one object")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(StorageError), committer.batch() as batch:
                batch.put([one])
        assert not os.path.exists(one.temporary)
        assert not os.path.exists(archive.objects.path(one.digest))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_full_disk_shows_before_the_bytes_come(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _size: int) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(syscalls, "preallocate", full)
    with LocalCommitter(archive.roots.cas) as committer:
        with pytest.raises(StorageError, match="disk full"):
            committer.stage(BLOCK_BYTES * 4)
        committer.stage(100).close()


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_blocks_are_hashed_wherever_the_pieces_end(size: int) -> None:
    data = bytes(size)
    hasher = BlockHasher()
    for start in range(0, size, 3_000_001):
        hasher.update(data[start : start + 3_000_001])
    blocks = [data[start : start + BLOCK_BYTES] for start in range(0, size, BLOCK_BYTES)]
    assert hasher.digests() == [digest_of(block) for block in blocks]
    assert block_digests([data]) == (hasher.digests() if size > BLOCK_BYTES else None)


def test_a_staged_group_has_the_record_that_it_would_have_had(archive: Archive) -> None:
    data = bytes(range(256)) * (BLOCK_BYTES // 256) + b"the rest"

    def group(sequence: int, frames: tuple[bytes, ...], one: Staged | None) -> Group:
        return Group(
            track="video",
            epoch=1,
            sequence=sequence,
            frames=frames,
            staged=one,
            staged_sizes=(8, len(data) - 8) if one is not None else None,
            received_start=1,
            received_end=2,
        )

    with archive.writer("news") as writer:
        with writer.stage(len(data)) as target:
            target.write(data[:100], data[100:])
            one = target.stage()
        kept = writer.commit([group(0, (), one), group(1, (data[:8], data[8:]), None)])
    first, second = (item.record for item in kept)
    assert isinstance(first, GroupRecord)
    assert isinstance(second, GroupRecord)
    assert (first.hash, first.size, first.frame_sizes, first.blocks) == (
        *(second.hash, second.size, second.frame_sizes, second.blocks),
    )
    assert first.blocks is not None
    assert len(first.blocks) == 2


def test_what_is_staged_is_kept_apart_from_runs(archive: Archive) -> None:
    def group(sequence: int, one: Staged | None = None) -> Group:
        return Group(
            track="audio",
            epoch=1,
            sequence=sequence,
            frames=() if one is not None else (b"%d" % sequence,),
            staged=one,
            received_start=1,
            received_end=2,
        )

    with archive.writer("news") as writer:
        with writer.stage(5) as target:
            target.write(b"apart")
            staged = group(1, target.stage())
        with pytest.raises(UsageError, match="none of a run"):
            writer.commit([Run((staged, group(2)))])
        kept = writer.commit(list(runs_of([group(0), staged, group(2)])))
    by_kind = {type(item.record): item.record.size for item in kept}
    assert by_kind == {GroupRecord: 5, RunRecord: 2}


# casfs import --files


def imported(archive: Archive, *paths: Path, dry_run: bool = False) -> tuple[list[Problem], int]:
    problems: list[Problem] = []
    names = [str(path) for path in paths]
    totals = import_files(archive, names, "news", "clips", tell=problems.append, dry_run=dry_run)
    return problems, totals.bytes


def test_a_large_file_is_imported_in_little_memory(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HELD_BYTES", 1 << 20)
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(os.urandom(1 << 20) * 24)
    small.write_bytes(b"small")
    size = large.stat().st_size
    assert imported(archive, large, small, dry_run=True) == ([], size + 5)
    tracemalloc.start()
    try:
        assert imported(archive, large, small) == ([], size + 5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size // 2
    digest = digest_of(large.read_bytes())
    assert archive.objects.check(digest, size) is None
    # Once more, and nothing is new.
    assert imported(archive, large, small) == ([], 0)


def test_a_large_file_that_changes_meanwhile_is_a_problem(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HELD_BYTES", 10)
    path = tmp_path / "growing"
    path.write_bytes(b"0123456789 and more")
    open_source = reading.open_source

    def open_and_append(name: str) -> reading.Source:
        source = open_source(name)
        path.write_bytes(b"something else altogether")
        return source

    monkeypatch.setattr("casfs.adopt.files.open_source", open_and_append)
    problems, size = imported(archive, path)
    assert [problem.reason for problem in problems] == ["it changed while it was read"]
    assert size == 0
    assert temporaries(archive.objects) == []
