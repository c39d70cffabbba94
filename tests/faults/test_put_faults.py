"""A put whose disk fails at any of its system calls, and puts of the same object at once."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from casfs.durable import write_fully
from casfs.errors import DiskFullError, StorageError
from casfs.objects import syscalls
from casfs.objects.commit import LocalCommitter
from casfs.objects.store import Payload
from tests.fakes.store import make_archive, python

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from casfs.objects.local import LocalStore

PAYLOADS = [f"payload {number} ".encode() * 100 for number in range(6)]
CODES = [(errno.EIO, StorageError), (errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError)]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return make_archive(tmp_path).objects


@pytest.fixture
def committer(store: LocalStore) -> Iterator[LocalCommitter]:
    with LocalCommitter(store.root, "fsync") as found:
        yield found


@pytest.fixture
def by_syncfs(store: LocalStore) -> Iterator[LocalCommitter]:
    with LocalCommitter(store.root, "syncfs") as found:
        yield found


def put(committer: LocalCommitter, payloads: Sequence[bytes] = PAYLOADS) -> list[bool]:
    with committer.batch() as batch:
        return [stored.new for stored in batch.put([Payload((data,)) for data in payloads])]


def present(store: LocalStore) -> list[bytes]:
    """Return the payloads that stand under their names; every object there must be whole."""
    found = [digest for shard in store.shards() for digest in store.shard(shard)]
    assert [store.check(digest) for digest in found] == [None] * len(found)
    return [data for data in PAYLOADS if digest_of(data) in found]


def temporaries(store: LocalStore) -> list[str]:
    base = os.path.join(store.root, ".casfs", "tmp")
    return [name for own in os.listdir(base) for name in os.listdir(os.path.join(base, own))]


class FailingAt:
    """Stands in for a function of ``os`` and fails at its nth call that concerns objects."""

    def __init__(self, patch: pytest.MonkeyPatch, call: str, nth: int, code: int) -> None:
        self._call = getattr(os, call)
        self._nth = nth
        self._code = code
        self._lock = threading.Lock()
        self.calls = 0
        patch.setattr(os, call, self)

    def __call__(self, subject: int | str, *rest: object, **more: object) -> object:
        path = os.readlink(f"/proc/self/fd/{subject}") if isinstance(subject, int) else subject
        if "/.casfs/tmp/" in path or "/objects/" in path:
            with self._lock:
                self.calls += 1
                failing = self.calls == self._nth
            if failing:
                raise OSError(self._code, os.strerror(self._code))
        return self._call(subject, *rest, **more)


@pytest.mark.parametrize(("code", "error"), CODES)
@pytest.mark.parametrize("call", ["open", "writev", "fsync", "rename"])
def test_a_put_that_fails_anywhere_leaves_nothing_wrong_and_can_be_repeated(
    store: LocalStore,
    committer: LocalCommitter,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    error: type[Exception],
) -> None:
    struck = 0
    for nth in range(1, 40):
        with monkeypatch.context() as patch:
            failing = FailingAt(patch, call, nth, code)
            # An object that cannot be opened for a look is written again: no failure.
            with contextlib.suppress(error):
                put(committer)
        present(store)
        assert temporaries(store) == []
        struck += failing.calls >= nth
        if failing.calls < nth:
            break
        for data in PAYLOADS:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(store.path(digest_of(data)))
    assert struck >= len(PAYLOADS)
    put(committer)
    assert present(store) == PAYLOADS


@pytest.mark.parametrize("nth", [1, 2])
def test_a_failed_syncfs_fails_its_batch_and_is_never_repeated_on_the_same_descriptor(
    store: LocalStore, by_syncfs: LocalCommitter, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """The first one is for the data, the second one for the names."""
    syncfs = syscalls.syncfs
    used: list[int] = []
    before = set(os.listdir("/proc/self/fd"))

    def fail(descriptor: int) -> None:
        used.append(descriptor)
        # Whatever has its number now, this descriptor stays open, so that no other gets it.
        os.dup2(descriptor, 900 + len(used))
        if len(used) == nth:
            raise OSError(errno.EIO, "Input/output error")
        syncfs(descriptor)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(syscalls, "syncfs", fail)
            with pytest.raises(StorageError):
                put(by_syncfs)
            assert len(used) == nth
            assert present(store) == (PAYLOADS if nth == 2 else [])
            assert temporaries(store) == []
            put(by_syncfs)
        assert used[nth] != used[nth - 1]
        assert present(store) == PAYLOADS
    finally:
        for number in range(1, len(used) + 1):
            os.close(900 + number)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("call", ["open", "writev", "rename"])
def test_a_put_by_syncfs_that_fails_anywhere_leaves_nothing_wrong(
    store: LocalStore, by_syncfs: LocalCommitter, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    for nth in range(1, 40):
        with monkeypatch.context() as patch:
            failing = FailingAt(patch, call, nth, errno.EIO)
            with contextlib.suppress(StorageError):
                put(by_syncfs)
        present(store)
        assert temporaries(store) == []
        if failing.calls < nth:
            break
    else:
        pytest.fail("it never got through")
    assert present(store) == PAYLOADS


def test_a_short_write_is_completed(
    store: LocalStore, committer: LocalCommitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, buffers: writev(fd, [bytes(buffers[0])[:7]]))
    assert put(committer) == [True] * len(PAYLOADS)
    monkeypatch.undo()
    assert present(store) == PAYLOADS


def test_a_disk_that_fills_within_a_write_leaves_no_half_object(
    store: LocalStore, committer: LocalCommitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(descriptor: int, parts: Sequence[bytes]) -> int:
        write_fully(descriptor, [b"".join(parts)[:50]])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("casfs.objects.commit.write_fully", fill)
        with pytest.raises(DiskFullError):
            put(committer)
    assert present(store) == []
    assert temporaries(store) == []


def test_a_failed_sync_is_never_repeated_on_the_same_file(
    store: LocalStore, committer: LocalCommitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    inodes: list[int] = []

    def fail(descriptor: int) -> None:
        inodes.append(os.fstat(descriptor).st_ino)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError):
            put(committer, PAYLOADS[:1])
    assert len(inodes) == 1
    put(committer, PAYLOADS[:1])
    assert present(store) == PAYLOADS[:1]


def test_locks_are_let_go_after_a_failure(
    store: LocalStore, committer: LocalCommitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        FailingAt(patch, "rename", 1, errno.EIO)
        with pytest.raises(StorageError):
            put(committer)
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_processes_put_the_same_objects_at_once(store: LocalStore) -> None:
    script = (
        "import sys\nfrom casfs.objects.commit import LocalCommitter\n"
        "from casfs.objects.store import Payload\n"
        "with LocalCommitter(sys.argv[1]) as committer:\n"
        " print('ready', flush=True)\n sys.stdin.readline()\n"
        " for number in range(60):\n"
        "  with committer.batch() as batch:\n"
        "   (done,) = batch.put([Payload((b'the same %d' % number * 2000,))])\n"
        "   assert not done.healed\n"
    )
    children = [
        subprocess.Popen(
            python("-c", script, store.root), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    with contextlib.ExitStack() as stack:
        for child in children:
            stack.enter_context(child)
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
        # All the while, what stands under a name is whole.
        while any(child.poll() is None for child in children):
            present(store)
        assert [child.wait() for child in children] == [0, 0, 0]
    found = [digest for shard in store.shards() for digest in store.shard(shard)]
    assert len(found) == 60
    assert present(store) == []
    assert temporaries(store) == []
