"""A timeline of groups as one flat MP4, without a byte of media in hand.

`flat_recording` takes what the index knows of groups (times and sample tables) and gives the head
of a file and a layout: which ranges of which objects its one ``mdat`` is made of. The payloads are
there verbatim, in the order of the groups; what is no sample in them (``moof`` boxes, headers of
frames) is passed over by the sample offsets. The same groups give the same bytes.

How the timeline of `casfs.media.timeline` is told to players:

- A track that does not begin at time 0 has an empty edit before it.
- A gap is a long duration of the sample before it: the picture stands, the sound is silent. Empty
  edits in the middle of a track are not relied on, players disagree about them.
- Samples before time 0 and behind the end, where one is given, are in the file but not shown: an
  edit says where to begin, so that a clip begins between two key frames.
- Decode times rise from 0 in each track. Where groups overlap, a sample is decoded a tick after
  the one before and shown when it should be.
- Durations are told in 32 bits. Where a gap needs more, the track's timescale is halved until it
  fits.
"""

from __future__ import annotations

from array import array
from itertools import accumulate, groupby, pairwise
from operator import add, sub
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.media.layout import Layout, LayoutBuilder
from casfs.media.moov import MOVIE_TIMESCALE, Edit, MovieTrackTables, Runs, write_head
from casfs.media.payloads import Base, lay_out, sample_sizes
from casfs.media.timeline import PlacedTable, RecordedGroup, TrackKey, place
from casfs.timestamps import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from casfs.digest import Digest
    from casfs.media.descriptions import SampleDescription
    from casfs.media.samples import SampleTable

_MAX_DURATION: Final = (1 << 31) - 1
"""Of a sample, in ticks: some players read a signed number."""

_MAX_TIMESCALE: Final = 1_000_000
"""Of a track. Groups that overlap by all that the timeline allows stay within 32 bits."""


class Recording(Struct, frozen=True):
    """A flat MP4 that is ready to be read or written."""

    layout: Layout
    tracks: tuple[TrackKey, ...]
    """In the order of their numbers in the file, from 1."""
    samples: int
    duration: int
    """Nanoseconds from time 0 to the end of what is shown."""
    left_out: int
    """Samples that the file cannot hold, being of another codec than their track began with:
    see `casfs.media.timeline.split_by_codec`."""


def flat_recording(
    groups: Sequence[RecordedGroup],
    descriptions: Mapping[Digest, SampleDescription],
    *,
    start: int,
    end: int | None = None,
) -> Recording:
    """Return the recording of ``groups`` whose time 0 is the instant ``start``.

    Without ``end`` it is whole: every sample is shown, and none before time 0, to where an epoch is
    moved if it would begin earlier. With ``end`` it is a clip: what lies before ``start`` or behind
    ``end`` is there for decoders and not shown. Both are nanoseconds since the Unix epoch.

    Media lies in the file in the order of ``groups``; those of each track and epoch come in the
    order of their sequences. A group without tables is left out.

    Raises:
        ValueError: none of the groups has a table, so there is nothing to record.
        KeyError: a table names a description that is not among ``descriptions``.
    """
    placement = place(groups, descriptions, start, earliest=0 if end is None else None)
    if not placement.tracks:
        raise ValueError("no group with a sample table")
    builder = LayoutBuilder()
    bases = lay_out(groups, builder)
    limit = None if end is None else max(0, end - start)
    keys = sorted(placement.tracks, key=lambda key: (key.kind.value != "video", key))
    tracks = [
        _TrackWriter(placement.tracks[key], bases, descriptions).finish(limit) for key in keys
    ]
    head = write_head(tracks, builder.size, start)
    longest = max(sum(edit.duration for edit in track.edits) for track in tracks)
    return Recording(
        layout=builder.finish(head),
        tracks=tuple(keys),
        samples=sum(len(track.sizes) for track in tracks),
        duration=longest * (NANOSECONDS // MOVIE_TIMESCALE),
        left_out=placement.left_out,
    )


class _Times(Struct, frozen=True):
    """When the samples of a table are decoded and shown, on the recording's timeline."""

    decode_time: int
    durations: array[int]
    composition_offsets: array[int]

    @property
    def last_decode_time(self) -> int:
        return self.decode_time + sum(self.durations) - self.durations[-1]

    def earliest(self) -> int:
        """Return when the first of them is shown."""
        earliest: int = min(self._shown())
        return earliest

    def latest(self) -> int:
        """Return when the last of them has been shown."""
        latest: int = max(map(add, self._shown(), self.durations))
        return latest

    def _shown(self) -> Iterator[int]:
        decode_times = accumulate(self.durations, initial=self.decode_time)
        return map(add, decode_times, self.composition_offsets)


class _TrackWriter:
    """Gathers the tables of one track into the columns of a ``trak``."""

    def __init__(
        self,
        placed: list[PlacedTable],
        bases: list[Base | None],
        descriptions: Mapping[Digest, SampleDescription],
    ) -> None:
        self._timescale = _common_timescale(placed)
        self._indexes: dict[Digest, int] = {}
        self._sizes = array("I")
        self._positions = array("Q")
        self._durations = Runs()
        self._composition = Runs()
        self._description_runs = Runs()
        self._sync: array[int] | None = None
        self._kind = descriptions[placed[0].table.description].kind
        self._first: _Times | None = None
        self._previous: _Times | None = None
        self._duration = 0
        for item in placed:
            base = bases[item.group]
            assert base is not None
            self._add(item, base)
        self._descriptions = tuple(descriptions[digest] for digest in self._indexes)

    def finish(self, limit: int | None) -> MovieTrackTables:
        """Return the columns; nothing is shown ``limit`` nanoseconds after time 0 or later."""
        first, last = self._first, self._previous
        assert first is not None
        assert last is not None
        self._durations.add(last.durations[-1])
        self._duration += last.durations[-1]
        # Composition offsets are told unsigned; the edit takes back what is added here.
        added = max(0, -min(self._composition.values))
        self._composition.values = array("q", map(added.__add__, self._composition.values))
        earliest = first.earliest()
        begin, end = max(earliest, 0), last.latest()
        if limit is not None:
            end = min(end, limit * self._timescale // NANOSECONDS)
        end = max(end, begin)
        return MovieTrackTables(
            kind=self._kind,
            timescale=self._timescale,
            duration=self._duration,
            descriptions=self._descriptions,
            sizes=self._sizes,
            positions=self._positions,
            durations=self._durations,
            composition_offsets=self._composition,
            sync=self._sync,
            description_runs=self._description_runs,
            edits=self._edits(begin, end, begin - first.decode_time + added),
        )

    def _edits(self, begin: int, end: int, media_time: int) -> tuple[Edit, ...]:
        before = begin * MOVIE_TIMESCALE // self._timescale
        shown = -(-(end - begin) * MOVIE_TIMESCALE // self._timescale)
        edits = (Edit(before, -1),) if before else ()
        return (*edits, Edit(shown, media_time))

    def _add(self, item: PlacedTable, base: Base) -> None:
        table = item.table
        times = _on_timeline(table, item.shift, self._timescale)
        if self._previous is not None:
            last = self._previous.last_decode_time
            if times.decode_time <= last:
                times = _after(times, last)
            self._durations.add(times.decode_time - last)
            self._duration += times.decode_time - last
        if self._first is None:
            self._first = times
        self._previous = times
        _add_runs(self._durations, times.durations[:-1])
        self._duration += sum(times.durations) - times.durations[-1]
        if any(times.composition_offsets):
            _add_runs(self._composition, times.composition_offsets)
        else:
            self._composition.add(0, len(table))
        self._add_sync(table.sync)
        self._sizes.extend(sample_sizes(table))
        self._positions.extend(base.locate(table.offsets))
        index = self._indexes.setdefault(table.description, len(self._indexes) + 1)
        self._description_runs.add(index, len(table))

    def _add_sync(self, sync: bytes) -> None:
        before = len(self._sizes)
        if self._sync is None:
            if 0 not in sync:
                return
            self._sync = array("I", range(1, before + 1))
        self._sync.extend(number for number, mark in enumerate(sync, before + 1) if mark)


def _add_runs(runs: Runs, values: array[int]) -> None:
    if not values:
        return
    if values.count(values[0]) == len(values):
        runs.add(values[0], len(values))
        return
    for value, group in groupby(values):
        runs.add(value, sum(1 for _ in group))


def _common_timescale(placed: list[PlacedTable]) -> int:
    """Return the finest timescale of the tables in which every gap between them can be told."""
    timescale = min(max(item.table.timescale for item in placed), _MAX_TIMESCALE)
    widest = max(
        (later.begin - earlier.begin for earlier, later in pairwise(placed)),
        default=0,
    )
    # Begin to begin is more than the gap, and decode times differ from those of presentation.
    while timescale > 1 and (widest * timescale) // NANOSECONDS > _MAX_DURATION // 2:
        timescale //= 2
    return timescale


def _on_timeline(table: SampleTable, shift: int, timescale: int) -> _Times:
    """Return the times of ``table`` in ticks of ``timescale``, ``shift`` nanoseconds later."""
    ticks = _rounded(shift * timescale, NANOSECONDS)
    if table.timescale == timescale:
        return _Times(table.decode_time + ticks, table.durations, table.composition_offsets)
    times = list(accumulate(table.durations, initial=table.decode_time))
    decode_times = [_rounded(time * timescale, table.timescale) for time in times]
    shown = [
        _rounded(time * timescale, table.timescale)
        for time in map(add, times, table.composition_offsets)
    ]
    return _rising(decode_times, shown, ticks)


def _after(times: _Times, last: int) -> _Times:
    """Return ``times`` with every sample decoded behind ``last``, and shown as before."""
    decode_times = list(accumulate(times.durations, initial=times.decode_time))
    shown = list(map(add, decode_times, times.composition_offsets))
    decode_times[0] = last + 1
    return _rising(decode_times, shown, 0)


def _rising(decode_times: list[int], shown: list[int], shift: int) -> _Times:
    """Make decode times rise; the last of them is where the last sample's duration ends."""
    rising = list(accumulate(decode_times, lambda before, time: max(before + 1, time)))
    return _Times(
        rising[0] + shift,
        array("I", map(sub, rising[1:], rising)),
        array("i", map(sub, shown, rising)),
    )


def _rounded(dividend: int, divisor: int) -> int:
    return (2 * dividend + divisor) // (2 * divisor)
