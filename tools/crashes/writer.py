"""The writer that is ended: commits groups and prints each acknowledgement at once.

It runs as ``python -m tools.crashes.writer``. Lines on stdout: ``recording``, ``kept INSTANT
SEQUENCE ...`` for each batch (nanoseconds, monotonic), ``failed MESSAGE``, ``stopped``. It ends
with the exit code of the error that it could not go on after. With ``--stepwise`` it makes one
attempt for each line on stdin, at the same batch again after a failure, until stdin ends. With
``--cut-at-rename`` it cuts the power of those disks itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.archive import Archive, Group
from casfs.errors import CasfsError, StorageError
from casfs.follower import Follower
from casfs.objects.commit import LocalCommitter
from casfs.objects.local import OBJECTS
from casfs.objects.syncing import STRATEGIES, StrategyName
from casfs.roots import Roots
from casfs.timestamps import parse_time
from tools.crashes.disk import shut_down
from tools.crashes.sabotage import BROKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from casfs.archive import BroadcastWriter

_BATCHES_EACH = 8
"""How often the index is kept in step; it is not what is cut here, and its syncs make it rarer."""
_NOON = parse_time("2026-11-22T12:00:00Z")


class Arguments(Struct, frozen=True):
    """What the writer is to do."""

    cas: str
    manifests: str
    broadcast: str
    tracks: list[str]
    first: int
    count: int
    batch: int
    broken: str | None
    stepwise: bool
    one_thread: bool
    index: str | None
    cut_at_rename: list[str]
    sync_strategy: StrategyName


def payload(sequence: int) -> bytes:
    """Return a group's bytes, the same in every run; every third has those of the one before it."""
    number = sequence - (sequence % 3 == 2)
    return f"group {number} ".encode() * (70 << 2 * (number % 4))


def make_group(track: str, sequence: int) -> Group:
    """Return the group with that sequence."""
    data = payload(sequence)
    return Group(
        track=track,
        epoch=1,
        sequence=sequence,
        frames=(data[:5], data[5:]),
        received_start=_NOON,
        received_end=_NOON + 1_000_000,
    )


def say(text: str) -> None:
    """Tell whoever ends us, in one system call."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Record until all is kept, or the disk is gone."""
    arguments = parse_arguments()
    after = BROKEN[arguments.broken]() if arguments.broken else lambda: None
    if arguments.one_thread:
        # So the nth call of a kind is the same in each run.
        setattr(LocalCommitter, "in_parallel", _one_by_one)  # noqa: B010
        setattr(LocalCommitter, "beside", _at_once)  # noqa: B010
    if arguments.cut_at_rename:
        _cut_at_rename(arguments.cut_at_rename)
    try:
        archive = Archive(
            Roots.of(arguments.cas, arguments.manifests),
            index_path=arguments.index,
            sync_strategy=arguments.sync_strategy,
        )
        mirror = Follower(archive)
        with archive.writer(arguments.broadcast) as writer:
            say("recording")
            record(arguments, writer, mirror, after)
            mirror.step(writer.places)
        mirror.close()
        say("stopped")
    except CasfsError as error:
        say(f"failed {error}")
        return error.exit_code
    return 0


def record(
    arguments: Arguments, writer: BroadcastWriter, mirror: Follower, after: Callable[[], None]
) -> None:
    """Commit one batch after the other; raises StorageError unless stepwise."""
    sequence = arguments.first
    while sequence < arguments.first + arguments.count:
        if arguments.stepwise and not sys.stdin.readline():
            return
        numbers = range(sequence, sequence + arguments.batch)
        tracks = arguments.tracks
        try:
            writer.commit([make_group(tracks[number % len(tracks)], number) for number in numbers])
        except StorageError as error:
            if not arguments.stepwise:
                raise
            say(f"failed {error}")
            continue
        say(" ".join(map(str, ("kept", time.monotonic_ns(), *numbers))))
        after()
        sequence += arguments.batch
        if not arguments.stepwise and sequence // arguments.batch % _BATCHES_EACH == 0:
            mirror.step(writer.places)


def _cut_at_rename(disks: Sequence[str]) -> None:
    """Have the power of these disks cut, the journal written last, once an object has its name."""
    rename = os.rename

    def rename_and_cut(source: str, target: str) -> None:
        rename(source, target)
        if OBJECTS in target:
            for disk in disks:
                shut_down(disk, journal_first=True)

    setattr(os, "rename", rename_and_cut)  # noqa: B010  a type checker knows what os has


def _one_by_one(_: LocalCommitter, work: Callable[[object], None], items: Sequence[object]) -> None:
    for item in items:
        work(item)


@contextlib.contextmanager
def _at_once(
    _: LocalCommitter, work: Callable[[object], None]
) -> Iterator[Callable[[object], None]]:
    yield work


def parse_arguments() -> Arguments:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.crashes.writer", description=__doc__)
    parser.add_argument("cas")
    parser.add_argument("manifests")
    parser.add_argument("--broadcast", default="news")
    parser.add_argument("--tracks", nargs="+", default=["video0.m4s", "audio0.m4s"])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--broken", choices=BROKEN)
    parser.add_argument("--stepwise", action="store_true")
    parser.add_argument("--one-thread", action="store_true")
    parser.add_argument("--index")
    parser.add_argument("--cut-at-rename", nargs="*", default=[])
    parser.add_argument("--sync-strategy", choices=STRATEGIES, default="auto")
    return Arguments(**vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
