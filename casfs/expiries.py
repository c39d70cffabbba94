"""The journals of what expired: a lock, the records, and what the CAS root remembers of them.

They lie apart from the journals of recorders (``.casfs/expired/<broadcast>/`` below the manifest
root), so that deciding needs nobody to stop. One process at a time expires, collects or restores.
A record counts once it is durable; then the CAS root remembers the place, as it does of the other
journals (`casfs.heads`), lest an older copy calls for what was restored or shows what is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import itertools
import os
import platform
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING

from casfs.archive import WRITER
from casfs.durable import check_alive, make_directory, open_directory
from casfs.errors import CollectorLockedError, ForeignRootError, storage_error
from casfs.heads import ExpiryHeads, read_expiry_heads, write_expiry_heads
from casfs.manifests.chain import reaches
from casfs.manifests.expiry import NOTHING_EXPIRED
from casfs.manifests.journal import Journal, JournalIdentity
from casfs.manifests.layout import EXPIRIES, expiry_place, expiry_places
from casfs.manifests.record import ExpiredRecord, Record, RestoredRecord
from casfs.manifests.recovery import recover_tail
from casfs.timestamps import HOUR, format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from casfs.archive import Archive
    from casfs.index.rows import BroadcastRow
    from casfs.manifests.expiry import ExpiredHour
    from casfs.manifests.layout import JournalPlace
    from casfs.manifests.record import Position
    from casfs.retention import Decision
    from casfs.roots import Roots


def check_expiry_heads(archive: Archive) -> dict[JournalPlace, Position]:
    """Return what the CAS root remembers of the journals of expiries.

    Raises ForeignRootError if a journal is older than that, StorageError.
    """
    roots = archive.roots
    heads = read_expiry_heads(roots.cas)
    if heads is None:
        return {}
    if heads.store != archive.store_id:
        raise ForeignRootError(
            f"the CAS root {roots.cas} remembers expiries of another archive ({heads.store})",
            advice="check which disks are mounted there; nothing was changed",
        )
    places = heads.places
    for place, position in places.items():
        if not reaches(place.directory(roots.manifests), position):
            raise ForeignRootError(
                f"the manifest root {roots.manifests} is older than the CAS root remembers: "
                f"{place} lacks what was decided",
                advice="is it a backup or a snapshot? restore the newest manifests, with their "
                f"{EXPIRIES}",
            )
    return places


@contextlib.contextmanager
def lock_expiries(roots: Roots) -> Iterator[None]:
    """Be the one who expires, collects or restores; raises CollectorLockedError, StorageError."""
    path = os.path.join(roots.manifests, EXPIRIES)
    with contextlib.ExitStack() as held:
        try:
            make_directory(path)
            descriptor = held.enter_context(open_directory(path))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CollectorLockedError(
                "another process expires, collects or restores in this archive",
                advice="wait until it has ended; nothing was changed",
            ) from None
        except OSError as error:
            raise storage_error(error, "locking", path) from error
        yield


def make_expiries_durable(archive: Archive) -> None:
    """Make durable what was decided; use it while `lock_expiries` is held. Raises StorageError.

    Whoever recorded it may have been killed before it was: a power cut would take it back, and the
    objects that had gone by it would be missed.
    """
    root = archive.roots.manifests
    for place in expiry_places(root):
        directory = place.directory(root)
        tail = recover_tail(directory)
        if tail.position is not None:
            path = os.path.join(directory, tail.position.segment)
            try:
                check_alive(path)
            except OSError as error:
                raise storage_error(error, "syncing", path) from error


class ExpiryWriter:
    """Records what expired and what was restored; use it while `lock_expiries` is held.

    Raises ForeignRootError if the journals are older than the CAS root remembers, StorageError.
    """

    def __init__(self, archive: Archive, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._archive = archive
        self._clock = clock
        self._session = uuid.uuid4().hex
        self._heads = check_expiry_heads(archive)

    def expire(self, broadcast: BroadcastRow, decisions: Sequence[Decision]) -> None:
        """Record that hours of a broadcast expired; on return that is durable.

        Raises StorageError; then none of it counts.
        """
        self._append(
            broadcast,
            [
                partial(
                    ExpiredRecord,
                    hour=format_time(decision.hour * HOUR),
                    through=decision.expired.through,
                    keep=sorted(decision.expired.keep),
                    groups=decision.groups,
                    bytes=decision.bytes,
                    policy=decision.reason,
                )
                for decision in decisions
            ],
        )

    def restore(self, broadcast: BroadcastRow, hours: Mapping[int, ExpiredHour]) -> None:
        """Record what is expired of hours of a broadcast from now on; on return that is durable.

        Raises StorageError; then none of it counts.
        """
        self._append(
            broadcast,
            [
                partial(RestoredRecord, hour=format_time(hour * HOUR))
                if state == NOTHING_EXPIRED
                else partial(
                    ExpiredRecord,
                    hour=format_time(hour * HOUR),
                    through=state.through,
                    keep=sorted(state.keep),
                    groups=0,
                    bytes=0,
                    policy="restored media needs more of it",
                )
                for hour, state in sorted(hours.items())
            ],
        )

    def _append(self, broadcast: BroadcastRow, makers: Sequence[Callable[..., Record]]) -> None:
        if not makers:
            return
        place = expiry_place(self._archive.directory_of(broadcast.name))
        directory = place.directory(self._archive.roots.manifests)
        try:
            make_directory(directory)
        except OSError as error:
            raise storage_error(error, "creating", directory) from error
        head = self._heads.get(place)
        tail = recover_tail(directory, head)
        numbers = itertools.count(tail.last_n + 1)
        journal = Journal(
            directory,
            JournalIdentity(
                store=self._archive.store_id,
                broadcast=broadcast.name,
                number=broadcast.number,
                track=None,
                writer=WRITER,
                recorder=self._session,
            ),
            position=tail.position,
            appendable=tail.whole and head is not None and head == tail.position,
            next_number=partial(next, numbers),
            clock=self._clock,
        )
        with contextlib.closing(journal):
            journal.open_segment()
            by = _by()
            journal.append(
                [
                    make(
                        broadcast=broadcast.name,
                        number=broadcast.number,
                        track=None,
                        n=next(numbers),
                        time=format_time(self._clock()),
                        by=by,
                        writer=WRITER,
                    )
                    for make in makers
                ]
            )
            journal.sync()
            if journal.acknowledged is not None:
                self._heads[place] = journal.acknowledged
        self._write_heads()

    def _write_heads(self) -> None:
        heads = ExpiryHeads(
            store=self._archive.store_id,
            time=format_time(self._clock()),
            journals={place.track: position for place, position in sorted(self._heads.items())},
        )
        write_expiry_heads(self._archive.roots.cas, heads)


def _by() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{platform.node()}"
