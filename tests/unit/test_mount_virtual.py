"""Reading files that are put together: what may wait for a disk waits in a thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

from casfs.media.layout import Literal
from casfs.mount.tree import Attributes, Kind, Validity, VirtualFile
from casfs.mount.virtual import OpenVirtual
from casfs.mount.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from casfs.media.layout import Extent
    from casfs.mount.virtual import SharedObjects

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
