"""A timeline that grows, cut into segments: what live recordings and HLS are made of.

Groups come in, segments come out, in the order of time and never changed afterwards. A segment
begins with a group of the leading track (the largest picture; without any, the sound) and holds
what the chosen tracks show until the next one begins: at least a second of video, or some of sound.
It comes out when everything that was received within `WINDOW` of its end has had time to come.

Segments that need the same init segment and follow each other without a gap need nothing said
between them; elsewhere players must be told (EXT-X-DISCONTINUITY of RFC 8216). Times are placed as
`casfs.media.timeline` says, but for what only hindsight knows: the order in which groups come
decides, and a group that comes after its segment has gone out is left out. Pure.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from casfs.media.descriptions import Kind
from casfs.media.fragmented import FragmentMember, TablePlace, fragment_size
from casfs.media.moov import InitTrack
from casfs.media.timeline import EpochClock, PlacedTable, RecordedGroup, TrackKey
from casfs.timestamps import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from casfs.digest import Digest
    from casfs.media.descriptions import SampleDescription

WINDOW: Final = 2 * NANOSECONDS
"""How much later than a segment's end something that belongs to it may come."""

GAP: Final = NANOSECONDS // 2
"""A longer silence of the leading track is a gap."""

_SILENCE: Final = 10 * NANOSECONDS
"""When nothing of the leading track came for so long, segments go on without it."""

_SHORTEST: Final = NANOSECONDS // 1000
"""Of a segment: their begins differ by milliseconds."""

_MOST_BYTES: Final = 1 << 30
"""Of the payloads in a segment; what is more is left out."""

_LEAST: Final = {Kind.VIDEO: NANOSECONDS, Kind.AUDIO: 4 * NANOSECONDS}
"""How long a segment is at least, unless what leads stops or changes its parameters."""


class Segment(Struct, frozen=True):
    """A piece of the timeline that can be decoded by itself, after its init segment."""

    number: int
    """Counts the segments of the timeline from 1."""
    epoch: int
    init: tuple[InitTrack, ...]
    """What its init segment has to say."""
    follows: bool
    """It goes on where the segment before it ended, with the same init segment."""
    begin: int
    """Nanoseconds from the begin of the timeline to its first picture."""
    duration: int
    """Nanoseconds to the begin of the next segment, or to the gap before that."""
    received: int
    """When its leading group came, nanoseconds since the Unix epoch."""
    members: tuple[FragmentMember, ...]
    """The groups, without their sample tables: `casfs.media.fragmented.write_fragment` needs them
    again."""
    size: int
    """Bytes of its fragment."""


class _PlacedInTrack(Struct, frozen=True):
    key: TrackKey
    placed: PlacedTable


class _Item(Struct, frozen=True):
    """A group in its place."""

    group: RecordedGroup
    tables: tuple[_PlacedInTrack, ...]
    begin: int
    """Of the first of them that is shown."""

    def table(self, key: TrackKey) -> PlacedTable | None:
        """Return the first table of a track."""
        return next((item.placed for item in self.tables if item.key == key), None)


class Segmenter:
    """Takes the groups of one broadcast as they come; ``start`` is the instant of its time 0."""

    def __init__(self, start: int) -> None:
        self.late = 0
        """Groups that came too late, or were too large, to be in any segment."""
        self._start = start
        self._descriptions: dict[Digest, SampleDescription] = {}
        self._epoch = 0
        self._clock: EpochClock | None = None
        self._pending: list[_Item] = []
        self._newest = 0
        self._ends: dict[TrackKey, int] = {}
        self._lead: TrackKey | None = None
        self._sound: TrackKey | None = None
        self._init: tuple[InitTrack, ...] = ()
        self._end: int | None = None
        self._number = 0

    def add(
        self, group: RecordedGroup, descriptions: Mapping[Digest, SampleDescription]
    ) -> list[Segment]:
        """Take a group that has tables; return the segments that are ready now."""
        if group.epoch < self._epoch or group.size > _MOST_BYTES:
            self.late += 1
            return []
        self._descriptions.update(descriptions)
        ready: list[Segment] = []
        if group.epoch > self._epoch:
            ready = self.flush()
            self._begin_epoch(group)
        assert self._clock is not None
        placed = [_PlacedInTrack(*item) for item in self._clock.place(0, group, self._descriptions)]
        begin = min(item.placed.begin for item in placed)
        self._pending.append(_Item(group, tuple(placed), begin))
        self._newest = max(self._newest, group.received)
        return ready + list(self._take(self._newest - WINDOW))

    def wait(self, now: int) -> list[Segment]:
        """Return the segments that are ready at the instant ``now``, though nothing came."""
        self._newest = max(self._newest, now)
        return list(self._take(self._newest - WINDOW))

    def flush(self) -> list[Segment]:
        """Return what is left as segments: nothing more is to be waited for."""
        return list(self._take(None))

    def _begin_epoch(self, group: RecordedGroup) -> None:
        self._epoch = group.epoch
        self._clock = EpochClock(group, self._start)
        begin = max(0, group.received - self._start)
        earliest = 0 if self._end is None else max(0, self._end, *self._ends.values())
        self._clock.delay(max(0, earliest - begin))
        self._ends = {}
        self._lead = self._sound = None
        self._init = ()

    def _take(self, due: int | None) -> Iterator[Segment]:
        """Yield the segments whose successors were received by ``due``; None: all that is left."""
        while self._pending:
            self._choose()
            lead = self._lead
            assert lead is not None
            self._drop_late(lead)
            if not self._pending:
                return
            leading = sorted(
                (item for item in self._pending if item.table(lead) is not None),
                key=lambda item: _begin(item, lead),
            )
            silent = self._newest - _SILENCE
            if not leading:
                if due is not None and self._pending[0].group.received > silent:
                    return
                self._lead = self._sound = None
                continue
            first = leading[0]
            end, after = _end(first, lead), None
            for item in leading[1:]:
                if self._cuts(first, item, end):
                    after = item
                    break
                end = max(end, _end(item, lead))
            if due is not None:
                waiting = after.group.received > due if after is not None else True
                if waiting and leading[-1].group.received > silent:
                    return
            yield self._segment(first, end, after)

    def _drop_late(self, lead: TrackKey) -> None:
        """Forget groups that belong before what has gone out: segments come in order."""
        end = self._end or 0
        kept = [
            item
            for item in self._pending
            if (table := item.table(lead)) is None or table.begin >= end
        ]
        self.late += len(self._pending) - len(kept)
        self._pending = kept

    def _cuts(self, first: _Item, item: _Item, end: int) -> bool:
        """Whether a segment that begins with ``first`` ends before ``item``."""
        assert self._lead is not None
        before, table = first.table(self._lead), item.table(self._lead)
        assert before is not None
        assert table is not None
        return (
            table.begin - before.begin >= _LEAST[self._lead.kind]
            or table.begin - end > GAP
            or table.table.description != before.table.description
        )

    def _segment(self, first: _Item, end: int, after: _Item | None) -> Segment:
        lead = self._lead
        assert lead is not None
        begin = _begin(first, lead)
        bound = end if after is None else _begin(after, lead)
        chosen = (lead, self._sound)
        taken = [
            item
            for item in self._pending
            if item.begin < bound and any(table.key in chosen for table in item.tables)
        ]
        self._pending = [item for item in self._pending if item.begin >= bound]
        taken.sort(key=lambda item: (item.begin, item.group.received))
        sizes = accumulate(item.group.size for item in taken)
        taken = [item for item, size in zip(taken, sizes, strict=True) if size <= _MOST_BYTES]
        taken = taken if first in taken else [first]
        gap = self._end is None or begin - self._end > GAP
        keys, init = self._tracks(taken, begin)
        follows = bool(self._init) and init == self._init and not gap
        duration = max(bound - begin if bound - end <= GAP else end - begin, _SHORTEST)
        # Sound before the first picture would be a stretch in which nothing can be shown.
        earliest = None if follows else begin
        members = [self._member(item, keys, init, earliest) for item in taken]
        self._number += 1
        self._init, self._end = init, begin + duration
        for item in taken:
            for table in item.tables:
                self._ends[table.key] = max(self._ends.get(table.key, 0), table.placed.end)
        return Segment(
            number=self._number,
            epoch=self._epoch,
            init=init,
            follows=follows,
            begin=begin,
            duration=duration,
            received=first.group.received,
            members=tuple(
                FragmentMember(msgspec.structs.replace(member.group, tables=()), member.places)
                for member in members
            ),
            size=fragment_size(members),
        )

    def _tracks(
        self, taken: Sequence[_Item], begin: int
    ) -> tuple[list[TrackKey], tuple[InitTrack, ...]]:
        """Return the tracks of a segment, and what its init says of them."""
        keys: list[TrackKey] = []
        init: list[InitTrack] = []
        for number, key in enumerate(key for key in (self._lead, self._sound) if key is not None):
            tables = [table for item in taken if (table := item.table(key)) is not None]
            if tables:
                keys.append(key)
                own = tables[0].table
                init.append(InitTrack(self._descriptions[own.description], own.timescale))
            elif self._ends.get(key, 0) > begin and number < len(self._init):
                # What came before lasts into this one.
                keys.append(key)
                init.append(self._init[number])
        return keys, tuple(init)

    def _member(
        self,
        item: _Item,
        keys: Sequence[TrackKey],
        init: Sequence[InitTrack],
        earliest: int | None,
    ) -> FragmentMember:
        places = []
        for table in item.tables:
            own = table.placed.table
            number = keys.index(table.key) + 1 if table.key in keys else 0
            if number:
                described = InitTrack(self._descriptions[own.description], own.timescale)
                number = number if described == init[number - 1] else 0
            ticks = (2 * table.placed.shift * own.timescale + NANOSECONDS) // (2 * NANOSECONDS)
            time, skipped = own.decode_time + ticks, 0
            if earliest is not None and table.key.kind is Kind.AUDIO:
                bound = earliest * own.timescale // NANOSECONDS
                while skipped < len(own) and time + own.durations[skipped] <= bound:
                    time += own.durations[skipped]
                    skipped += 1
            if skipped == len(own):
                number = 0
            places.append(TablePlace(number, max(0, time), skipped))
        return FragmentMember(item.group, tuple(places))

    def _choose(self) -> None:
        """Choose the leading track and the sound among those that are there by now."""
        keys = {table.key: table.placed.table for item in self._pending for table in item.tables}
        if self._lead is None or self._lead.kind is Kind.AUDIO:
            pictures = [key for key in keys if key.kind is Kind.VIDEO]
            if pictures:
                self._lead = min(
                    pictures, key=lambda key: (-self._area(keys[key].description), key)
                )
        if self._sound is None:
            self._sound = min((key for key in keys if key.kind is Kind.AUDIO), default=None)
        if self._lead is None:
            self._lead, self._sound = self._sound, None
        elif self._lead.kind is Kind.AUDIO:
            self._sound = None

    def _area(self, description: Digest) -> int:
        described = self._descriptions[description]
        return described.width * described.height


def _begin(item: _Item, key: TrackKey) -> int:
    table = item.table(key)
    assert table is not None
    return table.begin


def _end(item: _Item, key: TrackKey) -> int:
    return max(table.placed.end for table in item.tables if table.key == key)
