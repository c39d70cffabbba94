"""The questions that readers ask; `casfs.index.reader.Reader` answers them from disk.

Every answer reflects all acknowledged commits of at most about a second ago, whether or not the
index on disk has caught up with the manifests. Superseded records (an incomplete group that came
again complete) never show. Methods block on disk and are safe to call from any one thread at a
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from casfs.digest import Digest
    from casfs.index.extents import ExtentRow
    from casfs.index.rows import (
        BroadcastRow,
        GroupEntry,
        GroupRow,
        SealRow,
        TrackRow,
        TrackSummary,
    )


class Lookup(Protocol):
    """Read access to what the manifests say."""

    def broadcasts(self) -> Sequence[BroadcastRow]:
        """Return every broadcast, by number."""

    def tracks(self, broadcast: BroadcastRow) -> Sequence[TrackRow]:
        """Return the broadcast's tracks, by name."""

    def track(self, broadcast: str, track: str) -> TrackRow | None:
        """Return the track with these full names, or None."""

    def summary(self, track: TrackRow) -> TrackSummary:
        """Return the track's totals."""

    def seals(self, broadcast: BroadcastRow) -> Sequence[SealRow]:
        """Return the hours of the broadcast that were sealed, in the order in which they were."""

    def hours(self, track: TrackRow) -> Sequence[int]:
        """Return the hours that hold groups by received-start, as hours since the Unix epoch."""

    def groups(
        self, track: TrackRow, start: int, stop: int, *, after: int = 0
    ) -> Iterator[GroupRow]:
        """Yield groups with ``start <= received_start < stop`` (ns UTC) and ``n > after``.

        Hour by hour, within an hour in rising ``n``. Lazy: holds a bounded number of rows, so that
        a listing can stop at any point.
        """

    def sealed(self, track: TrackRow, seal: SealRow) -> Sequence[GroupRow]:
        """Return the groups of a sealed hour as they stood when it was sealed, in rising ``n``.

        What has expired since is not among them.
        """

    def extents(
        self, track: TrackRow, start: int, stop: int, *, after: int = 0
    ) -> Iterator[ExtentRow]:
        """Yield what holds these groups, each time as one: a run, or a group with its own record.

        In the same order, with the commit numbers of their last groups. Those at the edges may
        hold other groups, too.
        """

    def group_entries(
        self, track: TrackRow, hour: int, *, after: int, most: int
    ) -> Sequence[GroupEntry]:
        """Return extents of one hour (since the Unix epoch) with ``n > after``, in rising ``n``.

        At most ``most``; fewer say nothing about whether there are more, none says that there are
        not.
        """

    def newest(self, track: TrackRow) -> GroupRow | None:
        """Return the complete group with the highest (epoch, sequence); if none, an incomplete."""

    def group(self, broadcast_number: int, n: int) -> GroupRow | None:
        """Return the group with this commit number, or None if it is unknown or superseded."""

    def extent(self, broadcast_number: int, n: int) -> ExtentRow | None:
        """Return the extent that holds this group, or None."""

    def find(self, track: TrackRow, epoch: int, sequence: int) -> GroupRow | None:
        """Return the group of this identity, or None."""

    def extent_of(self, track: TrackRow, epoch: int, sequence: int) -> ExtentRow | None:
        """Return the extent that holds the group of this identity, or None."""

    def successors(
        self, track: TrackRow, epoch: int, sequence: int, most: int
    ) -> Sequence[ExtentRow]:
        """Return the extents with the sequence numbers above this one, until a number is missing.

        At most ``most``.
        """

    def referencing(self, digest: Digest) -> Iterator[GroupRow]:
        """Yield every group whose payload lies in this object."""

    def block_hashes(self, digest: Digest) -> Sequence[Digest]:
        """Return the BLAKE3 of each block (`casfs.digest.BLOCK_BYTES`) of an object.

        Empty if no record tells them: they stand in the records of objects above that size.
        """
