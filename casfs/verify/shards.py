"""What is due in each shard: chosen, and not found sound lately. Oldest shards first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.digest import Digest
from casfs.errors import ObjectNotFoundError, StorageError
from casfs.index.needed import needed_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

    from casfs.index.index import Index
    from casfs.objects.local import LocalStore
    from casfs.verify.pace import Budget
    from casfs.verify.plan import Plan
    from casfs.verify.report import Progress
    from casfs.verify.state import Times, VerifyState

_GOLDEN_RATIO = 0.6180339887498949
_BATCH = 16
"""Objects that a thread takes at once: what they cost to hand over counts beside small ones."""

Needed = tuple[Digest, int | None]
"""An object and the least size that records ask of it."""


class ShardWork:
    """One shard while it is being looked at."""

    def __init__(self, name: str, times: Times, needed: AbstractSet[Digest]) -> None:
        self.name = name
        self.times = times
        """Kept up to date while objects are looked at."""
        self.needed = needed
        self.changed = False

    def note(self, digest: Digest, when: float, *, sound: bool) -> None:
        """Remember when the object was looked at (seconds), and whether it was sound."""
        self.changed = True
        self.times[bytes.fromhex(digest)] = int(when) if sound else -int(when)

    def time_of(self, digest: Digest) -> int | None:
        """Return when the object was last looked at; negative if it was not sound."""
        return self.times.get(bytes.fromhex(digest))


class Batch(Struct, frozen=True):
    """A few objects of one shard."""

    shard: ShardWork
    items: Sequence[Needed]
    last: bool
    """Nothing more of this shard follows."""


class Schedule:
    """Walks over the shards. All of it is of the one run that began at ``now`` (seconds)."""

    def __init__(
        self,
        plan: Plan,
        store: LocalStore,
        index: Index,
        state: VerifyState,
        progress: Progress,
        budget: Budget,
        now: float,
        failed: Callable[[str, str], None],
    ) -> None:
        self._plan = plan
        self._store = store
        self._index = index
        self._state = state
        self._progress = progress
        self._budget = budget
        self._now = now
        self._failed = failed
        self._broadcasts = self._chosen_broadcasts()
        self._runs = state.runs()
        self._fresh_since = self._threshold()
        # Without a memory of the last sample, this one begins anywhere.
        self._sample = self._runs.sample if state.directory else now * _GOLDEN_RATIO % 1.0
        self.unreferenced = 0
        """Objects that no record names, in the shards so far."""
        self.complete = True
        """False once something due was left to the next run."""

    def batches(self) -> Iterator[Batch]:
        """Yield what is due, a few objects at a time; a last batch for each shard, maybe empty."""
        shards = list(self._store.shards())
        ages = {shard: self._state.oldest(shard) for shard in shards}
        shards.sort(key=lambda shard: (ages[shard], shard))
        self._progress.due = sum(1 for shard in shards if not self._fresh(ages[shard])) or 256
        for shard in shards:
            if self._budget.spent():
                self._leave(*self._due(shard, None))
            else:
                yield from self._shard(shard)
            self._progress.shards += 1

    def note_left(self, work: ShardWork, item: Needed) -> None:
        """Note that an object was left to the next run."""
        self._leave([item], work)

    def save(self, work: ShardWork) -> None:
        """Remember what was found in a shard."""
        oldest = self._state.oldest(work.name)
        if self._plan.everything:
            wanted = {bytes.fromhex(digest) for digest in work.needed}
            stale = work.times.keys() - wanted
            for digest in stale:
                del work.times[digest]
            work.changed |= bool(stale)
            whole = len(work.times) == len(wanted)
            oldest = min(map(abs, work.times.values()), default=int(self._now)) if whole else 0
        if work.changed or oldest != self._state.oldest(work.name):
            self._state.save(work.name, work.times, oldest)

    def finish(self) -> None:
        """Remember whether the next run begins anew or goes on with this one."""
        begun = {key: when for key, when in self._runs.begun.items() if key != self._plan.key}
        sample = self._runs.sample
        if not self.complete:
            begun[self._plan.key] = self._began
        elif self._plan.sample is not None:
            sample = (sample + self._plan.sample) % 1.0
        runs = msgspec.structs.replace(self._runs, begun=begun, sample=sample)
        if runs != self._runs:
            self._state.save_runs(runs)

    @property
    def _began(self) -> int:
        return min(self._runs.begun.get(self._plan.key, int(self._now)), int(self._now))

    def _threshold(self) -> float | None:
        """Return since when an object that was found sound need not be looked at again."""
        if self._plan.max_age is not None:
            return self._now - self._plan.max_age
        # A run with a budget goes on with the one before it, if that was not complete.
        return self._began if self._plan.max_duration is not None else None

    def _fresh(self, when: int | None) -> bool:
        since = self._fresh_since
        return since is not None and when is not None and since <= when <= self._now

    def _chosen_broadcasts(self) -> set[int] | None:
        if self._plan.broadcast is None:
            return None
        return {row.number for row in self._index.broadcasts() if self._plan.matches(row.name)}

    @property
    def chooses_nothing(self) -> bool:
        """Whether no broadcast is of the name that was asked for."""
        return self._broadcasts is not None and not self._broadcasts

    def _due(self, shard: str, present: set[Digest] | None) -> tuple[list[Needed], ShardWork]:
        plan = self._plan
        work = ShardWork(shard, self._state.load(shard), frozenset())
        needed = dict(
            needed_objects(
                self._index, shard, broadcasts=self._broadcasts, since=plan.since, until=plan.until
            )
        )
        work.needed = needed.keys()
        due: list[Needed] = []
        for digest, size in needed.items():
            if not plan.sampled(digest, self._sample):
                continue
            lately = self._fresh(work.time_of(digest))
            # What is missing shows without reading anything, however lately it was there.
            if lately and (present is None or digest in present):
                self._progress.skipped += 1
            else:
                due.append((digest, size))
        # What is damaged must not keep the rest from being read, run after run.
        due.sort(key=lambda item: (work.time_of(item[0]) or 0) < 0)
        return due, work

    def _shard(self, shard: str) -> Iterator[Batch]:
        present = self._present(shard)
        due, work = self._due(shard, present)
        if self._plan.everything and present is not None:
            self.unreferenced += sum(map(self._old, present - work.needed))
        items = iter(due)
        yielded = 0
        while batch := list(itertools.islice(items, _BATCH)):
            if self._budget.spent():
                break
            yielded += len(batch)
            yield Batch(work, batch, last=yielded == len(due))
        self._leave(due[yielded:], work)
        if yielded < len(due) or not due:
            yield Batch(work, (), last=True)

    def _leave(self, items: Sequence[Needed], work: ShardWork) -> None:
        self._progress.skipped += len(items)
        for digest, _ in items:
            # One that is known to be damaged was looked at already, if not by this run.
            if not self._fresh(abs(work.time_of(digest) or 0)):
                self.complete = False

    def _present(self, shard: str) -> set[Digest] | None:
        """Return what the shard holds; None if it cannot be listed."""
        try:
            return set(self._store.shard(shard))
        except StorageError as error:
            self._failed(f"objects/blake3/{shard}", error.message)
            return None

    def _old(self, digest: Digest) -> bool:
        """Say whether the object was there before the manifests were read, and not on its way."""
        try:
            return self._store.stat(digest).st_ctime < self._now
        except (ObjectNotFoundError, StorageError):
            return False
