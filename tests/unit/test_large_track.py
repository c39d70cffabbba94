"""A track of a million groups: all of it is listed, and nobody pays for its size who asks for one.

The index is made by the database itself (`tools.benchmarks.large_index`); work is counted in
instructions of its virtual machine, which no other load of the machine can change.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from typing import TYPE_CHECKING

import pytest

from casfs.archive import Archive
from casfs.mount.status import Counters
from casfs.mount.tree import Directory, StoredFile, Tree
from casfs.mount.views import ArchiveView, build_tree
from casfs.recordings.opening import open_recordings
from casfs.timestamps import HOUR
from tools.benchmarks.large_index import index_of
from tools.benchmarks.material import BROADCAST, FIRST, TRACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from casfs.index.reader import Reader

MANY, FEW = 1_000_000, 10_000
PER_HOUR = 10_000
PORTION = 1_000


class Opened:
    """An archive as a mount opens it."""

    def __init__(self, directory: Path, groups: int, held: contextlib.ExitStack) -> None:
        self.groups = groups
        self._steps = 0
        self._connections: list[sqlite3.Connection] = []
        archive = Archive(index_of(directory, groups, per_hour=PER_HOUR))
        connect = sqlite3.connect

        def counting(*arguments: object, **options: object) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]  # handed on
            self._connections.append(connection)
            return connection

        patched = held.enter_context(pytest.MonkeyPatch.context())
        patched.setattr("casfs.index.index.sqlite3.connect", counting)
        self.reader: Reader = held.enter_context(contextlib.closing(archive.reader()))
        recordings = held.enter_context(contextlib.closing(open_recordings(archive)))
        view = ArchiveView(self.reader, archive.objects, recordings=recordings)
        self.tree: Tree = build_tree(view, Counters(), 0)
        self.reader.broadcasts()  # what is done once

    def _step(self) -> int:
        self._steps += 1
        return 0

    def at(self, path: str) -> Directory:
        node = self.tree.root
        for name in path.split("/"):
            found = node.child(name)
            assert isinstance(found, Directory), path
            node = found
        return node

    def hours(self) -> Iterator[Directory]:
        """Yield the directories of all hours of the track, in order."""
        track = self.at(f"broadcasts/{BROADCAST}/{TRACK}")
        for day in track.entries():
            if isinstance(day.node, Directory):
                yield from (
                    hour.node for hour in day.node.entries() if isinstance(hour.node, Directory)
                )

    def steps_of(self, question: Callable[[Opened], object]) -> int:
        """Return what the database does to answer a question that was asked before."""
        question(self)
        self._steps = 0
        self._watch(self._step)
        question(self)
        self._watch(None)
        return self._steps

    def _watch(self, step: Callable[[], int] | None) -> None:
        for connection in self._connections:
            with contextlib.suppress(sqlite3.ProgrammingError):  # it was closed
                connection.set_progress_handler(step, 1)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Opened]]:
    with contextlib.ExitStack() as held:
        directory = tmp_path_factory.mktemp("large")
        yield [Opened(directory / str(groups), groups, held) for groups in (FEW, MANY)]


def listed(hour: Directory) -> Iterator[tuple[str, int]]:
    """Yield names and cookies of an hour as a mount asks for them."""
    after = 0
    while portion := hour.listing(after, PORTION):
        assert len(portion) <= PORTION
        yield from ((entry.name, entry.cookie) for entry in portion)
        after = portion[-1].cookie


def test_each_of_a_million_groups_is_listed_exactly_once(archives: Sequence[Opened]) -> None:
    _, many = archives
    found = 0
    last = ""
    for hour in many.hours():
        for (name, cookie), (after, later) in itertools.pairwise(listed(hour)):
            assert name < after
            assert cookie < later
            found += 1
        found += 1
        assert last < after
        last = after
    assert found == MANY


def middle_group(archive: Opened) -> StoredFile:
    """Look up a group file by its name, in the middle of the track."""
    hours = list(archive.hours())
    hour = hours[len(hours) // 2]
    name = hour.listing(0, 1)[0].name
    file = hour.child(name)
    assert isinstance(file, StoredFile)
    return file


def by_time(archive: Opened) -> object:
    """Look up the groups of a second, in the middle of the track."""
    track = archive.reader.track(BROADCAST, TRACK)
    assert track is not None
    start = FIRST + archive.groups // PER_HOUR // 2 * HOUR
    found = list(archive.reader.groups(track, start, start + HOUR // PER_HOUR))
    assert len(found) == 1
    return found


def by_sequence(archive: Opened) -> object:
    """Look up a sequence in the middle of the track."""
    track = archive.reader.track(BROADCAST, TRACK)
    assert track is not None
    found = archive.reader.find(track, 1, archive.groups // 2)
    assert found is not None
    return found


def newest(archive: Opened) -> object:
    """Look up the newest group."""
    track = archive.reader.track(BROADCAST, TRACK)
    assert track is not None
    found = archive.reader.newest(track)
    assert found is not None
    assert found.sequence == archive.groups - 1
    return found


def recordings(archive: Opened) -> object:
    """List the recordings of the first day."""
    day = archive.at(f"recordings/{BROADCAST}/2026-01-01")
    names = [entry.name for entry in day.entries()]
    assert names[0] == "00.live.mp4"
    return names


@pytest.mark.parametrize("question", [by_time, by_sequence, newest])
def test_a_lookup_costs_no_more_among_a_million(
    archives: Sequence[Opened], question: Callable[[Opened], object]
) -> None:
    few, many = (archive.steps_of(question) for archive in archives)
    assert 0 < many <= 2 * few


@pytest.mark.parametrize("question", [middle_group, recordings])
def test_a_listing_costs_what_it_lists(
    archives: Sequence[Opened], question: Callable[[Opened], object]
) -> None:
    few, many = (archive.steps_of(question) for archive in archives)
    # The hours are looked at, of which there are a hundred times as many, but not their groups.
    assert many <= 2 * few + 200 * MANY // PER_HOUR
