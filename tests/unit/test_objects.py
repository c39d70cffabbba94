"""The object store: puts, dedup, sweeping, and the order in which things become durable."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from casfs.errors import ObjectNotFoundError, StorageError
from casfs.objects.commit import LocalCommitter
from casfs.objects.local import LocalStore, object_path, shard_names
from casfs.objects.store import Payload
from casfs.objects.temporaries import sweep_temporaries
from tests.fakes.store import flip_bit, make_archive, python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = b"one group of pictures"
DIGEST = digest_of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return make_archive(tmp_path).objects


def put(store: LocalStore, *payloads: bytes) -> list[tuple[bool, bool]]:
    """Put payloads in one batch and return (new, healed) of each."""
    with LocalCommitter(store.root) as committer, committer.batch() as batch:
        results = batch.put([Payload((data[:3], data[3:])) for data in payloads])
    assert [result.digest for result in results] == [digest_of(data) for data in payloads]
    assert [result.size for result in results] == [len(data) for data in payloads]
    return [(result.new, result.healed) for result in results]


def content(store: LocalStore, data: bytes) -> bytes:
    with open(store.open(digest_of(data)), "rb") as file:
        return file.read()


def temporaries(store: LocalStore) -> list[str]:
    return os.listdir(os.path.join(store.root, ".casfs", "tmp"))


def write_object(store: LocalStore, data: bytes, *, name_of: bytes) -> str:
    path = store.path(digest_of(name_of))
    with open(path, "wb") as file:
        file.write(data)
    return path


def test_what_was_put_can_be_read(store: LocalStore) -> None:
    assert put(store, DATA, b"") == [(True, False), (True, False)]
    assert content(store, DATA) == DATA
    assert content(store, b"") == b""
    assert store.path(DIGEST) == os.path.join(store.root, object_path(DIGEST))
    assert store.stat(DIGEST).st_size == len(DATA)
    assert store.check(DIGEST) is None
    assert store.check(DIGEST, len(DATA)) is None


def test_nobody_may_write_to_an_object(store: LocalStore) -> None:
    before = os.umask(0o022)
    try:
        put(store, DATA)
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.stat(DIGEST).st_mode) == 0o444


def test_a_committer_leaves_no_temporaries(store: LocalStore) -> None:
    put(store, DATA, b"another")
    assert temporaries(store) == []


def test_the_same_bytes_are_stored_once(store: LocalStore) -> None:
    assert put(store, DATA) == [(True, False)]
    inode = store.stat(DIGEST).st_ino
    assert put(store, DATA, DATA) == [(False, False), (False, False)]
    assert store.stat(DIGEST).st_ino == inode


def test_the_same_bytes_twice_in_a_batch_are_stored_once(store: LocalStore) -> None:
    assert put(store, DATA, DATA) == [(True, False), (False, False)]


def _truncate(path: str) -> None:
    os.truncate(path, 5)


def _empty(path: str) -> None:
    os.truncate(path, 0)


def _longer(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"\0" * 4096)


def _flip(path: str) -> None:
    flip_bit(path, 3)


def _link(path: str) -> None:
    os.rename(path, f"{path}.away")
    os.symlink(f"{path}.away", path)


@pytest.mark.parametrize("damage", [_truncate, _empty, _longer, _flip, _link])
def test_a_put_heals_a_damaged_object(store: LocalStore, damage: Callable[[str], None]) -> None:
    put(store, DATA)
    damage(store.path(DIGEST))
    assert put(store, DATA, DATA) == [(False, True), (False, False)]
    assert store.check(DIGEST) is None
    assert stat.S_ISREG(store.stat(DIGEST).st_mode)
    assert put(store, DATA) == [(False, False)]


def test_a_reader_of_a_damaged_object_keeps_what_it_has_open(store: LocalStore) -> None:
    """Healing replaces; it never writes into a file that somebody reads."""
    put(store, DATA)
    flip_bit(store.path(DIGEST), 0)
    with open(store.open(DIGEST), "rb") as file:
        put(store, DATA)
        assert file.read() != DATA
    assert content(store, DATA) == DATA


def test_an_unknown_object_is_not_found(store: LocalStore) -> None:
    for ask in (store.open, store.stat, store.check):
        with pytest.raises(ObjectNotFoundError, match="not in the store"):
            ask(DIGEST)


def test_check_says_what_is_wrong(store: LocalStore) -> None:
    put(store, DATA)
    assert store.check(DIGEST, 5) == f"has {len(DATA)} bytes instead of 5"
    flip_bit(store.path(DIGEST), 0)
    assert "hashes to" in (store.check(DIGEST) or "")


def test_check_reports_an_unreadable_sector(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, DATA)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    assert store.check(DIGEST) == "cannot be read: Input/output error"


def test_a_symbolic_link_is_no_object(store: LocalStore) -> None:
    put(store, DATA)
    _link(store.path(DIGEST))
    with pytest.raises(StorageError):
        store.open(DIGEST)


def test_shards_list_their_objects_and_nothing_else(store: LocalStore) -> None:
    payloads = [str(number).encode() for number in range(600)]
    put(store, *payloads)
    shard = os.path.dirname(store.path(DIGEST))
    for stray in ("README", "0" * 64 + ".bin", DIGEST, f"{DIGEST}.bin.part"):
        with open(os.path.join(shard, stray), "w", encoding="utf-8"):
            pass
    assert list(store.shards()) == shard_names()
    found = [digest for name in store.shards() for digest in store.shard(name)]
    assert sorted(found) == sorted(map(digest_of, payloads))


def test_a_missing_shard_says_so(store: LocalStore) -> None:
    os.rmdir(os.path.join(store.root, "objects", "blake3", "00"))
    with pytest.raises(StorageError, match="blake3/00"):
        list(store.shard("00"))


# The order of the crash protocol


class Trace:
    """Every call that has to do with durability, by what it was done to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        fsync, rename = os.fsync, os.rename

        def traced_fsync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            fsync(descriptor)
            self.calls.append(f"sync {path}")

        def traced_rename(source: str, target: str) -> None:
            rename(source, target)
            self.calls.append(f"rename {source} {target}")

        monkeypatch.setattr(os, "fsync", traced_fsync)
        monkeypatch.setattr(os, "rename", traced_rename)

    def where(self, *words: str) -> list[int]:
        return [at for at, call in enumerate(self.calls) if all(word in call for word in words)]


def test_data_is_durable_before_its_name_and_the_name_before_the_return(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace(monkeypatch)
    payloads = [b"a", b"b", b"c", b"d"]
    put(store, *payloads)
    written = trace.where("sync", "/.casfs/tmp/")
    renamed = trace.where("rename")
    assert len(written) == len(renamed) == 4
    assert max(written) < min(renamed)
    for data in payloads:
        shard = os.path.dirname(store.path(digest_of(data)))
        (named,) = trace.where("rename", store.path(digest_of(data)))
        assert max(trace.where("sync", shard)) > named
    shards = {digest_of(data)[:2] for data in payloads}
    assert len(trace.where("sync", "/objects/blake3/")) == len(shards)


def test_a_dedup_hit_is_made_as_durable_as_a_put(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_object(store, DATA, name_of=DATA)
    trace = Trace(monkeypatch)
    assert put(store, DATA) == [(False, False)]
    assert trace.calls == [
        f"sync {store.path(DIGEST)}",
        f"sync {os.path.dirname(store.path(DIGEST))}",
    ]


def test_shards_stay_locked_until_the_batch_ends(store: LocalStore) -> None:
    """A collector, which takes the lock alone, has to wait for the manifest line."""
    shard = os.open(os.path.dirname(store.path(DIGEST)), os.O_RDONLY)
    try:
        with LocalCommitter(store.root) as committer:
            with committer.batch() as batch:
                batch.put([Payload((DATA,))])
                with pytest.raises(BlockingIOError):
                    fcntl.flock(shard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Other writers are welcome.
                fcntl.flock(shard, fcntl.LOCK_SH | fcntl.LOCK_NB)
                fcntl.flock(shard, fcntl.LOCK_UN)
            fcntl.flock(shard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(shard)


def test_a_put_waits_for_a_collector(store: LocalStore) -> None:
    shard = os.open(os.path.dirname(store.path(DIGEST)), os.O_RDONLY)
    fcntl.flock(shard, fcntl.LOCK_EX)
    thread = threading.Thread(target=put, args=(store, DATA))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    assert not os.path.exists(store.path(DIGEST))
    os.close(shard)
    thread.join()
    assert store.check(DIGEST) is None


def test_no_descriptor_is_left_open(store: LocalStore) -> None:
    put(store, DATA)
    before = len(os.listdir("/proc/self/fd"))
    put(store, DATA, b"new", b"")
    assert len(os.listdir("/proc/self/fd")) == before


def test_work_in_parallel_has_ended_when_one_piece_fails(store: LocalStore) -> None:
    """Whoever is told of the failure cleans up and tries again: nothing may still be at work."""
    release, done = threading.Event(), threading.Event()

    def work(item: str) -> None:
        if item == "fails":
            threading.Timer(0.05, release.set).start()
            raise OSError(5, "Input/output error")
        assert release.wait(10)
        done.set()

    with LocalCommitter(store.root) as committer:
        with pytest.raises(OSError, match="Input/output"):
            committer.in_parallel(work, ["fails", "slow"])
        assert done.is_set()


@pytest.mark.parametrize("threads", [0, 1])
def test_where_no_more_threads_can_be_had_a_put_only_takes_longer(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if len(started) >= threads:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    with LocalCommitter(store.root) as committer:
        for refused in (True, False):
            with monkeypatch.context() as patched, committer.batch() as batch:
                if refused:
                    patched.setattr(threading.Thread, "start", refuse)
                payloads = [Payload((b"%d %d" % (refused, number),)) for number in range(20)]
                assert all(stored.new for stored in batch.put(payloads))
    assert temporaries(store) == []


# Temporaries


def leave_temporaries(store: LocalStore, name: str) -> str:
    path = os.path.join(store.root, ".casfs", "tmp", name)
    os.mkdir(path)
    with open(os.path.join(path, "1"), "wb") as file:
        file.write(b"half an obj")
    return path


def test_temporaries_of_the_dead_are_swept(store: LocalStore) -> None:
    leave_temporaries(store, "1-dead")
    leave_temporaries(store, f"{os.getpid()}-dead")
    assert sweep_temporaries(store.root) == 2
    assert temporaries(store) == []


def test_temporaries_of_the_living_are_never_swept(store: LocalStore) -> None:
    with LocalCommitter(store.root):
        (own,) = temporaries(store)
        assert sweep_temporaries(store.root) == 0
        with LocalCommitter(store.root):
            assert len(temporaries(store)) == 2
        assert temporaries(store) == [own]


def test_temporaries_of_another_living_process_are_never_swept(store: LocalStore) -> None:
    child = subprocess.Popen(
        python(
            "-c",
            "import sys\nfrom casfs.objects.commit import LocalCommitter\n"
            "with LocalCommitter(sys.argv[1]):\n print(flush=True)\n sys.stdin.read()",
            store.root,
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        (name,) = temporaries(store)
        put(store, DATA)
        assert temporaries(store) == [name]
        child.kill()
    put(store, DATA)
    assert temporaries(store) == []


def test_a_committer_whose_new_directory_is_swept_makes_another(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between mkdir and the lock it looks like a dead one's to any other process that starts."""
    mkdir = os.mkdir
    swept: list[int] = []

    def mkdir_and_sweep(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        if len(swept) < 3:
            swept.append(sweep_temporaries(store.root))

    monkeypatch.setattr(os, "mkdir", mkdir_and_sweep)
    assert put(store, DATA) == [(True, False)]
    assert swept == [1, 1, 1]
    assert temporaries(store) == []


def test_temporaries_that_cannot_be_removed_keep_nobody_from_recording(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another user, say."""
    theirs = leave_temporaries(store, "1-theirs")
    open_file = os.open

    def refuse(path: str, flags: int, *rest: int, **more: int) -> int:
        if path == theirs:
            raise PermissionError(13, "Permission denied")
        return open_file(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert put(store, DATA) == [(True, False)]
    assert temporaries(store) == ["1-theirs"]


def test_without_a_place_for_temporaries_there_is_no_writing(store: LocalStore) -> None:
    os.rmdir(os.path.join(store.root, ".casfs", "tmp"))
    with pytest.raises(StorageError, match="preparing"):
        put(store, DATA)
