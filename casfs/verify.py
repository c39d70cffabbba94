"""Proof that nothing has rotted: every line of every manifest, every byte of every object.

The manifests are read from the beginning (never the index, which could hide what they lost), their
chains and the heads in the CAS root are checked, and each object that any record needs is read and
hashed. Nothing stops at a first finding, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from casfs.digest import Digest
from casfs.errors import CasfsError, ObjectNotFoundError, StorageError
from casfs.heads import read_heads, remembered_broadcasts
from casfs.index.index import Index
from casfs.index.mirror import catch_up_journal
from casfs.manifests.chain import reaches
from casfs.manifests.layout import JournalPlace, broadcast_directories, journal_places
from casfs.objects.local import object_path
from casfs.roots import OWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from casfs.archive import Archive
    from casfs.manifests.record import Position
    from casfs.manifests.segment import Fault

_GROUPS_NAMED = 100
_BATCH = 16
"""Objects that a thread takes at once: what they cost to hand over counts beside small ones."""
_AHEAD = 2
"""Batches that wait for each thread."""


_Needed = tuple[Digest, int | None]
"""An object and the least size that records ask of it."""

T = TypeVar("T")
R = TypeVar("R")


class GroupName(Struct, frozen=True):
    """A group that needs a damaged or missing object."""

    broadcast: str
    track: str
    epoch: int
    sequence: int
    n: int


class DamagedObject(Struct, frozen=True):
    """An object whose content is not what its name says, or that cannot be read."""

    hash: Digest
    reason: str
    path: str
    """Relative to the CAS root."""
    groups: list[GroupName]
    """The first hundred groups that need it."""
    groups_total: int


class MissingObject(Struct, frozen=True):
    """An object that records need and that is not there."""

    hash: Digest
    path: str
    groups: list[GroupName]
    groups_total: int


class ManifestError(Struct, frozen=True):
    """A place where a manifest is not what was written."""

    journal: str
    """Its directory below the manifest root."""
    segment: str
    offset: int
    end: int
    reason: str


class Report(Struct, frozen=True):
    """What a verification found."""

    sound: bool
    """Nothing is damaged, missing or broken."""
    objects: int
    """Objects that records need; each was looked at."""
    bytes: int
    """Bytes read and hashed."""
    damaged: list[DamagedObject]
    missing: list[MissingObject]
    unreferenced: int
    """Objects that no record names. Not damage: a crash may leave some."""
    manifest_errors: list[ManifestError]
    seconds: float


class Progress(Struct):
    """How far a verification has come; read it at any time from another thread."""

    stage: str = "manifests"
    """``manifests``, then ``objects``."""
    lines: int = 0
    objects: int = 0
    bytes: int = 0
    shards: int = 0
    """Of 256, while in the stage ``objects``."""
    findings: int = 0


class _Checked(Struct, frozen=True):
    digest: Digest
    size: int
    reason: str | None
    missing: bool


def verify(
    archive: Archive,
    *,
    progress: Progress | None = None,
    threads: int = 2,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Check the whole archive and return what was found; raises StorageError if a root fails."""
    return _Verification(archive, progress or Progress(), threads, clock).run()


class _Verification:
    def __init__(
        self, archive: Archive, progress: Progress, threads: int, clock: Callable[[], float]
    ) -> None:
        self._archive = archive
        self._progress = progress
        self._threads = threads
        self._clock = clock
        self._begun = clock()
        self._errors: list[ManifestError] = []
        self._damaged: list[DamagedObject] = []
        self._missing: list[MissingObject] = []
        self._unreferenced = 0

    def run(self) -> Report:
        index = Index.temporary(self._archive.store_id)
        with contextlib.closing(index):
            with index.filling():
                self._manifests(index, self._heads())
            self._progress.stage = "objects"
            with ThreadPoolExecutor(self._threads, thread_name_prefix="casfs-verify") as threads:
                ahead = _AHEAD * self._threads
                for batch in _in_order(threads, self._check_all, self._needed(index), ahead):
                    for checked in batch:
                        self._count(index, checked)
        return Report(
            sound=not (self._damaged or self._missing or self._errors),
            objects=self._progress.objects,
            bytes=self._progress.bytes,
            damaged=self._damaged,
            missing=self._missing,
            unreferenced=self._unreferenced,
            manifest_errors=self._errors,
            seconds=round(self._clock() - self._begun, 3),
        )

    def _heads(self) -> dict[JournalPlace, Position]:
        """Return what the CAS root remembers: a lost tail shows nowhere else."""
        places: dict[JournalPlace, Position] = {}
        cas = self._archive.roots.cas
        try:
            directories = remembered_broadcasts(cas)
        except StorageError as error:
            self._error("", f"{OWN}/heads", 0, 0, error.message)
            return places
        for directory in directories:
            try:
                heads = read_heads(cas, directory)
            except CasfsError as error:
                self._error(directory, f"{OWN}/heads/{directory}.json", 0, 0, error.message)
                continue
            if heads is not None:
                for name, position in heads.journals.items():
                    places[JournalPlace(directory, name)] = position
        return places

    def _manifests(self, index: Index, heads: dict[JournalPlace, Position]) -> None:
        root = self._archive.roots.manifests
        for place in sorted(heads.keys() | set(self._places())):
            head = heads.get(place)
            found = len(self._errors)
            try:
                self._progress.lines += catch_up_journal(
                    index, root, place, sync=False, fault=self._fault, trusted=head
                )
                lost = head is not None and not reaches(place.directory(root), head)
            except StorageError as error:
                self._error(str(place), "", 0, 0, error.message)
                continue
            if lost and head is not None and len(self._errors) == found:
                reason = "records that were acknowledged up to here are gone"
                self._error(str(place), head.segment, head.offset, head.offset, reason)

    def _places(self) -> Iterator[JournalPlace]:
        root = self._archive.roots.manifests
        for directory in broadcast_directories(root):
            try:
                yield from journal_places(root, directory)
            except StorageError as error:
                self._error(directory, "", 0, 0, error.message)

    def _fault(self, place: JournalPlace, fault: Fault) -> None:
        self._error(str(place), fault.segment, fault.offset, fault.end, fault.reason)

    def _error(self, journal: str, segment: str, offset: int, end: int, reason: str) -> None:
        self._errors.append(ManifestError(journal, segment, offset, end, reason))
        self._progress.findings += 1

    def _needed(self, index: Index) -> Iterator[Sequence[_Needed]]:
        """Yield what records need, shard by shard, a few objects at a time."""
        for shard in self._archive.objects.shards():
            needed = dict(index.objects(shard))
            items = iter(needed.items())
            while batch := list(itertools.islice(items, _BATCH)):
                yield batch
            self._unreferenced += sum(
                1 for digest in self._present(shard) if digest not in needed and self._old(digest)
            )
            self._progress.shards += 1

    def _count(self, index: Index, checked: _Checked) -> None:
        self._progress.objects += 1
        self._progress.bytes += checked.size
        if checked.reason is not None:
            self._report(index, checked, checked.reason)

    def _present(self, shard: str) -> Iterator[Digest]:
        try:
            yield from self._archive.objects.shard(shard)
        except StorageError as error:
            self._error("", f"objects/blake3/{shard}", 0, 0, error.message)

    def _old(self, digest: Digest) -> bool:
        """Say whether the object was there before the manifests were read, and not on its way."""
        try:
            return self._archive.objects.stat(digest).st_ctime < self._begun
        except (ObjectNotFoundError, StorageError):
            return False

    def _check_all(self, batch: Sequence[_Needed]) -> list[_Checked]:
        return [self._check(digest, size) for digest, size in batch]

    def _check(self, digest: Digest, needed: int | None) -> _Checked:
        store = self._archive.objects
        try:
            size = store.stat(digest).st_size
            reason = store.check(digest)
        except ObjectNotFoundError:
            return _Checked(digest, 0, "missing", missing=True)
        except StorageError as error:
            return _Checked(digest, 0, error.message, missing=False)
        if reason is None and needed is not None and size < needed:
            reason = f"has {size} bytes, but records need {needed}"
        return _Checked(digest, size, reason, missing=False)

    def _report(self, index: Index, checked: _Checked, reason: str) -> None:
        self._progress.findings += 1
        needing = index.referencing(checked.digest)
        names = [
            GroupName(row.broadcast.name, row.track, row.epoch, row.sequence, row.n)
            for row in needing[:_GROUPS_NAMED]
        ]
        path = object_path(checked.digest)
        if checked.missing:
            self._missing.append(MissingObject(checked.digest, path, names, len(needing)))
        else:
            self._damaged.append(DamagedObject(checked.digest, reason, path, names, len(needing)))


def _in_order(
    threads: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Do ``work`` on each item in the threads; yield what it returns, at most ``ahead`` waiting."""
    running: deque[Future[R]] = deque()
    for item in items:
        running.append(threads.submit(work, item))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
