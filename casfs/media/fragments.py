"""Sample tables of fragmented MP4: ``moof`` + ``mdat``, as many as a payload holds.

Reads moof/traf/tfhd/tfdt/trun with all their flags (ISO/IEC 14496-12, section 8.8). Where a frame
of the group ends is of no importance; other boxes (``styp``, ``sidx``, ``emsg``, ``prft``) are
passed over; a ``moov`` in the payload takes the place of the init that was given.

An explicit base_data_offset counts in a file that we never saw: it is taken to name the first byte
of its ``moof``, which is what writers put there. A payload that ends early gives the samples that
are whole.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.media.boxes import Box, Fields, MalformedMediaError, children, require, walk
from casfs.media.movie import Movie, MovieTrack, SampleDefaults, read_movie_box
from casfs.media.samples import MAX_SAMPLES, GroupSamples, TableBuilder

if TYPE_CHECKING:
    from casfs.digest import Digest
    from casfs.media.descriptions import SampleDescription
    from casfs.media.samples import SampleTable

# tfhd, 8.8.7.1
_BASE_DATA_OFFSET: Final = 0x01
_DESCRIPTION: Final = 0x02
_DEFAULT_DURATION: Final = 0x08
_DEFAULT_SIZE: Final = 0x10
_DEFAULT_FLAGS: Final = 0x20
_DEFAULT_BASE_IS_MOOF: Final = 0x02_0000

# trun, 8.8.8.1
_DATA_OFFSET: Final = 0x001
_FIRST_FLAGS: Final = 0x004
_DURATION: Final = 0x100
_SIZE: Final = 0x200
_FLAGS: Final = 0x400
_COMPOSITION: Final = 0x800

_NON_SYNC: Final = 0x01_0000  # sample_is_non_sync_sample, 8.8.3.1


def samples_of_fragments(payload: bytes, movie: Movie | None) -> GroupSamples:
    """Return the tables of the fragments in ``payload``.

    ``movie`` is the init segment that they belong to, None where only one within the payload can
    tell. Nothing is raised: a payload without tables gives a reason.
    """
    reader = _Reader(payload)
    try:
        reader.read(movie)
    except MalformedMediaError as error:
        reader.reasons.append(str(error))
    return reader.result()


class _FragmentTrack:
    """A track of the init, and what of it was found so far."""

    def __init__(self, track: MovieTrack, payload_size: int) -> None:
        self.track = track
        self.digests = [description.digest for description in track.descriptions]
        self.builder = TableBuilder(payload_size, track.position, track.timescale)
        self.next_time = 0
        """Decode time of the next sample, where no ``tfdt`` says another."""


class _Run(Struct, frozen=True):
    """Fields of one ``trun``; a column that it has not is None."""

    count: int
    data_offset: int | None
    first_flags: int | None
    durations: tuple[int, ...] | None
    sizes: tuple[int, ...] | None
    flags: tuple[int, ...] | None
    composition_offsets: tuple[int, ...] | None


class _Reader:
    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._tracks: dict[int, _FragmentTrack] = {}
        self._tables: list[SampleTable] = []
        self._descriptions: dict[Digest, SampleDescription] = {}
        self._outside = 0
        self._samples = 0
        self.reasons: list[str] = []

    def read(self, movie: Movie | None) -> None:
        self._begin(movie)
        known = movie is not None
        pending: Box | None = None
        for box in walk(self._payload, outermost=True):
            if box.kind == b"moov":
                self._begin(read_movie_box(self._payload, box))
                known = True
            elif box.kind == b"moof":
                if pending is not None:
                    self._read_fragment(pending, None)
                pending = box if box.whole else None
                if not box.whole:
                    self.reasons.append("the last fragment is cut short")
            elif box.kind == b"mdat" and pending is not None:
                if not known:
                    raise MalformedMediaError("fragments without an init segment")
                self._read_fragment(pending, box)
                pending = None
        if pending is not None:
            self.reasons.append("the last fragment has no media data")

    def result(self) -> GroupSamples:
        self._begin(None)
        if self._outside:
            self.reasons.append(f"{self._outside} samples do not lie within the payload")
        if not self._tables and not self.reasons:
            self.reasons.append("no fragments of video or audio")
        used = {table.description for table in self._tables}
        descriptions = (self._descriptions[digest] for digest in sorted(used))
        return GroupSamples(tuple(self._tables), tuple(descriptions), "; ".join(self.reasons))

    def _begin(self, movie: Movie | None) -> None:
        """Close the tables of the init before and go on with ``movie``."""
        for entry in self._tracks.values():
            self._tables += entry.builder.finish()
            self._outside += entry.builder.outside
        tracks = () if movie is None else movie.tracks
        self._tracks = {track.id: _FragmentTrack(track, len(self._payload)) for track in tracks}
        for entry in self._tracks.values():
            described = zip(entry.digests, entry.track.descriptions, strict=True)
            self._descriptions.update(described)

    def _read_fragment(self, moof: Box, mdat: Box | None) -> None:
        first_data = moof.end if mdat is None else mdat.body
        end_of_data: int | None = None
        for traf in children(self._payload, moof):
            if traf.kind == b"traf":
                end_of_data = self._read_track_fragment(moof, traf, first_data, end_of_data)

    def _read_track_fragment(
        self, moof: Box, traf: Box, first_data: int, end_of_data: int | None
    ) -> int | None:
        """Add the samples of ``traf``; return where its data ends."""
        fields = Fields(self._payload, require(self._payload, traf, b"tfhd"))
        _, present = fields.version_and_flags()
        entry = self._tracks.get(fields.unsigned(4))
        if entry is None:
            return end_of_data
        if present & _BASE_DATA_OFFSET:
            fields.skip(8)
        defaults = _read_defaults(fields, present, entry.track.defaults)
        if not 0 < defaults.description <= len(entry.digests):
            raise MalformedMediaError(f"sample description {defaults.description} does not exist")
        anchored = present & (_BASE_DATA_OFFSET | _DEFAULT_BASE_IS_MOOF)
        base = moof.start if anchored or end_of_data is None else end_of_data
        position = first_data if anchored or end_of_data is None else end_of_data
        for box in children(self._payload, traf):
            if box.kind == b"tfdt":
                entry.next_time = read_decode_time(Fields(self._payload, box))
            elif box.kind == b"trun":
                run = _read_run(Fields(self._payload, box))
                self._samples += run.count
                if self._samples > MAX_SAMPLES:
                    raise MalformedMediaError(f"more than {MAX_SAMPLES} samples")
                if run.data_offset is not None:
                    position = base + run.data_offset
                position = _add_run(entry, run, defaults, position)
        return position


def _read_defaults(fields: Fields, present: int, defaults: SampleDefaults) -> SampleDefaults:
    """Read the optional fields of a ``tfhd``, which take the place of ``trex``."""
    return SampleDefaults(
        description=fields.unsigned(4) if present & _DESCRIPTION else defaults.description,
        duration=fields.unsigned(4) if present & _DEFAULT_DURATION else defaults.duration,
        size=fields.unsigned(4) if present & _DEFAULT_SIZE else defaults.size,
        flags=fields.unsigned(4) if present & _DEFAULT_FLAGS else defaults.flags,
    )


def read_decode_time(fields: Fields) -> int:
    """Return the decode time in a ``tfdt``; raises `MalformedMediaError`."""
    version, _ = fields.version_and_flags()
    return fields.unsigned(8 if version else 4)


def _read_run(fields: Fields) -> _Run:
    version, present = fields.version_and_flags()
    count = fields.unsigned(4)
    data_offset = fields.signed(4) if present & _DATA_OFFSET else None
    first_flags = fields.unsigned(4) if present & _FIRST_FLAGS else None
    columns = [bit for bit in (_DURATION, _SIZE, _FLAGS, _COMPOSITION) if present & bit]
    width = len(columns)
    if count > MAX_SAMPLES:
        raise MalformedMediaError(f"a run of {count} samples")
    data = fields.take(4 * width * count)
    values = struct.unpack(f">{width * count}I", data)
    by_bit = {bit: values[place::width] for place, bit in enumerate(columns)}
    composition = by_bit.get(_COMPOSITION)
    if composition is not None and version:
        composition = tuple(value - ((value & 0x8000_0000) << 1) for value in composition)
    return _Run(
        count,
        data_offset,
        first_flags,
        by_bit.get(_DURATION),
        by_bit.get(_SIZE),
        by_bit.get(_FLAGS),
        composition,
    )


def _add_run(entry: _FragmentTrack, run: _Run, defaults: SampleDefaults, position: int) -> int:
    """Add the samples of ``run``, which begin at ``position``; return where they end."""
    digest = entry.digests[defaults.description - 1]
    time = entry.next_time
    for index in range(run.count):
        size = defaults.size if run.sizes is None else run.sizes[index]
        duration = defaults.duration if run.durations is None else run.durations[index]
        flags = defaults.flags if run.flags is None else run.flags[index]
        if index == 0 and run.first_flags is not None:
            flags = run.first_flags
        composition = 0 if run.composition_offsets is None else run.composition_offsets[index]
        entry.builder.add(
            digest,
            offset=position,
            size=size,
            decode_time=time + entry.track.shift,
            duration=duration,
            composition_offset=composition,
            sync=not flags & _NON_SYNC,
        )
        time += duration
        position += size
    entry.next_time = time
    return position
