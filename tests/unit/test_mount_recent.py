"""Which files are known without asking for them, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from casfs.digest import digest_of
from casfs.index.extents import ExtentRow
from casfs.index.rows import BroadcastRow
from casfs.mount import recent
from casfs.mount.broadcasts import GroupFile
from casfs.mount.recent import REMEMBERED_SECONDS, Place, RecentFiles

if TYPE_CHECKING:
    import pytest

GROUP = ExtentRow(
    broadcast=BroadcastRow(1, "demo"),
    track="0",
    n=1,
    epoch=1,
    sequence=1,
    hash=digest_of(b""),
    offset=0,
    size=1,
    received_start=0,
    received_end=0,
    complete=True,
    init=None,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def file_of(n: int, *, complete: bool = True) -> GroupFile:
    return GroupFile(structs.replace(GROUP, n=n, complete=complete))


def test_a_file_is_known_by_its_number_and_by_its_place() -> None:
    files = RecentFiles(Clock())
    one, two = file_of(1), file_of(2)
    files.note(one, Place(7, "one"))
    files.note(two)
    assert files.at(Place(7, "one")) is one
    assert files.at(Place(8, "one")) is None
    assert files.numbered(one.inode) is one
    assert files.numbered(two.inode) is two
    assert files.place_of(one.inode) == Place(7, "one")
    assert files.place_of(two.inode) is None


def test_what_may_change_is_never_known() -> None:
    files = RecentFiles(Clock())
    growing = file_of(1, complete=False)
    files.note(growing, Place(7, "one"))
    assert files.at(Place(7, "one")) is None
    assert files.numbered(growing.inode) is None


def test_nothing_is_known_for_longer_than_it_may_be() -> None:
    clock = Clock()
    files = RecentFiles(clock)
    file = file_of(1)
    files.note(file, Place(7, "one"))
    clock.now += REMEMBERED_SECONDS - 1
    assert files.at(Place(7, "one")) is file
    clock.now += 1
    assert files.at(Place(7, "one")) is None
    assert files.numbered(file.inode) is None
    assert len(files) == 0


def test_no_more_files_are_known_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "REMEMBERED_FILES", 2)
    files = RecentFiles(Clock())
    for n in range(1, 4):
        files.note(file_of(n), Place(7, str(n)))
    assert len(files) == 2
    assert files.at(Place(7, "1")) is None
    assert files.at(Place(7, "3")) is not None


def test_a_name_belongs_to_the_file_that_was_noted_last() -> None:
    files = RecentFiles(Clock())
    old, new = file_of(1), file_of(2)
    files.note(old, Place(7, "one"))
    files.note(new, Place(7, "one"))
    files.note(old)
    assert files.at(Place(7, "one")) is new
