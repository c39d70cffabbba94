"""The codec strings of RFC 6381 that sample descriptions stand for, as playlists need them.

H.264 and HEVC as ISO/IEC 14496-15 (annex E) has them, AAC as ISO/IEC 14496-3 in ``mp4a.40``, AV1
and VP9 as in their MP4 bindings. What cannot be read is its four-character code alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from casfs.media.boxes import Fields, MalformedMediaError, walk
from casfs.media.descriptions import Kind

if TYPE_CHECKING:
    from casfs.media.descriptions import SampleDescription

_VIDEO_FIELDS: Final = 86
_AUDIO_FIELDS: Final = 36
_DESCRIPTORS: Final = {0x03: 3, 0x04: 13}
"""Descriptors of ISO/IEC 14496-1 that hold others, and the bytes of their own before those."""
_SPECIFIC: Final = 0x05
_ESCAPE: Final = 31


def codec_string(description: SampleDescription) -> str:
    """Return the codec string, such as ``avc1.64001f``."""
    code = description.codec.decode("ascii", "replace")
    try:
        return _string(description, code)
    except (MalformedMediaError, IndexError):
        return code


def _string(description: SampleDescription, code: str) -> str:
    match code:
        case "avc1" | "avc3":
            return f"{code}.{_record(description, b'avcC')[1:4].hex()}"
        case "hvc1" | "hev1":
            return f"{code}.{_hevc(_record(description, b'hvcC'))}"
        case "av01":
            record = _record(description, b"av1C")
            depth = 8 if not record[2] & 0x40 else 12 if record[2] & 0x20 else 10
            tier = "H" if record[2] & 0x80 else "M"
            return f"av01.{record[1] >> 5}.{record[1] & 0x1F:02d}{tier}.{depth:02d}"
        case "vp09":
            record = _record(description, b"vpcC")
            return f"vp09.{record[4]:02d}.{record[5]:02d}.{record[6] >> 4:02d}"
        case "mp4a":
            return f"mp4a.40.{_object_type(_record(description, b'esds')[4:])}"
        case "Opus":
            return "opus"
        case "fLaC":
            return "flac"
    return code


def _record(description: SampleDescription, kind: bytes) -> bytes:
    """Return the body of a box in the sample entry."""
    entry = description.entry
    start = _VIDEO_FIELDS if description.kind is Kind.VIDEO else _AUDIO_FIELDS
    for box in walk(entry, start, outermost=True):
        if box.kind == kind:
            return Fields(entry, box).take(box.end - box.body)
    raise MalformedMediaError(f"no {kind!r} in the sample entry")


def _hevc(record: bytes) -> str:
    space = ("", "A", "B", "C")[record[1] >> 6]
    tier = "H" if record[1] & 0x20 else "L"
    compatible = int.from_bytes(record[2:6], "big")
    mirrored = int(f"{compatible:032b}"[::-1], 2)
    constraints = [f"{byte:X}" for byte in record[6:12].rstrip(b"\0")]
    return ".".join(
        [f"{space}{record[1] & 0x1F}", f"{mirrored:X}", f"{tier}{record[12]}", *constraints]
    )


def _object_type(data: bytes) -> int:
    """Return the audio object type in a chain of descriptors (ISO/IEC 14496-1, 7.2.6)."""
    at = 0
    while True:
        tag, at = data[at], at + 1
        while data[at] & 0x80:
            at += 1
        at += 1
        if tag == _SPECIFIC:
            kind = data[at] >> 3
            return kind if kind != _ESCAPE else 32 + ((data[at] & 7) << 3 | data[at + 1] >> 5)
        if tag not in _DESCRIPTORS:
            raise MalformedMediaError("no decoder configuration")
        at += _DESCRIPTORS[tag]
