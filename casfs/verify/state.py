"""What earlier verifications found sound, and when. To lose it costs reading again, no more.

It lies in a directory of its own, outside of the roots: ``<state directory>/<store id>/<copy>/``,
where ``copy`` names this CAS root (by path and inode), since what was sound in one copy of an
archive says nothing of another. In it:

- ``<aa>.verified`` for each shard: `_MAGIC`, then (big-endian) when the longest unread object of
  the shard was read (32 bits, seconds since 1970; 0 if one was never), the number of entries (32
  bits), the entries (32 bytes digest, 64 bits seconds, negative if it was not sound then), and the
  BLAKE3 of all that. Each file is replaced as a whole; one that is damaged counts as lost.
- ``runs.json``: when the runs began that are not complete yet, and where the next sample begins.

Nothing here is synced: a power cut loses it, or leaves a file whose sum does not match.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
from typing import TYPE_CHECKING, Self

import msgspec
from msgspec import Struct

from casfs.digest import digest_of
from casfs.errors import CasfsError, WriterLockedError, storage_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from casfs.roots import Roots

_LOG = logging.getLogger(__name__)
_MAGIC = b"casfs-verified-1"
_HEAD = struct.Struct(">16sII")
_ENTRY = struct.Struct(">32sq")
_SUM_BYTES = 32

Times = dict[bytes, int]
"""When an object was last looked at (seconds since 1970), by the 32 bytes of its digest.

Negative if it was not sound then: it is always due, but after those of which nothing is known."""


class Runs(Struct, frozen=True):
    """What ``runs.json`` holds."""

    begun: dict[str, int] = {}
    """When the incomplete run of each choice of objects began, seconds since 1970."""
    sample: float = 0.0
    """Where the next sample begins, of 0 to 1."""


def default_directory(environment: Mapping[str, str]) -> str:
    """Return the directory for state when none is named.

    That is systemd's ``STATE_DIRECTORY``, else ``casfs`` below ``XDG_STATE_HOME``
    (``~/.local/state``).
    """
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return given
    home = environment.get("XDG_STATE_HOME") or os.path.join(
        environment.get("HOME", "/nonexistent"), ".local", "state"
    )
    return os.path.join(home, "casfs")


def open_state(directory: str, roots: Roots, store: str, *, needed: bool) -> VerifyState:
    """Open the state of one archive's CAS root below ``directory``, which is made if missing.

    If that fails and it is not ``needed``, this is logged and a state is returned that remembers
    nothing. Raises StorageError; WriterLockedError if another verification has it.
    """
    try:
        return VerifyState.open(directory, roots, store)
    except CasfsError as error:
        if needed:
            raise
        _LOG.warning("this run will not be remembered: %s", error.message)
        return VerifyState("")


class VerifyState:
    """The state of one CAS root; close it when done. One with no directory remembers nothing."""

    def __init__(self, directory: str = "", lock: int = -1) -> None:
        self.directory = directory
        self._lock = lock
        self._complained = False

    @classmethod
    def open(cls, directory: str, roots: Roots, store: str) -> Self:
        """Open it, alone; raises StorageError, WriterLockedError."""
        path = directory
        try:
            inode = os.stat(os.path.join(roots.cas, "objects")).st_ino
            copy = digest_of(f"{os.path.realpath(roots.cas)}\0{inode}".encode())[:16]
            path = os.path.join(directory, store, copy)
            os.makedirs(path, mode=0o700, exist_ok=True)
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error(error, "opening the state of verifications in", path) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _probe(path)
        except BlockingIOError:
            os.close(lock)
            raise WriterLockedError(
                f"another verification of this archive uses the state in {path}",
                advice="let it end, or give --state-dir another directory",
            ) from None
        except OSError as error:
            os.close(lock)
            raise storage_error(error, "writing to", path) from error
        return cls(path, lock)

    def close(self) -> None:
        """Let others have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def oldest(self, shard: str) -> int:
        """Return since when nothing in the shard is unread, seconds; 0 if that is not known."""
        if not self.directory:
            return 0
        with contextlib.suppress(OSError), open(self._path(shard), "rb") as file:
            head = file.read(_HEAD.size)
            if len(head) == _HEAD.size and head.startswith(_MAGIC):
                return int(_HEAD.unpack(head)[1])
        return 0

    def load(self, shard: str) -> Times:
        """Return what is remembered of a shard; empty if that is lost."""
        if not self.directory:
            return {}
        try:
            with open(self._path(shard), "rb") as file:
                data = file.read()
        except OSError:
            return {}
        body, found = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
        if len(body) < _HEAD.size or bytes.fromhex(digest_of(body)) != found:
            return {}
        magic, _, count = _HEAD.unpack_from(body)
        entries = memoryview(body)[_HEAD.size :]
        if magic != _MAGIC or len(entries) != count * _ENTRY.size:
            return {}
        return dict(_ENTRY.iter_unpack(entries))

    def save(self, shard: str, times: Times, oldest: int) -> None:
        """Remember a shard. A failure is logged, and costs reading again."""
        if not self.directory:
            return
        parts = [_HEAD.pack(_MAGIC, oldest, len(times))]
        parts += [_ENTRY.pack(digest, when) for digest, when in sorted(times.items())]
        body = b"".join(parts)
        self._write(self._path(shard), body + bytes.fromhex(digest_of(body)))

    def runs(self) -> Runs:
        """Return what is remembered of incomplete runs and of samples."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            if self.directory:
                with open(os.path.join(self.directory, "runs.json"), "rb") as file:
                    return msgspec.json.decode(file.read(), type=Runs)
        return Runs()

    def save_runs(self, runs: Runs) -> None:
        """Remember them."""
        if self.directory:
            self._write(os.path.join(self.directory, "runs.json"), msgspec.json.encode(runs))

    def _path(self, shard: str) -> str:
        return os.path.join(self.directory, f"{shard}.verified")

    def _write(self, path: str, data: bytes) -> None:
        # We hold the lock: nobody else has a file of this name.
        fresh = f"{path}.new"
        try:
            with open(fresh, "wb") as file:
                file.write(data)
            os.rename(fresh, path)
        except OSError as error:
            if not self._complained:
                _LOG.warning("what was found sound cannot be remembered: %s", error)
            self._complained = True


def _probe(directory: str) -> None:
    path = os.path.join(directory, "probe.new")
    with open(path, "wb"):
        pass
    os.unlink(path)
