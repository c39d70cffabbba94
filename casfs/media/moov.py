"""Writes the head of a flat MP4: ``ftyp`` and a ``moov`` with complete sample tables.

Boxes of ISO/IEC 14496-12, sections 8.2 to 8.6. Each sample is a chunk of its own: in an archive of
fragments nearly every one is, and `stsc` stays a line. Columns become box bodies a stretch at a
time: there is no object for a sample, and no second copy of a day's 60 MB.
"""

from __future__ import annotations

import struct
import sys
from array import array
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from casfs.media.boxes import box, full_box, header, large_header
from casfs.media.descriptions import Kind, SampleDescription
from casfs.timestamps import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
_STRETCH: Final = 1 << 16
"""Values of a column that are written at once."""


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


def write_head(tracks: Sequence[MovieTrackTables], media_size: int, created: int) -> memoryview:
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
            return _filled(base, chain((file_type,), moov.write(base), (media_header,)))
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
    return b"".join([box(b"ftyp", b"iso6", bytes(4), b"iso6mp41"), *moov.write(0)])


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
        self._traks = [
            _Box(b"trak", self._trak(number, track)) for number, track in enumerate(tracks, 1)
        ]
        self.size = 8 + len(self._head) + sum(trak.size for trak in self._traks) + len(extends)

    def write(self, base: int) -> Iterator[bytes]:
        """Yield the box in pieces; the ``mdat``'s body begins at ``base`` in the file."""
        yield header(b"moov", self.size)
        yield self._head
        for trak in self._traks:
            yield from trak.pieces(base)
        yield self._extends

    def _movie_header(self) -> bytes:
        duration = max((_edited_duration(track) for track in self._tracks), default=0)
        times = struct.pack(">QQIQ", self._created, self._created, MOVIE_TIMESCALE, duration)
        rest = struct.pack(">IHH8x", _NORMAL_RATE, 0x100, 0) + _MATRIX + bytes(24)
        return full_box(b"mvhd", times, rest, _word(len(self._tracks) + 1), version=1)

    def _trak(self, number: int, track: MovieTrackTables) -> tuple[bytes | _Piece, ...]:
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
        information = media + box(b"dinf", reference)
        table = _Box(b"stbl", _sample_table(track, wide=self._wide))
        about = full_box(b"mdhd", created, length, language, version=1)
        about += full_box(b"hdlr", bytes(4), handler, bytes(12), name)
        return (
            full_box(b"tkhd", *head, version=1, flags=_ENABLED_IN_MOVIE),
            _edit_list(track.edits),
            _Box(b"mdia", (about, _Box(b"minf", (information, table)))),
        )


class _Piece(Protocol):
    """Something of a ``moov`` that is written piece by piece."""

    @property
    def size(self) -> int:
        """Return its bytes."""

    def pieces(self, base: int) -> Iterator[bytes]:
        """Yield it; the ``mdat``'s body begins at ``base`` in the file."""


class _Box(Struct, frozen=True):
    """A box of boxes."""

    kind: bytes
    parts: tuple[bytes | _Piece, ...]

    @property
    def size(self) -> int:
        return 8 + sum(len(part) if isinstance(part, bytes) else part.size for part in self.parts)

    def pieces(self, base: int) -> Iterator[bytes]:
        yield header(self.kind, self.size)
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
            else:
                yield from part.pieces(base)


class _Column(Struct, frozen=True):
    """A FullBox whose body is one number for each sample."""

    kind: bytes
    fields: bytes
    """Before the numbers."""
    values: array[int]
    width: int
    """Bytes of a number."""
    from_media: bool = False
    """The numbers count from the first byte of the media, in the box from that of the file."""

    @property
    def size(self) -> int:
        return 12 + len(self.fields) + self.width * len(self.values)

    def pieces(self, base: int) -> Iterator[bytes]:
        yield header(self.kind, self.size) + bytes(4) + self.fields
        code = "Q" if self.width == 8 else "I"
        for start in range(0, len(self.values), _STRETCH):
            values = self.values[start : start + _STRETCH]
            if self.from_media:
                values = array(code, map(base.__add__, values))
            yield _big_endian(values)


class _RunColumn(Struct, frozen=True):
    """A FullBox whose body are pairs of count and value."""

    kind: bytes
    runs: Runs

    @property
    def size(self) -> int:
        return 16 + 8 * len(self.runs.counts)

    def pieces(self, base: int) -> Iterator[bytes]:  # noqa: ARG002
        yield header(self.kind, self.size) + bytes(4) + _word(len(self.runs.counts))
        for start in range(0, len(self.runs.counts), _STRETCH):
            counts = self.runs.counts[start : start + _STRETCH]
            pairs = array("I", bytes(8 * len(counts)))
            pairs[::2] = counts
            pairs[1::2] = array("I", self.runs.values[start : start + _STRETCH])
            yield _big_endian(pairs)


def _edited_duration(track: MovieTrackTables) -> int:
    return sum(edit.duration for edit in track.edits)


def _edit_list(edits: tuple[Edit, ...]) -> bytes:
    if not edits:
        return b""
    entries = [struct.pack(">QqI", edit.duration, edit.media_time, _NORMAL_RATE) for edit in edits]
    return box(b"edts", full_box(b"elst", _word(len(edits)), *entries, version=1))


def _sample_table(track: MovieTrackTables, *, wide: bool) -> tuple[bytes | _Piece, ...]:
    """Return the boxes of the ``stbl``."""
    entries = [description.local_entry() for description in track.descriptions]
    boxes: list[bytes | _Piece] = [
        full_box(b"stsd", _word(len(entries)), *entries),
        _RunColumn(b"stts", track.durations),
    ]
    if any(track.composition_offsets.values):
        boxes.append(_RunColumn(b"ctts", track.composition_offsets))
    if track.sync is not None:
        boxes.append(_Column(b"stss", _word(len(track.sync)), track.sync, 4))
    chunks = []
    chunk = 1
    for count, index in zip(
        track.description_runs.counts, track.description_runs.values, strict=True
    ):
        chunks.append(struct.pack(">III", chunk, 1, index))
        chunk += count
    number = _word(len(track.sizes))
    boxes += [
        full_box(b"stsc", _word(len(chunks)), *chunks),
        _Column(b"stsz", _word(0) + number, track.sizes, 4),
        _Column(b"co64", number, track.positions, 8, from_media=True)
        if wide
        else _Column(b"stco", number, track.positions, 4, from_media=True),
    ]
    return tuple(boxes)


def _filled(size: int, pieces: Iterable[bytes]) -> memoryview:
    """Return ``size`` bytes made of ``pieces``, which nobody can change any more."""
    data = bytearray(size)
    position = 0
    for piece in pieces:
        data[position : position + len(piece)] = piece
        position += len(piece)
    assert position == len(data) == size
    return memoryview(data).toreadonly()


def _word(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _big_endian(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        return values.tobytes()
    swapped = values[:]
    swapped.byteswap()
    return swapped.tobytes()
