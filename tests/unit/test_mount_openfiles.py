"""Open files: ranges, ends, and disks that have less than they should."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from casfs.errors import DamagedObjectError, StorageError
from casfs.index.extents import ExtentRow
from casfs.index.rows import BroadcastRow
from casfs.mount.broadcasts import GroupFile
from casfs.mount.contents import VerifiedContents
from casfs.mount.openfiles import OpenBytes, OpenFiles, OpenObject
from casfs.mount.tree import ObjectRange
from casfs.mount.verified import CheckedBlocks, OpenedObject
from casfs.mount.workers import Workers

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = bytes(range(256)) * 1000
OFFSET, SIZE = 1000, 100_000


def group_file(n: int = 1) -> GroupFile:
    return GroupFile(
        ExtentRow(
            broadcast=BroadcastRow(1, "demo"),
            track="0",
            n=n,
            epoch=1,
            sequence=n,
            hash=digest_of(CONTENT),
            offset=OFFSET,
            size=SIZE,
            received_start=0,
            received_end=0,
            complete=True,
            init=None,
        )
    )


def open_object(tmp_path: Path) -> tuple[OpenObject, Path]:
    path = tmp_path / "object"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    return OpenObject(group_file(), OpenedObject(descriptor, True), Workers(), no_damage), path


class WholeFile(GroupFile):
    """All of the object."""

    def __init__(self) -> None:
        super().__init__(group_file().group)

    @property
    def payload(self) -> ObjectRange:
        return ObjectRange(digest_of(CONTENT), 0, len(CONTENT))


async def no_damage(error: DamagedObjectError) -> None:
    raise AssertionError(error)


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 10), (500, 4096), (SIZE - 1, 1), (SIZE - 5, 4096), (SIZE, 10), (SIZE + 7, 10), (0, 10**6)],
)
async def test_a_read_stays_within_the_range(tmp_path: Path, offset: int, size: int) -> None:
    file, _ = open_object(tmp_path)
    payload = CONTENT[OFFSET : OFFSET + SIZE]
    assert bytes(await file.read(offset, size)) == payload[offset : offset + size]
    file.close()


async def test_bytes_that_were_just_verified_are_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(bytes(len(CONTENT)))
    contents = VerifiedContents()
    contents.hold(digest_of(CONTENT), CONTENT)
    opened = OpenedObject(os.open(path, os.O_RDONLY), True, contents=contents)
    file = OpenObject(group_file(), opened, Workers(), no_damage)
    payload = CONTENT[OFFSET : OFFSET + SIZE]
    assert bytes(await file.read(500, 4096)) == payload[500 : 500 + 4096]
    assert bytes(await file.read(SIZE - 5, 4096)) == payload[-5:]
    file.close()


async def test_bytes_that_are_not_in_the_page_cache_are_read_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = open_object(tmp_path)
    preadv, calls = os.preadv, []

    def half_cached(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        calls.append(flags)
        if flags and len(calls) == 1:
            return preadv(descriptor, [buffers[0][:100]], offset)
        if flags:
            raise BlockingIOError(errno.EAGAIN, "not in the page cache")
        return preadv(descriptor, [buffers[0][:999]], offset)

    monkeypatch.setattr(os, "preadv", half_cached)
    for _ in range(2):
        assert bytes(await file.read(0, 5000)) == CONTENT[OFFSET : OFFSET + 5000]
    assert calls.count(os.RWF_NOWAIT) == 2
    assert calls.count(0) == 11
    file.close()


async def test_a_file_that_lost_its_end_is_an_error_and_never_zeros(tmp_path: Path) -> None:
    file, path = open_object(tmp_path)
    os.truncate(path, OFFSET + 50)
    with pytest.raises(StorageError):
        await file.read(0, 100)
    file.close()


async def test_a_block_is_checked_before_it_is_read_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [CONTENT[start : start + 40_000] for start in range(0, len(CONTENT), 40_000)]
    monkeypatch.setattr("casfs.mount.verified.BLOCK_BYTES", 40_000)
    path = tmp_path / "object"
    path.write_bytes(CONTENT[:-1] + b"!")
    reported: list[str] = []

    async def report(error: DamagedObjectError) -> None:
        reported.append(error.message)

    checks = CheckedBlocks(digest_of(CONTENT), [digest_of(block) for block in blocks], set())
    node = group_file()
    opened = OpenedObject(os.open(path, os.O_RDONLY), False, checks)
    file = OpenObject(node, opened, Workers(), report)
    assert list(checks.unchecked(OFFSET, 50_000)) == [0, 1]
    assert bytes(await file.read(0, 50_000)) == CONTENT[OFFSET : OFFSET + 50_000]
    assert list(checks.unchecked(OFFSET, 100_000)) == [2]
    assert not reported
    file.close()

    whole = OpenObject(
        WholeFile(), OpenedObject(os.open(path, os.O_RDONLY), False, checks), Workers(), report
    )
    with pytest.raises(DamagedObjectError, match="is damaged between"):
        await whole.read(len(CONTENT) - 10, 5)
    assert len(reported) == 1
    assert bytes(await whole.read(0, 10)) == CONTENT[:10]
    whole.close()


async def test_generated_bytes_stay_what_they_were_at_the_open() -> None:
    file = OpenBytes(b"0123456789")
    assert await file.read(2, 3) == b"234"
    assert await file.read(8, 10) == b"89"
    assert await file.read(10, 10) == b""


def test_a_stored_file_is_known_by_its_number_while_anyone_has_it_open(tmp_path: Path) -> None:
    files = OpenFiles()
    first, _ = open_object(tmp_path)
    second, _ = open_object(tmp_path)
    inode = group_file().inode
    handles = [files.add(first), files.add(second), files.add(OpenBytes(b""))]
    assert len(set(handles)) == len(files) == 3
    assert files.node(inode) is not None
    files.close(handles[0])
    assert files.node(inode) is not None
    files.close(handles[1])
    assert files.node(inode) is None
    files.close_all()
    assert len(files) == 0
