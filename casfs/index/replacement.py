"""The lock under which an index's file is made, opened and replaced."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from typing import TYPE_CHECKING

from casfs.durable import open_directory

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def replacement_lock(path: str, *, exclusive: bool) -> Iterator[None]:
    """Keep an index from being replaced while it is opened: its log would outlive its file.

    Raises sqlite3.OperationalError if the directory cannot be opened.
    """
    with contextlib.ExitStack() as held:
        try:
            descriptor = held.enter_context(open_directory(os.path.dirname(path) or "."))
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from error
        yield
