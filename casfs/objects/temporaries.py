"""Where a process keeps what it has not given a name yet: ``.casfs/tmp/<process>/``.

On the same filesystem as the objects, and locked by its owner for as long as it lives: the kernel
tells the living from the dead, whatever machine's or container's process numbers they go by.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil

from casfs.durable import open_directory

_TEMPORARY = os.path.join(".casfs", "tmp")


class Temporaries:
    """A locked directory of our own below the store at ``root``; raises OSError.

    Those of dead processes are swept when it is made. Close it when done: it is removed.
    """

    def __init__(self, root: str) -> None:
        sweep_temporaries(root)
        self._numbers = itertools.count(1)
        while True:
            name = f"{os.getpid()}-{os.urandom(4).hex()}"
            path = os.path.join(root, _TEMPORARY, name)
            os.mkdir(path, mode=0o700)
            # A sweeper may take it for a dead one before we have the lock.
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    os.stat(path)
                except OSError:
                    os.close(descriptor)
                    raise
                self._path, self._lock = path, descriptor
                return

    def path(self) -> str:
        """Return a path that nobody else uses; for any thread."""
        return os.path.join(self._path, str(next(self._numbers)))

    def close(self) -> None:
        """Remove the directory, with what is in it."""
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)


def sweep_temporaries(root: str) -> int:
    """Remove the temporaries of processes that are dead; return how many there were.

    The kernel tells the living by the lock that each holds on its directory. What cannot be removed
    (another user's, say) stays. Raises OSError if there is no place for temporaries.
    """
    base = os.path.join(root, _TEMPORARY)
    swept = 0
    for name in os.listdir(base):
        path = os.path.join(base, name)
        with contextlib.suppress(OSError), open_directory(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
            swept += 1
    return swept
