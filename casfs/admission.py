"""What must hold before a broadcast may be written to, and the refusals if it does not.

Wrong disks are refused by the heads, second writers by a kernel lock on the broadcast's directory
(it dies with its holder, so it is never stale), and wrong clocks by the newest record.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import time
from typing import TYPE_CHECKING

from casfs.durable import make_directory, open_directory
from casfs.errors import ClockError, ForeignRootError, WriterLockedError, storage_error
from casfs.heads import Heads, read_heads, remembered_broadcasts, unreachable
from casfs.manifests.chain import JournalReader, read_header, segment_names
from casfs.manifests.layout import BROADCAST_JOURNAL, broadcast_directories, journal_places
from casfs.manifests.record import Line, Record
from casfs.roots import OWN, Roots
from casfs.timestamps import DAY, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOKS, _A_LOOK = 5, 0.005


def check_heads(roots: Roots, directory: str) -> Heads | None:
    """Return what the CAS root remembers of the broadcast in this (encoded) directory.

    Raises ForeignRootError if the manifests are older than that, StorageError.
    """
    check_broadcasts(roots)
    return check_journals(roots, directory)


def check_broadcasts(roots: Roots) -> list[str]:
    """Return the (encoded) directories of all broadcasts that the CAS root remembers.

    Raises ForeignRootError if the manifest root lacks any, StorageError.
    """
    remembered = remembered_broadcasts(roots.cas)
    missing = set(remembered) - set(broadcast_directories(roots.manifests))
    if missing:
        raise _older(roots, min(missing))
    return remembered


def check_journals(roots: Roots, directory: str) -> Heads | None:
    """Return what the CAS root remembers of one broadcast, if its journals reach that.

    Raises ForeignRootError, StorageError.
    """
    heads = read_heads(roots.cas, directory)
    if heads is not None:
        lost = unreachable(heads, roots.manifests, directory)
        if lost:
            raise _older(roots, str(min(lost)))
    return heads


def _older(roots: Roots, lost: str) -> ForeignRootError:
    return ForeignRootError(
        f"the manifest root {roots.manifests} is older than the CAS root remembers: "
        f"{lost} lacks records that were acknowledged",
        advice="is it a backup or a snapshot? restore the newest manifests",
    )


@contextlib.contextmanager
def lock_broadcast(roots: Roots, directory: str, broadcast: str) -> Iterator[None]:
    """Be the one writer of a broadcast; its directories exist then.

    Raises WriterLockedError, StorageError.
    """
    path = os.path.join(roots.manifests, directory)
    with contextlib.ExitStack() as held:
        try:
            make_directory(path)
            descriptor = held.enter_context(open_directory(path))
            _lock(descriptor)
            make_directory(os.path.join(path, BROADCAST_JOURNAL))
        except BlockingIOError:
            raise WriterLockedError(
                f"broadcast {broadcast!r} is being recorded by another process",
                advice="stop that recorder first, or let it go on",
            ) from None
        except OSError as error:
            raise storage_error(error, "locking", path) from error
        yield


def _lock(descriptor: int) -> None:
    """Take the lock; raises BlockingIOError if another holds it for longer than a look takes.

    Whoever only asks whether a broadcast is recorded holds it shared for some microseconds.
    """
    for _ in range(_LOOKS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_A_LOOK)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_clock(broadcast: str, newest: int, now: int) -> None:
    """Raise ClockError if ``now`` is more than a day before the newest record (both ns UTC)."""
    if newest - now > DAY:
        raise ClockError(
            f"the clock says {format_time(now)}, but the newest record of {broadcast!r} is of "
            f"{format_time(newest)}",
            advice="set the clock (is time synchronisation running?) and start again",
        )


@contextlib.contextmanager
def next_broadcast_number(roots: Roots) -> Iterator[int]:
    """Give a number that no broadcast has; it is taken once a record in the block is durable.

    Numbers stand in every line of a broadcast; a lock on our own directory keeps two recorders
    from taking the same. Raises StorageError.
    """
    try:
        with open_directory(os.path.join(roots.manifests, OWN)) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            directories = broadcast_directories(roots.manifests)
            yield 1 + max((_number(roots, directory) for directory in directories), default=0)
    except OSError as error:
        raise storage_error(error, "locking", roots.manifests) from error


def _number(roots: Roots, directory: str) -> int:
    """Return the number of the broadcast in this (encoded) directory; 0 if no line tells it."""
    # Its own journal sorts first. Lines are searched only where all first lines are damaged.
    journals = [
        place.directory(roots.manifests) for place in journal_places(roots.manifests, directory)
    ]
    headers = (read_header(path, name) for path in journals for name in segment_names(path))
    for line in itertools.chain(headers, map(_first_record, journals)):
        if line is not None and isinstance(line.record, Record):
            return line.record.number
    heads = read_heads(roots.cas, directory)
    return heads.number if heads is not None else 0


def _first_record(journal: str) -> Line | None:
    """Return the first sound line of a journal that we know how to read, or None."""
    with contextlib.closing(iter(JournalReader(journal))) as items:
        for item in items:
            if isinstance(item, Line) and isinstance(item.record, Record):
                return item
    return None
