"""Takes objects off the disk that only expired records name. Nothing else in casfs deletes objects.

The protocol, each step of which may be the last before a crash:

1. what expired is made durable, for the objects go by it. Refused unless every place that the CAS
   root remembers can be reached in the manifests and every line of them is sound and understood: a
   lost line may be the one that needs an object (`casfs.survey`; who accepts damage by its name has
   what it may concern left alone);
2. shard by shard, under its exclusive lock: the tails of all manifests are read, and an object that
   no living record of any broadcast needs is renamed into the trash. A writer holds the same lock,
   shared, from its look for an object until its line is durable, so there is nothing in between;
3. what has lain in the trash for the grace period is deleted, the oldest first.

`casfs.restore` goes the other way.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.durable import make_directory, sync_directory
from casfs.errors import (
    ForeignRootError,
    ObjectNotFoundError,
    UsageError,
    storage_error,
)
from casfs.expire import disk_space, refresh_index
from casfs.expiries import lock_expiries, make_expiries_durable
from casfs.index.expiring import (
    expired_objects,
    is_needed,
    named_objects,
)
from casfs.index.samples import SUFFIX as SAMPLES_SUFFIX
from casfs.index.samples import SampleIndex
from casfs.manifests.record import INIT_TRACKS
from casfs.objects.local import SUFFIX, exclusive_shard
from casfs.survey import Survey
from casfs.timestamps import HOUR
from casfs.trash import TRASH, bag_name, trashed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from casfs.archive import Archive
    from casfs.digest import Digest
    from casfs.index.index import Index


class Amount(Struct):
    """Some objects."""

    objects: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one more."""
        self.objects += 1
        self.bytes += size


class Collection(Struct, frozen=True):
    """What a collection did, or would do."""

    acted: bool
    trashed: Amount
    """Taken out of the store into the trash."""
    deleted: Amount
    """Taken out of the trash for good."""
    waiting: Amount
    """Still in the trash."""
    needed: int
    """Objects in the trash that a record needs and the store has not, or damaged: never deleted."""
    protected: int
    """Objects that stay since a line that was lost to accepted damage may need them."""


def collect(
    archive: Archive,
    *,
    grace: int,
    act: bool,
    orphans: bool = False,
    min_free: int | None = None,
    accept: Iterable[str] = (),
    clock: Callable[[], int] = time.time_ns,
) -> Collection:
    """Delete what lay in the trash for ``grace`` (nanoseconds), then fill it with what expired.

    ``orphans``: also objects that no record ever named, if they are older than ``grace``.
    ``min_free``: delete only until so many bytes are free. Without ``act`` nothing is changed.
    ``accept``: damage to go on beside, by the names that DamageError gives; whatever its broadcast
    received about then stays in the store. Raises ForeignRootError, DamageError, UsageError for
    accepted damage that there is not, UnsupportedFormatError, CollectorLockedError, StorageError.
    """
    if orphans and accept:
        raise UsageError(
            "what no record names may be named by the lines that accepted damage has lost",
            advice="give --orphans or --accept-damage, not both",
        )
    with contextlib.ExitStack() as held:
        if act:
            held.enter_context(lock_expiries(archive.roots))
            make_expiries_durable(archive)
        survey = held.enter_context(Survey(archive, strict=True, accept=accept))
        survey.check_accepted()
        if orphans and not survey.index.broadcasts():
            raise ForeignRootError(
                f"the manifest root {archive.roots.manifests} holds no broadcast: every object "
                "would be an orphan",
                advice="mount the disk that belongs there; nothing was changed",
            )
        collector = _Collector(archive, survey, clock(), grace, act=act)
        try:
            collector.empty(min_free)
            collector.fill(orphans=orphans)
        except OSError as error:
            raise storage_error(error, "collecting in", archive.roots.cas) from error
        if act:
            refresh_index(archive)
            _forget_samples(archive, collector.gone, survey.index)
    return collector.outcome()


class _Collector:
    def __init__(
        self, archive: Archive, survey: Survey, now: int, grace: int, *, act: bool
    ) -> None:
        self._archive = archive
        self._survey = survey
        self._now = now
        self._grace = grace
        self._act = act
        self._bag = os.path.join(archive.roots.cas, TRASH, bag_name(now))
        self._trashed, self._deleted, self._waiting = Amount(), Amount(), Amount()
        self._needed = 0
        self._protected = survey.protected()
        self._left: set[Digest] = set()
        self.gone: list[Digest] = []
        """What was deleted and is nowhere else."""

    def outcome(self) -> Collection:
        return Collection(
            self._act,
            self._trashed,
            self._deleted,
            self._waiting,
            self._needed,
            len(self._left),
        )

    def empty(self, min_free: int | None) -> None:
        """Delete from the trash what has lain there long enough; raises OSError."""
        bags: dict[str, None] = {}
        lacking = None if min_free is None else min_free - disk_space(self._archive).free
        for item in trashed(self._archive.roots.cas):
            enough = lacking is not None and self._deleted.bytes >= lacking
            if enough or item.since + self._grace > self._now:
                self._waiting.add(item.size)
            elif item.digest in self._protected:
                self._waiting.add(item.size)
                self._left.add(item.digest)
            elif is_needed(self._survey.index, item.digest) and not self._sound(item.digest):
                self._waiting.add(item.size)
                self._needed += 1
            else:
                self._deleted.add(item.size)
                if self._act:
                    os.unlink(item.path)
                    bags[os.path.dirname(item.path)] = None
                    if not self._stored(item.digest):
                        self.gone.append(item.digest)
        for bag in bags:
            sync_directory(bag)
            with contextlib.suppress(OSError):
                # It may hold what is not ours, or waits.
                os.rmdir(bag)

    def fill(self, *, orphans: bool) -> None:
        """Move into the trash what no living record needs; raises OSError."""
        for shard in self._archive.objects.shards():
            found = self._candidates(shard, orphans=orphans)
            if found and self._act:
                self._move(shard, found)
            elif found:
                for size in found.values():
                    self._trashed.add(size)
        self._waiting.objects += self._trashed.objects
        self._waiting.bytes += self._trashed.bytes

    def _candidates(self, shard: str, *, orphans: bool) -> dict[Digest, int]:
        """Return the objects that may go, as far as is known before the shard is locked."""
        digests = {digest for digest, _ in expired_objects(self._survey.index, shard)}
        self._left |= digests & self._protected
        digests -= self._protected
        found: dict[Digest, int] = {}
        for digest in digests:
            with contextlib.suppress(ObjectNotFoundError):
                found[digest] = self._archive.objects.stat(digest).st_size
        if orphans:
            named = named_objects(self._survey.index, shard)
            for digest in self._archive.objects.shard(shard):
                if digest not in named:
                    with contextlib.suppress(ObjectNotFoundError):
                        status = self._archive.objects.stat(digest)
                        newest = max(status.st_mtime_ns, status.st_ctime_ns)
                        if newest + self._grace <= self._now:
                            found[digest] = status.st_size
        return found

    def _move(self, shard: str, found: Mapping[Digest, int]) -> None:
        make_directory(self._bag)
        with exclusive_shard(self._archive.objects, shard) as descriptor:
            self._survey.refresh()
            for digest, size in found.items():
                if is_needed(self._survey.index, digest):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    os.rename(
                        self._archive.objects.path(digest),
                        os.path.join(self._bag, digest + SUFFIX),
                    )
                    self._trashed.add(size)
            sync_directory(self._bag)
            os.fsync(descriptor)

    def _stored(self, digest: Digest) -> bool:
        return os.path.lexists(self._archive.objects.path(digest))

    def _sound(self, digest: Digest) -> bool:
        """Say whether the store holds the object, and would after a power cut; raises OSError.

        The last good copy may be the one thrown away.
        """
        try:
            if self._archive.objects.check(digest) is not None:
                return False
        except ObjectNotFoundError:
            return False
        if self._act:
            # Whoever put it there may not have come to that yet.
            sync_directory(os.path.dirname(self._archive.objects.path(digest)))
        return True


def _forget_samples(archive: Archive, gone: Sequence[Digest], index: Index) -> None:
    """Drop what is known of objects and of hours that are gone: a cache, whose trouble is nobody's.

    An hour is gone with the last group of media in it.
    """
    if os.path.exists(archive.index_path + SAMPLES_SUFFIX):
        with (
            contextlib.suppress(OSError),
            contextlib.closing(SampleIndex.open(archive.index_path)) as samples,
        ):
            if gone:
                samples.forget(gone)
            spans = samples.spans()
            hours = {number: _media_hours(index, number) for number in {s.broadcast for s in spans}}
            samples.forget_recordings(
                span
                for span in spans
                if hours[span.broadcast].isdisjoint(
                    range(span.begins // HOUR, -(-span.ends // HOUR))
                )
            )


def _media_hours(index: Index, broadcast: int) -> set[int]:
    """Return the hours of which anything is left that a recording could show."""
    tracks = [track for track in index.tracks(broadcast) if track.name not in INIT_TRACKS]
    return {hour for track in tracks for hour in index.hours(track)}
