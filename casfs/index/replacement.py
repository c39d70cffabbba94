"""The lock under which an index's file is made, opened and replaced; what was left half made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
from typing import TYPE_CHECKING

from casfs.durable import open_directory, remove_unlocked

if TYPE_CHECKING:
    from collections.abc import Iterator

LockFault = sqlite3.OperationalError
"""What is raised where the lock cannot be had: a fault of the index like any other."""


@contextlib.contextmanager
def replacement_lock(path: str, *, exclusive: bool) -> Iterator[None]:
    """Keep an index from being replaced while it is opened: its log would outlive its file.

    Raises `LockFault` if the directory cannot be opened.
    """
    with contextlib.ExitStack() as held:
        try:
            descriptor = held.enter_context(open_directory(os.path.dirname(path) or "."))
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        except OSError as error:
            raise LockFault(str(error)) from error
        yield


def sweep_unfinished_indexes(path: str) -> int:
    """Remove what dead processes left of rebuilding the index at ``path``; return how many.

    Raises OSError, `LockFault` if its directory cannot be read.
    """
    directory, name = os.path.split(path)
    pattern = re.compile(re.escape(name) + r"\.\d+(-[0-9a-f]{8})?\.new")
    # Nobody may be between giving back the lock of a finished one and putting it in its place.
    with replacement_lock(path, exclusive=True):
        found = [
            os.path.join(directory, one)
            for one in os.listdir(directory or ".")
            if pattern.fullmatch(one)
        ]
        return sum(
            remove_unlocked(one, *(one + end for end in ("-wal", "-shm", "-journal")))
            for one in found
        )
