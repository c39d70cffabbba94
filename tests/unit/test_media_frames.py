"""Sample tables of codec frames: times, headers, start codes, and what cannot be described."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from casfs.media.avc import split_byte_stream
from casfs.media.boxes import MalformedMediaError
from casfs.media.catalog import CatalogTrack, Container
from casfs.media.descriptions import Kind
from casfs.media.frames import samples_of_frames
from tests.fakes.codec_frames import CodecFrame, audio_track, legacy, loc, varint, video_track
from tests.fakes.fragments import inner_samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.media.samples import SampleTable

AVCC = bytes.fromhex(
    "01640015ffe1001967640015acd94141fb011000000300100000030320f162d96001000668ebe3cb22c0"
)
"""High profile, level 2.1, 320x240, as x264 writes it."""
SPS, PPS = AVCC[8:33], AVCC[36:42]


def frame(time: int, data: bytes) -> CodecFrame:
    return CodecFrame(time, False, data)


def only_table(
    frames: list[bytes], track: CatalogTrack, *, reason: str = ""
) -> tuple[bytes, SampleTable]:
    payload = b"".join(frames)
    found = samples_of_frames(payload, [len(part) for part in frames], track)
    assert found.reason == reason
    (table,) = found.tables
    assert [item.digest for item in found.descriptions] == [table.description]
    return payload, table


def data_of(payload: bytes, table: SampleTable) -> list[bytes]:
    return inner_samples(payload, list(table.offsets), list(table.sizes))


def picture(kind: int, data: bytes = b"slice") -> bytes:
    unit = bytes([kind]) + data
    return len(unit).to_bytes(4, "big") + unit


@pytest.mark.parametrize(
    ("container", "wrap"), [(Container.LEGACY, legacy), (Container.LOC, loc)], ids=["legacy", "loc"]
)
def test_a_sample_is_what_follows_the_header(
    container: Container, wrap: Callable[[CodecFrame], bytes]
) -> None:
    pictures = [picture(5), picture(1), picture(1)]
    frames = [wrap(frame(40_000 * number, data)) for number, data in enumerate(pictures)]
    payload, table = only_table(frames, video_track(container, description=AVCC))
    assert data_of(payload, table) == pictures
    assert (table.timescale, table.decode_time) == (90_000, 0)
    assert list(table.durations) == [3600] * 3
    assert table.sync == b"\1\0\0"


def test_decode_times_are_the_times_of_presentation_in_order() -> None:
    """I P B B as they are sent: P is shown last."""
    times = [0, 120_000, 40_000, 80_000]
    frames = [legacy(frame(time, picture(1))) for time in times]
    _, table = only_table(frames, video_track(description=AVCC))
    assert list(table.durations) == [3600] * 4
    assert list(table.composition_offsets) == [0, 7200, -3600, -3600]


def test_times_that_a_publisher_rounded_are_whole_again() -> None:
    frames = [legacy(frame(number * 1024 * 1_000_000 // 48_000, b"aac")) for number in range(1000)]
    _, table = only_table(frames, audio_track())
    assert set(table.durations) == {1024}
    assert table.sync == b"\1" * 1000


def test_an_idr_picture_within_a_group_is_a_sync_sample() -> None:
    frames = [legacy(frame(40_000 * n, picture(k))) for n, k in enumerate((1, 1, 5, 1))]
    assert only_table(frames, video_track(description=AVCC))[1].sync == b"\1\0\1\0"


def test_frames_without_bytes_are_left_out() -> None:
    frames = [legacy(frame(0, b"one")), legacy(frame(20_000, b"")), legacy(frame(40_000, b"two"))]
    payload, table = only_table(frames, audio_track())
    assert data_of(payload, table) == [b"one", b"two"]


def test_a_frame_that_is_cut_is_left_out_and_told() -> None:
    frames = [legacy(frame(0, b"one")), legacy(frame(20_000, b"two"))]
    payload = b"".join(frames)[:-1]
    found = samples_of_frames(payload, [len(part) for part in frames], audio_track())
    assert [len(table) for table in found.tables] == [1]
    assert found.reason == "the last frame is cut short"


def test_a_byte_stream_describes_itself() -> None:
    first = b"".join(b"\0\0\0\1" + unit for unit in (SPS, PPS)) + b"\0\0\1\x65slice"
    frames = [legacy(frame(0, first)), legacy(frame(40_000, b"\0\0\1\x41more\0\0\1\x41last"))]
    payload, table = only_table(frames, video_track(codec="avc3.640015"))
    assert data_of(payload, table) == [first, frames[1][8:]]
    codes = table.start_codes
    assert codes is not None
    assert list(codes.counts) == [3, 2]
    assert list(codes.sizes) == [len(SPS), len(PPS), 6, 5, 5]
    assert codes.lengths == b"\4\4\3\3\3"
    found = samples_of_frames(payload, list(map(len, frames)), video_track(codec="avc3.640015"))
    (description,) = found.descriptions
    assert (description.width, description.height) == (320 << 16, 240 << 16)
    # ffmpeg's record and ours differ in nothing but what ffmpeg leaves out for this profile.
    assert AVCC[1:4] + b"\xff\xe1" in description.entry
    assert SPS in description.entry
    assert PPS in description.entry


def test_an_opus_frame_says_how_long_it_is() -> None:
    for first, samples in ((0x08, 960), (0xFC, 960), (0x7B, 960), (0x80, 120), (0xE3, 240)):
        data = bytes([first, 0x02]) if first & 3 == 3 else bytes([first, 0])
        expected = {0x08: 960, 0xFC: 960, 0x7B: 1920, 0x80: 120, 0xE3: 240}[first]
        _, table = only_table([legacy(frame(0, data))], audio_track(codec="opus"))
        assert list(table.durations) == [expected], (hex(first), samples)


@pytest.mark.parametrize(
    ("track", "data", "reason"),
    [
        (video_track(codec="h266.1"), b"x", "the codec 'h266.1' is not known"),
        (video_track(codec=""), b"x", "the codec '' is not known"),
        (video_track(codec="opus"), b"x", "'opus' is not a codec of video"),
        (video_track(Container.UNKNOWN, description=AVCC), b"x", "a container that is not known"),
        (video_track(codec="hev1.1.6.L93.B0"), b"x", "without a description"),
        (video_track(description=b"\x02"), b"x", "not an AVCDecoderConfigurationRecord"),
        (video_track(codec="av01.0.04M.08", description=b"c"), b"x", "a picture of 0x0"),
        (video_track(codec="avc3.1"), b"no code", "no start code"),
        (video_track(codec="avc3.1"), b"\0\0\1\x65slice", "nor parameter sets in band"),
        (video_track(codec="avc3.1"), b"\0\0\1\x67\0\0\1\x68x", "parameter set"),
        (audio_track(codec="mp4a.40.5"), b"x", "AAC of object type 5 without a description"),
        (audio_track(codec="mp4a.69"), b"x", "without a description"),
        (audio_track(sample_rate=12345), b"x", "AAC of 12345 Hz"),
        (audio_track(sample_rate=0, description=b"\x11\x90"), b"x", "sound of 0 Hz"),
        (audio_track(codec="opus", channels=6), b"x", "Opus of 6 channels"),
    ],
)
def test_what_cannot_be_described_says_why(track: CatalogTrack, data: bytes, reason: str) -> None:
    payload = legacy(frame(0, data))
    found = samples_of_frames(payload, [len(payload)], track)
    assert found.tables == ()
    assert reason in found.reason


@pytest.mark.parametrize(
    ("container", "payload"),
    [
        (Container.LEGACY, b"\xc0abc"),
        (Container.LOC, varint(50) + b"short"),
        (Container.LOC, varint(1) + varint(2) + b"x"),
        (Container.LOC, varint(0) + b"no time"),
        (Container.LOC, varint(3) + varint(5) + varint(9) + b"xyz"),
        (Container.LOC, varint(4) + varint(6) + varint(1) + varint(2) + varint(0) + b"x"),
    ],
)
def test_a_header_that_lies_says_so(container: Container, payload: bytes) -> None:
    found = samples_of_frames(payload, [len(payload)], audio_track(container))
    assert found.tables == ()
    assert found.reason


def test_other_codecs_are_described_by_their_records() -> None:
    for track, codec, record in (
        (
            video_track(codec="hvc1.1.6.L93.B0", description=b"hvcC record", width=640, height=360),
            b"hvc1",
            b"hvcC",
        ),
        (
            video_track(codec="av01.0.04M.08", description=b"av1C record", width=640, height=360),
            b"av01",
            b"av1C",
        ),
        (video_track(codec="vp09.00.10.08", width=640, height=360), b"vp09", b"vpcC"),
        (audio_track(codec="flac", description=b"fLaC blocks"), b"fLaC", b"dfLa"),
    ):
        payload = legacy(frame(0, b"data"))
        (description,) = samples_of_frames(payload, [len(payload)], track).descriptions
        assert description.codec == codec
        assert record in description.entry
        assert description.kind is (Kind.AUDIO if codec == b"fLaC" else Kind.VIDEO)


@pytest.mark.parametrize(
    ("data", "units"),
    [
        (b"\0\0\1abc", [(3, b"abc")]),
        (b"\0\0\0\1abc", [(4, b"abc")]),
        (b"\0\0\0\0\1abc", [(4, b"abc")]),
        (b"\0\0\1a\0\0\1b", [(3, b"a"), (3, b"b")]),
        (b"\0\0\1a\0\0\0\1b", [(3, b"a"), (4, b"b")]),
        (b"\0\0\1a\0\0\0\0\1b", [(3, b"a\0"), (4, b"b")]),
        (b"\0\0\1\0\0\0\1b", [(3, b"\0"), (3, b"b")]),
    ],
)
def test_nal_units_fill_a_byte_stream(data: bytes, units: list[tuple[int, bytes]]) -> None:
    found = split_byte_stream(b"before" + data + b"\0\0\1after", 6, 6 + len(data))
    stream = b"before" + data
    assert [(unit.code_length, stream[unit.start : unit.end]) for unit in found] == units


@pytest.mark.parametrize("data", [b"", b"abc", b"x\0\0\1abc", b"\0\0\1", b"\0\0\1\0\0\1a", b"\0\0"])
def test_what_is_no_byte_stream_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMediaError):
        split_byte_stream(data, 0, len(data))
