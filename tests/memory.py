"""Directories in memory, where a sync costs nothing, for tests that prove nothing about disks.

What a filesystem keeps through a power cut, and what a full or failing one does, is for
tests/faults to say; how casfs runs over a disk from day to day for tests/real.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = "/dev/shm"
_ROOM = 1 << 30


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a directory in memory; on disk where memory has no room or runs no programs."""
    if not os.path.isdir(_MEMORY) or not os.access(_MEMORY, os.W_OK) or not _is_fit(_MEMORY):
        yield tmp_path_factory.mktemp("no-memory")
        return
    with tempfile.TemporaryDirectory(prefix="pytest-casfs-", dir=_MEMORY) as name:
        yield Path(name)


def _is_fit(place: str) -> bool:
    return shutil.disk_usage(place).free >= _ROOM and not os.statvfs(place).f_flag & os.ST_NOEXEC


@pytest.fixture
def tmp_path(memory: Path) -> Iterator[Path]:
    """Return an empty directory in memory, gone after the test."""
    with tempfile.TemporaryDirectory(
        prefix="test_", dir=memory, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


@pytest.fixture(scope="module", autouse=True)
def temporary_directories_in_memory(memory: Path) -> Iterator[None]:
    """Let `tempfile` make its directories there too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(memory))
        yield
