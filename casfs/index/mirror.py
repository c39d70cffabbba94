"""Keeps an index in step with the manifests: catch up, heal, rebuild.

Lines are synced before they are applied, so that the index never knows of a line that a power cut
can take back. A journal that no longer holds the place up to which it was applied (it was restored
from a backup, say) is forgotten and applied anew.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from casfs.durable import create_locked
from casfs.errors import CasfsError, storage_error
from casfs.index.ahead import LINES, ReadAhead, ReadAheadError, start_reading
from casfs.index.index import Index, IndexFault
from casfs.index.replacement import replacement_lock, sweep_unfinished_indexes
from casfs.manifests.chain import JournalReader, PositionLostError
from casfs.manifests.layout import JournalPlace, all_journals
from casfs.manifests.plausible import implausible
from casfs.manifests.record import Line, Position, Record
from casfs.manifests.segment import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HeadOf = Callable[[JournalPlace], Position | None]
"""Tells how far a journal is known to have been durable, from elsewhere than the manifests."""

_LOG = logging.getLogger(__name__)
_LINES = LINES
_ASKED_FOR = 2  # so that the next journal is begun while the last rows of one are inserted


def no_head(_place: JournalPlace) -> None:
    """Know nothing but the manifests (`HeadOf`)."""


class Mirror:
    """An index that follows the manifests while they are written; never in anyone's way.

    Whatever befalls the index is logged once and shows in `trouble`; the next step tries again,
    with a new index if the old one is beyond repair.
    """

    def __init__(self, path: str, root: str, store: str, *, head_of: HeadOf = no_head) -> None:
        self._path = path
        self._root = root
        self._store = store
        self._head_of = head_of
        self._index: Index | None = None
        self._beyond_repair = False
        self.trouble = ""
        """Why the index is behind; empty while all is well."""

    def step(self, places: Iterable[JournalPlace] | None) -> int:
        """Apply what these journals (None: all) have beyond the index; return how many lines.

        Never raises.
        """
        try:
            if self._index is not None and self._index.replaced():
                self.close()
            if self._beyond_repair:
                rebuild(self._path, self._root, self._store, head_of=self._head_of)
                self._beyond_repair = False
            if self._index is None:
                self._index = open_or_rebuild(
                    self._path, self._root, self._store, head_of=self._head_of
                )
                # It may be new, or lag for other reasons: journals that nobody records, too.
                places = None
            applied = catch_up(self._index, self._root, places, head_of=self._head_of)
            self._index.shorten_log()
        except (IndexFault, CasfsError) as error:
            if isinstance(error, IndexFault) and not isinstance(error, sqlite3.OperationalError):
                # Not locked, full or forbidden, but damaged inside: opening it again will not help.
                self._beyond_repair = True
            if str(error) != self.trouble:
                _LOG.warning("the index lags behind the manifests: %s", error)
            self.trouble = str(error)
            self.close()
            return 0
        if self.trouble:
            _LOG.info("the index has caught up again")
            self.trouble = ""
        return applied

    def close(self) -> None:
        """Close the index; the next step opens it again."""
        if self._index is not None:
            self._index.close()
            self._index = None


def catch_up_journal(
    index: Index,
    root: str,
    place: JournalPlace,
    *,
    below: Index | None = None,
    sync: bool = True,
    fault: Callable[[JournalPlace, Fault], None] | None = None,
    trusted: Position | None = None,
) -> int:
    """Apply what a journal below ``root`` has beyond the index and return how many lines.

    ``below`` makes ``index`` an overlay of that one. ``sync`` false: the lines are shown, not
    kept (an overlay), so they need not be durable. ``trusted``: a place in the journal that is
    known to have been durable. Raises StorageError, IndexFault; the latter also if the index below
    does not fit the journal any more.
    """
    follow = partial(_follow, index, root, place, below, sync=sync, fault=fault, trusted=trusted)
    try:
        return follow()
    except PositionLostError:
        index.forget(place)
    try:
        if below is None:
            _LOG.warning("the index of %s does not fit its manifest and is made anew", place)
        return follow()
    except PositionLostError:
        raise sqlite3.DatabaseError(f"the index of {place} does not fit its manifest") from None


def catch_up(
    index: Index,
    root: str,
    places: Iterable[JournalPlace] | None = None,
    *,
    head_of: HeadOf = no_head,
) -> int:
    """Apply what the journals have beyond the index; return how many lines.

    Raises StorageError, IndexFault.
    """
    return sum(
        catch_up_journal(index, root, place, trusted=head_of(place))
        for place in (all_journals(root) if places is None else places)
    )


def rebuild(
    path: str,
    root: str,
    store: str,
    *,
    progress: Callable[[JournalPlace, int], None] | None = None,
    head_of: HeadOf = no_head,
) -> int:
    """Make a new index from the manifests below ``root``, beside the old one, and put it in place.

    Returns how many lines it holds. Writers that have the old one open notice and go over.
    Raises StorageError, IndexFault.
    """
    beside = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.new"
    held = contextlib.ExitStack()
    try:
        sweep_unfinished_indexes(path)
        # Until it is in its place, or sweepers would take it for a dead one's. To close it gives
        # back SQLite's own locks on the file: not before SQLite is done, nor after others begin.
        held.callback(os.close, create_locked(beside))
        index = Index.open(beside, store)
        with contextlib.closing(index):
            total = 0
            with index.filling():
                for place, lines in _fill(index, root, head_of):
                    total += lines
                    if progress is not None:
                        progress(place, lines)
            index.settle()
        _sync(beside)
        with replacement_lock(path, exclusive=True):
            held.close()
            _remove(path, but_not_itself=True)
            os.rename(beside, path)
    except OSError as error:
        raise storage_error(error, "rebuilding the index", path) from error
    finally:
        # Where the disk is gone, so is what we would remove.
        with contextlib.suppress(OSError):
            _remove(beside)
        held.close()
    return total


def open_or_rebuild(path: str, root: str, store: str, *, head_of: HeadOf = no_head) -> Index:
    """Open the index for writing; if it is damaged or of another version, rebuild it first.

    Raises StorageError, IndexFault.
    """
    try:
        return Index.open(path, store)
    except sqlite3.OperationalError:
        # Locked, no space, no permission: a new file would fare no better.
        raise
    except IndexFault as error:
        _LOG.warning("the index %s cannot be used (%s): rebuilding it", path, error)
        rebuild(path, root, store, head_of=head_of)
        return Index.open(path, store)


def _fill(index: Index, root: str, head_of: HeadOf) -> Iterator[tuple[JournalPlace, int]]:
    """Apply all journals to an empty index; yield each and how many lines."""
    places = list(all_journals(root))
    # What expired comes first, and is little.
    ahead = [place for place in places if not place.of_expiries]
    reading = start_reading(place.directory(root) for place in ahead)
    with contextlib.ExitStack() as held:
        if reading is not None:
            held.enter_context(reading)
            for place in ahead[:_ASKED_FOR]:
                reading.ask(place.directory(root), head_of(place))
        coming = iter(ahead[_ASKED_FOR:])
        for place in places:
            lines = 0
            if reading is not None and not place.of_expiries:
                try:
                    for count in _take(index, root, place, reading):
                        lines += count
                except ReadAheadError as error:
                    if str(error):
                        _LOG.warning("the process that reads the manifests ahead %s", error)
                        reading = None
                    lines += catch_up_journal(index, root, place, trusted=head_of(place))
                following = next(coming, None)
                if reading is not None and following is not None:
                    reading.ask(following.directory(root), head_of(following))
            else:
                lines = catch_up_journal(index, root, place, trusted=head_of(place))
            yield place, lines


def _take(index: Index, root: str, place: JournalPlace, reading: ReadAhead) -> Iterator[int]:
    """Apply what was read ahead of a journal; yield the lines of each batch.

    Raises ReadAheadError if the rest of it is not there.
    """
    since: Position | None = None
    batches = reading.batches()
    try:
        for batch in batches:
            if not index.apply_prepared(place, batch.prepared, batch.position, since=since):
                continue
            since = batch.position
            yield batch.lines
    except OverflowError:
        # There is something that is not plausible: it is found line by line.
        for _ in batches:
            pass
        raise ReadAheadError from None
    finally:
        # Nobody knows of the index yet, so once is enough; each time would hold up the rest.
        if since is not None:
            _sync_segment(place.directory(root), since)


def _follow(
    index: Index,
    root: str,
    place: JournalPlace,
    below: Index | None,
    *,
    sync: bool,
    fault: Callable[[JournalPlace, Fault], None] | None,
    trusted: Position | None,
) -> int:
    since = index.position(place)
    if since is None and below is not None:
        since = below.position(place)
    directory = place.directory(root)
    reader = JournalReader(directory, since=since, trusted=trusted)
    tell = fault or (_log if sync else _say_nothing)
    total = 0
    with contextlib.closing(iter(reader)) as items:
        while True:
            batch: list[Line] = []
            segments: list[str] = []
            for item in itertools.islice(items, _LINES):
                if isinstance(item, Line):
                    batch.append(item)
                    segments.append(reader.segment)
                elif fault is not None:
                    fault(place, item)
            position = reader.position
            if position is None or position == since:
                return total
            if sync:
                _sync_segment(directory, position)
            if not batch:
                return total
            left_out: Sequence[Fault] = ()
            try:
                applied = index.apply(place, batch, position, since=since, below=below)
            except (ValueError, OverflowError):
                batch, left_out = _plausible(batch, segments)
                applied = index.apply(place, batch, position, since=since, below=below)
            for item in left_out:
                tell(place, item)
            if not applied:
                return total
            total += len(batch)
            since = position


def _log(place: JournalPlace, fault: Fault) -> None:
    at = f"{place}/{fault.segment} at byte {fault.offset}"
    _LOG.warning("the index leaves out %s: %s", at, fault.reason)


def _say_nothing(_place: JournalPlace, _fault: Fault) -> None:
    """Leave it to whoever keeps the index (an overlay is made again and again)."""


def _plausible(
    lines: Sequence[Line], segments: Sequence[str]
) -> tuple[list[Line], Sequence[Fault]]:
    """Return the lines that an index can hold, and what is wrong with the others."""
    kept: list[Line] = []
    faults: list[Fault] = []
    for line, segment in zip(lines, segments, strict=True):
        reason = implausible(line.record) if isinstance(line.record, Record) else None
        if reason is None:
            kept.append(line)
        else:
            faults.append(Fault(segment, line.offset, line.end, reason))
    return kept, faults


def _sync_segment(directory: str, position: Position) -> None:
    """Make the lines up to ``position`` durable: their writer may not have done it yet.

    Earlier segments were synced before their writer began this one.
    """
    path = os.path.join(directory, position.segment)
    try:
        _sync(path)
    except OSError as error:
        raise storage_error(error, "syncing", path) from error


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str, *, but_not_itself: bool = False) -> None:
    endings = ("-wal", "-shm") if but_not_itself else ("", "-wal", "-shm")
    for ending in endings:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ending)
