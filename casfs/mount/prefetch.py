"""The objects that a sequential reader will open next are verified before it asks for them.

Whoever reads a track file after file then finds its next object hashed and in the page cache. It is
bounded: a few objects ahead, a few at a time, and none while those are not done.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from casfs.mount.verified import REMEMBERED_SECONDS

if TYPE_CHECKING:
    from casfs.mount.tree import StoredFile, Tree
    from casfs.mount.workers import Workers

_FILES_AHEAD = 2
_AT_ONCE = 4
_REMEMBERED_OPENS = 64
_REMEMBERED_FILES = 16_384
# Inode numbers of one broadcast's files rise in the order of arrival; its tracks take turns, and a
# run of two seconds takes a hundred.
_NEAR = 512


class Preparing(Protocol):
    """What `casfs.mount.opening.ObjectOpener` can do ahead of an open."""

    async def prepare(self, node: StoredFile) -> None:
        """Have the file's object verified and in the page cache."""


class Prefetcher:
    """Watches which files of ``tree`` are opened and has ``opener`` prepare those that follow."""

    def __init__(self, tree: Tree, opener: Preparing, workers: Workers) -> None:
        self._tree = tree
        self._opener = opener
        self._workers = workers
        self._opened: deque[int] = deque(maxlen=_REMEMBERED_OPENS)
        self._followed = _Lately()
        self._prepared = _Lately()
        self._busy = 0

    def opened(self, node: StoredFile) -> None:
        """Note that somebody opened this file. Never waits."""
        inode = node.inode
        is_next = any(0 < inode - before <= _NEAR for before in self._opened)
        self._opened.append(inode)
        if is_next and self._busy < _AT_ONCE and self._followed.add(inode, trio.current_time()):
            self._workers.in_background(partial(self._prepare_what_follows, node))

    async def _prepare_what_follows(self, node: StoredFile) -> None:
        self._busy += 1
        try:
            for following in await self._workers.ask(self._tree.following, node, _FILES_AHEAD):
                if self._prepared.add(following.inode, trio.current_time()):
                    await self._opener.prepare(following)
        finally:
            self._busy -= 1


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
