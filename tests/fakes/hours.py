"""Archives with sealed hours, and the three commands of retention with a clock of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from casfs.collect import Collection, collect
from casfs.expire import expire
from casfs.restore import Restoration, Selection, restore
from casfs.retention import Decision, Policy
from casfs.timestamps import DAY, HOUR
from casfs.trash import trashed
from tests.fakes.store import NOON, Clock, group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.archive import Archive, Group, Run
    from casfs.digest import Digest

FIRST = NOON // HOUR
"""The hour in which `record_hours` begins."""

LONG_AGO = -100_000
"""Hours before noon: past by any real clock."""

LATER = NOON + 40 * DAY
"""When all of it is long past."""


def hour_group(
    hour: int,
    data: bytes,
    *,
    sequence: int | None = None,
    track: str = "video0.m4s",
    epoch: int = 1,
    init: Digest | None = None,
) -> Group:
    """Return a group received in the hour that begins so many hours after noon."""
    number = hour * 10 if sequence is None else sequence
    received = NOON + hour * HOUR + 1_000_000
    return group(number, data, received=received, track=track, epoch=epoch, init=init)


def record_hours(
    archive: Archive, batches: Sequence[Sequence[Group | Run]], *, broadcast: str = "tv"
) -> None:
    """Record batches of groups, each in an hour of its own, and seal all of these hours."""
    clock = Clock()
    with archive.writer(broadcast, clock=clock) as writer:
        for hour, batch in enumerate(batches):
            clock.now = max(clock.now, NOON + hour * HOUR)
            writer.commit(batch)
        clock.now += HOUR
        writer.seal_hours(0)


def expire_all(archive: Archive, *, act: bool = True, now: int = LATER) -> list[Decision]:
    return expire(archive, Policy(older_than=0), act=act, clock=Clock(now))


def collect_all(
    archive: Archive, *, act: bool = True, grace: int = DAY, now: int = LATER, orphans: bool = False
) -> Collection:
    return collect(archive, grace=grace, act=act, clock=Clock(now), orphans=orphans)


def restore_all(archive: Archive, *, act: bool = True, now: int = LATER) -> Restoration:
    return restore(archive, Selection(), act=act, clock=Clock(now))


def stored(archive: Archive) -> set[str]:
    return {
        str(digest) for shard in archive.objects.shards() for digest in archive.objects.shard(shard)
    }


def in_trash(archive: Archive) -> set[str]:
    return {str(item.digest) for item in trashed(archive.roots.cas)}


def everything_below(root: str) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file; the index is no part of the archive."""
    return {
        os.path.join(directory, name): (status.st_size, status.st_mtime_ns)
        for directory, _, names in os.walk(root)
        for name in names
        if not name.startswith("index.sqlite3")
        for status in [os.stat(os.path.join(directory, name))]
    }
