"""The groups of a run within one row of the index: packed, taken apart, searched. Pure.

An **extent** is one row: a group by itself, or groups of one run that lie one behind another in its
object and of which all stand, or none. Nearly every run is one extent; only where a group of it was
recorded before, or is recorded twice, there are more. What a row says of its groups as a whole is
in its columns; what each group says for itself is packed into ``members``.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from casfs.digest import Digest
from casfs.index.rows import BroadcastRow, GroupRow
from casfs.manifests.runs import first_number
from casfs.timestamps import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from casfs.manifests.record import RunRecord

_DIGEST_BYTES = 32


class Member(Struct, frozen=True, gc=False):
    """A group as its record tells it."""

    n: int
    sequence: int
    offset: int
    size: int
    received_start: int
    """Nanoseconds UTC."""
    received_end: int
    digest: bytes
    """BLAKE3 of the payload alone."""


class _Packed(Struct, frozen=True, array_like=True):
    """Columns, one item for each group."""

    steps: list[int]
    """By how much each sequence is above the one before it; 0 for the first."""
    sizes: list[int]
    starts: list[int]
    """Nanoseconds since the extent's ``received_start``."""
    ends: list[int]
    digests: bytes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Packed)


def pack_members(members: Sequence[Member]) -> bytes:
    """Pack what the groups of an extent say, in their order."""
    start = min(member.received_start for member in members)
    sequences = [member.sequence for member in members]
    return _ENCODER.encode(
        _Packed(
            [0, *(above - below for below, above in itertools.pairwise(sequences))],
            [member.size for member in members],
            [member.received_start - start for member in members],
            [member.received_end - start for member in members],
            b"".join(member.digest for member in members),
        )
    )


def unpack_members(
    packed: bytes, n: int, sequence: int, offset: int, received_start: int
) -> list[Member]:
    """Return what `pack_members` packed: of an extent whose first group is ``n`` and so on."""
    columns = _DECODER.decode(packed)
    members: list[Member] = []
    for at, size in enumerate(columns.sizes):
        sequence += columns.steps[at]
        members.append(
            Member(
                *(n + at, sequence, offset, size),
                *(received_start + columns.starts[at], received_start + columns.ends[at]),
                columns.digests[at * _DIGEST_BYTES : (at + 1) * _DIGEST_BYTES],
            )
        )
        offset += size
    return members


def members_of(record: RunRecord) -> list[Member]:
    """Return the groups of a run, in the order of their commit numbers."""
    start = parse_time(record.received_start)
    members: list[Member] = []
    n, offset = first_number(record), record.offset
    for at, size in enumerate(record.sizes):
        members.append(
            Member(
                *(n + at, int(record.sequences[at]), offset, size),
                *(start + record.starts[at], start + record.ends[at]),
                bytes.fromhex(record.hashes[at]),
            )
        )
        offset += size
    return members


class ExtentRow(GroupRow, frozen=True):
    """An extent.

    ``n`` is that of its last group, ``sequence`` that of the first, ``received_start`` the
    earliest, ``received_end`` the latest; the rest holds for all of them together.
    """

    groups: int = 1
    last_sequence: int = 0
    last_start: int = 0
    """The latest ``received_start``."""
    members: bytes | None = None
    """None if the group has a record of its own."""

    def group_rows(self) -> Iterator[GroupRow]:
        """Yield the groups, by sequence and by commit number."""
        if self.members is None:
            yield self._alone()
            return
        packed = _DECODER.decode(self.members)
        n, sequence, offset = self.n - self.groups, self.sequence, self.offset
        for at, size in enumerate(packed.sizes):
            n += 1
            sequence += packed.steps[at]
            yield GroupRow(
                self.broadcast,
                self.track,
                n,
                self.epoch,
                sequence,
                self.hash,
                offset,
                size,
                self.received_start + packed.starts[at],
                self.received_start + packed.ends[at],
                self.complete,
                self.init,
                Digest(packed.digests[at * _DIGEST_BYTES : (at + 1) * _DIGEST_BYTES].hex()),
            )
            offset += size

    def numbered(self, n: int) -> GroupRow | None:
        """Return the group with this commit number, if it is one of them."""
        at = n - (self.n - self.groups) - 1
        if not 0 <= at < self.groups:
            return None
        return next(itertools.islice(self.group_rows(), at, None))

    def group_of(self, sequence: int) -> GroupRow | None:
        """Return the group of this sequence, if it is one of them."""
        if not self.sequence <= sequence <= self.last_sequence:
            return None
        return next((row for row in self.group_rows() if row.sequence == sequence), None)

    def _alone(self) -> GroupRow:
        return GroupRow(
            self.broadcast,
            self.track,
            self.n,
            self.epoch,
            self.sequence,
            self.hash,
            self.offset,
            self.size,
            self.received_start,
            self.received_end,
            self.complete,
            self.init,
        )


EXTENT_COLUMNS = (
    "j.number, j.broadcast, j.track, g.n, g.epoch, g.sequence, g.hash, g.offset, g.size,"
    " g.received_start, g.received_end, g.complete, g.init, g.groups, g.last_sequence,"
    " g.last_start, g.members"
)
"""Of `extent_row`, from groups g join journals j."""


def extent_row(row: Any) -> ExtentRow:  # noqa: ANN401  a row of SQLite
    """Return the row of `EXTENT_COLUMNS`, whatever stands behind them."""
    number, broadcast, track, n, epoch, sequence, digest, offset, size, start, end = row[:11]
    whole, init, groups, last_sequence, last_start, members = row[11:17]
    return ExtentRow(
        BroadcastRow(number, broadcast),
        track,
        n,
        epoch,
        sequence,
        Digest(digest.hex()),
        offset,
        size,
        start,
        end,
        bool(whole),
        Digest(init.hex()) if init is not None else None,
        None,
        groups,
        last_sequence,
        last_start,
        members,
    )
