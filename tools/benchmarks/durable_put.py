"""How fast objects become durable: beside bare system calls, and beside backup programs."""

from __future__ import annotations

import os
import queue
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from casfs.archive import Archive, Group
from casfs.digest import digest_of
from tools.benchmarks.material import (
    BROADCAST,
    OBJECT_BYTES,
    group_of,
    new_archive,
    payloads,
    roots_below,
)
from tools.benchmarks.measuring import (
    Contender,
    Measurement,
    run_task,
    run_whole_task,
    stopwatch,
    take_turns,
)
from tools.benchmarks.peers import BorgRepository, Repository, ResticRepository
from tools.benchmarks.reporting import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tools.benchmarks.bench import Bench

_PRODUCERS = 4
_BARE_THREADS = 16
_BATCH_GROUPS = 64
_BATCH_BYTES = 32 << 20
_QUEUED_GROUPS = 64


def against_system_calls(bench: Bench) -> Iterator[Row]:
    """Compare a writer's commits with the same durability by system calls alone."""
    count = bench.scaled(4000)
    subject, other = "writer.commit", f"fsync, rename, fsync directory in {_BARE_THREADS} threads"
    runs = take_turns(
        [
            Contender(subject, lambda: _put_by_casfs(bench.directory / "put", count)),
            Contender(other, lambda: _put_bare(bench.directory / "bare", count)),
        ],
        bench.rounds(5),
    )
    yield Row(
        what=f"durable put, {count} x {OBJECT_BYTES // 1000} kB",
        subject=subject,
        against=other,
        aim=0.8,
        subject_runs=runs[subject],
        against_runs=runs[other],
    )


def against_backups(bench: Bench) -> Iterator[Row]:
    """Compare storing the files of a directory with what restic and borg take for it."""
    count = bench.scaled(4000)
    what = f"durable put of {count} files of {OBJECT_BYTES // 1000} kB, whole process"
    repositories = {
        "restic backup": ("restic", ResticRepository(bench.directory / "restic-put")),
        "borg create": ("borg", BorgRepository(bench.directory / "borg-put")),
    }
    present = {
        name: repository
        for name, (program, repository) in repositories.items()
        if not bench.peers.missing(program)
    }
    subject = "writer.commit"
    runs: dict[str, tuple[Measurement, ...]] = {}
    if present:
        source = bench.files(count)
        runs = take_turns(
            [
                Contender(subject, lambda: _put_files(bench.directory / "put", source)),
                *(
                    Contender(name, _backing_up(repository, source))
                    for name, repository in present.items()
                ),
            ],
            bench.rounds(3),
        )
    for name, (program, _) in repositories.items():
        yield Row(
            what=what,
            subject=subject,
            against=name,
            aim=1.0,
            subject_runs=runs.get(subject, ()) if name in present else (),
            against_runs=runs.get(name, ()),
            skipped=bench.peers.missing(program),
        )


# What runs in processes of its own


def put_groups(directory: str, count: int) -> float:
    """Commit ``count`` groups to the archive in ``directory`` and return the seconds."""
    share = -(-count // _PRODUCERS)
    return _commit(
        Archive(roots_below(directory)),
        [
            _groups(range(start, min(count, start + share)))
            for start in range(0, count, share)
        ],
    )  # fmt: skip


def put_files(directory: str, source: str) -> float:
    """Commit every file of ``source``, one a group, and return the seconds."""
    paths = sorted(Path(source).iterdir())
    return _commit(
        Archive(roots_below(directory)),
        [
            (group_of((paths[at].read_bytes(),), at) for at in range(first, len(paths), _PRODUCERS))
            for first in range(_PRODUCERS)
        ],
    )


def put_bare(directory: str, count: int) -> float:
    """Make ``count`` files durable below ``directory`` and return the seconds."""
    names = iter(range(count))
    sources = [payloads(count, seed) for seed in range(_BARE_THREADS)]

    def put(source: Iterator[tuple[bytes, ...]]) -> None:
        for number in names:
            frames = next(source)
            # Names as casfs spreads them; what the digest of the payload costs is not counted.
            name = digest_of(number.to_bytes(8))
            shard = f"{directory}/{name[:2]}"
            temporary = f"{directory}/{name}"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
            os.writev(descriptor, frames)
            os.fsync(descriptor)
            os.close(descriptor)
            os.rename(temporary, f"{shard}/{name}.bin")
            descriptor = os.open(shard, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fsync(descriptor)
            os.close(descriptor)

    with ThreadPoolExecutor(_BARE_THREADS) as threads, stopwatch() as seconds:
        for _ in threads.map(put, sources):
            pass
    return seconds()


def _groups(sequences: range) -> Iterator[Group]:
    frames = payloads(len(sequences), sequences.start)
    return (group_of(next(frames), sequence) for sequence in sequences)


def _commit(archive: Archive, producers: Iterable[Iterable[Group]]) -> float:
    """Commit what concurrent producers make, in batches as the recorder's: whatever has queued."""
    pending: queue.Queue[Group | None] = queue.Queue(_QUEUED_GROUPS)

    def produce(groups: Iterable[Group]) -> None:
        for group in groups:
            pending.put(group)
        pending.put(None)

    threads = [threading.Thread(target=produce, args=(groups,)) for groups in producers]
    with archive.writer(BROADCAST) as writer, stopwatch() as seconds:
        for thread in threads:
            thread.start()
        producing = len(threads)
        while producing:
            batch: list[Group] = []
            size = 0
            while producing and len(batch) < _BATCH_GROUPS and size < _BATCH_BYTES:
                try:
                    group = pending.get(block=not batch)
                except queue.Empty:
                    break
                if group is None:
                    producing -= 1
                else:
                    batch.append(group)
                    size += sum(map(len, group.frames))
            if batch:
                writer.commit(batch)
    return seconds()


# Around them


def _put_by_casfs(directory: Path, count: int) -> Measurement:
    new_archive(directory)
    os.sync()
    try:
        return run_task(put_groups, str(directory), count)
    finally:
        shutil.rmtree(directory)


def _put_files(directory: Path, source: Path) -> Measurement:
    new_archive(directory)
    os.sync()
    try:
        return run_whole_task(put_files, str(directory), str(source))
    finally:
        shutil.rmtree(directory)


def _put_bare(directory: Path, count: int) -> Measurement:
    directory.mkdir()
    for shard in range(256):
        (directory / f"{shard:02x}").mkdir()
    os.sync()
    try:
        return run_task(put_bare, str(directory), count)
    finally:
        shutil.rmtree(directory)


def _backing_up(repository: Repository, source: Path) -> Callable[[], Measurement]:
    def run() -> Measurement:
        repository.create()
        os.sync()
        try:
            return repository.backup(source)
        finally:
            repository.remove()

    return run
