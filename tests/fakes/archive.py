"""An archive in memory: what the manifests say, without manifests, for tests of what shows it."""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.digest import BLOCK_BYTES, Digest, digest_of
from casfs.index.extents import ExtentRow
from casfs.index.rows import (
    BroadcastRow,
    GroupEntry,
    GroupRow,
    SealRow,
    TrackRow,
    TrackSummary,
)
from casfs.mount.filenames import group_file_name
from casfs.objects.local import LocalStore, shard_names
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Content(Struct, frozen=True):
    """Everything that a lookup answers from. Later groups supersede earlier incomplete ones."""

    broadcasts: tuple[BroadcastRow, ...] = ()
    tracks: tuple[TrackRow, ...] = ()
    groups: tuple[GroupRow, ...] = ()
    seals: tuple[tuple[int, SealRow], ...] = ()
    """With the broadcast's number."""
    blocks: dict[Digest, tuple[Digest, ...]] = {}
    """The block hashes of large objects."""

    def with_groups(self, *groups: GroupRow) -> Content:
        """Return the content after these groups came, with their tracks and broadcasts."""
        broadcasts = {row.number: row for row in self.broadcasts}
        tracks = {(row.broadcast.number, row.name): row for row in self.tracks}
        for group in groups:
            broadcasts.setdefault(group.broadcast.number, group.broadcast)
            tracks.setdefault(
                (group.broadcast.number, group.track),
                TrackRow(group.broadcast, group.track, group.n),
            )
        return Content(
            tuple(broadcasts[number] for number in sorted(broadcasts)),
            tuple(tracks.values()),
            self.groups + groups,
            self.seals,
            self.blocks,
        )


class MemoryLookup:
    """`casfs.index.lookup.Lookup` over a content that may be replaced at any time."""

    def __init__(self, content: Content | None = None) -> None:
        self.content = Content() if content is None else content

    def now(self) -> Content:
        """Return the content as of now."""
        return self.content

    def broadcasts(self) -> Sequence[BroadcastRow]:
        return self.now().broadcasts

    def tracks(self, broadcast: BroadcastRow) -> Sequence[TrackRow]:
        tracks = (row for row in self.now().tracks if row.broadcast == broadcast)
        return sorted(tracks, key=lambda row: row.name)

    def track(self, broadcast: str, track: str) -> TrackRow | None:
        for row in self.now().tracks:
            if (row.broadcast.name, row.name) == (broadcast, track):
                return row
        return None

    def summary(self, track: TrackRow) -> TrackSummary:
        groups = self._current(track)
        return TrackSummary(
            track,
            len(groups),
            sum(group.size for group in groups),
            min((group.received_start for group in groups), default=None),
            max((group.received_start for group in groups), default=None),
        )

    def seals(self, broadcast: BroadcastRow) -> Sequence[SealRow]:
        return [seal for number, seal in self.now().seals if number == broadcast.number]

    def hours(self, track: TrackRow) -> Sequence[int]:
        return sorted({group.received_start // HOUR for group in self._current(track)})

    def groups(
        self, track: TrackRow, start: int, stop: int, *, after: int = 0
    ) -> Iterator[GroupRow]:
        for group in sorted(self._current(track), key=lambda group: group.n):
            if group.n > after and start <= group.received_start < stop:
                yield group

    def sealed(self, track: TrackRow, seal: SealRow) -> Sequence[GroupRow]:
        groups = self._current(track, seal.through)
        return sorted(
            (group for group in groups if group.received_start // HOUR == seal.hour),
            key=lambda group: group.n,
        )

    def extents(
        self, track: TrackRow, start: int, stop: int, *, after: int = 0
    ) -> Iterator[ExtentRow]:
        yield from map(alone, self.groups(track, start, stop, after=after))

    def group_entries(
        self, track: TrackRow, hour: int, *, after: int, most: int
    ) -> Sequence[GroupEntry]:
        groups = self.groups(track, hour * HOUR, (hour + 1) * HOUR, after=after)
        return [
            GroupEntry(
                str(group_file_name(g)).partition("Z")[0] + "Z",
                g.n,
                g.size,
                g.received_end,
                g.complete,
            )
            for g in islice(groups, most)
        ]

    def newest(self, track: TrackRow) -> GroupRow | None:
        groups = self._current(track)
        return max(groups, key=lambda g: (g.complete, g.epoch, g.sequence), default=None)

    def group(self, broadcast_number: int, n: int) -> GroupRow | None:
        for group in self.now().groups:
            if (group.broadcast.number, group.n) == (broadcast_number, n):
                track = TrackRow(group.broadcast, group.track, 0)
                return group if self.find(track, group.epoch, group.sequence) == group else None
        return None

    def extent(self, broadcast_number: int, n: int) -> ExtentRow | None:
        found = self.group(broadcast_number, n)
        return None if found is None else alone(found)

    def extent_of(self, track: TrackRow, epoch: int, sequence: int) -> ExtentRow | None:
        found = self.find(track, epoch, sequence)
        return None if found is None else alone(found)

    def successors(
        self, track: TrackRow, epoch: int, sequence: int, most: int
    ) -> Sequence[ExtentRow]:
        found: list[ExtentRow] = []
        while len(found) < most:
            extent = self.extent_of(track, epoch, sequence + 1)
            if extent is None:
                break
            found.append(extent)
            sequence = extent.last_sequence
        return found

    def find(self, track: TrackRow, epoch: int, sequence: int) -> GroupRow | None:
        for group in self._current(track):
            if (group.epoch, group.sequence) == (epoch, sequence):
                return group
        return None

    def referencing(self, digest: Digest) -> Iterator[GroupRow]:
        for group in self.now().groups:
            if group.hash == digest:
                yield group

    def block_hashes(self, digest: Digest) -> Sequence[Digest]:
        return self.now().blocks.get(digest, ())

    def _current(self, track: TrackRow, through: int = 1 << 62) -> list[GroupRow]:
        # As the index has it: a complete group stands for ever, an incomplete one gives way.
        by_identity: dict[tuple[int, int], GroupRow] = {}
        for group in self.now().groups:
            own = (group.broadcast.number, group.track) == (track.broadcast.number, track.name)
            if own and group.n <= through:
                before = by_identity.get((group.epoch, group.sequence))
                if before is None or not before.complete:
                    by_identity[group.epoch, group.sequence] = group
        return list(by_identity.values())


def alone(group: GroupRow) -> ExtentRow:
    """Return the extent of a group with a record of its own."""
    return ExtentRow(
        **msgspec.structs.asdict(group),
        groups=1,
        last_sequence=group.sequence,
        last_start=group.received_start,
    )


class FileLookup(MemoryLookup):
    """The same over a content in a file, which another process replaces while this one reads."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._seen: tuple[int, int] | None = None

    def now(self) -> Content:
        with open(self._path, "rb") as file:
            status = os.fstat(file.fileno())
            seen = (status.st_ino, status.st_mtime_ns)
            if seen != self._seen:
                self.content = msgspec.json.decode(file.read(), type=Content)
                self._seen = seen
        return self.content


class DiskArchive:
    """Objects below a directory, and beside them the file that a `FileLookup` reads."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "cas"
        self.content_path = directory / "content.json"
        self.store = LocalStore(str(self.root))
        self.content = Content()
        self._last_n = 0
        for shard in shard_names():
            (self.root / "objects" / "blake3" / shard).mkdir(parents=True)
        self._publish()

    def put(self, payload: bytes) -> Digest:
        """Write an object."""
        digest = digest_of(payload)
        path = self.store.path(digest)
        if not os.path.exists(path):
            with open(path, "xb") as file:
                file.write(payload)
            os.chmod(path, 0o444)
        return digest

    def add(
        self,
        broadcast: str,
        track: str,
        payload: bytes,
        *,
        sequence: int,
        received: int,
        epoch: int = 1,
        complete: bool = True,
    ) -> GroupRow:
        """Write a group's object and make the group known."""
        numbers = {row.name: row.number for row in self.content.broadcasts}
        digest = self.put(payload)
        if len(payload) > BLOCK_BYTES:
            blocks = tuple(
                digest_of(payload[start : start + BLOCK_BYTES])
                for start in range(0, len(payload), BLOCK_BYTES)
            )
            self.content = msgspec.structs.replace(
                self.content, blocks={**self.content.blocks, digest: blocks}
            )
        self._last_n += 1
        group = GroupRow(
            broadcast=BroadcastRow(numbers.get(broadcast, len(numbers) + 1), broadcast),
            track=track,
            n=self._last_n,
            epoch=epoch,
            sequence=sequence,
            hash=digest,
            offset=0,
            size=len(payload),
            received_start=received,
            received_end=received + 1_000_000,
            complete=complete,
            init=None,
        )
        self.add_rows(group)
        return group

    def add_rows(self, *groups: GroupRow) -> None:
        """Make groups known whose objects are there already (or are missing on purpose)."""
        self._last_n = max(self._last_n, *(group.n for group in groups))
        self.content = self.content.with_groups(*groups)
        self._publish()

    def _publish(self) -> None:
        fresh = self.content_path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(self.content))
        fresh.replace(self.content_path)
