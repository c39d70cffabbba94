"""One run of a verification: manifests, then objects, then what is to be done about findings."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from casfs.errors import NotFoundError
from casfs.index.index import Index
from casfs.index.references import references
from casfs.objects.local import object_path
from casfs.verify.manifests import ManifestCheck
from casfs.verify.pace import Budget, Throttle
from casfs.verify.plan import Plan
from casfs.verify.quarantine import Quarantine
from casfs.verify.reading import Looked, ObjectChecker
from casfs.verify.repair import Repairer
from casfs.verify.report import (
    DamagedObject,
    GroupName,
    MissingObject,
    Progress,
    RepairedObject,
    Report,
    UnmendedObject,
)
from casfs.verify.shards import Batch, Needed, Schedule, ShardWork
from casfs.verify.state import VerifyState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from casfs.archive import Archive
    from casfs.digest import Digest

_GROUPS_NAMED = 100
_AHEAD = 2
"""Batches that wait for each thread."""
_SAVE_SECONDS = 60
"""How much a run that is killed forgets of a large shard."""

T = TypeVar("T")
R = TypeVar("R")


class _Checked(Struct, frozen=True):
    item: Needed
    looked: Looked | None
    """None if the time was over."""
    when: float


class _Outcome(Struct, frozen=True):
    batch: Batch
    checked: Sequence[_Checked]


def verify(
    archive: Archive,
    plan: Plan | None = None,
    *,
    state: VerifyState | None = None,
    progress: Progress | None = None,
    threads: int = 2,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Check the archive as ``plan`` says (None: all of it) and return what was found.

    ``state`` remembers what was found sound; None remembers nothing. Raises UsageError if the plan
    contradicts itself, NotFoundError if it names no broadcast that there is, StorageError if a
    root fails as a whole, and what opening the quarantine or the stores to repair from raises.
    """
    plan = plan or Plan()
    plan.check()
    run = _Verification(
        archive, plan, state or VerifyState(), progress or Progress(), threads, clock
    )
    budget = Budget(plan.max_duration, monotonic)
    return run.run(budget, Throttle(plan.bandwidth, monotonic, sleep))


class _Verification:
    def __init__(
        self,
        archive: Archive,
        plan: Plan,
        state: VerifyState,
        progress: Progress,
        threads: int,
        clock: Callable[[], float],
    ) -> None:
        self._archive = archive
        self._plan = plan
        self._state = state
        self._progress = progress
        self._threads = threads
        self._clock = clock
        self._begun = clock()
        self._saved = self._begun
        self._manifests = ManifestCheck(archive.roots, progress)
        self._damaged: list[DamagedObject] = []
        self._missing: list[MissingObject] = []
        self._repaired: list[RepairedObject] = []
        self._unmended: list[UnmendedObject] = []
        self._quarantine: Quarantine | None = None
        self._repairer: Repairer | None = None

    def run(self, budget: Budget, throttle: Throttle) -> Report:
        with contextlib.ExitStack() as resources:
            if self._plan.quarantine:
                quarantine = Quarantine(self._archive.roots, self._archive.store_id)
                self._quarantine = resources.enter_context(quarantine)
            if self._plan.repair_from:
                repairer = Repairer(self._archive.roots.cas, self._plan.repair_from)
                self._repairer = resources.enter_context(repairer)
            if self._plan.level == "manifests":
                self._manifests.run(None)
                return self._report(complete=True, unreferenced=None)
            index = resources.enter_context(
                contextlib.closing(Index.temporary(self._archive.store_id))
            )
            with index.filling():
                self._manifests.run(index)
            return self._objects(index, budget, throttle)

    def _objects(self, index: Index, budget: Budget, throttle: Throttle) -> Report:
        self._progress.stage = "objects"
        store = self._archive.objects
        quick = self._plan.level == "quick"
        state = self._state if self._plan.uses_state else VerifyState()
        schedule = Schedule(
            *(self._plan, store, index, state, self._progress, budget, self._begun, self._failed)
        )
        if schedule.chooses_nothing and not self._manifests.errors:
            raise NotFoundError(
                f"no broadcast in the archive matches {self._plan.broadcast!r}",
                advice="casfs ls lists them all",
            )
        checker = ObjectChecker(store, throttle, quick=quick, from_disk=self._plan.from_disk)

        def look(batch: Batch) -> _Outcome:
            return _Outcome(batch, [self._look(checker, budget, item) for item in batch.items])

        with ThreadPoolExecutor(self._threads, thread_name_prefix="casfs-verify") as threads:
            ahead = _AHEAD * self._threads
            try:
                for outcome in _in_order(threads, look, schedule.batches(), ahead):
                    self._take(index, schedule, outcome, remember=not quick)
            except BaseException:
                # Whoever interrupts this does not want to wait for what was begun.
                checker.stop()
                raise
        schedule.finish()
        counted = self._plan.everything and schedule.complete
        return self._report(
            complete=schedule.complete, unreferenced=schedule.unreferenced if counted else None
        )

    def _look(self, checker: ObjectChecker, budget: Budget, item: Needed) -> _Checked:
        when = self._clock()
        if not budget.allows_another():
            return _Checked(item, None, when)
        return _Checked(item, checker.look(*item), when)

    def _take(self, index: Index, schedule: Schedule, outcome: _Outcome, *, remember: bool) -> None:
        shard = outcome.batch.shard
        for checked in outcome.checked:
            looked = checked.looked
            if looked is None:
                schedule.note_left(shard, checked.item)
                continue
            self._progress.objects += 1
            self._progress.bytes += looked.read
            if remember:
                shard.note(checked.item[0], checked.when, sound=looked.reason is None)
            if looked.reason is not None and not self._expired(index, checked):
                self._found(index, checked.item, looked, looked.reason)
        if remember and (outcome.batch.last or self._save_is_due(shard)):
            schedule.save(shard)
            self._saved = self._clock()

    def _save_is_due(self, shard: ShardWork) -> bool:
        return shard.changed and self._clock() - self._saved > _SAVE_SECONDS

    def _expired(self, index: Index, checked: _Checked) -> bool:
        """Say whether a missing object was collected: what needed it expired since we read that."""
        if checked.looked is None or not checked.looked.missing:
            return False
        self._manifests.catch_up_with_expiries(index)
        needing = references([index], checked.item[0], 1)
        return not (needing.groups or needing.init_uses)

    def _found(self, index: Index, item: Needed, looked: Looked, reason: str) -> None:
        self._progress.findings += 1
        digest, needed = item
        needing = references([index], digest, _GROUPS_NAMED)
        names = [
            GroupName(row.broadcast, row.track, row.epoch, str(row.sequence), row.n)
            for row in needing.listed
        ]
        path = object_path(digest)
        if looked.missing:
            self._missing.append(MissingObject(digest, path, names, needing.groups))
        else:
            moved = self._set_aside(digest, reason)
            self._damaged.append(DamagedObject(digest, reason, path, names, needing.groups, moved))
        if self._repairer is not None:
            mended = self._repairer.mend(digest, needed)
            if isinstance(mended, RepairedObject):
                self._repaired.append(mended)
            else:
                self._unmended.append(mended)

    def _set_aside(self, digest: Digest, reason: str) -> str | None:
        if self._quarantine is None:
            return None
        moved = self._quarantine.set_aside(digest, reason)
        if isinstance(moved, UnmendedObject):
            self._unmended.append(moved)
            return None
        return moved

    def _failed(self, what: str, reason: str) -> None:
        self._manifests.add("", what, 0, 0, reason)

    def _report(self, *, complete: bool, unreferenced: int | None) -> Report:
        found = len(self._damaged) + len(self._missing) + len(self._manifests.errors)
        return Report(
            sound=found == len(self._repaired),
            complete=complete,
            level=self._plan.level,
            objects=self._progress.objects,
            skipped=self._progress.skipped,
            bytes=self._progress.bytes,
            damaged=self._damaged,
            missing=self._missing,
            repaired=self._repaired,
            unmended=self._unmended,
            unreferenced=unreferenced,
            manifest_errors=self._manifests.errors,
            seconds=round(self._clock() - self._begun, 3),
        )


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
