"""A tree that another program wrote: manifests to be read line by line, objects to be proven.

Expected are objects at ``objects/blake3/aa/<hash>.bin`` below the object root and JSONL manifests
anywhere below the manifest root. Nothing in there is trusted: a path that a line names is followed
only within the object root, and bytes count only if they hash to the name they are asked for by.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.adopt.lines import LineError, ListedGroup, names_of_path, read_line, read_run
from casfs.digest import Digest, digest_of
from casfs.errors import InvalidNameError, storage_error
from casfs.manifests.record import MAX_LINE_BYTES
from casfs.names import name_bytes
from casfs.objects.local import object_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

MAX_GROUP_BYTES = 1 << 30
"""The largest object or file that is taken for a group: it is held in memory while it is put in."""


class Problem(Struct, frozen=True, kw_only=True):
    """Something that could not be taken in."""

    problem: str
    """``line``, ``missing``, ``damaged`` or ``unreadable``."""
    reason: str
    file: str
    """The manifest that names it, or the file itself."""
    line: int | None = None
    """From 1."""
    hash: Digest | None = None
    broadcast: str | None = None
    track: str | None = None
    sequence: str | None = None


class SourceError(Exception):
    """An object of the source cannot be had; ``problem`` is as in `Problem`."""

    def __init__(self, problem: str, reason: str) -> None:
        super().__init__(reason)
        self.problem = problem
        self.reason = reason


class ListedLine(Struct, frozen=True):
    """A group that a manifest lists, with the place of its line."""

    group: ListedGroup
    broadcast: str
    track: str
    file: str
    line: int


class SourceTree:
    """A tree below two roots, which may be the same. Raises StorageError if one cannot be listed.

    ``broadcast`` stands in where neither a line nor its path names one.
    """

    def __init__(self, objects: str, manifests: str, broadcast: str | None = None) -> None:
        self.objects = os.path.realpath(objects)
        self.manifests = os.path.realpath(manifests)
        self._broadcast = broadcast
        self._run: tuple[str, bytes] = ("", b"")

    def files(self) -> Iterator[str]:
        """Yield the path of each manifest, in order."""

        def fail(error: OSError) -> None:
            raise storage_error(error, "listing", self.manifests) from error

        for directory, below, names in os.walk(self.manifests, onerror=fail):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if os.path.realpath(directory) == self.objects and "objects" in below:
                below.remove("objects")
            for name in sorted(names):
                if name.endswith((".jsonl", ".ndjson")) and not name.startswith("."):
                    yield os.path.join(directory, name)

    def lines(self, path: str) -> Iterator[ListedLine | Problem | None]:
        """Yield what each line of a manifest lists; None for a line about something else."""
        from_path = names_of_path(os.path.relpath(path, self.manifests).split(os.sep))
        try:
            with open(path, "rb") as file:
                for number, text in enumerate(_texts(file), start=1):
                    if not text.strip():
                        continue
                    run = read_run(text.rstrip(b"\r\n")) if len(text) <= MAX_LINE_BYTES else []
                    for group in run:
                        yield ListedLine(
                            group, group.broadcast or "", group.track or "", path, number
                        )
                    if not run:
                        yield self._line(path, number, text, from_path)
        except OSError as error:
            yield Problem(problem="unreadable", reason=error.strerror or str(error), file=path)

    def read(self, group: ListedGroup) -> bytes:
        """Return a group's payload, proven; raises SourceError."""
        data = self._proven(group)
        if group.offset is not None and group.size is not None:
            if group.offset + group.size > len(data):
                raise SourceError("damaged", f"the object has only {len(data)} bytes")
            return data[group.offset : group.offset + group.size]
        if group.size is not None and group.size != len(data):
            raise SourceError(
                "damaged", f"the object has {len(data)} bytes, but the line says {group.size}"
            )
        return data

    def _proven(self, group: ListedGroup) -> bytes:
        """Return an object's content; that of the last run is kept, since its groups follow."""
        if group.run and self._run[0] == group.hash:
            return self._run[1]
        data = self._object(group)
        found = digest_of(data)
        if found != group.hash:
            raise SourceError("damaged", f"the object hashes to {found}")
        if group.run:
            self._run = (group.hash, data)
        return data

    def prefix(self, digest: Digest, size: int) -> Digest | None:
        """Return the digest of an object's first ``size`` bytes, or None."""
        with contextlib.suppress(OSError), open(self._paths(digest, None)[0], "rb") as file:
            data = file.read(size)
            if len(data) == size:
                return digest_of(data)
        return None

    def modified(self, group: ListedGroup) -> int | None:
        """Return when an object was written (ns UTC), or None."""
        for path in self._paths(group.hash, group.path):
            with contextlib.suppress(OSError):
                return os.stat(path).st_mtime_ns
        return None

    def _line(
        self, path: str, number: int, text: bytes, from_path: tuple[str | None, str | None]
    ) -> ListedLine | Problem | None:
        try:
            return self._listed(path, number, text, from_path)
        except LineError as error:
            finished = text.endswith(b"\n") or len(text) > MAX_LINE_BYTES
            reason = str(error) if finished else "it was never finished"
            return Problem(problem="line", reason=reason, file=path, line=number)

    def _listed(
        self, path: str, number: int, text: bytes, from_path: tuple[str | None, str | None]
    ) -> ListedLine | None:
        if len(text) > MAX_LINE_BYTES:
            raise LineError("it is too long to be one")
        group = read_line(text.rstrip(b"\r\n"))
        if group is None:
            return None
        broadcast = group.broadcast or from_path[0] or self._broadcast
        track = group.track or from_path[1]
        if broadcast is None or track is None:
            raise LineError("neither it nor its path names the broadcast and the track")
        try:
            name_bytes(broadcast)
            name_bytes(track)
        except InvalidNameError as error:
            raise LineError(error.message) from None
        return ListedLine(group, broadcast, track, path, number)

    def _object(self, group: ListedGroup) -> bytes:
        for path in self._paths(group.hash, group.path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return read_whole(path)
        raise SourceError("missing", "the object is not there")

    def _paths(self, digest: Digest, named: str | None) -> list[str]:
        """Return where an object may lie: where its hash says, then where its line says."""
        paths = [os.path.join(self.objects, object_path(digest))]
        if named is not None and "\0" not in named:
            other = os.path.realpath(os.path.join(self.objects, named))
            if other.startswith(self.objects + os.sep) and other not in paths:
                paths.append(other)
        return paths


def read_whole(path: str) -> bytes:
    """Return a regular file's content.

    Raises SourceError if it cannot be read or is too large, FileNotFoundError, NotADirectoryError.
    """
    try:
        # Not to hang on a pipe that somebody put there.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SourceError("unreadable", "not a regular file")
            if status.st_size > MAX_GROUP_BYTES:
                raise SourceError(
                    "unreadable", f"{status.st_size} bytes are too many for one group"
                )
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise SourceError("unreadable", error.strerror or str(error)) from error


def check_tree(objects: str) -> None:
    """Raise StorageError unless a directory of objects can be read there."""
    path = os.path.join(objects, "objects", "blake3")
    try:
        os.listdir(path)
    except OSError as error:
        raise storage_error(error, "listing", path) from error


def _texts(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines, none longer than just above the limit in memory."""
    while text := file.readline(MAX_LINE_BYTES + 1):
        yield text
        while len(text) > MAX_LINE_BYTES and not text.endswith(b"\n"):
            text = file.readline(MAX_LINE_BYTES + 1)
