"""Writes the head of a flat MP4: ``ftyp`` and a ``moov`` with complete sample tables.

Boxes of ISO/IEC 14496-12, sections 8.2 to 8.6. Each sample is a chunk of its own: in an archive of
fragments nearly every one is, and `stsc` stays a line. Columns become box bodies as a whole; there
is no object for a sample.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.media.boxes import box, full_box, large_header
from casfs.media.descriptions import Kind, SampleDescription
from casfs.timestamps import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

MOVIE_TIMESCALE: Final = 1_000_000
"""In which edits and the whole movie are told."""

_MAC_EPOCH: Final = 2_082_844_800
"""Seconds from 1904, where times in MP4 begin, to 1970."""
_MATRIX: Final = struct.pack(">9I", 0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000)
_UNDETERMINED: Final = 0x55C4
"""The language ``und``, five bits a letter."""
_ENABLED_IN_MOVIE: Final = 3
_NORMAL_RATE: Final = 0x1_0000
_MAX_OFFSET_32: Final = 1 << 32


class Runs:
    """Pairs of count and value, as ``stts``, ``ctts`` and ``stsc`` have them."""

    def __init__(self) -> None:
        self.counts = array("I")
        self.values = array("q")

    def add(self, value: int, count: int = 1) -> None:
        """Add ``count`` times ``value``."""
        if self.values and self.values[-1] == value:
            self.counts[-1] += count
        else:
            self.counts.append(count)
            self.values.append(value)


class Edit(Struct, frozen=True):
    """One entry of an edit list (8.6.6)."""

    duration: int
    """In the movie's timescale."""
    media_time: int
    """In the track's timescale; -1 shows nothing."""


class MovieTrackTables(Struct, frozen=True, kw_only=True):
    """Everything that a ``trak`` says."""

    kind: Kind
    timescale: int
    duration: int
    """Of the media, in the track's timescale."""
    descriptions: tuple[SampleDescription, ...]
    sizes: array[int]
    """``I``: bytes of each sample."""
    positions: array[int]
    """``Q``: where each sample begins, from the first byte of the ``mdat``'s body."""
    durations: Runs
    composition_offsets: Runs
    """Never negative."""
    sync: array[int] | None
    """``I``: numbers, from 1, of the samples where decoding can begin; None if it can at all."""
    description_runs: Runs
    """Index into ``descriptions``, from 1, of each sample."""
    edits: tuple[Edit, ...]


def write_head(tracks: Sequence[MovieTrackTables], media_size: int, created: int) -> bytes:
    """Return everything before the media: ``ftyp``, ``moov`` and the header of the ``mdat``.

    ``media_size`` are the bytes of the ``mdat``'s body, ``created`` the recording's begin in
    nanoseconds since the Unix epoch. Offsets have 64 bits where 32 do not suffice.
    """
    file_type = box(b"ftyp", b"isom", (0x200).to_bytes(4, "big"), b"isomiso6mp41")
    media_header = large_header(b"mdat", media_size)
    for wide in (False, True):
        moov = _Moov(tracks, created, wide=wide)
        base = len(file_type) + moov.size + len(media_header)
        if wide or base + media_size < _MAX_OFFSET_32:
            return b"".join([file_type, moov.write(base), media_header])
    raise AssertionError("64-bit offsets always suffice")


class InitTrack(Struct, frozen=True):
    """A track of an init segment."""

    description: SampleDescription
    timescale: int


def write_init(tracks: Sequence[InitTrack]) -> bytes:
    """Return an init segment: ``ftyp`` and a ``moov`` without samples, to be extended by fragments.

    The tracks are numbered from 1; each has its one sample description (8.8.1 to 8.8.3).
    """
    tables = [
        MovieTrackTables(
            kind=track.description.kind,
            timescale=track.timescale,
            duration=0,
            descriptions=(track.description,),
            sizes=array("I"),
            positions=array("Q"),
            durations=Runs(),
            composition_offsets=Runs(),
            sync=None,
            description_runs=Runs(),
            edits=(),
        )
        for track in tracks
    ]
    extends = [
        full_box(b"trex", struct.pack(">5I", number, 1, 0, 0, 0))
        for number in range(1, len(tracks) + 1)
    ]
    moov = _Moov(tables, 0, wide=False, extends=box(b"mvex", *extends))
    return box(b"ftyp", b"iso6", bytes(4), b"iso6mp41") + moov.write(0)


class _Moov:
    """A ``moov`` whose size is known before the offsets in it are."""

    def __init__(
        self,
        tracks: Sequence[MovieTrackTables],
        created: int,
        *,
        wide: bool,
        extends: bytes = b"",
    ) -> None:
        self._extends = extends
        self._tracks = tracks
        self._wide = wide
        self._created = max(0, created // NANOSECONDS + _MAC_EPOCH)
        self._head = self._movie_header()
        self._traks = [self._trak(number, track) for number, track in enumerate(tracks, 1)]
        width = 8 if wide else 4
        self._offset_sizes = [16 + width * len(track.positions) for track in tracks]
        content = len(self._head) + len(extends)
        for parts, offsets in zip(self._traks, self._offset_sizes, strict=True):
            content += _wrapped_size(parts, offsets)
        self.size = 8 + content

    def write(self, base: int) -> bytes:
        """Return the box; the ``mdat``'s body begins at ``base`` in the file."""
        traks = []
        for track, parts in zip(self._tracks, self._traks, strict=True):
            offsets = array("Q" if self._wide else "I", map(base.__add__, track.positions))
            name = b"co64" if self._wide else b"stco"
            body = full_box(name, _word(len(offsets)), _big_endian(offsets))
            traks.append(_wrap(parts, body))
        return box(b"moov", self._head, *traks, self._extends)

    def _movie_header(self) -> bytes:
        duration = max((_edited_duration(track) for track in self._tracks), default=0)
        times = struct.pack(">QQIQ", self._created, self._created, MOVIE_TIMESCALE, duration)
        rest = struct.pack(">IHH8x", _NORMAL_RATE, 0x100, 0) + _MATRIX + bytes(24)
        return full_box(b"mvhd", times, rest, _word(len(self._tracks) + 1), version=1)

    def _trak(self, number: int, track: MovieTrackTables) -> _TrakParts:
        video = track.kind is Kind.VIDEO
        first = track.descriptions[0]
        created = struct.pack(">QQ", self._created, self._created)
        place = struct.pack(">I4xQ8x", number, _edited_duration(track))
        # Layer, group of alternatives, and volume.
        role = struct.pack(">HHHH", 0, 0, 0, 0) if video else struct.pack(">HHHH", 0, 1, 0x100, 0)
        shown = struct.pack(">II", first.width, first.height)
        head = (created, place, role, _MATRIX, shown)
        length = struct.pack(">IQ", track.timescale, track.duration)
        language = struct.pack(">HH", _UNDETERMINED, 0)
        handler, name = (b"vide", b"Video\0") if video else (b"soun", b"Sound\0")
        reference = full_box(b"dref", _word(1), full_box(b"url ", flags=1))
        media = full_box(b"vmhd", bytes(8), flags=1) if video else full_box(b"smhd", bytes(4))
        return _TrakParts(
            track=full_box(b"tkhd", *head, version=1, flags=_ENABLED_IN_MOVIE)
            + _edit_list(track.edits),
            media=full_box(b"mdhd", created, length, language, version=1)
            + full_box(b"hdlr", bytes(4), handler, bytes(12), name),
            information=media + box(b"dinf", reference),
            table=_sample_table(track),
        )


class _TrakParts(Struct, frozen=True):
    """What stands in a ``trak`` and, nested, its ``mdia``, ``minf`` and ``stbl``."""

    track: bytes
    media: bytes
    information: bytes
    table: bytes


def _wrap(parts: _TrakParts, offsets: bytes) -> bytes:
    table = box(b"stbl", parts.table, offsets)
    information = box(b"minf", parts.information, table)
    return box(b"trak", parts.track, box(b"mdia", parts.media, information))


def _wrapped_size(parts: _TrakParts, offsets: int) -> int:
    contents = (parts.track, parts.media, parts.information, parts.table)
    return offsets + sum(8 + len(content) for content in contents)


def _edited_duration(track: MovieTrackTables) -> int:
    return sum(edit.duration for edit in track.edits)


def _edit_list(edits: tuple[Edit, ...]) -> bytes:
    if not edits:
        return b""
    entries = [struct.pack(">QqI", edit.duration, edit.media_time, _NORMAL_RATE) for edit in edits]
    return box(b"edts", full_box(b"elst", _word(len(edits)), *entries, version=1))


def _sample_table(track: MovieTrackTables) -> bytes:
    """Return the boxes of the ``stbl`` but for the offsets."""
    entries = [description.local_entry() for description in track.descriptions]
    boxes = [full_box(b"stsd", _word(len(entries)), *entries), _run_box(b"stts", track.durations)]
    if any(track.composition_offsets.values):
        boxes.append(_run_box(b"ctts", track.composition_offsets))
    if track.sync is not None:
        boxes.append(full_box(b"stss", _word(len(track.sync)), _big_endian(track.sync)))
    chunks = []
    chunk = 1
    for count, index in zip(
        track.description_runs.counts, track.description_runs.values, strict=True
    ):
        chunks.append(struct.pack(">III", chunk, 1, index))
        chunk += count
    boxes.append(full_box(b"stsc", _word(len(chunks)), *chunks))
    sizes = _big_endian(track.sizes)
    boxes.append(full_box(b"stsz", _word(0), _word(len(track.sizes)), sizes))
    return b"".join(boxes)


def _run_box(kind: bytes, runs: Runs) -> bytes:
    pairs = array("I", bytes(8 * len(runs.counts)))
    pairs[::2] = runs.counts
    pairs[1::2] = array("I", runs.values)
    return full_box(kind, _word(len(runs.counts)), _big_endian(pairs))


def _word(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _big_endian(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        return values.tobytes()
    swapped = values[:]
    swapped.byteswap()
    return swapped.tobytes()
