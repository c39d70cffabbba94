"""The invariants of the store, each under its own name of what must always hold."""

from __future__ import annotations

import fcntl
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs.archive import Archive
from casfs.digest import Digest, digest_of
from casfs.durable import write_fully
from casfs.errors import (
    AlreadyInitialisedError,
    ArchiveError,
    ForeignRootError,
    NotInitialisedError,
    WriterLockedError,
)
from casfs.index.mirror import rebuild
from casfs.objects.commit import LocalBatch
from casfs.roots import Roots, create
from tests.fakes.store import (
    Clock,
    check,
    contents,
    copy_tree,
    crash,
    flip_bit,
    group,
    journal_directory,
    known,
    make_archive,
    object_file,
    python,
    read_journal,
    segments,
    sequences,
    write_unacknowledged,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


class Durability:
    """Which names and bytes would survive a power cut now, as the system calls tell it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: dict[int, int] = {}
        """Size of each file when it was last synced, by inode."""
        self.listed: dict[str, set[str]] = {}
        """What each directory held when it was last synced."""
        for call in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, call, self._wrap(getattr(os, call)))

    def _wrap(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            status = os.fstat(descriptor)
            names = set(os.listdir(path)) if os.path.isdir(path) else None
            call(descriptor)
            self.synced[status.st_ino] = status.st_size
            if names is not None:
                self.listed[path] = names

        return sync

    def holds(self, path: str, below: str) -> bool:
        """Say whether the whole file at ``path`` is durable, names up to ``below`` included."""
        status = os.stat(path)
        if self.synced.get(status.st_ino) != status.st_size:
            return False
        while path != below:
            directory, name = os.path.split(path)
            if name not in self.listed.get(directory, set()):
                return False
            path = directory
        return True


def test_acknowledged_is_durable(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    durable = Durability(monkeypatch)
    shards = os.path.join(archive.roots.cas, "objects", "blake3")
    with archive.writer("news", clock=Clock()) as writer:
        for number in range(3):
            item = group(number, track=f"track{number}")
            writer.commit([item])
            path = object_file(archive, item)
            assert durable.holds(path, os.path.join(shards, os.path.basename(path)[:2]))
            (segment,) = segments(journal_directory(archive, "news", item.track))
            assert durable.holds(segment, archive.roots.manifests)
        # A dedup hit counts only after this process has synced the shard itself.
        durable.listed.clear()
        again = group(9, b"".join(group(0, track="track0").frames), track="track0")
        writer.commit([again])
        path = object_file(archive, again)
        assert durable.holds(path, os.path.join(shards, os.path.basename(path)[:2]))


def test_name_is_content(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every system call that changes a name, all files under final names are whole."""
    seen: list[int] = []
    rename = os.rename
    durable = Durability(monkeypatch)

    def all_are_whole() -> None:
        store = archive.objects
        found = [digest for shard in store.shards() for digest in store.shard(shard)]
        assert [store.check(digest) for digest in found] == [None] * len(found)
        for digest in found:
            path = store.path(digest)
            assert durable.synced[os.stat(path).st_ino] == os.path.getsize(path)
        seen.append(len(found))

    def checked_rename(source: str, target: str) -> None:
        all_are_whole()
        rename(source, target)
        if "/objects/" in target:
            all_are_whole()

    monkeypatch.setattr(os, "rename", checked_rename)
    with archive.writer("news", clock=Clock()) as writer:
        for number in range(3):
            writer.commit([group(number), group(number, track="audio"), group(0, b"same")])
    assert max(seen) == 7


def test_record_implies_object(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is written before its object is durable; until it is durable, shards are locked."""
    durable = Durability(monkeypatch)
    item = group(0)
    path = object_file(archive, item)
    shard = os.path.dirname(path)
    looked: list[str] = []

    def checked_write(descriptor: int, parts: list[bytes]) -> int:
        if digest_of(b"".join(item.frames)).encode() in b"".join(parts):
            assert durable.holds(path, shard)
            looked.append("line")
        return write_fully(descriptor, parts)

    fdatasync = os.fdatasync

    def checked_sync(descriptor: int) -> None:
        fdatasync(descriptor)
        if looked and "video0" in os.readlink(f"/proc/self/fd/{descriptor}"):
            # A collector takes the shard's lock alone: it cannot, up to here.
            collector = os.open(shard, os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(collector, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(collector)
            looked.append("sync")

    monkeypatch.setattr("casfs.manifests.journal.write_fully", checked_write)
    monkeypatch.setattr(os, "fdatasync", checked_sync)
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit([item])
        assert looked == ["line", "sync"]
        collector = os.open(shard, os.O_RDONLY)
        fcntl.flock(collector, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(collector)


def test_manifest_is_truth(archive: Archive) -> None:
    """Deleting the index and rebuilding it gives the same answers; its trouble fails no commit."""
    mirror = archive.mirror()
    with archive.writer("news", clock=Clock()) as writer:
        for number in range(5):
            writer.commit([group(number, complete=number != 2)])
            mirror.step(writer.places)
        writer.commit([group(2)])
        expected = contents(archive)
        assert len(expected) == 5
        os.unlink(archive.index_path)
        assert contents(archive) == expected
        rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
        assert contents(archive) == expected
        # An index that cannot be written delays nothing, is visible, and heals by itself.
        mirror.close()
        os.unlink(archive.index_path)
        os.mkdir(archive.index_path)
        writer.commit([group(5)])
        mirror.step(writer.places)
        assert mirror.trouble
        assert len(contents(archive)) == 6
        os.rmdir(archive.index_path)
        mirror.step(writer.places)
        assert mirror.trouble == ""
    assert len(contents(archive)) == 6
    mirror.close()


def test_torn_tail_heals(archive: Archive) -> None:
    """Any prefix opens; damage in what was synced is reported, never skipped."""
    clock = Clock()
    writer = archive.writer("news", clock=clock)
    writer.__enter__()
    for number in range(3):
        writer.commit([group(number)])
    sizes = write_unacknowledged(writer, [group(3), group(4)])
    crash(writer)
    directory = journal_directory(archive, "news", "video0.m4s")
    (path,) = segments(directory)
    with open(path, "r+b") as file:
        file.seek(sizes[path])
        file.write(b"\0" * 100)
    lines, faults = read_journal(directory)
    assert (sequences(lines), faults) == ([0, 1, 2], [])
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(3)])
    assert sequences(read_journal(directory)[0]) == [0, 1, 2, 3]
    assert check(archive).sound
    flip_bit(path, sizes[path] - 200)
    (error,) = check(archive).manifest_errors
    assert error.offset < sizes[path] - 200 < error.end


def test_dedup_never_trusts_a_name(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    item = group(0)
    path = object_file(archive, item)
    with open(path, "wb") as file:
        file.write(b"another content of any size")
    with archive.writer("news", clock=Clock()) as writer:
        (done,) = writer.commit([item])
        assert done.healed
        os.truncate(path, 0)
        (done,) = writer.commit([group(1, b"".join(item.frames))])
        assert done.healed
        # Not even a sound one counts without a look at it.
        looked: list[Digest] = []
        existing = LocalBatch._existing

        def looking(batch: LocalBatch, digest: Digest, size: int) -> bool | None:
            looked.append(digest)
            return existing(batch, digest, size)

        monkeypatch.setattr(LocalBatch, "_existing", looking)
        (done,) = writer.commit([group(2, b"".join(item.frames))])
        assert (done.new, done.healed, len(looked)) == (False, False, 1)
    assert check(archive).sound


def test_wrong_disk_refused(tmp_path: Path, archive: Archive) -> None:
    """Empty, foreign or half restored roots stop every writer, and nothing is created in them."""
    clock = Clock()
    roots = archive.roots
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(0)])
    copy_tree(roots.manifests, str(tmp_path / "backup"))
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(1)])
    copy_tree(roots.manifests, str(tmp_path / "newest"))

    copy_tree(str(tmp_path / "backup"), roots.manifests)
    with pytest.raises(ForeignRootError, match="older"), archive.writer("news", clock=clock):
        pytest.fail("it wrote to manifests of yesterday")
    assert not check(archive).sound

    for missing in (roots.manifests, roots.cas):
        os.rename(missing, f"{missing}-unmounted")
        os.mkdir(missing)
        with pytest.raises(NotInitialisedError):
            Archive(roots)
        with pytest.raises(AlreadyInitialisedError):
            create(roots)
        assert os.listdir(missing) == []
        os.rmdir(missing)
        os.rename(f"{missing}-unmounted", missing)

    foreign = make_archive(tmp_path / "foreign")
    with pytest.raises(ForeignRootError):
        Archive(Roots.of(roots.cas, foreign.roots.manifests))

    copy_tree(str(tmp_path / "newest"), roots.manifests)
    with archive.writer("news", clock=clock) as writer:
        writer.commit([group(2)])
    assert known(group(1)) in contents(archive)


def test_one_writer_per_broadcast(archive: Archive) -> None:
    """The second is refused while the first lives, and only then; others are not concerned."""
    script = (
        "import sys\nfrom casfs.archive import Archive\nfrom casfs.roots import Roots\n"
        "with Archive(Roots.of(*sys.argv[1:3])).writer('news') as writer:\n"
        " print('recording', flush=True)\n sys.stdin.read()\n"
    )
    command = python("-c", script, archive.roots.cas, archive.roots.manifests)
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"recording\n"
        with pytest.raises(WriterLockedError, match="another process") as refusal:
            archive.writer("news").__enter__()
        assert isinstance(refusal.value, ArchiveError)
        with archive.writer("sport") as writer:
            writer.commit([group(0)])
        child.kill()
        child.wait()
        # The kernel has let go of the lock with its holder: nothing is stale.
        with archive.writer("news") as writer:
            writer.commit([group(0)])
    assert check(archive).sound
