"""A small reader of flat MP4: what a player would make of the tables, sample by sample.

It knows nothing of `casfs.media`; it trusts the file, so what is wrong in it fails loudly.
"""

from __future__ import annotations

import struct
from itertools import accumulate

from msgspec import Struct


class FlatSample(Struct, frozen=True):
    """One sample as a player sees it."""

    position: int
    size: int
    decode_time: int
    """In the track's timescale, from 0."""
    presentation_time: int
    """In nanoseconds, on the movie's timeline."""
    sync: bool
    description: bytes
    """The sample entry."""


class FlatTrack(Struct, frozen=True):
    """One track."""

    handler: bytes
    timescale: int
    samples: list[FlatSample]
    shown: tuple[int, int]
    """From when to when the edit list shows it, nanoseconds."""
    offset_bits: int


def read_flat(head: bytes) -> tuple[list[FlatTrack], int]:
    """Return the tracks and the position of the media; ``head`` ends where the media begins."""
    boxes = _boxes(head)
    assert [kind for kind, _ in boxes] == [b"ftyp", b"moov", b"mdat"]
    moov = boxes[1][1]
    mvhd = _one(moov, b"mvhd")
    (movie_timescale,) = struct.unpack_from(">I", mvhd, 20)
    traks = [body for kind, body in _boxes(moov) if kind == b"trak"]
    return [_read_track(trak, movie_timescale) for trak in traks], len(head)


def _read_track(trak: bytes, movie_timescale: int) -> FlatTrack:
    mdia = _one(trak, b"mdia")
    handler = _one(mdia, b"hdlr")[8:12]
    (timescale,) = struct.unpack_from(">I", _one(mdia, b"mdhd"), 20)
    stbl = _one(_one(mdia, b"minf"), b"stbl")
    sizes = _words(_one(stbl, b"stsz"), 8)[1:]
    count = len(sizes)
    kinds = [kind for kind, _ in _boxes(stbl)]
    wide = b"co64" in kinds
    offsets = _one(stbl, b"co64" if wide else b"stco")
    positions = struct.unpack(f">{count}{'Q' if wide else 'I'}", offsets[8:])
    durations = _runs(_one(stbl, b"stts"))
    assert len(durations) == count
    composition = _runs(_one(stbl, b"ctts")) if b"ctts" in kinds else [0] * count
    assert len(composition) == count
    sync = set(_words(_one(stbl, b"stss"), 4)[1:]) if b"stss" in kinds else None
    entries = [
        struct.pack(">I", 8 + len(body)) + kind + body
        for kind, body in _boxes(_one(stbl, b"stsd")[8:])
    ]
    runs = list(zip(*[iter(_words(_one(stbl, b"stsc"), 4)[1:])] * 3, strict=True))
    assert all(per_chunk == 1 for _, per_chunk, _ in runs)
    shift, shown = _edits(_one(_one(trak, b"edts"), b"elst"), movie_timescale, timescale)
    samples = []
    for number, decode_time in zip(range(count), accumulate(durations, initial=0), strict=False):
        index = max(run for run in runs if run[0] <= number + 1)[2]
        ticks = decode_time + composition[number]
        samples.append(
            FlatSample(
                positions[number],
                sizes[number],
                decode_time,
                ticks * 10**9 // timescale + shift,
                sync is None or number + 1 in sync,
                entries[index - 1],
            )
        )
    return FlatTrack(handler, timescale, samples, shown, 64 if wide else 32)


def _edits(elst: bytes, movie_timescale: int, timescale: int) -> tuple[int, tuple[int, int]]:
    (count,) = struct.unpack_from(">I", elst, 4)
    begin = 0
    for number in range(count):
        duration, media_time, rate = struct.unpack_from(">QqI", elst, 8 + 20 * number)
        assert rate == 0x1_0000
        length = duration * 10**9 // movie_timescale
        if media_time == -1:
            begin += length
        else:
            shift = begin - media_time * 10**9 // timescale
            assert number == count - 1
            return shift, (begin, begin + length)
    raise AssertionError("an edit list that shows nothing")


def _boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    position = 0
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if size == 1:
            found.append((kind, b""))  # the media, which is not here
            assert position + 16 == len(data)
            break
        found.append((kind, data[position + 8 : position + size]))
        position += size
    return found


def _one(data: bytes, kind: bytes) -> bytes:
    (body,) = [body for found, body in _boxes(data) if found == kind]
    return body


def _words(body: bytes, start: int) -> list[int]:
    return list(struct.unpack(f">{(len(body) - start) // 4}I", body[start:]))


def _runs(body: bytes) -> list[int]:
    words = _words(body, 8)
    pairs = zip(words[::2], words[1::2], strict=True)
    return [value for count, value in pairs for _ in range(count)]
