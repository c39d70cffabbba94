"""The few system calls that make bytes and names survive a power cut.

A file's data is durable after fsync(2) or fdatasync(2) of it; its name only after fsync(2) of the
directory that holds it. A failed sync leaves the pages undefined: never call it again on that
descriptor to learn whether it works now, write a new file instead. And a sync that succeeds proves
nothing if the filesystem shut itself down while it was under way: see `check_alive`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_UNFINISHED = ".new-"

# IOV_MAX of Linux, the most buffers that one writev(2) takes.
_MOST_BUFFERS = 1024


def write_fully(descriptor: int, parts: Sequence[bytes | bytearray | memoryview]) -> int:
    """Write ``parts`` one after the other and return their size in bytes; raises OSError."""
    pending = [memoryview(part) for part in parts if part]
    total = 0
    while pending:
        written = os.writev(descriptor, pending[:_MOST_BUFFERS])
        total += written
        done = 0
        while done < len(pending) and written >= len(pending[done]):
            written -= len(pending[done])
            done += 1
        del pending[:done]
        if written:
            pending[0] = pending[0][written:]
    return total


def sync_directory(path: str) -> None:
    """Make the names in the directory durable; raises OSError."""
    with open_directory(path) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def open_directory(path: str) -> Iterator[int]:
    """Hold a descriptor of a directory; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check_alive(path: str) -> None:
    """Raise OSError if the filesystem of this regular file has shut itself down.

    Ask after a sync, before anybody relies on it. A filesystem that fails drops what it holds back,
    and fsync(2) then finds nothing left to wait for: one that was under way in that moment returns
    success (ext4 and XFS of Linux 6 do). By then the filesystem is marked as shut down, and opening
    a file answers EIO.
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))


def make_directory(path: str) -> bool:
    """Create one directory durably in an existing parent; return False if it was there."""
    try:
        os.mkdir(path)
    except FileExistsError:
        # Another process may have made it a moment ago and not synced it yet.
        sync_directory(os.path.dirname(path))
        return False
    sync_directory(os.path.dirname(path))
    return True


def replace_file(path: str, data: bytes) -> None:
    """Put ``data`` at ``path`` so that at every instant the old or the new file is whole there.

    Raises OSError; then the old file stands.
    """
    directory = os.path.dirname(path)
    name = f"{_UNFINISHED}{os.getpid()}-{os.urandom(4).hex()}"
    temporary = os.path.join(directory, name)
    descriptor = create_locked(temporary)
    try:
        try:
            write_fully(descriptor, [data])
            os.fsync(descriptor)
            os.rename(temporary, path)
        finally:
            os.close(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(directory)


def sweep_unfinished(directory: str) -> int:
    """Remove what dead processes left of `replace_file` in a directory; return how many files.

    Whoever lives holds a lock on its own. What cannot be removed stays. Raises OSError if the
    directory cannot be listed.
    """
    names = [name for name in os.listdir(directory) if name.startswith(_UNFINISHED)]
    return sum(remove_unlocked(os.path.join(directory, name)) for name in names)


def remove_unlocked(path: str, *besides: str) -> bool:
    """Remove a file, and ``besides``, unless somebody holds a lock on it; say whether it is gone.

    ``besides``: what belongs to it, removed first. It may not be there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for other in besides:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(other)
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def create_locked(path: str) -> int:
    """Create a file, or take an empty one, and return the descriptor that holds its lock.

    The lock is given back when the descriptor is closed. Raises OSError.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A sweeper may have taken it for a dead one's before we had the lock.
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
