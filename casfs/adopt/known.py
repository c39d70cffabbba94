"""What the archive holds of a broadcast, and what an import has put in since (or would have).

The archive is read as it was at the beginning; what is put in goes to an index of its own, which
SQLite spills to disk: so a dry run decides like a real one, and memory does not grow with either.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from casfs.adopt.epochs import Candidate
from casfs.digest import Digest, digest_of
from casfs.errors import CasfsError
from casfs.index.index import Index
from casfs.index.reader import Reader
from casfs.manifests.layout import JournalPlace
from casfs.manifests.record import GroupRecord, Line, Position
from casfs.objects.local import object_path
from casfs.timestamps import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from casfs.archive import Archive
    from casfs.index.rows import GroupRow, TrackRow

_PENDING = 1000


class KnownGroups:
    """A `casfs.adopt.epochs.Held` for one broadcast; a context manager.

    ``prefix`` gives the digest of the first bytes of an object that is not in the archive yet, or
    None. Raises StorageError.
    """

    def __init__(
        self,
        archive: Archive,
        broadcast: str,
        prefix: Callable[[Digest, int], Digest | None],
    ) -> None:
        self._archive = archive
        self._broadcast = broadcast
        self._prefix_elsewhere = prefix
        self._reader = _still_reader(archive)
        self._put = Index.temporary(archive.store_id)
        self._pending: dict[str, list[GroupRecord]] = {}
        self._positions: dict[str, Position] = {}
        self._rows: dict[str, TrackRow | None] = {}
        self._epochs: dict[str, list[int]] = {}
        self._latest: dict[str, int] = {}
        self._n = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._put.close()

    def renew(self) -> None:
        """See the archive as it is now. Only before anything was put in."""
        self._reader.close()
        self._reader = _still_reader(self._archive)
        self._rows.clear()
        self._epochs.clear()
        self._latest.clear()

    def highest(self) -> int:
        """Return the highest epoch of the broadcast in the archive; 0 if it holds no group."""
        for broadcast in self._reader.broadcasts():
            if broadcast.name == self._broadcast:
                tracks = self._reader.tracks(broadcast)
                return max((max(self.epochs(track.name), default=0) for track in tracks), default=0)
        return 0

    def put(self, track: str, group: Candidate) -> None:
        """Remember that a group was put in."""
        self._n += 1
        time = format_time(group.received)
        record = GroupRecord(
            broadcast=self._broadcast,
            number=1,
            track=track,
            n=self._n,
            time=time,
            epoch=group.epoch,
            sequence=str(group.sequence),
            hash=group.digest,
            path=object_path(group.digest),
            offset=0,
            size=group.size or 0,
            frame_sizes=[],
            lacking=0,
            frame_timestamps=None,
            timescale=None,
            blocks=None,
            init=None,
            received_start=time,
            received_end=time,
            complete=group.complete,
            reason=None,
            relay="",
            protocol="",
            recorder="",
            writer="",
        )
        pending = self._pending.setdefault(track, [])
        pending.append(record)
        if len(pending) >= _PENDING:
            self._flush(track)
        epochs = self._epochs_of(track)
        if group.epoch not in epochs:
            epochs.append(group.epoch)
            epochs.sort()
        self._latest[track] = max(self.latest(track), group.received)

    # casfs.adopt.epochs.Held

    def epochs(self, track: str) -> Sequence[int]:
        """Return the epochs in which the track has groups, in order."""
        return self._epochs_of(track)

    def latest(self, track: str) -> int:
        """Return an instant after which no group of the track was received; -1 if it has none."""
        if track not in self._latest:
            row = self._row(track)
            last = self._reader.summary(row).last if row is not None else None
            self._latest[track] = -1 if last is None else last
        return self._latest[track]

    def find(self, track: str, epoch: int, sequence: int) -> Candidate | None:
        """Return the group of this identity."""
        put = self._put_row(track)
        found = self._put.find(put, epoch, sequence) if put is not None else None
        row = self._row(track)
        if found is None and row is not None:
            found = self._reader.find(row, epoch, sequence)
        return _candidate(found)

    def neighbours(
        self, track: str, epoch: int, sequence: int
    ) -> tuple[Candidate | None, Candidate | None]:
        """Return the groups of an epoch with the next lower and the next higher sequence."""
        put, row = self._put_row(track), self._row(track)
        pairs = [
            self._put.neighbours(put, epoch, sequence) if put is not None else (None, None),
            self._reader.neighbours(row, epoch, sequence) if row is not None else (None, None),
        ]
        below = [found for found, _ in pairs if found is not None]
        above = [found for _, found in pairs if found is not None]
        return (
            _candidate(max(below, key=lambda found: found.sequence, default=None)),
            _candidate(min(above, key=lambda found: found.sequence, default=None)),
        )

    def begins(self, shorter: Candidate, longer: Candidate) -> bool:
        """Say whether the bytes of one group are the beginning of the other's."""
        if shorter.size is None or (longer.size is not None and longer.size < shorter.size):
            return False
        digest, offset = longer.inside or (longer.digest, 0)
        return self._prefix(digest, offset, shorter.size) == shorter.digest

    def _prefix(self, digest: Digest, offset: int, size: int) -> Digest | None:
        try:
            descriptor = self._archive.objects.open(digest)
        except CasfsError:
            return self._prefix_elsewhere(digest, size)
        with contextlib.suppress(OSError), open(descriptor, "rb") as file:
            file.seek(offset)
            data = file.read(size)
            if len(data) == size:
                return digest_of(data)
        return None

    # Both halves

    def _row(self, track: str) -> TrackRow | None:
        if track not in self._rows:
            self._rows[track] = self._reader.track(self._broadcast, track)
        return self._rows[track]

    def _put_row(self, track: str) -> TrackRow | None:
        self._flush(track)
        return self._put.track(self._broadcast, track) if track in self._positions else None

    def _epochs_of(self, track: str) -> list[int]:
        if track not in self._epochs:
            row = self._row(track)
            self._epochs[track] = list(self._reader.epochs(row)) if row is not None else []
        return self._epochs[track]

    def _flush(self, track: str) -> None:
        records = self._pending.pop(track, None)
        if not records:
            return
        lines = [
            Line(record=record, offset=record.n, end=record.n, synced=0, prev=None, sum="")
            for record in records
        ]
        since = self._positions.get(track)
        position = Position("put", records[-1].n, "")
        place = JournalPlace(os.fsencode(self._broadcast).hex(), os.fsencode(track).hex())
        self._put.apply(place, lines, position, since=since)
        self._positions[track] = position


def _still_reader(archive: Archive) -> Reader:
    """Return a reader whose clock stands still: it sees the archive as it was when first asked."""
    return Reader(
        archive.roots.manifests,
        archive.index_path,
        archive.store_id,
        fold_case=archive.format.fold_case,
        clock=lambda: 0.0,
    )


def _candidate(row: GroupRow | None) -> Candidate | None:
    if row is None:
        return None
    inside = (row.hash, row.offset) if row.payload is not None else None
    place = (row.epoch, row.sequence, row.digest, row.size)
    return Candidate(*place, row.complete, row.received_start, inside)
