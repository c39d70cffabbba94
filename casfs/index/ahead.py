"""Reads journals in a process of its own, for a rebuild: while it inserts, the next rows are made.

To parse a line, to check its sum and chain and to make a row of it takes longer than to insert the
row. The child does all of that and hands over finished rows (`casfs.index.preparing`); it decides
nothing. Whatever is not plain (damage that no index can hold, a journal that cannot be read) it
leaves to its parent, which reads the rest of that journal by itself; so it does if the child dies.

Both speak in MessagePack over the child's stdin and stdout, each message behind its length in four
bytes. The pipe is bounded, so a child that is faster waits. It ends with its stdin.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import sys
from typing import IO, TYPE_CHECKING, Self

import msgspec
from msgspec import Struct

from casfs.children import how_it_ended, start_child
from casfs.errors import CasfsError
from casfs.index.preparing import Prepared, prepare
from casfs.manifests.chain import JournalReader, PositionLostError, segment_names
from casfs.manifests.record import Line, Position, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from casfs.manifests.segment import Fault

LINES = 300
"""Of a batch. It is what fits the caches: seven times as many take a sixth longer."""

_LOG = logging.getLogger(__name__)
_WORTHWHILE_BYTES = 8 << 20  # reading it takes longer than starting a process
_LENGTH_BYTES = 4
_PIPE_BYTES = 1 << 20  # what an unprivileged process may have
_COLLECTION_THRESHOLD = 50_000


class ReadAheadError(Exception):
    """The rest of a journal is left to the parent; the message says why if the child is gone."""


class PreparedBatch(Struct, frozen=True, array_like=True, tag=True):
    """Some lines of a journal, in order."""

    prepared: Prepared
    lines: int
    position: Position
    """Behind the last of them."""


class _End(Struct, frozen=True, array_like=True, tag=True):
    """Nothing more comes of this journal."""

    whole: bool


class _Request(Struct, frozen=True, array_like=True):
    directory: bytes
    trusted: Position | None


_ENCODER = msgspec.msgpack.Encoder()
_REQUESTS = msgspec.msgpack.Decoder(_Request)
_ANSWERS = msgspec.msgpack.Decoder(PreparedBatch | _End)


class ReadAhead:
    """A child that reads the journals it is asked for, one after another.

    Ask for a few only before taking what it read of the first. Raises OSError if no process can be
    started. A context manager: ends the child.
    """

    def __init__(self) -> None:
        self._child = start_child("casfs.index.ahead", pipe_bytes=_PIPE_BYTES)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # It may be in the middle of a journal that nobody waits for any more.
        self._child.kill()
        with contextlib.suppress(BrokenPipeError):
            self._child.communicate()

    def ask(self, directory: str, trusted: Position | None) -> None:
        """Have a journal read from its beginning, behind those that were asked for before."""
        assert self._child.stdin is not None
        # If the child is gone, whoever takes its answer is told.
        with contextlib.suppress(BrokenPipeError):
            _send(self._child.stdin, _Request(os.fsencode(directory), trusted))

    def batches(self) -> Iterator[PreparedBatch]:
        """Yield what was read of the next journal that was asked for.

        Raises ReadAheadError if the rest of it is to be read by the caller. Whoever does not want
        the rest must take it nevertheless.
        """
        assert self._child.stdout is not None
        while True:
            data = _receive(self._child.stdout)
            if data is None:
                raise ReadAheadError(how_it_ended(self._child.wait()))
            answer = _ANSWERS.decode(data)
            if isinstance(answer, PreparedBatch):
                yield answer
            elif answer.whole:
                return
            else:
                raise ReadAheadError


def start_reading(directories: Iterable[str]) -> ReadAhead | None:
    """Start a process to read these journals, if it is worth it and there is a core for it.

    Raises StorageError.
    """
    if len(os.sched_getaffinity(0)) < 2 or not _is_much(directories):
        return None
    try:
        return ReadAhead()
    except OSError as error:
        _LOG.warning("no process that reads the manifests ahead can be started: %s", error)
        return None


def _is_much(directories: Iterable[str]) -> bool:
    found = 0
    for directory in directories:
        for name in segment_names(directory):
            with contextlib.suppress(OSError):
                found += os.stat(os.path.join(directory, str(name))).st_size
            if found >= _WORTHWHILE_BYTES:
                return True
    return False


def main() -> int:
    """Be the child: batches and an end for each request on stdin, until it ends."""
    # There are no cycles to be found among so many lists and strings.
    gc.freeze()
    gc.set_threshold(_COLLECTION_THRESHOLD)
    while (data := _receive(sys.stdin.buffer)) is not None:
        request = _REQUESTS.decode(data)
        whole = True
        try:
            for batch in _read(os.fsdecode(request.directory), request.trusted):
                _send(sys.stdout.buffer, batch)
        except BrokenPipeError:
            os._exit(0)  # nobody listens, nor is there anything to be flushed
        except (CasfsError, PositionLostError, ValueError, OverflowError):
            # Our parent meets the same, and knows what is to be said of it.
            whole = False
        _send(sys.stdout.buffer, _End(whole))
    return 0


def _read(directory: str, trusted: Position | None) -> Iterator[PreparedBatch]:
    reader = JournalReader(directory, trusted=trusted)
    with contextlib.closing(iter(reader)) as items:
        while True:
            # Each record is let go before the next is read: a batch of them fits no cache.
            lines = _Lines(itertools.islice(items, LINES))
            prepared = prepare(lines.records())
            if not lines.count or reader.position is None:
                return
            yield PreparedBatch(prepared, lines.count, reader.position)


class _Lines:
    """Counts the lines that go by."""

    def __init__(self, items: Iterable[Line | Fault]) -> None:
        self._items = items
        self.count = 0

    def records(self) -> Iterator[Record]:
        for item in self._items:
            if isinstance(item, Line):
                self.count += 1
                if isinstance(item.record, Record):
                    yield item.record


def _send(file: IO[bytes], message: object) -> None:
    data = _ENCODER.encode(message)
    file.write(len(data).to_bytes(_LENGTH_BYTES) + data)
    file.flush()


def _receive(file: IO[bytes]) -> bytes | None:
    """Return the next message; None if there is no whole one any more."""
    length = file.read(_LENGTH_BYTES)
    if len(length) < _LENGTH_BYTES:
        return None
    size = int.from_bytes(length)
    data = file.read(size)
    return data if len(data) == size else None


if __name__ == "__main__":
    sys.exit(main())
