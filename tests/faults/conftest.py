"""Many of these tests shut filesystems down; what lies below those, they do not ask.

A filesystem on a loop device loses what it has not written to its image when it is shut down, and
a killed process leaves what it has written, wherever the image or the files are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.memory import memory, temporary_directories_in_memory, tmp_path
from tests.mounts import filesystems_are_cut

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["memory", "temporary_directories_in_memory", "tmp_path"]


@pytest.fixture(autouse=True)
def turn_of_cut_filesystems() -> Iterator[None]:
    """Let no container start in the middle of a test."""
    with filesystems_are_cut():
        yield
