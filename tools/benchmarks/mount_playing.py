"""Recordings as players use them: read through, opened, sought in; beside native flat files.

The native file is what ffmpeg makes of the same media with ``-c copy -movflags +faststart``.
Whatever is read is on disk when a measurement begins, and not in memory. That a recording was put
together before, as it is when somebody lists it, has a comparison of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from casfs.archive import Archive
from casfs.recordings.spool import DIRECTORY_SUFFIX
from casfs.roots import Roots
from tools.benchmarks import mounts
from tools.benchmarks.measuring import (
    BenchError,
    Contender,
    Measurement,
    run_command,
    stopwatch,
    take_turns,
)
from tools.benchmarks.recorded_media import (
    DAY_SECONDS,
    HOUR_SECONDS,
    Broadcast,
    objects_in_order,
    recorded,
)
from tools.benchmarks.reporting import Row

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator, Sequence

    from tools.benchmarks.bench import Bench

_CASFS = "casfs mount"
_CAT = "cat of the objects"
_NATIVE = "a native flat file"
_NAME = "bench/tv"
_DAY = "recordings/bench/tv/2026-01-01"
_HOUR_BITS = 1_200_000
_DAY_BITS = 100_000
"""Less, so that a day is no 15 GB; players' work depends on the number of frames."""
_OPEN_SHARE = 0.02
_SOUGHT = 0.84
"""Of the whole: where players are sent."""


class _Recording(Struct, frozen=True):
    """A recording, and the native file of the same media."""

    roots: Roots
    path: str
    """In the mount."""
    seconds: int
    objects: tuple[str, ...]
    """Below the CAS root, in the order of the file."""
    native: Path

    def mounted(self) -> contextlib.AbstractContextManager[mounts.Filesystem]:
        """Mount the archive, nothing of it in memory."""
        mounts.drop_from_memory([Path(self.roots.cas, path) for path in self.objects])
        kept = Path(Archive(self.roots).index_path + DIRECTORY_SUFFIX)
        mounts.drop_from_memory(list(kept.glob("*")))
        return mounts.mounted(mounts.casfs(self.roots))


def playing(bench: Bench) -> Iterator[Row]:
    """Compare putting together, opening, seeking and reading of an hour and of a day."""
    reason = mounts.cannot_mount() or lacking("ffmpeg", "ffprobe")
    seconds = bench.scaled(DAY_SECONDS)
    hour = Broadcast(_NAME, min(HOUR_SECONDS, seconds), _HOUR_BITS)
    yield from _rows(bench, "an hour", hour, "00.mp4", reason)
    yield from _rows(bench, "a day", Broadcast(_NAME, seconds, _DAY_BITS), "2026-01-01.mp4", reason)


def _rows(bench: Bench, what: str, broadcast: Broadcast, name: str, reason: str) -> Iterator[Row]:
    directory = bench.directory / name
    if broadcast.seconds < {"an hour": HOUR_SECONDS, "a day": DAY_SECONDS}[what]:
        what = f"{what} cut to {broadcast.seconds} s"
    built: tuple[Measurement, ...] = ()
    copied: tuple[Measurement, ...] = ()
    pairs: dict[str, dict[str, tuple[Measurement, ...]]] = {}
    most = 0
    if not reason:
        recording = _made(directory, broadcast, name)
        built, copied = (_put_together(recording),), (_copied(recording),)
        most = round(_OPEN_SHARE * recording.native.stat().st_size)
        for played, (turns, rounds) in _compared(recording).items():
            pairs[played] = take_turns(turns, bench.rounds(rounds))
        shutil.rmtree(directory)
    yield _row(
        f"{what} put together, at its first stat", "ffmpeg -c copy", None, built, copied, reason
    )
    for played, against, aim in (
        ("read through, cold", _CAT, 0.5),
        ("opened (ffprobe)", _NATIVE, 0.5),
        ("sought in (ffmpeg -ss)", _NATIVE, 0.5),
    ):
        runs = pairs.get(played, {})
        yield _row(
            f"{what} {played}", against, aim, runs.get(_CASFS, ()), runs.get(against, ()), reason
        )
    opened = pairs.get("opened (ffprobe)", {}).get(_CASFS, ())
    yield Row(
        what=f"{what}: bytes read at open",
        subject=_CASFS,
        against=f"{_OPEN_SHARE:.0%} of the file",
        aim=1.0 if "hour" in what else None,
        subject_runs=opened,
        against_runs=tuple(Measurement(0.0, 0, disk_bytes=most) for _ in opened),
        quantity="disk_bytes",
        skipped=reason,
    )


def _row(
    what: str,
    against: str,
    aim: float | None,
    ours: tuple[Measurement, ...],
    theirs: tuple[Measurement, ...],
    reason: str,
) -> Row:
    return Row(
        what=what,
        subject=_CASFS,
        against=against,
        aim=aim,
        subject_runs=ours,
        against_runs=theirs,
        skipped=reason,
    )


def _made(directory: Path, broadcast: Broadcast, name: str) -> _Recording:
    roots = recorded(directory, broadcast)
    return _Recording(
        roots,
        f"{_DAY}/{name}",
        broadcast.seconds,
        tuple(objects_in_order(roots, broadcast.name)),
        directory / "native.mp4",
    )


def _put_together(recording: _Recording) -> Measurement:
    """Measure how long it takes to tell the file's size for the first time."""
    with recording.mounted() as filesystem, stopwatch() as seconds:
        assert (filesystem.path / recording.path).stat().st_size
        peak = mounts.served_peak(filesystem)
    return Measurement(seconds(), peak)


def _copied(recording: _Recording) -> Measurement:
    """Have ffmpeg make the native file."""
    with recording.mounted() as filesystem:
        source = str(filesystem.path / recording.path)
        output = ("-c", "copy", "-map", "0", "-movflags", "+faststart", str(recording.native))
        return run_command(["ffmpeg", "-v", "error", "-i", source, *output])


def _compared(recording: _Recording) -> dict[str, tuple[list[Contender], int]]:
    """Return the contenders of each comparison, and how often they usually run."""
    place = recording.seconds * _SOUGHT + 0.5
    players: dict[str, tuple[list[str], list[str]]] = {
        "opened (ffprobe)": (["ffprobe", "-v", "error", "-show_format"], []),
        "sought in (ffmpeg -ss)": (
            ["ffmpeg", "-v", "error", "-ss", str(place), "-i"],
            ["-frames:v", "1", "-f", "null", "-"],
        ),
    }
    compared = {
        what: (
            [
                Contender(_CASFS, partial(_played_mounted, recording, *command)),
                Contender(_NATIVE, partial(_played_native, recording, *command)),
            ],
            3,
        )
        for what, command in players.items()
    }
    through = [
        Contender(_CASFS, partial(_read_through, recording)),
        Contender(_CAT, partial(_read_objects, recording)),
    ]
    return {"read through, cold": (through, 3), **compared}


def _played_mounted(
    recording: _Recording, before: Sequence[str], behind: Sequence[str]
) -> Measurement:
    with recording.mounted() as filesystem:
        run = _played([*before, str(filesystem.path / recording.path), *behind])
        return structs.replace(run, peak_bytes=mounts.served_peak(filesystem))


def _played_native(
    recording: _Recording, before: Sequence[str], behind: Sequence[str]
) -> Measurement:
    mounts.drop_from_memory([recording.native])
    return _played([*before, str(recording.native), *behind])


def _played(command: Sequence[str]) -> Measurement:
    """Run a player; the disk's bytes are those that it has read of whatever kind.

    Raises BenchError if it fails.
    """
    begun = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - begun
        with open(f"/proc/{process.pid}/io", encoding="ascii") as counts:
            read = int(counts.readline().removeprefix("rchar: "))
    if process.returncode != 0:
        raise BenchError(f"{command[0]} ended with {process.returncode}")
    return Measurement(seconds, 0, disk_bytes=read)


def _read_through(recording: _Recording) -> Measurement:
    with recording.mounted() as filesystem:
        path = str(filesystem.path / recording.path)
        return mounts.measured_on(filesystem, ["sh", "-c", 'exec cat "$0" > /dev/null', path])


def _read_objects(recording: _Recording) -> Measurement:
    root = Path(recording.roots.cas)
    mounts.drop_from_memory([root / path for path in recording.objects])
    listed = recording.native.with_suffix(".list")
    listed.write_text("\0".join(recording.objects))
    command = 'exec xargs -0 -a "$0" cat > /dev/null'
    return run_command(["sh", "-c", command, str(listed)], directory=root)


def lacking(*programs: str) -> str:
    """Return which of these programs is not here; empty if all are."""
    return next((f"{name} is not installed" for name in programs if not shutil.which(name)), "")
