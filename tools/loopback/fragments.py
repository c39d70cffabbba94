"""Cuts a fragmented MP4 stream, as ffmpeg writes it to a pipe, into what a publisher sends.

Bytes come in, in pieces of any size; the init segment (``ftyp`` + ``moov``) and the fragments
(``moof`` + ``mdat``) come out, byte for byte. Box and field names are those of ISO/IEC 14496-12.
No I/O, no clock. Only the shape that `tools.loopback.media` asks ffmpeg for is understood: one
track to a fragment, an init before the first one.
"""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = struct.Struct(">I4s")
_NON_SYNC = 0x0001_0000  # sample_is_non_sync_sample, section 8.8.3.1
_VIDEO_ENTRY = 78  # bytes of a VisualSampleEntry before its boxes


class FragmentError(ValueError):
    """The stream is not the fragmented MP4 that we asked for."""


class Track(msgspec.Struct, frozen=True):
    """One track of an init segment."""

    id: int
    kind: Literal["video", "audio"]
    timescale: int
    """Units of decode time in a second."""
    codec: str
    """As in RFC 6381, such as ``avc1.64001f``."""
    init: bytes
    """An init segment with this track alone."""
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0

    def rendition(self) -> dict[str, object]:
        """Describe this track as a hang catalog does."""
        init = base64.b64encode(self.init).decode()
        described: dict[str, object] = {
            "codec": self.codec,
            "container": {"kind": "cmaf", "init": init},
        }
        if self.kind == "video":
            return described | {"codedWidth": self.width, "codedHeight": self.height}
        return described | {"sampleRate": self.sample_rate, "numberOfChannels": self.channels}


class Init(msgspec.Struct, frozen=True):
    """The init segment: what every fragment needs to be decoded."""

    payload: bytes
    tracks: tuple[Track, ...]


class Fragment(msgspec.Struct, frozen=True):
    """One ``moof`` + ``mdat`` with samples of one track."""

    track: Track
    payload: bytes
    sync: bool
    """Whether decoding can begin at its first sample."""
    decode_time: int
    """Of its first sample, in units of the track's timescale."""
    presentation_time: int
    """Of its first sample, in microseconds."""


class FragmentReader:
    """Takes the bytes of a stream and gives its init and fragments as they become whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head = b""
        self._moof = b""
        self._tracks: dict[int, Track] = {}
        self._default_flags: dict[int, int] = {}

    def feed(self, data: bytes) -> Iterator[Init | Fragment]:
        """Take ``data`` and yield what it completed.

        Raises:
            FragmentError: the stream is not of the shape that we asked for.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            size, kind = _HEADER.unpack_from(self._buffer)
            if size < _HEADER.size:
                raise FragmentError(f"a {kind!r} box of {size} bytes at the top level")
            if len(self._buffer) < size:
                return
            box = bytes(self._buffer[:size])
            del self._buffer[:size]
            yield from self._take(kind, box)

    def _take(self, kind: bytes, box: bytes) -> Iterator[Init | Fragment]:
        match kind:
            case b"ftyp":
                self._head = box
            case b"moov":
                init = self._read_init(box)
                self._tracks = {track.id: track for track in init.tracks}
                yield init
            case b"moof":
                self._moof = box
            case b"mdat":
                if not self._moof:
                    raise FragmentError("media data before its moof")
                yield self._read_fragment(self._moof, self._moof + box)
                self._moof = b""
            case _:  # free, sidx, mfra: nothing that a subscriber needs
                pass

    def _read_init(self, moov: bytes) -> Init:
        traks = [box for kind, box in _children(moov) if kind == b"trak"]
        for trex in _find(moov, b"mvex", b"trex"):
            number, _, _, _, flags = struct.unpack_from(">5I", trex, 12)
            self._default_flags[number] = flags
        tracks = tuple(_read_track(trak, self._head + _only_track(moov, trak)) for trak in traks)
        return Init(self._head + moov, tracks)

    def _read_fragment(self, moof: bytes, payload: bytes) -> Fragment:
        trafs = [box for kind, box in _children(moof) if kind == b"traf"]
        if len(trafs) != 1:
            raise FragmentError(f"{len(trafs)} tracks in one fragment")
        (tfhd,) = _find(trafs[0], b"tfhd")
        (tfdt,) = _find(trafs[0], b"tfdt")
        (trun,) = _find(trafs[0], b"trun")
        number, flags = _read_tfhd(tfhd)
        if number not in self._tracks:
            raise FragmentError(f"a fragment of track {number}, which the init does not know")
        track = self._tracks[number]
        first_flags, composition_offset = _read_trun(trun)
        if first_flags is None:
            first_flags = self._default_flags.get(number, 0) if flags is None else flags
        decode_time = int.from_bytes(tfdt[12:])  # 4 or 8 bytes, by its version
        return Fragment(
            track,
            payload,
            not first_flags & _NON_SYNC,
            decode_time,
            (decode_time + composition_offset) * 1_000_000 // track.timescale,
        )


def _children(box: bytes, start: int = _HEADER.size) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and bytes of each box in ``box``, whose own fields end at ``start``."""
    while start + _HEADER.size <= len(box):
        size, kind = _HEADER.unpack_from(box, start)
        if not _HEADER.size <= size <= len(box) - start:
            raise FragmentError(f"a {kind!r} box of {size} bytes in {len(box) - start}")
        yield kind, box[start : start + size]
        start += size


def _find(box: bytes, *path: bytes) -> Iterator[bytes]:
    """Yield each box that lies at ``path`` in ``box``."""
    for kind, child in _children(box):
        if kind == path[0]:
            if len(path) == 1:
                yield child
            else:
                yield from _find(child, *path[1:])


def _only_track(moov: bytes, trak: bytes) -> bytes:
    """``moov`` without every track but ``trak``."""
    (tkhd,) = _find(trak, b"tkhd")
    number = _track_id(tkhd)
    kept = []
    for kind, box in _children(moov):
        if kind == b"mvex":
            defaults = [
                child
                for child_kind, child in _children(box)
                if child_kind != b"trex" or int.from_bytes(child[12:16]) == number
            ]
            kept.append(_box(b"mvex", *defaults))
        elif kind != b"trak" or box == trak:
            kept.append(box)
    return _box(b"moov", *kept)


def _box(kind: bytes, *children: bytes) -> bytes:
    body = b"".join(children)
    return _HEADER.pack(_HEADER.size + len(body), kind) + body


def _track_id(tkhd: bytes) -> int:
    return int.from_bytes(tkhd[28:32] if tkhd[8] else tkhd[20:24])


def _read_track(trak: bytes, init: bytes) -> Track:
    (tkhd,) = _find(trak, b"tkhd")
    (mdhd,) = _find(trak, b"mdia", b"mdhd")
    (stsd,) = _find(trak, b"mdia", b"minf", b"stbl", b"stsd")
    number = _track_id(tkhd)
    timescale = int.from_bytes(mdhd[28:32] if mdhd[8] else mdhd[20:24])
    kind, entry = next(_children(stsd, start=16))
    fields = entry[_HEADER.size :]
    if kind == b"avc1":
        width, height = struct.unpack_from(">HH", fields, 24)
        boxes = dict(_children(entry, start=_HEADER.size + _VIDEO_ENTRY))
        codec = "avc1." + boxes[b"avcC"][9:12].hex()
        return Track(number, "video", timescale, codec, init, width=width, height=height)
    if kind == b"mp4a":
        channels, _, _, rate = struct.unpack_from(">HHII", fields, 16)
        return Track(
            number,
            "audio",
            timescale,
            "mp4a.40.2",  # AAC-LC, the only profile that ffmpeg's own encoder was asked for
            init,
            sample_rate=rate >> 16,
            channels=channels,
        )
    raise FragmentError(f"a track of {kind!r}, neither H.264 nor AAC")


def _read_tfhd(tfhd: bytes) -> tuple[int, int | None]:
    """Return track id and default sample flags, where there are any (section 8.8.7)."""
    present, number = struct.unpack_from(">II", tfhd, _HEADER.size)
    if not present & 0x20:
        return number, None
    skipped = 8 * bool(present & 0x1) + 4 * sum(bool(present & bit) for bit in (0x2, 0x8, 0x10))
    return number, int.from_bytes(tfhd[16 + skipped : 20 + skipped])


def _read_trun(trun: bytes) -> tuple[int | None, int]:
    """Return flags (where there are any) and composition offset of the first sample (8.8.8)."""
    version = trun[8]
    present = int.from_bytes(trun[9:12])
    position = 16 + 4 * bool(present & 0x1)
    flags = None
    if present & 0x4:
        flags = int.from_bytes(trun[position : position + 4])
        position += 4
    position += 4 * sum(bool(present & bit) for bit in (0x100, 0x200))
    if present & 0x400:
        flags = int.from_bytes(trun[position : position + 4]) if flags is None else flags
        position += 4
    if not present & 0x800:
        return flags, 0
    return flags, int.from_bytes(trun[position : position + 4], signed=version > 0)
