"""How a batch becomes durable: each file by itself, or the whole filesystem twice.

Both keep the order (data before names, names before the return). Which is cheaper depends on the
filesystem: syncs of single files share a journal commit on ext4 and XFS; on btrfs each one writes
a log tree of its own, and two syncfs(2) for a whole batch take a quarter of the time.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal, Protocol

from casfs.errors import ConfigError
from casfs.objects import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    InParallel = Callable[[Callable[[int], None], Sequence[int]], None]
    """Does work on each item, a few at a time; returns when all have ended, and raises then."""

StrategyName = Literal["auto", "fsync", "syncfs"]

STRATEGIES: tuple[StrategyName, ...] = ("auto", "fsync", "syncfs")
"""What a user may ask for; ``auto`` goes by the filesystem."""

_BTRFS = 0x9123683E  # BTRFS_SUPER_MAGIC, linux/magic.h
_REPORTS_ERRORS = (5, 8)  # the first Linux whose syncfs(2) tells of failed write-back


class SyncStrategy(Protocol):
    """Makes the steps of a batch durable. After an error nothing of the batch counts."""

    name: str

    def written(self, descriptor: int) -> None:
        """Be told of a file that is whole now; called by several threads. Raises OSError."""

    def data(self) -> None:
        """Return when all files of which `written` was told are durable; raises OSError."""

    def names(self, directories: Sequence[int], in_parallel: InParallel) -> None:
        """Return when what these directories hold is durable, names and data; raises OSError."""

    def close(self) -> None:
        """Let go of what it holds."""


class FsyncStrategy:
    """fsync(2) of each file, and of each directory once."""

    name = "fsync"

    def written(self, descriptor: int) -> None:
        """Sync it, while others are being written and synced.

        To write them all first and sync them then leaves the disk idle at the end of each batch.
        """
        os.fsync(descriptor)

    def data(self) -> None:
        """Do nothing: all is durable."""

    def names(self, directories: Sequence[int], in_parallel: InParallel) -> None:
        """Sync the directories, a few at a time."""
        in_parallel(os.fsync, directories)

    def close(self) -> None:
        """Hold nothing."""


class SyncfsStrategy:
    """syncfs(2) of the filesystem that ``root`` lies on: once for data, once for names.

    It waits for whatever else is being written there. Raises OSError.
    """

    name = "syncfs"

    def __init__(self, root: str) -> None:
        self._root = root
        # Open before anything is written: what fails after that is reported on it.
        self._descriptor = self._open()

    def written(self, descriptor: int) -> None:
        """Do nothing: `data` writes them all."""

    def data(self) -> None:
        """Sync the filesystem."""
        self._sync()

    def names(self, _directories: Sequence[int], _in_parallel: InParallel) -> None:
        """Sync the filesystem."""
        self._sync()

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _sync(self) -> None:
        try:
            syscalls.syncfs(self._descriptor)
        except OSError:
            # It has told what it knew, and would call the same data durable if asked again. With
            # none in its place the next batch fails, and opens one for the batch after that.
            stale, self._descriptor = self._descriptor, -1
            try:
                self._descriptor = self._open()
            finally:
                if stale >= 0:
                    os.close(stale)
            raise

    def _open(self) -> int:
        return os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def choose_strategy(root: str, wanted: StrategyName = "auto") -> SyncStrategy:
    """Return the strategy for a store at ``root``; close it when done.

    Raises ConfigError if ``syncfs`` is asked for and would not report errors here; OSError.
    """
    reports = kernel_version(os.uname().release) >= _REPORTS_ERRORS
    if wanted == "syncfs" and not reports:
        raise ConfigError(
            f"Linux {os.uname().release} does not report failed writes by syncfs",
            advice="leave the sync strategy at auto, or use Linux 5.8 or later",
        )
    if wanted == "syncfs" or (
        wanted == "auto" and reports and syscalls.filesystem_type(root) == _BTRFS
    ):
        return SyncfsStrategy(root)
    return FsyncStrategy()


def kernel_version(release: str) -> tuple[int, int]:
    """Return the version that begins a kernel's release; (0, 0) if it has none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)
