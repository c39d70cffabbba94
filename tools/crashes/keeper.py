"""What looks after an archive, to be ended in the middle of it, and the archive.

It runs as ``python -m tools.crashes.keeper ACTION CAS MANIFESTS``, prints ``ready``, waits for a
line on stdin, does it, and prints ``done``. With ``--cut-at N DISK ...`` it cuts the power of these
filesystems itself, just before its Nth call that changes a disk. It ends with the exit code of its
error.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
from typing import TYPE_CHECKING

from msgspec.structs import replace

from casfs.archive import Archive
from casfs.collect import collect
from casfs.digest import digest_of
from casfs.errors import CasfsError
from casfs.expire import expire
from casfs.restore import Selection, restore
from casfs.retention import Policy
from casfs.roots import Roots, create
from casfs.timestamps import DAY, HOUR, parse_time
from casfs.verify import Plan, verify
from tools.crashes.disk import shut_down
from tools.crashes.writer import make_group, payload, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_BEGIN = parse_time("2026-11-22T12:00:00Z")
_LATER = _BEGIN + 40 * DAY
_EACH = 4
INIT = 100
"""The sequence of the init group, which is never to go."""

EVERYTHING = frozenset({*range(3 * _EACH), INIT})
"""The sequences of `make_archive`: three sealed hours of the broadcast ``news``."""

LIVING = frozenset({*range(2 * _EACH, 3 * _EACH), INIT})
"""Those of the newest hour, which shares an object with the hour before it."""

DAMAGED = (0, 2 * _EACH + 1)
"""Those whose objects `damage` spoils."""


class Clock:
    """Nanoseconds UTC, a millisecond on with each call."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


def make_archive(directory: Path) -> Archive:
    """Make an archive of three sealed hours below a directory that exists."""
    roots = Roots.of(str(directory / "cas"), str(directory / "manifests"))
    create(roots)
    archive = Archive(roots)
    clock = Clock(_BEGIN)
    with archive.writer("news", clock=clock) as writer:
        writer.commit([replace(make_group("init.mp4", INIT), received_start=_BEGIN)])
        for hour in range(3):
            clock.now = max(clock.now, _BEGIN + hour * HOUR)
            numbers = range(hour * _EACH, (hour + 1) * _EACH)
            groups = [make_group("video0.m4s", number) for number in numbers]
            writer.commit(
                [
                    replace(item, received_start=clock.now, received_end=clock.now + 1)
                    for item in groups
                ]
            )
        clock.now += HOUR
        writer.seal_hours(0)
    return archive


def damage(archive: Archive) -> None:
    """Change a byte of some objects."""
    for number in DAMAGED:
        path = archive.objects.path(digest_of(payload(number)))
        os.chmod(path, 0o600)
        with open(path, "r+b") as file:
            file.write(b"G")


def _quarantine(archive: Archive) -> None:
    verify(archive, Plan(quarantine=True), threads=1)


def _expire(archive: Archive) -> None:
    expire(archive, Policy(older_than=0, keep_last=1), act=True, clock=Clock(_LATER))


def _collect(archive: Archive) -> None:
    collect(archive, grace=DAY, act=True, clock=Clock(_LATER))


def _delete(archive: Archive) -> None:
    collect(archive, grace=DAY, act=True, clock=Clock(_LATER + 2 * DAY))


def _restore(archive: Archive) -> None:
    restore(archive, Selection(), act=True, clock=Clock(_LATER + DAY))


ACTIONS: dict[str, Callable[[Archive], None]] = {
    "quarantine": _quarantine,
    "expire": _expire,
    "collect": _collect,
    "delete": _delete,
    "restore": _restore,
}
"""What is done, by its name."""

BEFORE: dict[str, tuple[Callable[[Archive], None], ...]] = {
    "quarantine": (damage,),
    "expire": (),
    "collect": (_expire,),
    "delete": (_expire, _collect),
    "restore": (_expire, _collect),
}
"""What has been done before each action, in good order."""

_CHANGING = ("rename", "unlink", "rmdir", "mkdir", "fsync", "fdatasync", "writev")


@contextlib.contextmanager
def _counting(cut_at: int, disks: list[str], *, journal_first: bool) -> Iterator[None]:
    """Cut the power of the disks before the so-manieth call that changes one."""
    count = itertools.count(1)

    def mortal(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if next(count) == cut_at:
                for disk in disks:
                    shut_down(disk, journal_first=journal_first)
                say("cut")
            return real(*arguments, **options)

        return call

    for name in _CHANGING:
        setattr(os, name, mortal(getattr(os, name)))
    yield


def main() -> int:
    """Do one action."""
    parser = argparse.ArgumentParser(prog="python -m tools.crashes.keeper", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("cas")
    parser.add_argument("manifests")
    parser.add_argument("--cut-at", type=int, default=0)
    parser.add_argument("--journal-first", action="store_true")
    parser.add_argument("--disks", nargs="*", default=[])
    arguments = parser.parse_args()
    try:
        archive = Archive(Roots.of(arguments.cas, arguments.manifests))
        say("ready")
        sys.stdin.readline()
        with _counting(arguments.cut_at, arguments.disks, journal_first=arguments.journal_first):
            ACTIONS[arguments.action](archive)
        say("done")
    except CasfsError as error:
        say(f"failed {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
