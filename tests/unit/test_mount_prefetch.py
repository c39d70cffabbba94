"""What is prepared ahead of a reader, and how little of it for one who jumps about."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio
from msgspec import structs
from trio.testing import wait_all_tasks_blocked

from casfs.digest import digest_of
from casfs.index.rows import BroadcastRow, GroupRow
from casfs.mount.broadcasts import BroadcastsView, GroupFile
from casfs.mount.filenames import group_file_name
from casfs.mount.inodes import Family
from casfs.mount.prefetch import BYTES_AHEAD, FILES_AHEAD, Prefetcher
from casfs.mount.recent import Place, RecentFiles
from casfs.mount.tree import StoredFile, Tree
from casfs.mount.workers import Workers
from casfs.timestamps import HOUR
from tests.fakes.archive import Content, MemoryLookup, alone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_T = TypeVar("_T")

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

    async def prepare(self, files: Sequence[StoredFile]) -> None:
        for file in files:
            assert isinstance(file, GroupFile)
            self.prepared.append(file.group.n)
        await self.gate.wait()


class Prompt(Workers):
    """Answers in the event loop: once all tasks are blocked, all is done."""

    async def ask(self, question: Callable[..., _T], *args: object) -> _T:
        await trio.lowlevel.checkpoint()
        return question(*args)


class Watching:
    def __init__(self, workers: Workers, groups: Sequence[GroupRow]) -> None:
        view = BroadcastsView(MemoryLookup(Content().with_groups(*groups)), "/broadcasts")
        tree = Tree(view.root, {}, {Family.GROUP: view.following})
        self.opener = Opener()
        self.recent = RecentFiles(trio.current_time)
        self.groups = {group.n: group for group in groups}
        self.prefetcher = Prefetcher(tree, self.opener, workers, self.recent)

    async def open(self, *numbers: int) -> list[int]:
        """Open the files of these commits; return what has been prepared by then."""
        for n in numbers:
            self.prefetcher.opened(GroupFile(alone(self.groups[n])))
            await wait_all_tasks_blocked(0.02)
        return self.opener.prepared


async def test_whoever_reads_two_in_a_row_finds_the_next_ones_of_that_track_prepared() -> None:
    workers = Prompt()
    async with workers.background():
        watching = Watching(workers, rows(80))
        assert await watching.open(2) == []
        assert await watching.open(4) == [*range(6, 6 + 2 * FILES_AHEAD, 2)]


async def test_the_next_ones_are_prepared_when_half_of_the_last_are_left() -> None:
    workers = Prompt()
    async with workers.background():
        watching = Watching(workers, rows(80))
        prepared = len(await watching.open(2, 4))
        half = 4 + FILES_AHEAD
        assert len(await watching.open(*range(6, half, 2))) == prepared
        assert await watching.open(half) == [*range(6, half + 2 + 2 * FILES_AHEAD, 2)]


async def test_many_large_objects_are_not_prepared_at_once() -> None:
    workers = Prompt()
    async with workers.background():
        large = [structs.replace(row, size=BYTES_AHEAD // 3 + 1) for row in rows(40)]
        assert await Watching(workers, large).open(2, 4) == [6, 8]
        huge = [structs.replace(row, size=BYTES_AHEAD + 1) for row in rows(40)]
        assert await Watching(workers, huge).open(2, 4) == [6]


async def test_the_names_that_follow_in_the_same_directory_are_known() -> None:
    workers = Prompt()
    async with workers.background():
        last_of_hour = 9
        groups = [
            structs.replace(row, received_start=0 if row.n <= last_of_hour else HOUR)
            for row in rows(40)
        ]
        watching = Watching(workers, groups)
        files = {row.n: GroupFile(alone(row)) for row in groups}
        names = {row.n: str(group_file_name(row)) for row in groups if row.track == TRACKS[0]}
        watching.recent.note(files[4], Place(7, names[4]))
        await watching.open(2, 4)
        known = {n for n, name in names.items() if watching.recent.at(Place(7, name))}
        assert known == {4, 6, 8}
        found = watching.recent.at(Place(7, names[8]))
        assert found is not None
        assert found.attributes() == files[8].attributes()
        assert watching.recent.numbered(files[10].inode) is not None


async def test_nothing_is_prepared_for_who_reads_again_what_is_known() -> None:
    workers = Prompt()
    async with workers.background():
        watching = Watching(workers, rows(80))
        for n in (2, 4, 6):
            watching.prefetcher.opened(GroupFile(alone(watching.groups[n])), known=True)
        assert await watching.open(8) == [*range(10, 10 + 2 * FILES_AHEAD, 2)]


async def test_nothing_is_prepared_for_who_jumps_about() -> None:
    workers = Prompt()
    async with workers.background():
        watching = Watching(workers, rows(9000))
        assert await watching.open(8000, 4000, 1000, 7000, 5000) == []


async def test_a_disk_that_hangs_is_not_asked_for_ever_more() -> None:
    workers = Prompt()
    async with workers.background():
        watching = Watching(workers, rows(2000))
        watching.opener.gate = trio.Event()
        assert 0 < len(await watching.open(*range(2, 400, 2))) <= 4 * FILES_AHEAD
