"""The objects that a sequential reader will open next are verified before it asks for them.

Whoever reads a track file after file then finds its next object hashed and in the page cache. It is
bounded: a few objects ahead, a few at a time, and none while those are not done.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from casfs.mount.tree import StoredFile, Tree
    from casfs.mount.workers import Workers

_FILES_AHEAD = 2
_AT_ONCE = 4
_REMEMBERED_OPENS = 64
_REMEMBERED_FILES = 1024
# Inode numbers of one broadcast's files rise in the order of arrival; its tracks take turns.
_NEAR = 64


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
        self._prepared: OrderedDict[int, None] = OrderedDict()
        self._busy = 0

    def opened(self, node: StoredFile) -> None:
        """Note that somebody opened this file. Never waits."""
        inode = node.inode
        is_next = any(0 < inode - before <= _NEAR for before in self._opened)
        self._opened.append(inode)
        if is_next and self._busy < _AT_ONCE:
            self._workers.in_background(partial(self._prepare_what_follows, node))

    async def _prepare_what_follows(self, node: StoredFile) -> None:
        self._busy += 1
        try:
            for following in await self._workers.ask(self._tree.following, node, _FILES_AHEAD):
                if following.inode not in self._prepared:
                    self._remember(following.inode)
                    await self._opener.prepare(following)
        finally:
            self._busy -= 1

    def _remember(self, inode: int) -> None:
        self._prepared[inode] = None
        if len(self._prepared) > _REMEMBERED_FILES:
            self._prepared.popitem(last=False)
