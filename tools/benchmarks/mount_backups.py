"""What restic and borg mount, beside the mount of an archive of the same files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from tools.benchmarks import mounts
from tools.benchmarks.material import OBJECT_BYTES
from tools.benchmarks.measuring import Contender, Measurement, run_command, take_turns
from tools.benchmarks.peers import BorgRepository, ResticRepository
from tools.benchmarks.reporting import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.benchmarks.bench import Bench

_CASFS = "casfs mount"
_STAGES = ("mount", "first listing of all files, with attributes", "first read of all files")


class _Peer(Struct, frozen=True):
    """A filesystem that is to be walked."""

    command: Callable[[Path], Sequence[str]]
    below: str
    """Where the files stand in it."""
    environment: Mapping[str, str] = {}


def against_backups(bench: Bench) -> Iterator[Row]:
    """Compare mounting, the first listing and the first read of the same files."""
    count = bench.scaled(1000)
    repositories = {
        "restic mount": (ResticRepository(bench.directory / "restic"), ("restic",), "snapshots"),
        "borg mount": (BorgRepository(bench.directory / "borg"), ("borg", "borg-fuse"), ""),
    }
    unable = mounts.cannot_mount()
    missing = {
        name: unable or next(filter(None, map(bench.peers.missing, needed)), "")
        for name, (_, needed, _) in repositories.items()
    }
    peers = {
        name: _Peer(bench.backed_up(repository, count).mounting, below, repository.environment)
        for name, (repository, _, below) in repositories.items()
        if not missing[name]
    }
    stages: dict[str, dict[str, tuple[Measurement, ...]]] = {stage: {} for stage in _STAGES}
    if peers:
        peers = {_CASFS: _Peer(mounts.casfs(bench.stored(count)), "broadcasts"), **peers}
        walks: dict[str, list[tuple[Measurement, ...]]] = {name: [] for name in peers}
        contenders = [
            Contender(name, partial(_walk, peer, walks[name])) for name, peer in peers.items()
        ]
        take_turns(contenders, bench.rounds(3))
        for at, stage in enumerate(_STAGES):
            stages[stage] = {
                name: tuple(walk[at] for walk in walked) for name, walked in walks.items()
            }
    for name in repositories:
        for stage, runs in stages.items():
            yield Row(
                what=f"{stage}, {count} files of {OBJECT_BYTES // 1000} kB",
                subject=_CASFS,
                against=name,
                aim=1.0,
                subject_runs=runs.get(_CASFS, ()) if name in runs else (),
                against_runs=runs.get(name, ()),
                skipped=missing[name],
            )


def _walk(peer: _Peer, walks: list[tuple[Measurement, ...]]) -> Measurement:
    """Mount, list and read; note how long each took and return the whole."""
    with mounts.mounted(peer.command, peer.environment) as filesystem:
        os.stat(filesystem.path)
        begun = time.perf_counter()
        root = filesystem.path / peer.below
        paths: list[str] = []
        for directory, _, names in os.walk(root):
            for name in names:
                path = os.path.join(directory, name)
                if os.lstat(path).st_size == OBJECT_BYTES:
                    paths.append(path)
        listed = time.perf_counter() - begun
        # restic shows every snapshot under further names
        unique = {os.path.basename(path): path for path in sorted(paths)}
        read = run_command(["cat", *unique.values()])
        peak = mounts.served_peak(filesystem)
    stages = (filesystem.seconds, listed, read.seconds)
    walks.append(tuple(Measurement(seconds, peak) for seconds in stages))
    return Measurement(sum(stages), peak)
