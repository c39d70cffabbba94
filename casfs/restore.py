"""Brings back what expired, as long as its objects lie in the trash.

The other way round than `casfs.collect`, and as safe at each step: first the objects come back and
their names are durable, then a record says that the hour lives. What lies in the trash although a
living record needs it (its journal came back from a backup, or what had expired was forgotten) is
put back as well, whatever was selected.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import Digest
from casfs.durable import check_alive, sync_directory
from casfs.errors import NotFoundError, storage_error
from casfs.expire import refresh_index
from casfs.expiries import ExpiryWriter, lock_expiries
from casfs.index.expiring import hours_naming, is_needed, revived_objects
from casfs.index.holdings import holdings
from casfs.objects.local import exclusive_shard, hash_descriptor
from casfs.retention import Policy, undo
from casfs.survey import Survey
from casfs.timestamps import HOUR
from casfs.trash import trashed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from casfs.archive import Archive
    from casfs.index.holdings import Holding
    from casfs.index.index import Index


class RestoredHour(Struct, frozen=True):
    """An hour that was restored, or would be, or cannot be."""

    broadcast: str
    hour: int
    """Since the Unix epoch."""
    lost: int
    """How many of its objects are neither in the store nor, sound, in the trash; 0: restored."""


class Restoration(Struct, frozen=True):
    """What was restored, or would be."""

    hours: list[RestoredHour]
    objects: int
    """How many lay in the trash although a living record needs them, and were put back."""


class Selection(Struct, frozen=True):
    """Which expired hours; what is not given selects all."""

    broadcasts: tuple[str, ...] = ()
    """Names or globs."""
    since: int | None = None
    """Hours that end after this instant, nanoseconds UTC."""
    until: int | None = None
    """Hours that begin before it."""
    objects: tuple[Digest, ...] = ()
    """Hours with a record that names one of these."""


def restore(
    archive: Archive,
    selection: Selection,
    *,
    act: bool,
    clock: Callable[[], int] = time.time_ns,
) -> Restoration:
    """Bring expired hours back, with their objects; an hour that lacks any stays as it is.

    Without ``act`` only say which. Raises NotFoundError if nothing that expired is selected and
    nothing in the trash is needed, ForeignRootError, CollectorLockedError, UnsupportedFormatError,
    StorageError.
    """
    with contextlib.ExitStack() as held:
        if act:
            held.enter_context(lock_expiries(archive.roots))
            # Whoever restored before may have been killed before the index knew of it.
            refresh_index(archive)
        survey = held.enter_context(Survey(archive, strict=False))
        restorer = _Restorer(archive, survey.index, act=act)
        try:
            objects = restorer.bring_needed()
            hours = [
                hour
                for holding in holdings(survey.index)
                for hour in restorer.restore(holding, selection, clock)
            ]
        except OSError as error:
            raise storage_error(error, "restoring in", archive.roots.cas) from error
        if not hours and not objects:
            raise NotFoundError(
                "nothing that has expired is selected", advice="casfs ls shows what has not"
            )
        if act:
            refresh_index(archive)
    return Restoration(hours, objects)


class _Restorer:
    def __init__(self, archive: Archive, index: Index, *, act: bool) -> None:
        self._archive = archive
        self._index = index
        self._act = act
        self._trash: dict[Digest, list[str]] = {}
        for item in trashed(archive.roots.cas):
            self._trash.setdefault(item.digest, []).append(item.path)

    def bring_needed(self) -> int:
        """Put back what should never have been thrown away; return how much. Raises OSError."""
        return sum(
            is_needed(self._index, digest) and not self._sound(digest) and self._bring(digest)
            for digest in self._trash
        )

    def restore(
        self, holding: Holding, selection: Selection, clock: Callable[[], int]
    ) -> Iterator[RestoredHour]:
        """Restore the selected hours of a broadcast; raises OSError."""
        number = holding.broadcast.number
        back: list[int] = []
        for hour in self._selected(holding, selection):
            changed = undo(holding, [hour])
            lost = {
                digest
                for other, state in changed.items()
                for digest in revived_objects(self._index, number, other, state)
                if not self._bring(digest)
            }
            if not lost:
                back.append(hour)
            yield RestoredHour(holding.broadcast.name, hour, len(lost))
        if back and self._act:
            writer = ExpiryWriter(self._archive, clock=clock)
            writer.restore(holding.broadcast, undo(holding, back))

    def _selected(self, holding: Holding, selection: Selection) -> Sequence[int]:
        hours = {hour for hour, state in holding.expired.items() if state.through}
        if not Policy(broadcasts=selection.broadcasts).wants(holding.broadcast.name):
            return ()
        if selection.objects:
            hours &= {
                hour
                for digest in selection.objects
                for hour in hours_naming(self._index, holding.broadcast.number, digest)
            }
        return sorted(
            hour
            for hour in hours
            if (selection.since is None or (hour + 1) * HOUR > selection.since)
            and (selection.until is None or hour * HOUR < selection.until)
        )

    def _bring(self, digest: Digest) -> bool:
        """Say whether an object is in the store, or could be put back from the trash."""
        stored = self._archive.objects.path(digest)
        paths = self._trash.get(digest, [])
        # What lies in its place is read only where the trash has a copy to replace it by.
        if self._sound(digest) if paths else self._stored(digest):
            if self._act:
                self._settle(digest)
            return True
        if not self._act:
            return bool(paths)
        # It may have been thrown away more than once, and not every copy be sound.
        path = next((path for path in reversed(paths) if _is_sound(path, digest)), None)
        if path is None:
            return False
        with exclusive_shard(self._archive.objects, digest[:2]) as descriptor:
            if not _is_sound(stored, digest):
                os.rename(path, stored)
            os.fsync(descriptor)
            # A record on another disk is going to rely on it.
            check_alive(stored)
        bag = os.path.dirname(path)
        sync_directory(bag)
        with contextlib.suppress(OSError):
            # It is rarely empty already.
            os.rmdir(bag)
        return True

    def _settle(self, digest: Digest) -> None:
        """Make a name durable that was there: a killed restore may have left it in memory."""
        # For each one: a writer may have come to the same shard since, and been killed likewise.
        with exclusive_shard(self._archive.objects, digest[:2]) as descriptor:
            os.fsync(descriptor)
            check_alive(self._archive.objects.path(digest))

    def _stored(self, digest: Digest) -> bool:
        return os.path.lexists(self._archive.objects.path(digest))

    def _sound(self, digest: Digest) -> bool:
        return _is_sound(self._archive.objects.path(digest), digest)


def _is_sound(path: str, digest: Digest) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return hash_descriptor(descriptor)[0] == digest
    except OSError:
        # A sector that cannot be read: another copy may be whole.
        return False
    finally:
        os.close(descriptor)
