"""What many small groups cost on disk, kept as runs and kept each for itself.

Audio of sixteen broadcasts, one frame of 400 bytes a group, 47 groups a second, through the
recorder's keeper: time is simulated, everything else is as when recording. What counts are the
files and the disk blocks that the two roots take (`st_blocks`: objects, manifests, the directories;
the index is no part), and the processor time of the whole process.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from typing import TYPE_CHECKING, Literal

import msgspec

from casfs.archive import Archive
from casfs.timestamps import NANOSECONDS
from ingest.coalescing import MOST_SECONDS
from ingest.keeper import Delivery, Keeper
from ingest.moq.events import GroupReceived
from ingest.state import RecorderState
from tools.benchmarks.material import FIRST, new_archive, roots_below
from tools.benchmarks.measuring import Contender, Measurement, run_task, take_turns
from tools.benchmarks.reporting import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tools.benchmarks.bench import Bench

_BROADCASTS = 16
_RATE = 47
_GROUP_BYTES = 400
_SECONDS = 60


def against_one_object_each(bench: Bench) -> Iterator[Row]:
    """Compare runs with one object a group, by files, by disk and by processor time."""
    seconds = max(int(MOST_SECONDS), round(_SECONDS * bench.scale))
    subject, other = "in runs", "one object each"
    runs = take_turns(
        [
            Contender(subject, lambda: _measure(bench.directory / "runs", seconds, small=True)),
            Contender(other, lambda: _measure(bench.directory / "alone", seconds, small=False)),
        ],
        bench.rounds(1),
    )
    what = f"{_BROADCASTS} x {_RATE} groups/s of {_GROUP_BYTES} B, {seconds} s"
    rows: tuple[tuple[Literal["files", "disk_bytes", "seconds"], str, float | None], ...] = (
        ("files", "files", 20.0),
        ("disk_bytes", "disk", 5.0),
        ("seconds", "CPU", None),
    )
    for quantity, name, aim in rows:
        yield Row(
            what=f"{what}: {name}",
            subject=subject,
            against=other,
            aim=aim,
            subject_runs=runs[subject],
            against_runs=runs[other],
            quantity=quantity,
        )


def record_audio(directory: str, seconds: int, small: bool) -> float:
    """Record audio of so many seconds and return the processor time that it took."""
    archive = Archive(roots_below(directory))
    dice = random.Random(7)
    now = FIRST
    with contextlib.ExitStack() as stack:
        keepers = []
        for number in range(_BROADCASTS):
            name = f"bench/radio-{number}"
            writer = stack.enter_context(archive.writer(name, clock=lambda: now))
            keepers.append(Keeper(writer, RecorderState(broadcast=name)))
        begun = time.process_time()
        at_once = int(_RATE * MOST_SECONDS)
        for first in range(0, _RATE * seconds, at_once):
            for keeper in keepers:
                sequences = range(first, min(first + at_once, _RATE * seconds))
                keeper.keep([_delivery(sequence, dice, small=small) for sequence in sequences])
            now = FIRST + (first + at_once) * NANOSECONDS // _RATE
        return time.process_time() - begun


def _delivery(sequence: int, dice: random.Random, *, small: bool) -> Delivery:
    start = FIRST + sequence * NANOSECONDS // _RATE
    group = GroupReceived(
        subscription=0,
        sequence=sequence,
        frames=(dice.randbytes(_GROUP_BYTES),),
        timestamps=(sequence * 1_000_000 // _RATE,),
        complete=True,
        reason="",
        received_start=start,
        received_end=start + 50_000,
    )
    return Delivery(
        *("audio0.m4s", group, 1_000_000, 1, "https://relay.example:443", "moq-lite-05"),
        small=small,
    )


def _measure(directory: Path, seconds: int, *, small: bool) -> Measurement:
    new_archive(directory)
    files, size = _usage(directory)
    measured = run_task(record_audio, str(directory), seconds, small)
    os.sync()
    files_after, size_after = _usage(directory)
    return msgspec.structs.replace(
        measured, files=files_after - files, disk_bytes=size_after - size
    )


def _usage(directory: Path) -> tuple[int, int]:
    """Return how many files and directories lie below, and the disk that they take, bytes."""
    count = size = 0
    for path, _, names in os.walk(directory):
        for name in (".", *names):
            count += 1
            size += os.lstat(os.path.join(path, name)).st_blocks * 512
    return count, size
