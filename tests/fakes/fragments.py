"""Init segments and fragments made by hand, box by box, for tests that need no codec."""

from __future__ import annotations

import struct

from msgspec import Struct

from casfs.media.boxes import box, full_box

VIDEO, AUDIO = b"vide", b"soun"
NON_SYNC = 0x0101_0000
SYNC = 0x0200_0000


class Sample(Struct, frozen=True):
    """A sample of a run; None is left to the defaults."""

    data: bytes
    duration: int = 512
    flags: int = NON_SYNC
    composition_offset: int = 0


def sample_entry(codec: bytes = b"avc1", body: bytes = b"its configuration") -> bytes:
    """Return a sample entry that nobody could decode."""
    return box(codec, bytes(6), b"\0\1", body)


def trak(
    number: int,
    handler: bytes = VIDEO,
    *,
    timescale: int = 12800,
    entries: tuple[bytes, ...] = (sample_entry(),),
    edits: tuple[tuple[int, int], ...] = (),
    version: int = 0,
) -> bytes:
    """Return a ``trak``; ``edits`` are (duration in milliseconds, media time)."""
    wide = ">QQ" if version else ">II"
    length = ">Q" if version else ">I"
    tkhd = struct.pack(wide, 0, 0) + struct.pack(">I4x", number) + struct.pack(length, 0)
    tkhd += bytes(16) + bytes(36) + struct.pack(">II", 320 << 16, 180 << 16)
    mdhd = struct.pack(wide, 0, 0) + struct.pack(">I", timescale) + struct.pack(length, 0)
    stsd = full_box(b"stsd", struct.pack(">I", len(entries)), *entries)
    edit = ">QqI" if version else ">IiI"
    elst = [struct.pack(edit, duration, time, 0x1_0000) for duration, time in edits]
    edts = box(b"edts", full_box(b"elst", struct.pack(">I", len(edits)), *elst, version=version))
    return box(
        b"trak",
        full_box(b"tkhd", tkhd, version=version),
        edts if edits else b"",
        box(
            b"mdia",
            full_box(b"mdhd", mdhd, bytes(4), version=version),
            full_box(b"hdlr", bytes(4), handler, bytes(13)),
            box(b"minf", box(b"stbl", stsd)),
        ),
    )


def trex(number: int, *, duration: int = 0, size: int = 0, flags: int = 0) -> bytes:
    """Return the defaults of a track."""
    return full_box(b"trex", struct.pack(">5I", number, 1, duration, size, flags))


def init(*traks: bytes, defaults: tuple[bytes, ...] = ()) -> bytes:
    """Return ``ftyp`` and ``moov`` with a movie timescale of milliseconds."""
    mvhd = full_box(b"mvhd", struct.pack(">IIII", 0, 0, 1000, 0), bytes(80))
    moov = box(b"moov", mvhd, *traks, box(b"mvex", *defaults))
    return box(b"ftyp", b"isom", bytes(4)) + moov


def fragment(
    number: int,
    decode_time: int,
    *samples: Sample,
    tfhd_flags: int = 0x02_0000,
    tfhd_fields: bytes = b"",
    trun_flags: int = 0xF01,
    first_flags: int = SYNC,
    version: int = 1,
    wide: bool = True,
) -> bytes:
    """Return ``moof`` + ``mdat`` with one run; which fields it has is told by the flags."""

    def moof(data_offset: int) -> bytes:
        fields = [struct.pack(">I", len(samples))]
        if trun_flags & 0x1:
            fields.append(struct.pack(">i", data_offset))
        if trun_flags & 0x4:
            fields.append(struct.pack(">I", first_flags))
        for sample in samples:
            values = (sample.duration, len(sample.data), sample.flags)
            for bit, value in zip((0x100, 0x200, 0x400), values, strict=True):
                if trun_flags & bit:
                    fields.append(struct.pack(">I", value))
            if trun_flags & 0x800:
                code = ">i" if version else ">I"
                fields.append(struct.pack(code, sample.composition_offset))
        tfhd = struct.pack(">I", number) + tfhd_fields
        time = struct.pack(">Q" if wide else ">I", decode_time)
        traf = box(
            b"traf",
            full_box(b"tfhd", tfhd, flags=tfhd_flags),
            full_box(b"tfdt", time, version=int(wide)),
            full_box(b"trun", *fields, version=version, flags=trun_flags),
        )
        return box(b"moof", full_box(b"mfhd", bytes(4)), traf)

    size = len(moof(0))
    data = b"".join(sample.data for sample in samples)
    return moof(size + 8) + box(b"mdat", data)


def inner_samples(payload: bytes, offsets: list[int], sizes: list[int]) -> list[bytes]:
    """Return what a table points to."""
    return [payload[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]
