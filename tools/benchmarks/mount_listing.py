"""Listing very many group files, beside bindfs and the disk's own filesystem with as many files."""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tools.benchmarks import mounts
from tools.benchmarks.large_index import index_of
from tools.benchmarks.material import BROADCAST, TRACK
from tools.benchmarks.measuring import Contender, Measurement, run_command, take_turns
from tools.benchmarks.reporting import Row, filesystem_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from casfs.roots import Roots
    from tools.benchmarks.bench import Bench

_CASFS = "casfs mount"
_FLOOR = "pyfuse3 alone"
_LONG = ("ls", "-l")
_FIND = ("find", ".", "-type", "f")
_MANY_HOURS = 24
_MEMORY_AIM = 150_000_000


def long_listing(bench: Bench) -> Iterator[Row]:
    """Compare ``ls -l`` of one directory: the second time and later, as one lists what one uses."""
    entries = bench.scaled(100_000)
    yield from _compare(bench, _LONG, entries, 1, (("bindfs", 10.0), ("", 0.5)))


def finding(bench: Bench) -> Iterator[Row]:
    """Compare ``find`` over a day of files."""
    others = (("", 1 / 3), (_FLOOR, None))
    yield from _compare(bench, _FIND, bench.scaled(1_000_000), _MANY_HOURS, others)


def starting(bench: Bench) -> Iterator[Row]:
    """Compare mount and first listing of a large archive with those of a small one."""
    few, many = bench.scaled(10_000), bench.scaled(10_000_000)
    reason = mounts.cannot_mount()
    small, large = f"{few} groups", f"{many} groups"
    runs: dict[str, tuple[Measurement, ...]] = {}
    if not reason:
        archives = {
            name: index_of(bench.directory / str(groups), groups, per_hour=1800)
            for name, groups in ((large, many), (small, few))
        }
        contenders = [
            Contender(name, partial(_mount_and_list, roots)) for name, roots in archives.items()
        ]
        runs = take_turns(contenders, bench.rounds(5))
    yield Row(
        what=f"mount and first ls of an hour, {large} in the index",
        subject=_CASFS,
        against=f"the same of {small}",
        aim=0.5,
        subject_runs=runs.get(large, ()),
        against_runs=runs.get(small, ()),
        skipped=reason,
    )
    most = Measurement(0.0, _MEMORY_AIM)
    yield Row(
        what=f"the same: peak memory, {large} in the index",
        subject=_CASFS,
        against="150 MB",
        aim=1.0,
        subject_runs=runs.get(large, ()),
        against_runs=(most,) * len(runs.get(large, ())),
        quantity="peak_bytes",
        skipped=reason,
    )


def _compare(
    bench: Bench,
    command: Sequence[str],
    entries: int,
    hours: int,
    others: Sequence[tuple[str, float | None]],
) -> Iterator[Row]:
    """Run the command in the mount and in each of the others; an empty name is the disk itself."""
    reason = mounts.cannot_mount()
    disk = filesystem_of(bench.directory)
    missing = {
        name: "" if name in {"", _FLOOR} else bench.peers.missing(name) for name, _ in others
    }
    runs: dict[str, tuple[Measurement, ...]] = {}
    if not reason:
        roots = index_of(bench.directory / "archive", entries, per_hour=-(-entries // hours))
        plain = bench.directory / "plain"
        with contextlib.ExitStack() as held:
            filesystem = held.enter_context(mounts.mounted(mounts.casfs(roots)))
            track = filesystem.path / "broadcasts" / BROADCAST / TRACK
            days = [day for day in sorted(track.iterdir()) if day.is_dir()]
            shown = days[0] if hours > 1 else next(days[0].iterdir())
            _make_files(shown, plain)
            measure = mounts.measured_on
            contenders = [Contender(_CASFS, partial(measure, filesystem, command, shown))]
            for name, why_not in missing.items():
                if name and not why_not:
                    command_of = mounts.floor if name == _FLOOR else mounts.bindfs
                    other = held.enter_context(mounts.mounted(command_of(plain)))
                    contenders.append(Contender(name, partial(measure, other, command, other.path)))
                elif not name:
                    contenders.append(
                        Contender(disk, partial(run_command, command, directory=plain))
                    )
            for contender in contenders:
                contender.run()
            runs = take_turns(contenders, bench.rounds(3))
    for name, aim in others:
        yield Row(
            what=f"{' '.join(command)}, {entries} files",
            subject=_CASFS,
            against=name or disk,
            aim=aim,
            subject_runs=runs.get(_CASFS, ()) if not missing[name] else (),
            against_runs=runs.get(name or disk, ()),
            skipped=reason or missing[name],
        )


def _make_files(shown: Path, plain: Path) -> None:
    """Make empty files of the names that stand below ``shown``."""
    for directory, _, names in os.walk(shown):
        made = plain / Path(directory).relative_to(shown)
        made.mkdir(parents=True)
        for name in names:
            os.close(os.open(made / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
    os.sync()


def _mount_and_list(roots: Roots) -> Measurement:
    """Return the time from the start of the mount to the end of the first listing of an hour."""
    with mounts.mounted(mounts.casfs(roots)) as filesystem:
        begun = time.perf_counter()
        track = filesystem.path / "broadcasts" / BROADCAST / TRACK
        days = sorted(day.name for day in os.scandir(track) if not day.is_symlink())
        day = track / days[-1]
        hours = sorted(os.listdir(day))
        assert [entry.stat().st_size for entry in os.scandir(day / hours[0])]
        seconds = time.perf_counter() - begun
        return Measurement(filesystem.seconds + seconds, mounts.served_peak(filesystem))
