"""Many who watch one mount in real time while a broadcast is being recorded beneath it.

Half of them read a recording at the rate at which it plays, a fifth of a second at a time, each
from a place of its own. The others follow the live broadcast, group file by group file. How late a
reader is: of a recording, how long after its due time a piece had been read; live, how long after
the last byte of a group was sent the whole group had been read from the mount.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from casfs.timestamps import NANOSECONDS
from tools.benchmarks import mounts
from tools.benchmarks.measuring import BenchError, Measurement, run_task
from tools.benchmarks.mount_playing import lacking
from tools.benchmarks.recorded_media import Broadcast, recorded
from tools.benchmarks.reporting import Row
from tools.benchmarks.source import BROADCAST, HELD_TRACK, Plan, mark_of, running_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from casfs.roots import Roots
    from tools.benchmarks.bench import Bench
    from tools.benchmarks.source import Listening

_READERS = 8
_LEAST_SECONDS = 3.0
_SECONDS = 40.0
_RECORDED = Broadcast("bench/recorded", 300, 4_000_000)
_RECORDING = "recordings/bench/recorded/2026-01-01/00.mp4"
_LIVE = Plan(group_bytes=1_000_000, frames=25, live_tracks=1)
_NEWEST = f"broadcasts/{BROADCAST}/{HELD_TRACK}/latest.bin"
_PIECE_SECONDS = 0.2
_POLL_SECONDS = 0.02
_PATIENCE = 60.0
_BEHIND = 1.0
"""Seconds; a reader that is later has fallen behind."""


def watching(bench: Bench) -> Iterator[Row]:
    """Compare eight readers with one, and the latest of them with what still is in time."""
    reason = mounts.cannot_mount() or lacking("ffmpeg")
    eight: tuple[Measurement, ...] = ()
    one: tuple[Measurement, ...] = ()
    seconds = max(_LEAST_SECONDS, bench.seconds(_SECONDS))
    if not reason:
        roots = recorded(bench.directory / "watched", _RECORDED)
        with (
            running_source(_LIVE) as source,
            _recorder(roots, source),
            mounts.mounted(mounts.casfs(roots)) as filesystem,
        ):
            _wait_for_groups(filesystem.path)
            one = (_watch(filesystem, 1, seconds),)
            eight = (_watch(filesystem, _READERS, seconds),)
    what = f"{_READERS} real-time readers during ingest, the latest piece"
    for against, aim, others in (
        ("one reader", None, one),
        ("what is in time", 1.0, (Measurement(_BEHIND, 0),) * len(eight)),
    ):
        yield Row(
            what=what,
            subject="casfs mount",
            against=against,
            aim=aim,
            subject_runs=eight,
            against_runs=others,
            skipped=reason,
        )


def watch(mountpoint: str, readers: int, seconds: float) -> float:
    """Read in real time, for a process of its own; return how late the latest piece was."""
    mounted = Path(mountpoint)
    latest = [0.0]

    def read(reading: Callable[[Path, int, float], Iterator[float]], number: int) -> None:
        try:
            # Whoever saw nothing at all is as late as can be.
            latest.append(max(reading(mounted, number, seconds), default=float("inf")))
        except OSError:
            latest.append(float("inf"))
            raise

    threads = [
        threading.Thread(target=read, args=(_read_live if number % 2 else _read_recording, number))
        for number in range(readers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(latest)


def _watch(filesystem: mounts.Filesystem, readers: int, seconds: float) -> Measurement:
    found = run_task(watch, str(filesystem.path), readers, seconds)
    return Measurement(found.seconds, mounts.served_peak(filesystem))


def _read_recording(mounted: Path, number: int, seconds: float) -> Iterator[float]:
    """Yield how late each piece of the recording was."""
    with (mounted / _RECORDING).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        piece = round(size / _RECORDED.seconds * _PIECE_SECONDS)
        position = size * number // _READERS
        begun = time.monotonic()
        for due in range(round(seconds / _PIECE_SECONDS)):
            time.sleep(max(0.0, begun + due * _PIECE_SECONDS - time.monotonic()))
            if len(os.pread(file.fileno(), piece, position)) < piece:
                position = 0
            position += piece
            yield time.monotonic() - begun - due * _PIECE_SECONDS


def _read_live(mounted: Path, number: int, seconds: float) -> Iterator[float]:
    """Yield how late each group of the live broadcast was; what came before is left out."""
    del number
    newest = mounted / _NEWEST
    before = _target(newest)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = _target(newest)
        if found == before:
            time.sleep(_POLL_SECONDS)
            continue
        content = (newest.parent / found).read_bytes()
        sent = mark_of(content[-(_LIVE.group_bytes // _LIVE.frames) :])
        yield (time.time_ns() - sent) / NANOSECONDS
        before = found


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def _recorder(roots: Roots, source: Listening) -> Iterator[None]:
    """Record the source for the time of the context."""
    program = str(Path(sys.executable).with_name("casfs"))
    where = ("--cas-root", roots.cas, "--manifest-root", roots.manifests)
    what = ("--url", source.url, "--name", BROADCAST, "--track", HELD_TRACK)
    with subprocess.Popen(
        [program, *where, "archive", *what, "--tls-fingerprint", source.fingerprint],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def _wait_for_groups(mounted: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not _target(mounted / _NEWEST):
        if time.monotonic() > deadline:
            raise BenchError("nothing of the live broadcast came to the mount")
        time.sleep(_POLL_SECONDS)
