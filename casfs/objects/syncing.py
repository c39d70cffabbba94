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

StrategyName = Literal["auto", "fsync", "syncfs"]

STRATEGIES: tuple[StrategyName, ...] = ("auto", "fsync", "syncfs")
"""What a user may ask for; ``auto`` goes by the filesystem."""

_BTRFS = 0x9123683E  # BTRFS_SUPER_MAGIC, linux/magic.h
_REPORTS_ERRORS = (5, 8)  # the first Linux whose syncfs(2) tells of failed write-back


class SyncStrategy(Protocol):
    """Makes the steps of a batch durable. After an error nothing of the batch counts."""

    name: str

    def file(self, descriptor: int) -> None:
        """Be told of a file that is written; called by several threads. Raises OSError."""

    def data(self) -> None:
        """Return when all files that `file` was told of are durable; raises OSError."""

    def names(
        self,
        directories: Sequence[int],
        in_parallel: Callable[[Callable[[int], None], Sequence[int]], None],
    ) -> None:
        """Return when what these directories hold is durable, names and data; raises OSError."""

    def close(self) -> None:
        """Let go of what it holds."""


class FsyncStrategy:
    """fsync(2) of each file by the thread that wrote it, and of each directory once."""

    name = "fsync"

    def file(self, descriptor: int) -> None:
        """Sync it at once: other threads write meanwhile."""
        os.fsync(descriptor)

    def data(self) -> None:
        """Do nothing: `file` did."""

    def names(
        self,
        directories: Sequence[int],
        in_parallel: Callable[[Callable[[int], None], Sequence[int]], None],
    ) -> None:
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

    def file(self, descriptor: int) -> None:
        """Do nothing: `data` writes them all."""

    def data(self) -> None:
        """Sync the filesystem."""
        try:
            syscalls.syncfs(self._descriptor)
        except OSError:
            # It has told what it knew, and would call the same data durable if asked again.
            stale, self._descriptor = self._descriptor, self._open()
            os.close(stale)
            raise

    def names(
        self,
        _directories: Sequence[int],
        _in_parallel: Callable[[Callable[[int], None], Sequence[int]], None],
    ) -> None:
        """Sync the filesystem."""
        self.data()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

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
