"""The segments of a timeline, kept small: a day has a hundred thousand, a mount follows some days.

Numbers stand in columns, the members of all segments in one stretch of bytes: some 200 bytes for
a segment of picture and sound. It only grows, so whoever looks at the first segments of a list may
go on while others are added behind them. One thread at a time adds.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import msgspec
from msgspec import Struct

from casfs.digest import Digest
from casfs.media.fragmented import FragmentMember, TablePlace
from casfs.recordings.tables import Payload

if TYPE_CHECKING:
    from casfs.media.segments import Segment


_T = TypeVar("_T")


class KeptSegment(Struct, frozen=True, gc=False):
    """A segment without its members: see `casfs.media.segments.Segment`."""

    number: int
    epoch: int
    init: int
    """Which of the timeline's init segments it needs, from 0."""
    follows: bool
    begin: int
    duration: int
    received: int
    size: int


class _Member(Struct, frozen=True, array_like=True):
    """A payload and its place; what many have in common is told by number."""

    object: bytes
    offset: int
    size: int
    track: int
    epoch: int
    received: int
    init: int
    places: tuple[tuple[int, int, int], ...]
    """What `TablePlace` says, in its order."""


_FIELDS = len(KeptSegment.__struct_fields__)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[_Member, ...])


class SegmentList:
    """All segments of a timeline so far."""

    def __init__(self) -> None:
        self._numbers = array("q")
        self._ends = array("Q")
        self._members = bytearray()
        self._tracks = _Numbered[str]()
        self._inits = _Numbered[Digest | None]()

    @property
    def bytes(self) -> int:
        """Return the memory that they take."""
        columns = (self._numbers, self._ends)
        return len(self._members) + sum(len(column) * column.itemsize for column in columns)

    def add(self, segment: Segment, init: int) -> None:
        """Add a segment behind the others; ``init`` is which of the init segments it needs."""
        self._members += _ENCODER.encode([self._member(item) for item in segment.members])
        self._ends.append(len(self._members))
        self._numbers.extend(
            (
                *(segment.number, segment.epoch, init, segment.follows),
                *(segment.begin, segment.duration, segment.received, segment.size),
            )
        )

    def first(self, count: int) -> Segments:
        """Return the first ``count`` segments."""
        return Segments(self, count)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._ends)

    def __getitem__(self, index: int) -> KeptSegment:
        """Return the segment at this place, which counts from 0."""
        number, epoch, init, follows, *rest = self._numbers[_FIELDS * index : _FIELDS * (index + 1)]
        return KeptSegment(number, epoch, init, bool(follows), *rest)

    def members(self, index: int) -> list[FragmentMember]:
        """Return the payloads of a segment, without their tables."""
        start = self._ends[index - 1] if index else 0
        found = _DECODER.decode(self._members[start : self._ends[index]])
        return [
            FragmentMember(
                self._payload(member), tuple(TablePlace(*place) for place in member.places)
            )
            for member in found
        ]

    def _member(self, item: FragmentMember) -> _Member:
        group = item.group
        assert isinstance(group, Payload)
        return _Member(
            bytes.fromhex(group.digest),
            group.offset,
            group.size,
            self._tracks.number(group.track),
            group.epoch,
            group.received,
            self._inits.number(group.init),
            tuple((place.track, place.decode_time, place.skipped) for place in item.places),
        )

    def _payload(self, member: _Member) -> Payload:
        return Payload(
            track=self._tracks[member.track],
            epoch=member.epoch,
            received=member.received,
            digest=Digest(member.object.hex()),
            offset=member.offset,
            size=member.size,
            tables=(),
            init=self._inits[member.init],
        )


class Segments(Sequence[KeptSegment]):
    """The first segments of a list, as they were at one moment."""

    def __init__(self, kept: SegmentList, count: int) -> None:
        self._kept = kept
        self._count = count

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    @overload
    def __getitem__(self, index: int) -> KeptSegment: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[KeptSegment]: ...
    def __getitem__(self, index: int | slice) -> KeptSegment | Sequence[KeptSegment]:
        """Return the segment at this place, which counts from 0."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._kept[index]

    def members(self, index: int) -> list[FragmentMember]:
        """Return the payloads of a segment, without their tables."""
        return self._kept.members(index)


class _Numbered(Generic[_T]):
    """Values that are told by number, in the order in which they first came."""

    def __init__(self) -> None:
        self._numbers: dict[_T, int] = {}
        self._values: list[_T] = []

    def number(self, value: _T) -> int:
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def __getitem__(self, number: int) -> _T:
        return self._values[number]
