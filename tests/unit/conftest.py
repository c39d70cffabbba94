"""No test of this folder needs a disk."""

from __future__ import annotations

from tests.memory import memory, temporary_directories_in_memory, tmp_path

__all__ = ["memory", "temporary_directories_in_memory", "tmp_path"]
