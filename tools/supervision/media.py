"""Fragments that can be taken apart and not be decoded: for a soak that films nothing."""

from __future__ import annotations

import os
import struct
from typing import Final

from casfs.media.boxes import box, full_box

_TIMESCALE: Final = 1000
_SAMPLES: Final = 5
_WITH_SIZES: Final = 0x0201  # trun: data offset and sample sizes are there (section 8.8.8)
_BASE_IS_MOOF: Final = 0x02_0000


def init_segment() -> bytes:
    """Return ``ftyp`` and ``moov`` of one picture track (ISO/IEC 14496-12)."""
    entry = box(b"avc1", bytes(6), b"\0\1", b"its configuration")
    track = box(
        b"trak",
        full_box(b"tkhd", struct.pack(">II4xI4x", 0, 0, 1)[:20] + bytes(52) + bytes(8)),
        box(
            b"mdia",
            full_box(b"mdhd", struct.pack(">IIII", 0, 0, _TIMESCALE, 0), bytes(4)),
            full_box(b"hdlr", bytes(4), b"vide", bytes(13)),
            box(b"minf", box(b"stbl", full_box(b"stsd", struct.pack(">I", 1), entry))),
        ),
    )
    mvhd = full_box(b"mvhd", struct.pack(">IIII", 0, 0, _TIMESCALE, 0), bytes(80))
    defaults = full_box(b"trex", struct.pack(">5I", 1, 1, 100, 0, 0))
    return box(b"ftyp", b"isom", bytes(4)) + box(b"moov", mvhd, track, box(b"mvex", defaults))


def fragment(number: int, size: int, milliseconds: int) -> bytes:
    """Return fragment ``number``: ``moof`` and ``mdat`` of about ``size`` random bytes."""
    sizes = [size // _SAMPLES] * _SAMPLES

    def moof(data_offset: int) -> bytes:
        run = struct.pack(">Ii", _SAMPLES, data_offset) + struct.pack(f">{_SAMPLES}I", *sizes)
        return box(
            b"moof",
            full_box(b"mfhd", struct.pack(">I", number & 0xFFFF_FFFF)),
            box(
                b"traf",
                full_box(b"tfhd", struct.pack(">I", 1), flags=_BASE_IS_MOOF),
                full_box(b"tfdt", struct.pack(">Q", number * milliseconds), version=1),
                full_box(b"trun", run, flags=_WITH_SIZES),
            ),
        )

    return moof(len(moof(0)) + 8) + box(b"mdat", os.urandom(sum(sizes)))
