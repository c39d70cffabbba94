"""Puts groups into one broadcast of the archive, in batches; or only counts what it would put in.

The broadcast's writer is opened for the first group that is new, so that importing what is held
already writes nothing at all. Everything goes through `casfs.archive`: what it promises of a
recorded group holds for an imported one, too.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

import msgspec

from casfs.adopt.reading import Source, read_again
from casfs.adopt.source import SourceError
from casfs.errors import CasfsError
from casfs.groups import runs_of
from casfs.manifests.record import INIT_TRACKS
from casfs.objects.store import Staged
from casfs.objects.writing import drop_staged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from casfs.adopt.report import Totals
    from casfs.archive import Archive, BroadcastWriter, Group, Run
    from casfs.digest import Digest
    from casfs.index.mirror import Mirror

_BATCH_GROUPS = 64
_BATCH_BYTES = 32 << 20
_MIRROR_BATCHES = 16


class Filing:
    """Commits groups of one broadcast; a context manager that commits what is left at its end.

    Raises WriterLockedError, ForeignRootError, ClockError, StorageError.
    """

    def __init__(
        self, archive: Archive, broadcast: str, totals: Totals, *, dry_run: bool = False
    ) -> None:
        self._archive = archive
        self._broadcast = broadcast
        self._totals = totals
        self._dry_run = dry_run
        self._resources = contextlib.ExitStack()
        self._writer: BroadcastWriter | None = None
        self._mirror: Mirror | None = None
        self._batch: list[Group] = []
        self._runs: list[Digest | None] = []
        self._bytes = 0
        self._batches = 0
        self._inits: dict[str, Digest] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._resources.__exit__(kind, error, traceback)
            return
        with self._resources:
            self.flush()
            if self._writer is not None:
                # What is over can expire like what was recorded here.
                self._writer.seal_hours(0)
            self._follow()

    def begin(self) -> bool:
        """Be the broadcast's one writer from now on; False if that is so already (or a dry run)."""
        if self._dry_run or self._writer is not None:
            return False
        self._open()
        return True

    def note_epoch(self, epoch: int) -> None:
        """Record that sequences begin again, after everything that was put in before."""
        self.flush()
        self._totals.epochs += 1
        if not self._dry_run:
            self._open().note_epoch(epoch, "imported: sequences began again")

    def note_init(self, track: str, digest: Digest) -> None:
        """Take notice of a group of any track: the newest of some is what media need first."""
        if track in INIT_TRACKS:
            self._inits[track] = digest

    def stage(self, source: Source) -> Staged:
        """Write a large file's bytes to where its group takes them from (not in a dry run).

        Raises SourceError if they are not those that were read before.
        """
        if self._dry_run:
            return Staged(source.digest, source.size, blocks=None, temporary="", descriptor=-1)
        with self._open().stage(source.size) as writer:
            for piece in read_again(source):
                writer.write(piece)
            staged = writer.stage()
        if staged.digest != source.digest:
            drop_staged(staged)
            raise SourceError("unreadable", "it changed while it was read")
        return staged

    def put(self, group: Group, *, run: Digest | None = None) -> None:
        """Put a group in; it is kept once its batch is full, or at `flush`.

        ``run``: the object in which it lay with others; those of one batch are kept together again.
        """
        self._batch.append(group)
        self._runs.append(run)
        self._bytes += group.size
        items = self._runs.count(None) + len(set(self._runs))
        if items >= _BATCH_GROUPS or self._bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Commit what was put in."""
        if not self._batch:
            return
        groups = [self._with_init(group) for group in self._batch]
        self._totals.bytes += self._bytes
        self._totals.groups += len(groups)
        if not self._dry_run:
            for done in self._open().commit(self._items(groups)):
                self._totals.new_objects += done.new
                self._totals.new_bytes += done.record.size if done.new else 0
        self._batch, self._runs, self._bytes = [], [], 0
        self._batches += 1
        if self._batches % _MIRROR_BATCHES == 0:
            self._follow()

    def _items(self, groups: Sequence[Group]) -> list[Group | Run]:
        items: list[Group | Run] = []
        runs: dict[tuple[str, Digest], list[Group]] = {}
        for group, run in zip(groups, self._runs, strict=True):
            if run is None:
                items.append(group)
            else:
                runs.setdefault((group.track, run), []).append(group)
        for together in runs.values():
            items += runs_of(together)
        return items

    def _with_init(self, group: Group) -> Group:
        """Return the group with what a player needs first, if the archive has that or gets it."""
        init = group.init
        if init is None and group.track not in INIT_TRACKS:
            init = next((self._inits[name] for name in INIT_TRACKS if name in self._inits), None)
        if init is not None and not self._has(init):
            init = None
        return msgspec.structs.replace(group, init=init)

    def _has(self, digest: Digest) -> bool:
        if any(group.digest == digest for group in self._batch):
            return True
        try:
            self._archive.objects.stat(digest)
        except CasfsError:
            return False
        return True

    def _open(self) -> BroadcastWriter:
        if self._writer is None:
            self._mirror = self._archive.mirror()
            self._resources.callback(self._mirror.close)
            writer = self._archive.writer(self._broadcast, relay="")
            writer.stop_reason = "import finished"
            self._writer = self._resources.enter_context(writer)
        return self._writer

    def _follow(self) -> None:
        """Let the index follow; it is in nobody's way if it cannot."""
        if self._writer is not None and self._mirror is not None:
            self._mirror.step(self._writer.places)
