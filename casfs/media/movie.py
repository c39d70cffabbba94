"""The init segment of fragmented MP4: what its ``moov`` says about the tracks.

Reads moov/mvhd, trak/tkhd, edts/elst, mdia/mdhd/hdlr, stbl/stsd and mvex/trex (ISO/IEC 14496-12,
sections 8.2 to 8.8). Sample entries are kept verbatim. Tracks that are neither video nor audio are
left out.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from casfs.media.boxes import (
    Box,
    Fields,
    MalformedMediaError,
    children,
    find,
    require,
    walk,
)
from casfs.media.descriptions import Kind, SampleDescription, check_entry
from casfs.media.samples import MAX_TIMESCALE

MAX_TRACKS: Final = 64
MAX_DESCRIPTIONS: Final = 64
"""Sample entries in one track."""

_MAX_EDITS: Final = 64
_MAX_SHIFT: Final = 1 << 62
_EMPTY_EDIT: Final = -1
_HANDLERS: Final = {b"vide": Kind.VIDEO, b"soun": Kind.AUDIO}


class SampleDefaults(Struct, frozen=True):
    """What holds for a sample whose fragment does not say otherwise (``trex``, 8.8.3)."""

    description: int = 1
    """Index of the sample entry, from 1."""
    duration: int = 0
    size: int = 0
    flags: int = 0


class MovieTrack(Struct, frozen=True):
    """One track of an init segment."""

    id: int
    """The track_ID by which fragments name it."""
    position: int
    """Among the tracks of its kind, from 0."""
    timescale: int
    descriptions: tuple[SampleDescription, ...]
    shift: int
    """What its edit list adds to the presentation time of each sample, in ticks."""
    defaults: SampleDefaults


class Movie(Struct, frozen=True):
    """An init segment."""

    tracks: tuple[MovieTrack, ...]

    def track(self, number: int) -> MovieTrack | None:
        """Return the track with the track_ID ``number``."""
        return next((track for track in self.tracks if track.id == number), None)


def read_movie(data: bytes) -> Movie:
    """Return the first ``moov`` in ``data``, an init segment (``ftyp`` + ``moov``).

    Raises:
        MalformedMediaError: there is none, or it does not hold together.
    """
    for box in walk(data, outermost=True):
        if box.kind == b"moov":
            return read_movie_box(data, box)
    raise MalformedMediaError("no moov in the init segment")


def read_movie_box(data: bytes, moov: Box) -> Movie:
    """Return what the box ``moov`` in ``data`` says.

    Raises:
        MalformedMediaError: it does not hold together.
    """
    if not moov.whole:
        raise MalformedMediaError("the moov is cut short")
    timescale = _timescale(data, require(data, moov, b"mvhd"))
    defaults = _read_defaults(data, moov)
    tracks: list[MovieTrack] = []
    for box in children(data, moov):
        if box.kind != b"trak":
            continue
        if len(tracks) == MAX_TRACKS:
            raise MalformedMediaError(f"more than {MAX_TRACKS} tracks")
        kind = _HANDLERS.get(_handler(data, require(data, box, b"mdia", b"hdlr")))
        if kind is not None:
            position = sum(track.descriptions[0].kind is kind for track in tracks)
            tracks.append(_read_track(data, box, kind, position, timescale, defaults))
    return Movie(tuple(tracks))


def _read_track(
    data: bytes,
    trak: Box,
    kind: Kind,
    position: int,
    movie_timescale: int,
    defaults: dict[int, SampleDefaults],
) -> MovieTrack:
    number, width, height = _read_track_header(data, require(data, trak, b"tkhd"))
    timescale = _timescale(data, require(data, trak, b"mdia", b"mdhd"))
    entries = _read_entries(data, require(data, trak, b"mdia", b"minf", b"stbl", b"stsd"))
    shown = (width, height) if kind is Kind.VIDEO else (0, 0)
    elst = find(data, trak, b"edts", b"elst")
    return MovieTrack(
        id=number,
        position=position,
        timescale=timescale,
        descriptions=tuple(SampleDescription(kind, entry, *shown) for entry in entries),
        shift=0 if elst is None else _read_shift(data, elst, timescale, movie_timescale),
        defaults=defaults.get(number, SampleDefaults()),
    )


def _timescale(data: bytes, header: Box) -> int:
    """Read it from an ``mvhd`` (8.2.2) or ``mdhd`` (8.4.2), which begin alike."""
    fields = Fields(data, header)
    version, _ = fields.version_and_flags()
    fields.skip(16 if version else 8)
    timescale = fields.unsigned(4)
    if not 0 < timescale <= MAX_TIMESCALE:
        raise MalformedMediaError(f"a timescale of {timescale}")
    return timescale


def _handler(data: bytes, hdlr: Box) -> bytes:
    fields = Fields(data, hdlr)
    fields.skip(8)
    return fields.take(4)


def _read_track_header(data: bytes, tkhd: Box) -> tuple[int, int, int]:
    """Return track_ID, width and height (8.3.2)."""
    fields = Fields(data, tkhd)
    version, _ = fields.version_and_flags()
    fields.skip(16 if version else 8)
    number = fields.unsigned(4)
    fields.skip(4 + (8 if version else 4) + 16 + 36)
    return number, fields.unsigned(4), fields.unsigned(4)


def _read_entries(data: bytes, stsd: Box) -> list[bytes]:
    entries = [data[box.start : box.end] for box in children(data, stsd, skip=8)]
    if not 0 < len(entries) <= MAX_DESCRIPTIONS:
        raise MalformedMediaError(f"{len(entries)} sample entries")
    return [check_entry(entry) for entry in entries]


def _read_shift(data: bytes, elst: Box, timescale: int, movie_timescale: int) -> int:
    """Return what the edits up to the first one that shows media add (8.6.6)."""
    fields = Fields(data, elst)
    version, _ = fields.version_and_flags()
    length = 8 if version else 4
    empty = 0
    for _ in range(min(fields.unsigned(4), _MAX_EDITS)):
        duration, media_time = fields.unsigned(length), fields.signed(length)
        fields.skip(4)
        if media_time != _EMPTY_EDIT:
            shift = empty * timescale // movie_timescale - media_time
            if abs(shift) > _MAX_SHIFT:
                raise MalformedMediaError(f"an edit at {media_time}")
            return shift
        empty += duration
    return 0


def _read_defaults(data: bytes, moov: Box) -> dict[int, SampleDefaults]:
    mvex = find(data, moov, b"mvex")
    if mvex is None:
        return {}
    defaults = {}
    for box in children(data, mvex):
        if box.kind == b"trex":
            fields = Fields(data, box)
            fields.skip(4)
            number, *values = fields.words(5)
            defaults[number] = SampleDefaults(*values)
    return defaults
