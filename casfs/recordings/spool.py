"""Laid out files kept on disk: their heads and columns, mapped into memory when they are read.

The head of a day has 75 MB. So nothing of a file is held but a mapping, which the kernel may drop
and read again; all readers share it. What is kept is a cache of what sample tables give: a file of
it that does not hold together is made anew, and the least recently used go when there are too many.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, overload

import msgspec
from msgspec import Struct

from casfs.digest import Digest
from casfs.media.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_BYTES: Final = 2 << 30
"""How much is kept on disk."""

DIRECTORY_SUFFIX: Final = "-recordings"
"""What the directory's name has behind that of the index."""

_LOG = logging.getLogger(__name__)
_MAGIC: Final = f"casfs layout 1 {sys.byteorder}\n".encode()
_LENGTH: Final = struct.Struct("=Q")
_ALIGNMENT: Final = 8
_DIGEST_BYTES: Final = 32
_OPEN_LAYOUTS: Final = 64
_SUFFIX: Final = ".layout"
_PUTS_BETWEEN_LOOKS: Final = 16
_COLUMNS: Final = (
    ("positions", "Q"),
    ("sources", "i"),
    ("offsets", "Q"),
    ("overlay_positions", "Q"),
    ("overlay_values", "I"),
)


class _Contents(Struct, frozen=True):
    """What a file of the spool holds, in this order."""

    size: int
    counts: tuple[int, ...]
    """Of the values in each column."""
    objects: int
    head: int
    """Bytes."""


class PackedDigests(Sequence[Digest]):
    """Digests that are made of their bytes when they are asked for."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._data) // _DIGEST_BYTES

    @overload
    def __getitem__(self, index: int) -> Digest: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Digest]: ...
    def __getitem__(self, index: int | slice) -> Digest | Sequence[Digest]:
        """Return the digest at this place."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Digest(self._data[index * _DIGEST_BYTES : (index + 1) * _DIGEST_BYTES].hex())


class Spool:
    """Layouts by name, in a directory. Any thread may use it; close it when done.

    Without a directory that can be written to there is one of its own, gone when it is closed.
    """

    def __init__(self, directory: str | None, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self._open: dict[str, Layout] = {}
        self._puts = 0
        if directory is not None:
            with contextlib.suppress(OSError):
                os.makedirs(directory, exist_ok=True)
        if directory is None or not os.access(directory, os.W_OK | os.X_OK):
            parent = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None  # noqa: S108
            self._temporary = tempfile.TemporaryDirectory(prefix="casfs-", dir=parent)
            directory = self._temporary.name
        self._directory = directory

    @property
    def directory(self) -> str:
        """Return where layouts are kept."""
        return self._directory

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._open.clear()
        if self._temporary is not None:
            self._temporary.cleanup()

    def get(self, name: str) -> Layout | None:
        """Return the layout of this name, if it is there."""
        with self._lock:
            layout = self._open.pop(name, None)
            if layout is not None:
                self._open[name] = layout
                return layout
        path = self._path(name)
        try:
            layout = _load(path)
            os.utime(path)
        except OSError:
            return None
        except (ValueError, msgspec.DecodeError) as error:
            _LOG.warning("%s does not hold together and is made anew: %s", path, error)
            return None
        self._keep_open(name, layout)
        return layout

    def put(self, name: str, layout: Layout) -> Layout:
        """Keep a layout; return it as it is kept. Where the disk fails it stays in memory."""
        path = self._path(name)
        try:
            fresh = f"{path}.{os.getpid()}.{threading.get_ident()}"
            try:
                with open(fresh, "wb") as file:
                    file.writelines(_encode(layout))
                os.rename(fresh, path)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(fresh)
            layout = _load(path)
            self._puts += 1
            if self._puts % _PUTS_BETWEEN_LOOKS == 1:
                self._make_room()
        except OSError as error:
            _LOG.warning("a recording's head cannot be kept: %s", error)
        self._keep_open(name, layout)
        return layout

    def _keep_open(self, name: str, layout: Layout) -> None:
        with self._lock:
            self._open[name] = layout
            while len(self._open) > _OPEN_LAYOUTS:
                del self._open[next(iter(self._open))]

    def _make_room(self) -> None:
        """Remove what was not used for longest, if there is too much."""
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    status = entry.stat()
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._most_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name + _SUFFIX)


def _encode(layout: Layout) -> Iterable[bytes | memoryview]:
    columns = [memoryview(getattr(layout, name)) for name, _ in _COLUMNS]
    contents = msgspec.msgpack.encode(
        _Contents(layout.size, tuple(map(len, columns)), len(layout.objects), len(layout.head))
    )
    yield _MAGIC
    yield _LENGTH.pack(len(contents))
    yield contents
    position = len(_MAGIC) + _LENGTH.size + len(contents)
    for column in columns:
        yield bytes(-position % _ALIGNMENT)
        yield column.cast("B") if len(column) else b""
        position += -position % _ALIGNMENT + column.nbytes
    yield b"".join(bytes.fromhex(digest) for digest in layout.objects)
    yield layout.head


def _load(path: str) -> Layout:
    """Map a file of the spool; raises OSError, ValueError, msgspec.DecodeError."""
    with open(path, "rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if bytes(data[: len(_MAGIC)]) != _MAGIC:
        raise ValueError("it is of another kind")
    start = len(_MAGIC) + _LENGTH.size
    (length,) = _LENGTH.unpack(data[len(_MAGIC) : start])
    contents = msgspec.msgpack.decode(data[start : start + length], type=_Contents)
    position = start + length
    columns: list[memoryview] = []
    for (_, code), count in zip(_COLUMNS, contents.counts, strict=True):
        position += -position % _ALIGNMENT
        end = position + count * struct.calcsize(code)
        columns.append(data[position:end].cast("B").cast(code))  # type: ignore[call-overload]
        position = end
    objects = data[position : position + contents.objects * _DIGEST_BYTES]
    position += len(objects)
    if position + contents.head != len(data):
        raise ValueError("it was cut")
    positions, sources, offsets, overlay_positions, overlay_values = columns
    return Layout(
        head=data[position:],
        size=contents.size,
        objects=PackedDigests(objects),
        positions=positions,
        sources=sources,
        offsets=offsets,
        overlay_positions=overlay_positions,
        overlay_values=overlay_values,
    )
