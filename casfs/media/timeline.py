"""Where each group of a recording lies in time.

Media time counts from wherever a publisher began; receive time is the archive's own clock. Within
an epoch all tracks keep the relation that the publisher gave them: the epoch as a whole is moved so
that what was received first is shown when it was received. An epoch never begins before the end of
the one before. A gap in media time is a gap in the recording.

Media time is somebody else's word. A track whose media would be shown more than a minute after it
was received, or more than a minute before what the track showed last, has jumped: from there on it
is placed by receive time anew. So a wild timestamp does not make a recording of centuries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.digest import Digest
from casfs.media.descriptions import Kind
from casfs.media.samples import SampleTable
from casfs.timestamps import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from casfs.media.descriptions import SampleDescription

TOLERANCE: Final = 60 * NANOSECONDS
"""Media time and receive time may part by this much before it is called a jump."""


class RecordedGroup(Struct, frozen=True, kw_only=True):
    """A group, or a run of groups, as a recording needs to know it."""

    track: str
    """Name of the MoQ track."""
    epoch: int
    received: int
    """When its first byte came, nanoseconds since the Unix epoch."""
    digest: Digest
    """The object that holds the payload."""
    offset: int = 0
    """Where the payload begins in the object."""
    size: int
    """Bytes of the payload."""
    tables: tuple[SampleTable, ...]


class TrackKey(Struct, frozen=True, order=True):
    """Which track of the recording a table belongs to."""

    kind: Kind
    name: str
    position: int
    """`SampleTable.track`."""


class PlacedTable(Struct, frozen=True):
    """A table and its place in time."""

    group: int
    """Index of its group in the recording."""
    table: SampleTable
    shift: int
    """Nanoseconds from its media time to the recording's time."""

    @property
    def begin(self) -> int:
        """When its first sample is shown, nanoseconds from the recording's time 0."""
        return self.shift + _nanoseconds(self.table.presentation_time, self.table.timescale)

    @property
    def end(self) -> int:
        """When its last sample has been shown."""
        time = self.table.presentation_time + sum(self.table.durations)
        return self.shift + _nanoseconds(time, self.table.timescale)


class Placement(Struct, frozen=True):
    """The tables of a recording, for each of its tracks in decode order."""

    tracks: dict[TrackKey, list[PlacedTable]]
    left_out: int
    """Samples of another codec than their track began with."""


def place(
    groups: Sequence[RecordedGroup],
    descriptions: Mapping[Digest, SampleDescription],
    start: int,
    *,
    earliest: int | None = None,
) -> Placement:
    """Place all tables of ``groups`` on the timeline whose time 0 is the instant ``start``.

    Nothing begins before ``earliest``, nanoseconds from time 0, where it is given.

    The groups of each track and epoch come in the order of their sequences. Epochs are placed in
    the order of their numbers. Every description that a table names is among ``descriptions``.
    """
    epochs: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        if group.tables:
            epochs.setdefault(group.epoch, []).append(number)
    tracks: dict[TrackKey, list[PlacedTable]] = {}
    codecs: dict[TrackKey, bytes] = {}
    end = earliest
    left_out = 0
    for epoch in sorted(epochs):
        placed: list[tuple[TrackKey, PlacedTable]] = []
        for key, item in _place_epoch(groups, epochs[epoch], descriptions, start):
            codec = descriptions[item.table.description].codec
            if codecs.setdefault(key, codec) == codec:
                placed.append((key, item))
            else:
                left_out += len(item.table)
        if not placed:
            continue
        late = 0 if end is None else max(0, end - min(item.begin for _, item in placed))
        for key, item in placed:
            moved = PlacedTable(item.group, item.table, item.shift + late) if late else item
            tracks.setdefault(key, []).append(moved)
            end = moved.end if end is None else max(end, moved.end)
    return Placement(tracks, left_out)


def split_by_codec(
    groups: Sequence[RecordedGroup], descriptions: Mapping[Digest, SampleDescription]
) -> list[list[RecordedGroup]]:
    """Cut ``groups``, which are in the order of the recording, wherever a track changes its codec.

    One flat file cannot hold two codecs in one track; other parameters of the same codec it can.
    An epoch that begins with another codec is a part from its first group on, whatever the track.
    """
    epochs: dict[int, list[RecordedGroup]] = {}
    for group in groups:
        epochs.setdefault(group.epoch, []).append(group)
    parts: list[list[RecordedGroup]] = []
    codecs: dict[TrackKey, bytes] = {}
    for epoch in sorted(epochs):
        used = [_codecs(group, descriptions) for group in epochs[epoch]]
        begins: dict[TrackKey, bytes] = {}
        for found in used:
            begins = found | begins
        cut = not parts or _differ(codecs, begins)
        for group, found in zip(epochs[epoch], used, strict=True):
            if cut or _differ(codecs, found):
                parts.append([])
                codecs = {}
                cut = False
            codecs |= found
            parts[-1].append(group)
    return parts


def _codecs(
    group: RecordedGroup, descriptions: Mapping[Digest, SampleDescription]
) -> dict[TrackKey, bytes]:
    return {
        _key(group, table, descriptions): descriptions[table.description].codec
        for table in group.tables
    }


def _differ(codecs: dict[TrackKey, bytes], others: dict[TrackKey, bytes]) -> bool:
    return any(codecs.get(key, codec) != codec for key, codec in others.items())


class _TrackClock:
    """What is known of a track within an epoch."""

    def __init__(self, shift: int) -> None:
        self.shift = shift
        self.end: int | None = None


class EpochClock:
    """Places the groups of one epoch, one after the other, on a timeline that begins at ``start``.

    ``first`` is the group that was received first: it is shown when it came, or ``late``
    nanoseconds after that.
    """

    def __init__(self, first: RecordedGroup, start: int) -> None:
        table = first.tables[0]
        media = _nanoseconds(table.presentation_time, table.timescale)
        self._start = start
        self._shift = first.received - start - media
        self._tracks: dict[TrackKey, _TrackClock] = {}

    def delay(self, late: int) -> None:
        """Place everything that is still to come later by so much."""
        self._shift += late

    def place(
        self, number: int, group: RecordedGroup, descriptions: Mapping[Digest, SampleDescription]
    ) -> Iterator[tuple[TrackKey, PlacedTable]]:
        """Yield the tables of the group, which is the ``number``-th of the recording, in place."""
        received = group.received - self._start
        for table in group.tables:
            key = _key(group, table, descriptions)
            clock = self._tracks.setdefault(key, _TrackClock(self._shift))
            item = PlacedTable(number, table, clock.shift)
            if _jumped(item.begin, received, clock.end):
                earliest = received if clock.end is None else max(received, clock.end)
                clock.shift += earliest - item.begin
                item = PlacedTable(number, table, clock.shift)
            clock.end = item.end if clock.end is None else max(clock.end, item.end)
            yield key, item


def _place_epoch(
    groups: Sequence[RecordedGroup],
    members: list[int],
    descriptions: Mapping[Digest, SampleDescription],
    start: int,
) -> Iterator[tuple[TrackKey, PlacedTable]]:
    clock = EpochClock(groups[min(members, key=lambda number: groups[number].received)], start)
    for number in members:
        yield from clock.place(number, groups[number], descriptions)


def _jumped(begin: int, received: int, end: int | None) -> bool:
    if (received if end is None else end) - begin > TOLERANCE:
        return True
    if begin - received <= TOLERANCE:
        return False
    # Media that goes on without a gap was published faster than it plays; that is no jump.
    return end is None or begin - end > NANOSECONDS


def _key(
    group: RecordedGroup, table: SampleTable, descriptions: Mapping[Digest, SampleDescription]
) -> TrackKey:
    return TrackKey(descriptions[table.description].kind, group.track, table.track)


def _nanoseconds(ticks: int, timescale: int) -> int:
    return ticks * NANOSECONDS // timescale
