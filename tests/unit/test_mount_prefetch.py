"""What is prepared ahead of a reader, and how little of it for one who jumps about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from casfs.digest import digest_of
from casfs.errors import ObjectNotFoundError
from casfs.index.rows import BroadcastRow, GroupRow
from casfs.mount.broadcasts import BroadcastsView, GroupFile
from casfs.mount.inodes import Family
from casfs.mount.prefetch import Prefetcher
from casfs.mount.tree import StoredFile, Tree
from casfs.mount.workers import Workers
from tests.fakes.archive import Content, MemoryLookup, alone

if TYPE_CHECKING:
    from collections.abc import Sequence

DEMO = BroadcastRow(1, "demo")
TRACKS = ("video", "audio")


def rows(count: int) -> list[GroupRow]:
    """Two tracks whose groups are committed in turns."""
    return [
        GroupRow(
            broadcast=DEMO,
            track=TRACKS[n % 2],
            n=n,
            epoch=1,
            sequence=n // 2,
            hash=digest_of(b"%d" % n),
            offset=0,
            size=1,
            received_start=n,
            received_end=n,
            complete=True,
            init=None,
        )
        for n in range(1, count + 1)
    ]


class Opener:
    """Notes what is prepared; waits before it is done if told to."""

    def __init__(self) -> None:
        self.prepared: list[int] = []
        self.gate = trio.Event()
        self.gate.set()

    async def prepare(self, node: StoredFile) -> None:
        assert isinstance(node, GroupFile)
        self.prepared.append(node.group.n)
        await self.gate.wait()
        if node.group.n == 13:
            raise ObjectNotFoundError("gone")


class Watching:
    def __init__(self, workers: Workers, groups: Sequence[GroupRow]) -> None:
        view = BroadcastsView(MemoryLookup(Content().with_groups(*groups)), "/broadcasts")
        tree = Tree(view.root, {}, {Family.GROUP: view.following})
        self.opener = Opener()
        self.groups = {group.n: group for group in groups}
        self.prefetcher = Prefetcher(tree, self.opener, workers)

    async def open(self, *numbers: int) -> list[int]:
        """Open the files of these commits; return what has been prepared by then."""
        for n in numbers:
            self.prefetcher.opened(GroupFile(alone(self.groups[n])))
            await wait_all_tasks_blocked(0.02)
        return self.opener.prepared


async def test_whoever_reads_two_in_a_row_finds_the_next_two_of_that_track_prepared() -> None:
    workers = Workers()
    async with workers.background():
        watching = Watching(workers, rows(40))
        assert await watching.open(2) == []
        assert await watching.open(4) == [6, 8]
        assert await watching.open(6) == [6, 8, 10]


async def test_nothing_is_prepared_for_who_jumps_about() -> None:
    workers = Workers()
    async with workers.background():
        watching = Watching(workers, rows(9000))
        assert await watching.open(8000, 4000, 1000, 7000, 5000) == []


async def test_an_object_that_cannot_be_prepared_harms_nobody() -> None:
    workers = Workers()
    async with workers.background():
        watching = Watching(workers, rows(40))
        assert await watching.open(9, 11) == [13]
        assert await watching.open(13, 15) == [13, 15, 17, 19]


async def test_a_disk_that_hangs_is_not_asked_for_ever_more() -> None:
    workers = Workers()
    async with workers.background():
        watching = Watching(workers, rows(200))
        watching.opener.gate = trio.Event()
        assert len(await watching.open(*range(2, 200, 2))) <= 4
