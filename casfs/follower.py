"""Keeps the index in step from a process of its own, so that no trouble with it ends a recorder.

SQLite maps the shared memory of an index in write-ahead mode from a file beside it. If the disk of
that file fails, a touch of the mapping is no error that a program could handle but SIGBUS, which
ends it without a word. So a recorder has a child do it (`casfs.index.mirror.Mirror`), which may die
and is started again. Nor does the child's work hold up the recorder's interpreter.

The child derives the sample tables of what was committed, too (`casfs.recordings.sampling`): they
lie in a file of SQLite like the index. It answers first, so that the index does not wait for them.

Parent and child speak in lines of JSON over the child's stdin and stdout; it ends with its stdin.
What the child alone needs is imported in the child.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.children import how_it_ended, start_child
from casfs.errors import CasfsError
from casfs.manifests.layout import JournalPlace
from casfs.recordings.committed import CommittedPayload, CommittedPayloads
from casfs.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from casfs.archive import Archive, Committed
    from casfs.index.mirror import Mirror
    from casfs.recordings.sampling import Sampler

_LOG = logging.getLogger(__name__)
_NICE = 5
_LOOK_EVERY = 0.5
_END_SECONDS = 1.0
_CHUNK = 1 << 16


class _Request(Struct, frozen=True):
    places: list[JournalPlace] | None
    """None: all."""
    payloads: list[CommittedPayload] = []
    """What sample tables are to be derived of."""


class _Answer(Struct, frozen=True):
    applied: int
    trouble: str


class _HurriedError(Exception):
    """The child has not answered, and whoever asks will not wait any longer."""


class Follower:
    """A `casfs.index.mirror.Mirror` in a child process; use it from one thread at a time.

    The child begins with the first step. If it dies, that is trouble like any other: the next step
    begins a new one.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._child: subprocess.Popen[bytes] | None = None
        self._payloads = CommittedPayloads()
        self._deadline = float("inf")
        self.trouble = ""
        """Why the index is behind; empty while all is well."""

    def note(self, committed: Sequence[Committed]) -> None:
        """Have sample tables derived of what was committed, behind the next step.

        Any thread may call it; it does nothing that could take long.
        """
        self._payloads.note(committed)

    def hurry(self, seconds: float) -> None:
        """Let all steps from now on, and the one that is under way, take no longer than that.

        Any thread may call it; the first call counts. Then the child is killed, and the index is
        behind until somebody else catches up. For a recorder that ends while a disk hangs.
        """
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def step(self, places: Iterable[JournalPlace] | None) -> int:
        """Apply what these journals (None: all) have beyond the index; return how many lines.

        Never raises.
        """
        request = _Request(None if places is None else list(places), self._payloads.take())
        try:
            answer = self._ask(request)
        except _HurriedError:
            self._end()
            answer = _Answer(0, "it was not waited for any longer at the end")
        except OSError as error:
            self.close()
            answer = _Answer(0, f"no process to keep it can be started: {error.strerror}")
        except (EOFError, msgspec.DecodeError):
            answer = _Answer(0, f"the process that keeps it {self._end()}")
        if answer.trouble and answer.trouble != self.trouble:
            _LOG.warning("the index lags behind the manifests: %s", answer.trouble)
        elif self.trouble and not answer.trouble:
            _LOG.info("the index has caught up again")
        self.trouble = answer.trouble
        return answer.applied

    def close(self) -> None:
        """End the child; the next step begins a new one."""
        if self._child is not None:
            self._end()

    def _ask(self, request: _Request) -> _Answer:
        if self._child is None:
            self._child = _start(self._archive)
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        self._send(child.stdin.fileno(), msgspec.json.encode(request) + b"\n")
        return msgspec.json.decode(self._receive_line(child.stdout.fileno()), type=_Answer)

    def _send(self, descriptor: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._wait_for(descriptor, select.POLLOUT)
            try:
                rest = rest[os.write(descriptor, rest[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise EOFError from None

    def _receive_line(self, descriptor: int) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            self._wait_for(descriptor, select.POLLIN)
            piece = os.read(descriptor, _CHUNK)
            if not piece:
                raise EOFError
            line += piece
        return line

    def _wait_for(self, descriptor: int, event: int) -> None:
        """Wait until something can be written or read; somebody may ask us to `hurry` meanwhile."""
        waiting = select.poll()
        waiting.register(descriptor, event)
        while True:
            left = self._deadline - time.monotonic()
            if waiting.poll(1000 * max(0.0, min(left, _LOOK_EVERY))):
                return
            if left <= 0:
                raise _HurriedError

    def _end(self) -> str:
        """Wait for the child's end and say how it ended."""
        child, self._child = self._child, None
        if child is None:
            return "is gone"
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        left = self._deadline - time.monotonic()
        try:
            child.wait(None if left == float("inf") else max(left, _END_SECONDS))
        except subprocess.TimeoutExpired:
            # Where a disk holds it not even this ends it; whoever comes after us reaps it.
            child.kill()
            return "does not end"
        finally:
            child.stdout.close()
        return how_it_ended(child.returncode)


def _start(archive: Archive) -> subprocess.Popen[bytes]:
    roots = archive.roots
    child = start_child(
        "casfs.follower", roots.cas, roots.manifests, archive.index_path, buffer_bytes=0
    )
    assert child.stdin is not None
    os.set_blocking(child.stdin.fileno(), False)
    return child


def main(cas: str, manifests: str, index_path: str) -> int:
    """Be the child: one answer for each line on stdin, until it ends."""
    # Who is asked to stop is the recorder: it still has its last lines applied.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Commits come first, readers do without.
    os.nice(_NICE)
    # The parent says what is wrong, from the answers.
    logging.disable(logging.WARNING)
    roots = Roots(cas, manifests)
    mirror: Mirror | None = None
    sampler: Sampler | None = None
    for line in sys.stdin.buffer:
        request = msgspec.json.decode(line, type=_Request)
        try:
            mirror = mirror or _mirror(roots, index_path)
            answer = _Answer(mirror.step(request.places), mirror.trouble)
        except CasfsError as error:
            answer = _Answer(0, error.message)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
        if request.payloads and mirror is not None:
            sampler = sampler or _sampler(roots, index_path)
            sampler.derive(request.payloads)
    if sampler is not None:
        sampler.close()
    if mirror is not None:
        mirror.close()
    return 0


def _mirror(roots: Roots, index_path: str) -> Mirror:
    """Return what `casfs.archive.Archive.mirror` would; what it takes to write is not loaded."""
    from casfs.heads import KnownHeads
    from casfs.index.mirror import Mirror
    from casfs.roots import recognise

    store = recognise(roots).store
    return Mirror(index_path, roots.manifests, store, head_of=KnownHeads(roots.cas).of)


def _sampler(roots: Roots, index_path: str) -> Sampler:
    """Return who derives sample tables: nobody needs one, nor its libraries, before media come."""
    from casfs.archive import Archive
    from casfs.recordings.sampling import Sampler

    return Sampler(Archive(roots, index_path=index_path))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
