"""The objects that a sequential reader will open next are verified before it asks for them.

Whoever reads a track file after file then finds its next objects hashed and in the page cache, and
their names known. It is bounded: a few objects and bytes ahead, a few readers at a time, and none
while those are not done. Several objects are prepared together: to start each by itself would take
as long as to hash it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from casfs.mount.recent import Place
from casfs.mount.verified import REMEMBERED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from casfs.mount.recent import RecentFiles
    from casfs.mount.tree import Following, StoredFile, Tree
    from casfs.mount.workers import Workers

FILES_AHEAD = 8
"""How many files are prepared together, at most."""

BYTES_AHEAD = 16 << 20
"""How many bytes of theirs, at most, unless a single file has more."""

# The next ones are begun when so many of the last ones are left.
_LEFT = FILES_AHEAD // 2
_AT_ONCE = 4
_REMEMBERED_OPENS = 64
_REMEMBERED_FILES = 16_384
# Inode numbers of one broadcast's files rise in the order of arrival; its tracks take turns, and a
# run of two seconds takes a hundred.
_NEAR = 512


class Preparing(Protocol):
    """What `casfs.mount.opening.ObjectOpener` can do ahead of an open."""

    async def prepare(self, files: Sequence[StoredFile]) -> None:
        """Have the files' objects verified and in the page cache, one after the other."""


class Prefetcher:
    """Watches which files of ``tree`` are opened and has ``opener`` prepare those that follow.

    The names of those that stand in the same directory are made known to ``recent``.
    """

    def __init__(
        self, tree: Tree, opener: Preparing, workers: Workers, recent: RecentFiles
    ) -> None:
        self._tree = tree
        self._opener = opener
        self._workers = workers
        self._recent = recent
        self._opened: deque[int] = deque(maxlen=_REMEMBERED_OPENS)
        self._left: OrderedDict[int, int] = OrderedDict()
        self._followed = _Lately()
        self._prepared = _Lately()
        self._busy: list[int] = []

    def opened(self, node: StoredFile, *, known: bool = False) -> None:
        """Note that somebody opened this file. Never waits.

        If its object was ``known`` from an open before, then so is what follows: up to a file of
        which it was not.
        """
        inode = node.inode
        left = self._left.pop(inode, None)
        if left is None:
            wanted = not known and _is_near(inode, reversed(self._opened))
        else:
            wanted = left <= _LEFT
        self._opened.append(inode)
        if (
            wanted
            and len(self._busy) < _AT_ONCE
            and not _is_near(inode, self._busy)
            and self._followed.add(inode, trio.current_time())
        ):
            self._busy.append(inode)
            self._workers.in_background(partial(self._prepare_what_follows, node))

    async def _prepare_what_follows(self, node: StoredFile) -> None:
        try:
            following = await self._workers.ask(self._tree.following, node, FILES_AHEAD)
            ahead = _within(BYTES_AHEAD, following)
            self._note(node, ahead)
            now = trio.current_time()
            files = [f.file for f in ahead if self._prepared.add(f.file.inode, now)]
            if files:
                await self._opener.prepare(files)
        finally:
            self._busy.remove(node.inode)

    def _note(self, node: StoredFile, ahead: Sequence[Following]) -> None:
        """Make the files known whose turn comes, and how many are left behind each."""
        place = self._recent.place_of(node.inode)
        for index, following in enumerate(ahead, start=1):
            inode = following.file.inode
            self._left[inode] = len(ahead) - index
            if place is not None and following.name is not None:
                self._recent.note(following.file, Place(place.directory, following.name))
            else:
                self._recent.note(following.file)
        while len(self._left) > _REMEMBERED_FILES:
            self._left.popitem(last=False)


def _is_near(inode: int, before: Iterable[int]) -> bool:
    """Say whether the file comes soon after one of those."""
    return any(0 < inode - other <= _NEAR for other in before)


def _within(most: int, following: Sequence[Following]) -> Sequence[Following]:
    """Return as many as have that many bytes together, at least one."""
    size = 0
    for index, follower in enumerate(following):
        size += follower.file.payload.size
        if size > most and index:
            return following[:index]
    return following


class _Lately:
    """Inode numbers that were added lately, no more than `_REMEMBERED_FILES`."""

    def __init__(self) -> None:
        self._added: OrderedDict[int, float] = OrderedDict()

    def add(self, inode: int, now: float) -> bool:
        """Add a number; return False if it was added lately already."""
        before = self._added.get(inode)
        if before is not None and now - before < REMEMBERED_SECONDS:
            return False
        self._added[inode] = now
        self._added.move_to_end(inode)
        if len(self._added) > _REMEMBERED_FILES:
            self._added.popitem(last=False)
        return True
