"""Stored files that are about to be opened, known without another question to the archive.

Whoever opens a path asks for its name first and then for its number; whoever reads one file after
the other asks for the names that follow. Only what lasts is known here, and for no longer than the
kernel would remember it by itself. Pure; ``clock`` tells the time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.mount.tree import StoredFile, Validity

if TYPE_CHECKING:
    from collections.abc import Callable

REMEMBERED_FILES = 4096
"""How many files are known at most; the one that the archive told of first goes first."""

REMEMBERED_SECONDS = 60.0
"""How long after the archive told of it a file is known."""


class Place(Struct, frozen=True):
    """Where a file stands."""

    directory: int
    """The directory's inode number."""
    name: str


class _Recent(Struct, frozen=True):
    file: StoredFile
    place: Place | None
    until: float


class RecentFiles:
    """Files by inode number and by place; ``clock`` gives seconds that never run backwards."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_number: OrderedDict[int, _Recent] = OrderedDict()
        self._by_place: dict[Place, _Recent] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def note(self, file: StoredFile, place: Place | None = None) -> None:
        """Note that the archive told of the file, and where it stands if that is known."""
        if file.attributes().validity is not Validity.LASTING:
            return
        inode = file.inode
        self._drop(inode)
        recent = _Recent(file, place, self._clock() + REMEMBERED_SECONDS)
        self._by_number[inode] = recent
        if place is not None:
            self._by_place[place] = recent
        if len(self._by_number) > REMEMBERED_FILES:
            self._drop(next(iter(self._by_number)))

    def at(self, place: Place) -> StoredFile | None:
        """Return the file that stands there, if it is known."""
        return self._valid(self._by_place.get(place))

    def numbered(self, inode: int) -> StoredFile | None:
        """Return the file with this inode number, if it is known."""
        return self._valid(self._by_number.get(inode))

    def place_of(self, inode: int) -> Place | None:
        """Return where the file with this number stands, if that is known."""
        recent = self._by_number.get(inode)
        return None if recent is None else recent.place

    def _valid(self, recent: _Recent | None) -> StoredFile | None:
        if recent is None:
            return None
        if self._clock() >= recent.until:
            self._drop(recent.file.inode)
            return None
        return recent.file

    def _drop(self, inode: int) -> None:
        recent = self._by_number.pop(inode, None)
        if recent is None or recent.place is None:
            return
        if self._by_place.get(recent.place) is recent:
            del self._by_place[recent.place]
