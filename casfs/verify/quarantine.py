"""Moves damaged objects aside, so that a later put of the same bytes heals the archive.

Nothing is deleted. The protocol, for each object:

1. its shard is locked exclusively (writers hold it shared while they rely on what is there), and
   the object is read once more: it may have been healed a moment ago;
2. a record says what is to be moved where, in ``.casfs/quarantine/`` of the manifest root, durably;
3. the file is renamed into ``.casfs/quarantine/`` of the CAS root; both directories are synced.

After a crash between 2 and 3 the object is found damaged again, and a further record is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from typing import TYPE_CHECKING, Self

from casfs import __version__
from casfs.digest import SHARD_LENGTH, Digest
from casfs.durable import make_directory, open_directory, sync_directory
from casfs.errors import CasfsError, ObjectNotFoundError, WriterLockedError, storage_error
from casfs.manifests.journal import Journal, JournalIdentity
from casfs.manifests.record import Record
from casfs.manifests.recovery import recover_tail
from casfs.objects.local import LocalStore, exclusive_shard, object_path
from casfs.roots import OWN
from casfs.timestamps import format_time
from casfs.verify.report import UnmendedObject

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.roots import Roots

QUARANTINE = f"{OWN}/quarantine"
"""In the CAS root the files, in the manifest root the journal."""

_WRITER = f"casfs {__version__}"


class QuarantineRecord(Record, frozen=True, kw_only=True, tag="quarantine"):
    """A verifier moves a damaged object aside. ``broadcast`` is empty and ``number`` 0."""

    hash: Digest
    path: str
    """Where it lay, relative to the CAS root."""
    moved_to: str
    """Where it is moved to, relative to the CAS root."""
    reason: str
    """What was wrong with it, for people."""
    recorder: str
    """The run of the verifier."""
    writer: str


class Quarantine:
    """The quarantine of one archive; a context manager that locks its journal while it is open.

    Raises StorageError; WriterLockedError if another verifier has it.
    """

    def __init__(
        self, roots: Roots, store: str, *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._roots = roots
        self._store_id = store
        self._store = LocalStore(roots.cas)
        self._clock = clock
        self._recorder = uuid.uuid4().hex
        self._resources = contextlib.ExitStack()
        self._journal: Journal | None = None
        self._last_n = 0

    def __enter__(self) -> Self:
        directory = os.path.join(self._roots.manifests, QUARANTINE)
        try:
            make_directory(os.path.join(self._roots.cas, QUARANTINE))
            make_directory(directory)
            lock = self._resources.enter_context(open_directory(directory))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._resources.close()
            raise WriterLockedError(
                f"another verifier writes to {directory}", advice="let it end"
            ) from None
        except OSError as error:
            self._resources.close()
            raise storage_error(error, "preparing", directory) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal is not None:
            self._journal.close()
        self._resources.close()

    def set_aside(self, digest: Digest, reason: str) -> str | UnmendedObject:
        """Move a damaged object aside and return where to, relative to the CAS root."""
        try:
            with exclusive_shard(self._store, digest[:SHARD_LENGTH]) as descriptor:
                try:
                    if self._store.check(digest) is None:
                        return UnmendedObject(digest, "was sound when it was read once more")
                except ObjectNotFoundError:
                    return UnmendedObject(digest, "has been taken away meanwhile")
                except CasfsError as error:
                    reason = error.message
                return self._move(digest, reason, descriptor)
        except CasfsError as error:
            return UnmendedObject(digest, error.message)
        except OSError as error:
            return UnmendedObject(digest, storage_error(error, "moving aside", digest).message)

    def _move(self, digest: Digest, reason: str, shard: int) -> str:
        journal = self._opened()
        journal.open_segment()
        n = self._next_n()
        target = f"{QUARANTINE}/{digest}.{n}"
        record = QuarantineRecord(
            broadcast="", number=0, track=None, n=n, time=format_time(self._clock()), hash=digest,
            path=object_path(digest), moved_to=target, reason=reason, recorder=self._recorder,
            writer=_WRITER,
        )  # fmt: skip
        journal.append([record])
        journal.sync()
        final = os.path.join(self._roots.cas, target)
        os.rename(self._store.path(digest), final)
        sync_directory(os.path.dirname(final))
        os.fsync(shard)
        return target

    def _opened(self) -> Journal:
        if self._journal is None:
            directory = os.path.join(self._roots.manifests, QUARANTINE)
            tail = recover_tail(directory)
            self._last_n = tail.last_n
            self._journal = Journal(
                directory,
                JournalIdentity(self._store_id, "", 0, None, _WRITER, self._recorder),
                position=tail.position,
                # Nobody keeps its head: how the last verifier left it is not known.
                appendable=False,
                next_number=self._next_n,
                clock=self._clock,
            )
        return self._journal

    def _next_n(self) -> int:
        self._last_n += 1
        return self._last_n
