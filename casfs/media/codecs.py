"""Sample entries for tracks that a catalog describes: what ``stsd`` would say of them.

Made from a codec string (RFC 6381, WebCodecs registry) and the configuration record that a catalog
carries, which is kept verbatim. The boxes are those of ISO/IEC 14496-12 (8.5.2, 12.1.3, 12.2.3),
14496-14 (``mp4a``, ``esds``), 14496-15 (``avc1``, ``hvc1``), and of the MP4 bindings of AV1, VP9,
Opus and FLAC.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from casfs.media import avc
from casfs.media.boxes import MalformedMediaError, box, full_box
from casfs.media.descriptions import Kind, SampleDescription

if TYPE_CHECKING:
    from casfs.media.catalog import CatalogTrack

OPUS_RATE: Final = 48_000
"""The clock of Opus, whatever its input was."""

AAC_RATES: Final = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000),
    *(24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
)
"""Sampling frequencies by index (ISO/IEC 14496-3, table 1.18)."""

_DPI_72: Final = 0x48_0000
_NO_COLOUR_TABLE: Final = 0xFFFF
_DEPTH: Final = 24
_MAX_SIDE: Final = 0xFFFF
_MAX_CHANNELS: Final = 0xFFFF
_PIXEL: Final = 1 << 16
_PRE_SKIP: Final = 312
"""Samples that an Opus decoder drops first, where nobody says how many (RFC 7845, section 4.2)."""
_AV1_CODEC: Final = re.compile(
    r"av01\.(?P<profile>[0-2])\.(?P<level>[0-2][0-9]|3[01])(?P<tier>[MH])\.(?P<depth>08|10|12)"
)
_OPUS_HEAD: Final = b"OpusHead"
_OPUS_HEAD_BYTES: Final = 19


def describe(track: CatalogTrack) -> SampleDescription:
    """Return the sample description that the catalog gives ``track``.

    Raises:
        MalformedMediaError: the codec is not known here, or the catalog says too little or
            nonsense; the message says which. Annex-B H.264 and AAC with ADTS headers describe
            themselves: see `casfs.media.frames`.
    """
    family = track.codec.split(".")[0].lower()
    maker = _MAKERS.get(family)
    if maker is None:
        raise MalformedMediaError(f"the codec {track.codec[:40]!r} is not known")
    kind, make = maker
    if kind is not track.kind:
        raise MalformedMediaError(f"{track.codec[:40]!r} is not a codec of {track.kind}")
    return make(track)


def avc_description(
    record: bytes, *, in_band: bool, width: int = 0, height: int = 0
) -> SampleDescription:
    """Return the description for an AVCDecoderConfigurationRecord.

    ``in_band`` says that parameter sets also stand in the samples (``avc3``). Width and height
    are those of the record, if it has them.

    Raises:
        MalformedMediaError: the record does not hold together.
    """
    avc.length_size(record)
    parameters = avc.first_sequence_parameters(record)
    if parameters is not None:
        width, height = parameters.width, parameters.height
    return _video(b"avc3" if in_band else b"avc1", width, height, box(b"avcC", record))


def aac_description(config: bytes, rate: int, channels: int) -> SampleDescription:
    """Return the description for an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1)."""
    specific = _descriptor(0x05, config)
    # Decoder configuration: MPEG-4 audio, an audio stream, buffer and bitrates not told.
    decoder = _descriptor(0x04, b"\x40\x15" + bytes(11) + specific)
    stream = _descriptor(0x03, b"\0\0\0" + decoder + _descriptor(0x06, b"\x02"))
    return _audio(b"mp4a", rate, channels, full_box(b"esds", stream))


def aac_config(object_type: int, rate: int, channels: int) -> bytes:
    """Return the AudioSpecificConfig of plain AAC (object types 1 to 4).

    Raises:
        MalformedMediaError: what it cannot say so shortly.
    """
    if not 1 <= object_type <= 4:
        raise MalformedMediaError(f"AAC of object type {object_type} without a description")
    if rate not in AAC_RATES or not 1 <= channels <= 8 or channels == 7:
        raise MalformedMediaError(f"AAC of {rate} Hz and {channels} channels")
    layout = 7 if channels == 8 else channels
    bits = object_type << 11 | AAC_RATES.index(rate) << 7 | layout << 3
    return bits.to_bytes(2, "big")


def _avc(track: CatalogTrack) -> SampleDescription:
    record = _record(track)
    in_band = track.codec.lower().startswith("avc3")
    return avc_description(record, in_band=in_band, width=track.width, height=track.height)


def _hevc(track: CatalogTrack) -> SampleDescription:
    kind = b"hev1" if track.codec.lower().startswith("hev1") else b"hvc1"
    return _video(kind, track.width, track.height, box(b"hvcC", _record(track)))


def _av1(track: CatalogTrack) -> SampleDescription:
    record = track.description or _av1_record(track.codec)
    return _video(b"av01", track.width, track.height, box(b"av1C", record))


def _av1_record(codec: str) -> bytes:
    """Make the record of 4:2:0 from av01.PROFILE.LEVEL.DEPTH: key frames bring what else is needed.

    AV1 binding, sections 2.3 (the record) and 5 (the codec string).
    """
    match = _AV1_CODEC.match(codec)
    if match is None:
        raise MalformedMediaError(f"the codec {codec[:40]!r} without a description")
    depth = {"08": 0, "10": 0x40, "12": 0x60}[match["depth"]]
    tier = 0x80 if match["tier"] == "H" else 0
    level = int(match["profile"]) << 5 | int(match["level"])
    return bytes([0x81, level, tier | depth | 0x0C, 0])


def _vp9(track: CatalogTrack) -> SampleDescription:
    """Read the codec string of the VP9 binding: vp09.PROFILE.LEVEL.DEPTH and what may follow."""
    try:
        profile, level, depth, *more = (int(part) for part in track.codec.split(".")[1:9])
    except ValueError:
        raise MalformedMediaError(f"the codec {track.codec[:40]!r} says too little") from None
    subsampling, primaries, transfer, matrix, full_range = (*more, *(1, 1, 1, 1, 0)[len(more) :])
    sampling = depth << 4 | subsampling << 1 | full_range
    values = (profile, level, sampling, primaries, transfer, matrix, 0, 0)
    if not all(0 <= value <= 0xFF for value in values):
        raise MalformedMediaError(f"the codec {track.codec[:40]!r} cannot be")
    return _video(b"vp09", track.width, track.height, full_box(b"vpcC", bytes(values), version=1))


def _aac(track: CatalogTrack) -> SampleDescription:
    config = track.description
    if not config:
        name, _, rest = track.codec.partition(".40.")
        if not rest.isdigit() or len(rest) > 2:
            raise MalformedMediaError(f"the codec {name[:40]!r} without a description")
        config = aac_config(int(rest), track.sample_rate, track.channels)
    return aac_description(config, track.sample_rate, track.channels)


def _opus(track: CatalogTrack) -> SampleDescription:
    """``dOps`` is an OpusHead with its integers turned round (RFC 7845, section 5.1)."""
    head = track.description or b""
    if head.startswith(_OPUS_HEAD):
        if len(head) < _OPUS_HEAD_BYTES:
            raise MalformedMediaError("an OpusHead that ends early")
        _, channels, skip, rate, gain, family = struct.unpack_from("<BBHIhB", head, 8)
        mapping = head[_OPUS_HEAD_BYTES:] if family else b""
    else:
        channels, skip, rate = track.channels, _PRE_SKIP, track.sample_rate
        gain, family, mapping = 0, 0, b""
    if not 0 < channels <= (0xFF if family else 2):
        raise MalformedMediaError(f"Opus of {channels} channels")
    body = struct.pack(">BBHIhB", 0, channels, skip, rate, gain, family) + mapping
    return _audio(b"Opus", OPUS_RATE, channels, box(b"dOps", body))


def _flac(track: CatalogTrack) -> SampleDescription:
    header = _record(track)
    blocks = header.removeprefix(b"fLaC")
    return _audio(b"fLaC", track.sample_rate, track.channels, full_box(b"dfLa", blocks))


def _record(track: CatalogTrack) -> bytes:
    if not track.description:
        raise MalformedMediaError(f"the codec {track.codec[:40]!r} without a description")
    return track.description


_MAKERS: Final = {
    "avc1": (Kind.VIDEO, _avc),
    "avc3": (Kind.VIDEO, _avc),
    "hvc1": (Kind.VIDEO, _hevc),
    "hev1": (Kind.VIDEO, _hevc),
    "av01": (Kind.VIDEO, _av1),
    "vp09": (Kind.VIDEO, _vp9),
    "mp4a": (Kind.AUDIO, _aac),
    "opus": (Kind.AUDIO, _opus),
    "flac": (Kind.AUDIO, _flac),
}


def _entry(kind: bytes, *parts: bytes) -> bytes:
    return box(kind, bytes(6), b"\0\1", *parts)


def _video(kind: bytes, width: int, height: int, *boxes: bytes) -> SampleDescription:
    """Make a VisualSampleEntry (12.1.3)."""
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise MalformedMediaError(f"a picture of {width}x{height}")
    head = struct.pack(">16xHHIIIH32xHH", width, height, _DPI_72, _DPI_72, 0, 1, _DEPTH, 0xFFFF)
    entry = _entry(kind, head, *boxes)
    return SampleDescription(Kind.VIDEO, entry, width * _PIXEL, height * _PIXEL)


def _audio(kind: bytes, rate: int, channels: int, *boxes: bytes) -> SampleDescription:
    """Make an AudioSampleEntry (12.2.3); a rate beyond its field is 0: the codec's record knows."""
    if rate <= 0 or not 0 < channels <= _MAX_CHANNELS:
        raise MalformedMediaError(f"sound of {rate} Hz and {channels} channels")
    shown = rate << 16 if rate <= 0xFFFF else 0
    head = struct.pack(">8xHHHHI", channels, 16, 0, 0, shown)
    return SampleDescription(Kind.AUDIO, _entry(kind, head, *boxes))


def _descriptor(tag: int, body: bytes) -> bytes:
    """Make a descriptor of ISO/IEC 14496-1 (8.3.3), its size in four groups of seven bits."""
    size = len(body)
    groups = [0x80 | size >> shift & 0x7F for shift in (21, 14, 7)]
    return bytes([tag, *groups, size & 0x7F]) + body
