"""Reading files that are put together: what may wait for a disk waits in a thread."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, cast

import trio

from casfs.media.layout import Extent, Literal
from casfs.mount.opening import ObjectOpener
from casfs.mount.status import Counters
from casfs.mount.tree import Attributes, Kind, Validity, VirtualFile
from casfs.mount.verified import KEPT_SECONDS
from casfs.mount.views import ArchiveView
from casfs.mount.virtual import OpenVirtual, SharedObjects
from casfs.mount.workers import Workers
from tests.fakes.archive import Content, DiskArchive, MemoryLookup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest
    from trio.testing import MockClock

CONTENT = b"what was said live"


class Noting:
    """A layout that notes which threads ask it."""

    size = len(CONTENT)

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def pieces(self, position: int = 0, length: int | None = None) -> Iterator[Literal | Extent]:
        self.threads.add(threading.get_ident())
        yield Literal(CONTENT[position : None if length is None else position + length])

    def overlay(self, data: bytearray, position: int) -> None:
        self.threads.add(threading.get_ident())
        assert CONTENT[position : position + len(data)] == bytes(data)


class Growing(VirtualFile):
    growing = True

    def prepare(self) -> None:
        """Do nothing."""

    def layout(self) -> Noting:
        return Noting()

    def attributes(self) -> Attributes:
        return Attributes(
            inode=self.inode, kind=Kind.FILE, size=0, modified=0, validity=Validity.NONE
        )


async def test_what_a_growing_file_is_made_of_is_found_out_in_a_thread() -> None:
    layout = Noting()
    nothing = cast("SharedObjects", None)
    file = OpenVirtual(Growing("/live", "1"), layout, nothing, Workers())
    assert await file.read(0, 8) == CONTENT[:8]
    assert await file.read(8, 100) == CONTENT[8:]
    assert layout.threads
    assert threading.get_ident() not in layout.threads


async def test_objects_that_nobody_reads_are_let_go_of(
    tmp_path: Path,
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = DiskArchive(tmp_path)
    view = ArchiveView(MemoryLookup(Content()), archive.store)
    workers = Workers()
    opener = ObjectOpener(view, Counters(), workers)
    objects = SharedObjects(opener, archive.store, workers)
    digest = archive.put(b"payload")
    buffer = memoryview(bytearray(7))
    assert await objects.read_into(buffer, Extent(digest, 0, 7)) == 7
    assert times_open(archive.store.path(digest)) == 2
    # A clock that jumps does not wait for threads.
    monkeypatch.setattr(opener, "let_go", trio.lowlevel.checkpoint)
    nursery.start_soon(objects.let_go_of_unused)
    await trio.sleep(3 * KEPT_SECONDS)
    opener.close()
    assert times_open(archive.store.path(digest)) == 0


def times_open(path: str) -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}") == path
    return found
