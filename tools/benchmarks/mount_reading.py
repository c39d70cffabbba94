"""Reading group files through the mount, beside bindfs over the same objects and plain cat."""

from __future__ import annotations

import contextlib
import os
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
_FLOOR = "pyfuse3 alone"


def cold(bench: Bench) -> Iterator[Row]:
    """Compare a first read of all group files in their order, none of them in memory."""
    count = bench.scaled(2000)
    other = "bindfs over the objects"
    reason = mounts.cannot_mount() or bench.peers.missing("bindfs")
    runs: dict[str, tuple[Measurement, ...]] = {}
    if not reason:
        roots = bench.stored(count)
        names, objects = _in_order(roots)
        numbered = _numbered(bench, roots, objects)
        contenders = [
            Contender(_CASFS, lambda: _read_cold(roots, names, objects)),
            Contender(other, lambda: _read_cold_by_bindfs(roots, objects)),
            Contender(_FLOOR, lambda: _read_cold_by_the_floor(roots, numbered, objects)),
        ]
        runs = take_turns(contenders, bench.rounds(5))
    for against, aim in ((other, 1.2), (_FLOOR, None)):
        yield Row(
            what=f"cold read of {count} group files of {OBJECT_BYTES // 1000} kB in order",
            subject=_CASFS,
            against=against,
            aim=aim,
            subject_runs=runs.get(_CASFS, ()),
            against_runs=runs.get(against, ()),
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
        numbered = _numbered(bench, roots, objects)
        measure = mounts.measured_on
        with (
            mounts.mounted(mounts.casfs(roots)) as filesystem,
            mounts.mounted(mounts.floor(numbered)) as bare,
        ):
            numbers = sorted(os.listdir(numbered))
            contenders = [
                Contender(_CASFS, partial(measure, filesystem, _cat(names), filesystem.path)),
                Contender(_CAT, lambda: run_command(_cat(objects), directory=root)),
                Contender(_FLOOR, partial(measure, bare, _cat(numbers), bare.path)),
            ]
            for contender in contenders:
                contender.run()
            runs = take_turns(contenders, bench.rounds(7))
    for against, aim in ((_CAT, 0.9), (_FLOOR, None)):
        yield Row(
            what=f"read again, warm, {count} group files of {OBJECT_BYTES // 1000} kB",
            subject=_CASFS,
            against=against,
            aim=aim,
            subject_runs=runs.get(_CASFS, ()),
            against_runs=runs.get(against, ()),
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


def _read_cold_by_the_floor(roots: Roots, numbered: Path, objects: Sequence[str]) -> Measurement:
    mounts.drop_from_memory([Path(roots.cas, path) for path in objects])
    with mounts.mounted(mounts.floor(numbered)) as filesystem:
        numbers = sorted(os.listdir(numbered))
        return mounts.measured_on(filesystem, _cat(numbers), filesystem.path)


def _numbered(bench: Bench, roots: Roots, objects: Sequence[str]) -> Path:
    """Return a directory with the same objects as files ``000000`` and so on."""
    directory = bench.directory / f"numbered-{len(objects)}"
    if not directory.exists():
        directory.mkdir()
        for number, path in enumerate(objects):
            os.link(os.path.join(roots.cas, path), directory / f"{number:06}")
    return directory


def _cat(paths: Sequence[str]) -> list[str]:
    return ["cat", *paths]


def _in_order(roots: Roots) -> tuple[list[str], list[str]]:
    """Return the group files, relative to the mount, and their objects, to the CAS root.

    Both are in the order of the files' names, which is that of their sequence numbers: as a shell
    names them, and as they are played.
    """
    found: list[tuple[str, str]] = []
    archive = Archive(roots)
    with contextlib.closing(archive.reader()) as reader:
        track = reader.track(BROADCAST, TRACK)
        assert track is not None
        for group in islice(reader.groups(track, 0, 1 << 62), 1_000_000):
            day, hour = divmod(group.received_start // HOUR, HOURS_PER_DAY)
            directory = f"broadcasts/{BROADCAST}/{TRACK}/{format_day(day)}/{format_hour(hour)}"
            name = f"{directory}/{group_file_name(group)}"
            found.append((name, f"objects/blake3/{group.hash[:2]}/{group.hash}.bin"))
    found.sort()
    return [name for name, _ in found], [path for _, path in found]
