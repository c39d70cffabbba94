"""How commands speak: tables and progress for people (progress on stderr), JSON for machines."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import TYPE_CHECKING

import msgspec

from casfs.capacity import inode_warning
from casfs.errors import storage_error

if TYPE_CHECKING:
    from msgspec import Struct
    from rich.console import Console
    from typing_extensions import Buffer

    from casfs.roots import Roots

_LOG = logging.getLogger(__name__)


class ReaderGoneError(Exception):
    """Whoever read our output has seen enough. Neither our failure nor theirs."""


def guard_output() -> None:
    """Have a failing stdout raise StorageError or ReaderGoneError, and no OSError or traceback.

    Also takes the standard descriptors that are closed, lest a file of the archive gets one.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  for good
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout()),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )


class CurrentStderrHandler(logging.Handler):
    """Logs to what is stderr at the time: a live display takes its place for a while.

    Nothing is said, and nothing fails, when nobody reads stderr any more.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        with contextlib.suppress(OSError):
            print(self.format(record), file=sys.stderr, flush=True)


class _Stdout(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def isatty(self) -> bool:
        return os.isatty(1)

    def write(self, data: Buffer, /) -> int:
        try:
            return os.write(1, data)
        except OSError as error:
            # What is still buffered must not fail again when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
            if isinstance(error, BrokenPipeError):
                raise ReaderGoneError from None
            raise storage_error(error, "writing", "the output") from error


def print_json(value: Struct | dict[str, object]) -> None:
    """Print one JSON object on one line of stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def say(text: str = "") -> None:
    """Print one line for people on stdout."""
    print(text)


def warn_of_inodes(roots: Roots, object_bytes: float | None = None, *, log: bool = False) -> None:
    """Say on stderr if the disk of the objects will run out of inodes before it runs out of bytes.

    ``log``: as a message of the log that goes there. Raises StorageError.
    """
    warning = inode_warning(roots, object_bytes)
    if warning is not None:
        advice = "make it with more inodes (mkfs.ext4 -i 4096), or take XFS, btrfs or ZFS"
        if log:
            _LOG.warning("%s; %s", warning, advice)
        else:
            print(f"casfs: warning: {warning}; {advice}", file=sys.stderr)


def printable(name: str) -> str:
    """Return a name for a terminal, which the relay's choice of letters must not steer."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in name)


def progress_console() -> Console:
    """Return the console for progress: stderr, plain when that is no terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
