"""Decides what need not be kept any longer, and records it. Never touches an object.

What expired does not show any longer; `casfs.collect` takes the objects away later.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.admission import check_broadcasts, check_journals
from casfs.errors import ForeignRootError, ObjectNotFoundError, storage_error
from casfs.expiries import ExpiryWriter, check_expiry_heads, lock_expiries
from casfs.index.expiring import expired_objects
from casfs.index.holdings import holdings, received_bytes
from casfs.index.index import Index, IndexFault
from casfs.index.mirror import catch_up
from casfs.manifests.layout import JournalPlace
from casfs.retention import Decision, decide, growth
from casfs.timestamps import DAY
from casfs.trash import trashed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from casfs.archive import Archive
    from casfs.manifests.record import Position
    from casfs.retention import Policy


_LATELY = 7 * DAY
"""How far back growth is looked at."""


class DiskSpace(Struct, frozen=True):
    """The filesystem of the CAS root, bytes."""

    total: int
    free: int
    """For us, who may not use what is reserved for root."""


def expire(
    archive: Archive, policy: Policy, *, act: bool, clock: Callable[[], int] = time.time_ns
) -> list[Decision]:
    """Return what expires by the policy, oldest first; record it if ``act`` is true.

    Raises ForeignRootError if the roots do not fit or the manifests are older than the CAS root
    remembers, CollectorLockedError, StorageError.
    """
    with contextlib.ExitStack() as held:
        if act:
            held.enter_context(lock_expiries(archive.roots))
        check_all_heads(archive)
        with current_index(archive) as index:
            available = 0
            now = clock()
            if policy.min_free is not None:
                available = disk_space(archive).free + _bound_to_go(archive, index)
                available -= _growth_ahead(index, policy, now)
            decisions = decide(holdings(index), policy, now=now, available=available)
        if act and decisions:
            writer = ExpiryWriter(archive, clock=clock)
            for broadcast in dict.fromkeys(decision.broadcast for decision in decisions):
                writer.expire(
                    broadcast, [item for item in decisions if item.broadcast == broadcast]
                )
            refresh_index(archive)
    return decisions


def disk_space(archive: Archive) -> DiskSpace:
    """Return how much room there is for objects; raises StorageError."""
    try:
        status = os.statvfs(archive.roots.cas)
    except OSError as error:
        raise storage_error(error, "looking at", archive.roots.cas) from error
    return DiskSpace(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)


def check_all_heads(archive: Archive) -> dict[JournalPlace, Position]:
    """Return every place that the CAS root remembers, of recorders' journals and of expiries.

    Raises ForeignRootError if any cannot be reached in the manifests, StorageError.
    """
    roots = archive.roots
    places = check_expiry_heads(archive)
    for directory in check_broadcasts(roots):
        heads = check_journals(roots, directory)
        if heads is None:
            continue
        if heads.store != archive.store_id:
            raise ForeignRootError(
                f"the CAS root {roots.cas} remembers {heads.broadcast!r} of another archive "
                f"({heads.store})",
                advice="check which disks are mounted there; nothing was changed",
            )
        for name, position in heads.journals.items():
            places[JournalPlace(directory, name)] = position
    return places


@contextlib.contextmanager
def current_index(archive: Archive) -> Iterator[Index]:
    """Hold an index of all that the manifests say now: the one on disk if it can be brought up.

    Raises StorageError.
    """
    with contextlib.ExitStack() as held:
        index: Index | None = None
        if not refresh_index(archive):
            with contextlib.suppress(IndexFault):
                index = Index.open(archive.index_path, archive.store_id)
        if index is None:
            index = Index.temporary(archive.store_id)
            held.callback(index.close)
            with index.filling():
                catch_up(index, archive.roots.manifests)
        else:
            held.callback(index.close)
        yield index


def refresh_index(archive: Archive) -> str:
    """Bring the index on disk in step with the manifests; return why that failed, or nothing."""
    mirror = archive.mirror()
    with contextlib.closing(mirror):
        mirror.step(None)
        return mirror.trouble


def _growth_ahead(index: Index, policy: Policy, now: int) -> int:
    """Return the bytes that will come until the policy's time ahead is over."""
    size, first = received_bytes(index, now - _LATELY)
    return 0 if first is None else growth(size, first, now, policy.ahead)


def _bound_to_go(archive: Archive, index: Index) -> int:
    """Return the bytes in the trash, and those that collection will take."""
    size = sum(item.size for item in trashed(archive.roots.cas))
    for shard in archive.objects.shards():
        for digest, _ in expired_objects(index, shard):
            with contextlib.suppress(ObjectNotFoundError):
                size += archive.objects.stat(digest).st_size
    return size
