"""What is measured upon: incompressible payloads, files of them, archives and manifests."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

from casfs.archive import WRITER, Archive, Group
from casfs.digest import digest_of
from casfs.manifests.journal import Journal, JournalIdentity
from casfs.manifests.record import GroupRecord
from casfs.objects.local import object_path
from casfs.roots import Roots, create
from casfs.timestamps import HOUR, NANOSECONDS, format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OBJECT_BYTES = 500_000
"""A group of two seconds of television at 2 Mbit/s."""

FRAMES = 50
"""In each group: 25 a second."""

GROUP_SECONDS = 2
BROADCAST = "bench/tv"
TRACK = "video"

FIRST = parse_time("2026-01-01T00:00:00Z")
"""When the first group of made-up manifests was received."""

_FRAME_BYTES = OBJECT_BYTES // FRAMES
_LINES = 1000


def roots_below(directory: Path | str) -> Roots:
    """Return the roots of the archive in ``directory``."""
    return Roots.of(os.path.join(directory, "cas"), os.path.join(directory, "manifests"))


def new_archive(directory: Path) -> Archive:
    """Make an empty archive in ``directory``, in place of what is there."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    roots = roots_below(directory)
    create(roots)
    return Archive(roots)


def payloads(count: int, seed: int) -> Iterator[tuple[bytes, ...]]:
    """Yield payloads, frame by frame, each other bytes; cheap, so that making them costs little."""
    block = random.Random(seed).randbytes(OBJECT_BYTES)
    view = memoryview(block)
    rest = tuple(
        bytes(view[start : start + _FRAME_BYTES])
        for start in range(_FRAME_BYTES, OBJECT_BYTES, _FRAME_BYTES)
    )
    for number in range(count):
        mark = f"{seed}-{number} ".encode()
        yield (mark + block[len(mark) : _FRAME_BYTES], *rest)


def group_of(frames: tuple[bytes, ...], sequence: int) -> Group:
    """Return the complete group that these frames make."""
    start = FIRST + sequence * GROUP_SECONDS * NANOSECONDS
    return Group(
        track=TRACK,
        epoch=1,
        sequence=sequence,
        frames=frames,
        received_start=start,
        received_end=start + GROUP_SECONDS * NANOSECONDS,
        protocol="moq-lite-04",
    )


def write_files(directory: Path, count: int) -> None:
    """Fill a new ``directory`` with files of `OBJECT_BYTES` that neither compress nor repeat."""
    directory.mkdir()
    source = random.Random(count)
    for number in range(count):
        (directory / f"{number:06d}.bin").write_bytes(source.randbytes(OBJECT_BYTES))


def write_manifest(archive: Archive, count: int) -> None:
    """Write the lines of ``count`` groups (without their objects) as a recorder would have."""
    directory = os.path.join(archive.roots.manifests, archive.directory_of(BROADCAST), TRACK)
    os.makedirs(directory)
    numbers = iter(range(1, 1 << 60))
    now = FIRST
    identity = JournalIdentity(
        store=archive.store_id,
        broadcast=BROADCAST,
        number=1,
        track=TRACK,
        writer=WRITER,
        recorder="0" * 32,
    )
    journal = Journal(
        directory,
        identity,
        position=None,
        appendable=False,
        next_number=lambda: next(numbers),
        clock=lambda: now,
    )
    for start in range(0, count, _LINES):
        now = FIRST + start * GROUP_SECONDS * NANOSECONDS
        journal.open_segment()
        sequences = range(start, min(count, start + _LINES))
        journal.append([_record(sequence, next(numbers)) for sequence in sequences])
    journal.sync()
    journal.close()


def _record(sequence: int, n: int) -> GroupRecord:
    start = FIRST + sequence * GROUP_SECONDS * NANOSECONDS
    digest = digest_of(str(sequence).encode())
    first_frame = sequence * FRAMES
    return GroupRecord(
        broadcast=BROADCAST,
        number=1,
        track=TRACK,
        n=n,
        time=format_time(start + GROUP_SECONDS * NANOSECONDS),
        epoch=1,
        sequence=str(sequence),
        hash=digest,
        path=object_path(digest),
        offset=0,
        size=OBJECT_BYTES,
        frame_sizes=[_FRAME_BYTES] * FRAMES,
        lacking=0,
        frame_timestamps=[str((first_frame + frame) * 40_000) for frame in range(FRAMES)],
        timescale="1000000",
        blocks=None,
        init=digest_of(b"init"),
        received_start=format_time(start),
        received_end=format_time(start + GROUP_SECONDS * NANOSECONDS),
        complete=True,
        reason=None,
        relay="https://relay.example",
        protocol="moq-lite-04",
        recorder="0" * 32,
        writer=WRITER,
    )


GROUPS_PER_HOUR = HOUR // (GROUP_SECONDS * NANOSECONDS)
"""Of made-up manifests."""
