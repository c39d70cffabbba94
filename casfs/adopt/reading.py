"""A plain file that is to become a group: held if it is small, else read again in pieces."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.adopt.source import SourceError
from casfs.digest import Digest, Hasher, digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD_BYTES = 16 << 20
"""Larger files are never held as a whole."""

_PIECE_BYTES = 1 << 20


class Source(Struct, frozen=True):
    """A file as it was read."""

    path: str
    digest: Digest
    size: int
    modified: int
    """Nanoseconds UTC."""
    payload: bytes | None
    """Its bytes; None if it is large."""


def open_source(path: str) -> Source:
    """Read a regular file; raises SourceError."""
    hasher = Hasher()
    held: list[bytes] = []
    size, modified = -1, 0
    for status, piece in _pieces(path):
        size, modified = status.st_size, max(1, status.st_mtime_ns)
        if size <= HELD_BYTES:
            held.append(piece)
        else:
            hasher.update(piece)
    if size > HELD_BYTES:
        return Source(path, hasher.digest(), hasher.size, modified, None)
    payload = b"".join(held)
    return Source(path, digest_of(payload), len(payload), modified, payload)


def read_again(source: Source) -> Iterator[bytes]:
    """Yield the file's bytes once more, which may have changed; raises SourceError."""
    for _, piece in _pieces(source.path):
        yield piece


def _pieces(path: str) -> Iterator[tuple[os.stat_result, bytes]]:
    """Yield (status at the beginning, next bytes), at least once."""
    try:
        # Not to hang on a pipe that somebody put there.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SourceError("unreadable", "not a regular file")
            yield status, b""
            while piece := file.read(_PIECE_BYTES):
                yield status, piece
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError("missing", "there is no such file") from None
    except OSError as error:
        raise SourceError("unreadable", error.strerror or str(error)) from error
