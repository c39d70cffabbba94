"""What Python's ``os`` lacks of Linux: syncfs(2), fallocate(2), statfs(2).

Each releases the interpreter's lock while it runs, and raises OSError.
"""

from __future__ import annotations

import ctypes
import errno
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE = 0x01  # FALLOC_FL_KEEP_SIZE, linux/falloc.h
_STATFS_BYTES = 512  # more than any architecture's struct statfs

_NOT_THERE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})


def syncfs(descriptor: int) -> None:
    """Make all of the filesystem durable that the descriptor lies on.

    Since Linux 5.8 this fails if anything could not be written back since the descriptor was
    opened. It says so once: open another one after a failure.
    """
    call = getattr(_LIBC, "syncfs", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(descriptor):
        _raise()


def preallocate(descriptor: int, size: int) -> bool:
    """Reserve the first ``size`` bytes of a file, which stays as long as it is.

    Returns False if the filesystem has no fallocate(2). Never os.posix_fallocate, which then writes
    the file full instead.
    """
    call = getattr(_LIBC, "fallocate64", None) or getattr(_LIBC, "fallocate", None)
    if call is None:
        return False
    if call(descriptor, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)):
        if ctypes.get_errno() in _NOT_THERE:
            return False
        _raise()
    return True


def filesystem_type(path: str) -> int:
    """Return the magic number of the filesystem that ``path`` lies on (linux/magic.h)."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _LIBC.statfs(os.fsencode(path), buffer):
        _raise(path)
    # The first member of struct statfs, a word of the machine; magic numbers have 32 bits.
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def _raise(path: str | None = None) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), path)
