"""Reading group files through the mount, beside bindfs over the same objects and plain cat."""

from __future__ import annotations

import contextlib
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from casfs.archive import Archive
from casfs.mount.filenames import HOURS_PER_DAY, format_day, format_hour, group_file_name
from casfs.timestamps import HOUR
from tools.benchmarks import mounts
from tools.benchmarks.material import BROADCAST, OBJECT_BYTES, TRACK
from tools.benchmarks.measuring import Contender, Measurement, run_command, take_turns
from tools.benchmarks.reporting import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from casfs.roots import Roots
    from tools.benchmarks.bench import Bench

_CASFS = "casfs mount"
_CAT = "cat of the objects"


def cold(bench: Bench) -> Iterator[Row]:
    """Compare a first read of all group files in their order, none of them in memory."""
    count = bench.scaled(2000)
    other = "bindfs over the objects"
    reason = mounts.cannot_mount() or bench.peers.missing("bindfs")
    runs: dict[str, tuple[Measurement, ...]] = {}
    if not reason:
        roots = bench.stored(count)
        names, objects = _in_order(roots)
        contenders = [
            Contender(_CASFS, lambda: _read_cold(roots, names, objects)),
            Contender(other, lambda: _read_cold_by_bindfs(roots, objects)),
        ]
        runs = take_turns(contenders, bench.rounds(5))
    yield Row(
        what=f"cold read of {count} group files of {OBJECT_BYTES // 1000} kB in order",
        subject=_CASFS,
        against=other,
        aim=1.2,
        subject_runs=runs.get(_CASFS, ()),
        against_runs=runs.get(other, ()),
        skipped=reason,
    )


def warm(bench: Bench) -> Iterator[Row]:
    """Compare reading them once more."""
    count = bench.scaled(2000)
    reason = mounts.cannot_mount()
    runs: dict[str, tuple[Measurement, ...]] = {}
    if not reason:
        roots = bench.stored(count)
        names, objects = _in_order(roots)
        root = Path(roots.cas)
        with mounts.mounted(mounts.casfs(roots)) as filesystem:
            contenders = [
                Contender(
                    _CASFS, partial(mounts.measured_on, filesystem, _cat(names), filesystem.path)
                ),
                Contender(_CAT, lambda: run_command(_cat(objects), directory=root)),
            ]
            for contender in contenders:
                contender.run()
            runs = take_turns(contenders, bench.rounds(7))
    yield Row(
        what=f"read again, warm, {count} group files of {OBJECT_BYTES // 1000} kB",
        subject=_CASFS,
        against=_CAT,
        aim=0.9,
        subject_runs=runs.get(_CASFS, ()),
        against_runs=runs.get(_CAT, ()),
        skipped=reason,
    )


def _read_cold(roots: Roots, names: Sequence[str], objects: Sequence[str]) -> Measurement:
    mounts.drop_from_memory([Path(roots.cas, path) for path in objects])
    with mounts.mounted(mounts.casfs(roots)) as filesystem:
        return mounts.measured_on(filesystem, _cat(names), filesystem.path)


def _read_cold_by_bindfs(roots: Roots, objects: Sequence[str]) -> Measurement:
    mounts.drop_from_memory([Path(roots.cas, path) for path in objects])
    with mounts.mounted(mounts.bindfs(Path(roots.cas))) as filesystem:
        return mounts.measured_on(filesystem, _cat(objects), filesystem.path)


def _cat(paths: Sequence[str]) -> list[str]:
    return ["cat", *paths]


def _in_order(roots: Roots) -> tuple[list[str], list[str]]:
    """Return the group files, relative to the mount, and their objects, to the CAS root."""
    names: list[str] = []
    objects: list[str] = []
    archive = Archive(roots)
    with contextlib.closing(archive.reader()) as reader:
        track = reader.track(BROADCAST, TRACK)
        assert track is not None
        for group in islice(reader.groups(track, 0, 1 << 62), 1_000_000):
            day, hour = divmod(group.received_start // HOUR, HOURS_PER_DAY)
            directory = f"broadcasts/{BROADCAST}/{TRACK}/{format_day(day)}/{format_hour(hour)}"
            names.append(f"{directory}/{group_file_name(group)}")
            objects.append(f"objects/blake3/{group.hash[:2]}/{group.hash}.bin")
    return names, objects
