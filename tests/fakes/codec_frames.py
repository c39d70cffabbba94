"""Turns fragments of ffmpeg into what publishers of codec frames send: hang legacy and LOC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.media.catalog import CatalogTrack, Container
from casfs.media.descriptions import Kind
from casfs.media.fragments import samples_of_fragments
from casfs.media.movie import read_movie

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.fakes.flat_media import Media


class CodecFrame(Struct, frozen=True):
    """A frame of a codec."""

    time: int
    """Of its presentation, microseconds."""
    sync: bool
    data: bytes


def varint(value: int) -> bytes:
    """Encode an integer of QUIC in eight bytes, or one where that does."""
    return bytes([value]) if value < 64 else (value | 0xC000_0000_0000_0000).to_bytes(8, "big")


def legacy(frame: CodecFrame) -> bytes:
    """Wrap a frame as hang does."""
    return varint(frame.time) + frame.data


def loc(frame: CodecFrame) -> bytes:
    """Wrap a frame with LOC properties: a timescale of milliseconds, bytes to skip, the time."""
    properties = varint(0x08) + varint(1000) + varint(0x05) + varint(3) + b"abc"
    properties += varint(0x03) + varint(frame.time // 1000)
    return varint(len(properties)) + properties + frame.data


def codec_frames(media: Media, kind: Kind) -> list[CodecFrame]:
    """Return the samples of one kind, in decode order."""
    movie = read_movie(media.init)
    found = []
    for payload in media.fragments:
        samples = samples_of_fragments(payload, movie)
        used = {item.digest for item in samples.descriptions if item.kind is kind}
        for table in samples.tables:
            if table.description in used:
                time = table.decode_time
                for number in range(len(table)):
                    start = table.offsets[number]
                    shown = time + table.composition_offsets[number]
                    found.append(
                        CodecFrame(
                            (shown * 2_000_000 + table.timescale) // (2 * table.timescale),
                            bool(table.sync[number]),
                            payload[start : start + table.sizes[number]],
                        )
                    )
                    time += table.durations[number]
    return found


def groups(frames: Sequence[CodecFrame]) -> list[list[CodecFrame]]:
    """Cut frames before each sync frame."""
    cut: list[list[CodecFrame]] = []
    for frame in frames:
        if frame.sync or not cut:
            cut.append([])
        cut[-1].append(frame)
    return cut


def box_body(media: Media, kind: bytes) -> bytes:
    """Return the body of the first box called ``kind``, wherever it is in the init."""
    place = media.init.index(kind)
    size = int.from_bytes(media.init[place - 4 : place], "big")
    return media.init[place + 4 : place - 4 + size]


def audio_config(media: Media) -> bytes:
    """Return the AudioSpecificConfig in the ``esds`` of ffmpeg."""
    esds = box_body(media, b"esds")
    place = esds.index(b"\x05\x80\x80\x80")
    return esds[place + 5 : place + 5 + esds[place + 4]]


def byte_stream(
    frame: CodecFrame, record: bytes, code: Callable[[int], bytes] = lambda _: b"\0\0\0\1"
) -> CodecFrame:
    """Turn NAL unit lengths into start codes, with parameter sets before each sync frame.

    ``code`` gives the start code of each NAL unit, by its number in the frame.
    """
    units = _parameter_sets(record) if frame.sync else []
    position = 0
    while position < len(frame.data):
        size = int.from_bytes(frame.data[position : position + 4], "big")
        units.append(frame.data[position + 4 : position + 4 + size])
        position += 4 + size
    data = b"".join(code(number) + unit for number, unit in enumerate(units))
    return CodecFrame(frame.time, frame.sync, data)


def adts(frame: CodecFrame, *, checksum: bool = False) -> CodecFrame:
    """Put an ADTS header for AAC-LC at 48 kHz and two channels before a frame."""
    size = len(frame.data) + (9 if checksum else 7)
    head = bytes([0xFF, 0xF0 if checksum else 0xF1, 1 << 6 | 3 << 2, 2 << 6 | size >> 11])
    head += bytes([size >> 3 & 0xFF, (size & 7) << 5 | 0x1F, 0xFC])
    return CodecFrame(frame.time, True, head + (b"\0\0" if checksum else b"") + frame.data)


def video_track(container: Container = Container.LEGACY, **members: object) -> CatalogTrack:
    """Describe a video track; ``members`` are those of `CatalogTrack`."""
    return _track(Kind.VIDEO, "avc1.64000d", container, members)


def audio_track(container: Container = Container.LEGACY, **members: object) -> CatalogTrack:
    """Describe an audio track of 48 kHz and two channels."""
    return _track(
        Kind.AUDIO, "mp4a.40.2", container, {"sample_rate": 48000, "channels": 2} | members
    )


def _track(
    kind: Kind, codec: str, container: Container, members: dict[str, object]
) -> CatalogTrack:
    given = {"name": kind.value, "kind": kind, "codec": codec, "container": container} | members
    return CatalogTrack(**given)  # type: ignore[arg-type]  # a test names them rightly


def _parameter_sets(record: bytes) -> list[bytes]:
    units = []
    position = 5
    for mask in (0x1F, 0xFF):
        count = record[position] & mask
        position += 1
        for _ in range(count):
            size = int.from_bytes(record[position : position + 2], "big")
            units.append(record[position + 2 : position + 2 + size])
            position += 2 + size
    return units
