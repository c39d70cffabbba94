"""The archive: two roots and three stores opened as one. The commit order lives here.

A commit is acknowledged in this order and no other:

1. every payload is durable under its name (shards locked against collectors from the look on);
2. a manifest line for each group is written, and the manifests are synced;
3. the shards are unlocked and the groups count as kept.

The index follows behind (`casfs.index.mirror`) and is never waited for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
import uuid
from typing import TYPE_CHECKING, Self, TypeVar

from casfs import __version__
from casfs.admission import check_clock, check_heads, lock_broadcast, next_broadcast_number
from casfs.durable import make_directory, sweep_unfinished
from casfs.errors import StorageError, storage_error
from casfs.groups import (
    Committed,
    Group,
    Run,
    group_members,
    groups_of,
    payload_of,
    run_members,
)
from casfs.heads import Heads, KnownHeads, write_heads
from casfs.index.replacement import LockFault, sweep_unfinished_indexes
from casfs.manifests.journal import Journal, JournalIdentity
from casfs.manifests.layout import BROADCAST_JOURNAL, JournalPlace, journal_places
from casfs.manifests.record import (
    AliveRecord,
    EpochRecord,
    GapRecord,
    GroupRecord,
    LostSessionRecord,
    Record,
    RunRecord,
    SealRecord,
    StartRecord,
    StopRecord,
)
from casfs.manifests.recovery import JournalTail, recover_tail
from casfs.names import encode_name
from casfs.objects.commit import LocalCommitter
from casfs.objects.local import LocalStore
from casfs.roots import OWN, RUNS, Format, Roots, recognise, require
from casfs.timestamps import HOUR, format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from casfs.index.mirror import Mirror
    from casfs.index.reader import Reader
    from casfs.manifests.runs import KeptGroup
    from casfs.objects.store import Stored
    from casfs.objects.syncing import StrategyName
    from casfs.objects.writing import ObjectWriter

__all__ = ["WRITER", "Archive", "BroadcastWriter", "Committed", "Group", "Run"]

_LOG = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)

WRITER = f"casfs {__version__}"
"""Program and version, as every record names them."""


class Archive:
    """An archive opened by its roots; opening takes no lock and writes nothing.

    Raises NotInitialisedError, ForeignRootError, UnsupportedFormatError, StorageError.
    """

    def __init__(
        self,
        roots: Roots,
        *,
        index_path: str | None = None,
        sync_strategy: StrategyName = "auto",
    ) -> None:
        self.roots = roots
        self.sync_strategy = sync_strategy
        """How writers make objects durable (`casfs.objects.syncing`)."""
        self.format: Format = recognise(roots)
        self.index_path = index_path or os.path.join(roots.manifests, OWN, "index.sqlite3")
        self.objects = LocalStore(roots.cas)

    @property
    def store_id(self) -> str:
        """The id that both roots carry."""
        return self.format.store

    def reader(self) -> Reader:
        """Return a new reader; close it when done."""
        # Whoever only writes, for weeks, does without the index and its libraries.
        from casfs.index.reader import Reader

        return Reader(
            self.roots.manifests,
            self.index_path,
            self.store_id,
            fold_case=self.format.fold_case,
            head_of=KnownHeads(self.roots.cas).of,
        )

    def mirror(self) -> Mirror:
        """Return a mirror that keeps the index in step; close it when done."""
        from casfs.index.mirror import Mirror

        return Mirror(
            self.index_path,
            self.roots.manifests,
            self.store_id,
            head_of=KnownHeads(self.roots.cas).of,
        )

    def require_runs(self) -> None:
        """See to it that whoever does not know of runs refuses the archive; raises StorageError."""
        if RUNS not in self.format.requires:
            self.format = require(self.roots, RUNS)

    def directory_of(self, broadcast: str) -> str:
        """Return the component below the manifest root that stands for a broadcast."""
        return encode_name(broadcast, fold_case=self.format.fold_case)

    def writer(
        self, broadcast: str, *, relay: str = "", clock: Callable[[], int] = time.time_ns
    ) -> BroadcastWriter:
        """Return the one writer of a broadcast, as a context manager that is not entered yet."""
        return BroadcastWriter(self, broadcast, relay=relay, clock=clock)


class BroadcastWriter:
    """Commits the groups of one broadcast; a context manager, used by one thread at a time.

    Entering takes the broadcast's lock, checks that the manifests are not older than the CAS root
    remembers, makes the ends of all journals durable, and records the start; leaving records the
    stop. Raises WriterLockedError, ForeignRootError, ClockError, StorageError, InvalidNameError.
    """

    def __init__(
        self, archive: Archive, broadcast: str, *, relay: str, clock: Callable[[], int]
    ) -> None:
        self.archive = archive
        self.broadcast = broadcast
        self.recorder = uuid.uuid4().hex
        """Names this recording session."""
        self.stop_reason = "stopped"
        """What the stop record will say."""
        self.on_commit: Callable[[Sequence[Committed]], None] | None = None
        """Told of what was committed, once it is kept; must be quick and never raise."""
        self._relay = relay
        self._clock = clock
        self._name = archive.directory_of(broadcast)
        self._directory = os.path.join(archive.roots.manifests, self._name)
        self._committer = LocalCommitter(archive.roots.cas, archive.sync_strategy)
        self._resources = contextlib.ExitStack()
        self._journals: dict[str, Journal] = {}
        self._tails: dict[str, JournalTail] = {}
        self._number = 0
        self._last_n = 0
        self._head_hour = ""
        self._appendable: set[str] = set()
        self._open_hours: set[int] = set()
        self._sealed = 0

    @property
    def number(self) -> int:
        """The broadcast's number in this archive."""
        return self._number

    @property
    def places(self) -> list[JournalPlace]:
        """The journals that this writer has touched."""
        return [JournalPlace(self._name, name) for name in list(self._journals)]

    def recent_groups(self) -> list[KeptGroup]:
        """Return the newest groups of each track as they were found at the start, oldest first."""
        return [group for tail in self._tails.values() for group in tail.groups]

    def __enter__(self) -> Self:
        try:
            self._enter()
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or not issubclass(kind, StorageError):
                self._note(StopRecord, reason=self.stop_reason)
                self.write_heads()
        finally:
            self._resources.close()

    def commit(self, items: Sequence[Group | Run]) -> list[Committed]:
        """Keep groups and runs; on return each is durable, object and record.

        Raises StorageError: then none of them counts, and all may be committed again (but what was
        staged has to be staged anew). Raises UsageError for a sequence that is no number of a
        group, or groups that make no run; then none of them counts either.
        """
        groups = [group for item in items for group in groups_of(item)]
        if any(isinstance(item, Run) for item in items):
            self.archive.require_runs()
        with self._committer.batch() as batch:
            stored = batch.put([payload_of(item) for item in items])
            names: dict[str, str] = {}
            for track in dict.fromkeys(group.track for group in groups):
                names[track], journal = self._track_journal(track)
                journal.open_segment()
            records: dict[str, list[Record]] = {}
            committed: list[Committed] = []
            for item, put in zip(items, stored, strict=True):
                record = self._kept(item, put)
                records.setdefault(names[record.track or ""], []).append(record)
                committed.append(Committed(record, put.new, put.healed))
            self._append(records)
        self._open_hours |= {group.received_start // HOUR for group in groups}
        self._renew_heads()
        if self.on_commit is not None:
            self.on_commit(committed)
        return committed

    def stage(self, expected: int | None = None) -> ObjectWriter:
        """Return a writer for the payload of a group that memory does not hold.

        It may be filled in another thread while groups are committed; what it stages goes into a
        `Group`. ``expected``: its bytes, where that is known. Raises StorageError.
        """
        return self._committer.stage(expected)

    def note_gap(
        self,
        track: str,
        *,
        epoch: int,
        start: int,
        end: int,
        reason: str,
        first: int | None = None,
        last: int | None = None,
    ) -> None:
        """Record what was missed of a track between two instants (ns UTC); raises StorageError."""
        self.note_gaps(track, [(first, last)], epoch=epoch, start=start, end=end, reason=reason)

    def note_gaps(
        self,
        track: str,
        missed: Sequence[tuple[int | None, int | None]],
        *,
        epoch: int,
        start: int,
        end: int,
        reason: str,
    ) -> None:
        """Record ranges of sequences that were missed of a track, together or not at all.

        None: where a range begins or ends is not known. Raises StorageError.
        """
        if not missed:
            return
        name, journal = self._track_journal(track)
        journal.open_segment()
        records: list[Record] = [
            self._record(
                GapRecord,
                track,
                epoch=epoch,
                first=None if first is None else str(first),
                last=None if last is None else str(last),
                start=format_time(start),
                end=format_time(end),
                reason=reason,
            )
            for first, last in missed
        ]
        self._append({name: records})

    def note_epoch(self, epoch: int, reason: str) -> None:
        """Record that the publisher began again; raises StorageError."""
        self._note(EpochRecord, epoch=epoch, reason=reason)

    def note_alive(self, *, connected: bool, since: int) -> None:
        """Record that no group came since that instant (ns UTC); raises StorageError."""
        self._note(AliveRecord, connected=connected, since=format_time(since))

    def seal_hours(self, settled: int) -> int:
        """Seal every hour with groups that ended ``settled`` nanoseconds ago; return how many.

        What is committed to a sealed hour later does not open it again. Raises StorageError.
        """
        due = [
            hour
            for hour in sorted(self._open_hours)
            if (hour + 1) * HOUR + settled <= self._clock()
        ]
        sealed = 0
        for hour in due:
            if hour > self._sealed:
                through = self._last_n
                self._note(SealRecord, hour=format_time(hour * HOUR), through=through)
                self._sealed = hour
                sealed += 1
            self._open_hours.remove(hour)
        return sealed

    def write_heads(self) -> None:
        """Let the CAS root remember how far the journals go; raises StorageError."""
        known = {name: tail.position for name, tail in self._tails.items()}
        known |= {name: journal.acknowledged for name, journal in self._journals.items()}
        heads = Heads(
            store=self.archive.store_id,
            broadcast=self.broadcast,
            number=self._number,
            time=format_time(self._clock()),
            journals={name: place for name, place in known.items() if place is not None},
        )
        write_heads(self.archive.roots.cas, self._name, heads)
        self._head_hour = heads.time[:13]

    # Entering

    def _enter(self) -> None:
        roots = self.archive.roots
        check_heads(roots, self._name)
        self._resources.enter_context(lock_broadcast(roots, self._name, self.broadcast))
        # Whoever held the lock before may have stopped, and written heads, since we looked.
        heads = check_heads(roots, self._name)
        self._resources.enter_context(self._committer)
        self._sweep_unfinished()
        self._resources.callback(self._close_journals)
        self._tails = {
            place.track: recover_tail(
                place.directory(roots.manifests),
                heads.journals.get(place.track) if heads is not None else None,
            )
            for place in journal_places(roots.manifests, self._name)
        }
        tails = self._tails.values()
        newest = max((tail.last_time for tail in tails), default=0)
        check_clock(self.broadcast, newest, self._clock())
        self._last_n = max((tail.last_n for tail in tails), default=0)
        self._sealed = max((tail.sealed for tail in tails), default=0)
        self._open_hours = {hour for tail in tails for hour in tail.hours}
        self._appendable = {
            name
            for name, tail in self._tails.items()
            if heads is not None and tail.whole and heads.journals.get(name) == tail.position
        }
        known = {tail.number for tail in tails if tail.number is not None}
        if heads is not None:
            known.add(heads.number)
        with contextlib.ExitStack() as allocation:
            self._number = (
                min(known) if known else allocation.enter_context(next_broadcast_number(roots))
            )
            self._note_start(newest)
        self.write_heads()

    def _sweep_unfinished(self) -> None:
        """Remove what dead processes left half made; it is in nobody's way if that fails."""
        roots = self.archive.roots
        for directory in (
            *(os.path.join(roots.cas, OWN), os.path.join(roots.cas, OWN, "heads")),
            os.path.join(roots.manifests, OWN),
        ):
            with contextlib.suppress(OSError):
                sweep_unfinished(directory)
        with contextlib.suppress(OSError, LockFault):
            sweep_unfinished_indexes(self.archive.index_path)

    def _note_start(self, newest: int) -> None:
        records: list[Record] = []
        self._journal(BROADCAST_JOURNAL).open_segment()
        tail = self._tails.get(BROADCAST_JOURNAL)
        if tail is not None and tail.last is not None and not isinstance(tail.last, StopRecord):
            lost = getattr(tail.last, "recorder", "")
            records.append(
                self._record(LostSessionRecord, None, lost=lost, last=format_time(newest))
            )
        records.append(
            self._record(StartRecord, None, writer=WRITER, relay=self._relay, host=platform.node())
        )
        self._append({BROADCAST_JOURNAL: records})

    # Records

    def _record(self, kind: Callable[..., R], track: str | None, **members: object) -> R:
        return kind(
            broadcast=self.broadcast,
            number=self._number,
            track=track,
            n=self._next_n(),
            time=format_time(self._clock()),
            recorder=self.recorder,
            **members,
        )

    def _next_n(self) -> int:
        self._last_n += 1
        return self._last_n

    def _kept(self, item: Group | Run, stored: Stored) -> GroupRecord | RunRecord:
        """Return the record of what is stored."""
        if isinstance(item, Group):
            members = group_members(item, stored)
            return self._record(GroupRecord, item.track, **self._relayed(members))
        members = run_members(item, stored)
        # Each group has a number of its own; that of the last one is the record's.
        self._last_n += len(item.groups) - 1
        return self._record(RunRecord, item.groups[0].track, **self._relayed(members))

    def _relayed(self, members: dict[str, object]) -> dict[str, object]:
        return {**members, "relay": members["relay"] or self._relay, "writer": WRITER}

    def _note(self, kind: Callable[..., Record], **members: object) -> None:
        self._journal(BROADCAST_JOURNAL).open_segment()
        self._append({BROADCAST_JOURNAL: [self._record(kind, None, **members)]})

    # Journals

    def _append(self, records: dict[str, list[Record]]) -> None:
        for name, lines in records.items():
            self._journals[name].append(lines)
        self._committer.in_parallel(Journal.sync, [self._journals[name] for name in records])

    def _journal(self, name: str, track: str | None = None) -> Journal:
        journal = self._journals.get(name)
        if journal is None:
            tail = self._tails.get(name)
            journal = Journal(
                os.path.join(self._directory, name),
                JournalIdentity(
                    store=self.archive.store_id,
                    broadcast=self.broadcast,
                    number=self._number,
                    track=track,
                    writer=WRITER,
                    recorder=self.recorder,
                ),
                position=tail.position if tail is not None else None,
                appendable=name in self._appendable,
                next_number=self._next_n,
                clock=self._clock,
            )
            self._journals[name] = journal
        return journal

    def _track_journal(self, track: str) -> tuple[str, Journal]:
        """Return the journal of a track, with its directory made, and that directory's name."""
        name = encode_name(track, fold_case=self.archive.format.fold_case)
        if name not in self._journals:
            path = os.path.join(self._directory, name)
            try:
                make_directory(path)
            except OSError as error:
                raise storage_error(error, "creating", path) from error
        return name, self._journal(name, track)

    def _close_journals(self) -> None:
        for journal in self._journals.values():
            journal.close()

    def _renew_heads(self) -> None:
        """Let the CAS root know once an hour, and at each rollover (which an hour's end is)."""
        if format_time(self._clock())[:13] == self._head_hour:
            return
        try:
            self.write_heads()
        except StorageError as error:
            # The groups are kept already. Heads that lag are only a weaker guard: next time, then.
            _LOG.warning("%s", error)
