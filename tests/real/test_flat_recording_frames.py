"""Flat recordings of codec frames (hang legacy, LOC): what ffmpeg encoded is what it decodes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from casfs.media.catalog import CatalogTrack, Container
from casfs.media.descriptions import Kind
from casfs.media.frames import samples_of_frames
from tests.fakes.codec_frames import (
    CodecFrame,
    adts,
    audio_config,
    audio_track,
    box_body,
    byte_stream,
    codec_frames,
    groups,
    legacy,
    loc,
    video_track,
)
from tests.fakes.flat_media import (
    RATE,
    SECOND,
    START,
    Archive,
    Encoding,
    Media,
    encode,
    frame_at,
    frames,
    probe,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

AUDIO_RUN = 40
"""Frames that are stored together, each of them a group of the publisher's."""


@pytest.fixture(scope="module")
def source() -> Media:
    return encode(Encoding(b_frames=2))


@pytest.fixture(scope="module")
def opus() -> Media:
    return encode(Encoding(audio="libopus"))


def store(
    archive: Archive,
    track: CatalogTrack,
    cut: list[list[CodecFrame]],
    wrap: Callable[[CodecFrame], bytes] = legacy,
) -> None:
    for group in cut:
        wrapped = [wrap(frame) for frame in group]
        payload = b"".join(wrapped)
        samples = samples_of_frames(payload, [len(part) for part in wrapped], track)
        assert not samples.reason
        received = START + group[0].time * 1000
        archive.add(payload, samples, track=track.name, epoch=1, received=received)


def runs(encoded: list[CodecFrame]) -> list[list[CodecFrame]]:
    return [encoded[first : first + AUDIO_RUN] for first in range(0, len(encoded), AUDIO_RUN)]


def assert_plays(archive: Archive, source: Media, directory: Path, *kinds: str) -> Path:
    flat = directory / "flat.mp4"
    archive.record(flat)
    plain = write(directory / "plain.mp4", source.stream)
    for kind in kinds:
        expected = frames(plain, kind)
        assert expected
        assert frames(flat, kind) == expected
    assert len(probe(flat).streams) == len(kinds)
    return flat


@pytest.mark.parametrize(
    ("container", "wrap"), [(Container.LEGACY, legacy), (Container.LOC, loc)], ids=["legacy", "loc"]
)
def test_frames_with_descriptions_play(
    container: Container, wrap: Callable[[CodecFrame], bytes], source: Media, tmp_path: Path
) -> None:
    archive = Archive()
    video = video_track(container, description=box_body(source, b"avcC"))
    store(archive, video, groups(codec_frames(source, Kind.VIDEO)), wrap)
    audio = audio_track(container, description=audio_config(source))
    store(archive, audio, runs(codec_frames(source, Kind.AUDIO)), wrap)
    flat = assert_plays(archive, source, tmp_path, "v", "a")
    decoded = frames(flat, "v")
    lead = float(probe(flat).streams[0].start_time)
    for number in (0, 61, 149):
        assert frame_at(flat, lead + number / RATE) == decoded[number]
    assert float(probe(flat).format.duration) == pytest.approx(lead + 6, abs=0.1)


@pytest.mark.parametrize(
    "code",
    [
        lambda _: b"\0\0\0\1",
        lambda _: b"\0\0\1",
        lambda number: b"\0\0\1" if number else b"\0\0\0\1",
        lambda number: b"\0\0\0\0\0\1" if number % 2 else b"\0\0\1",
    ],
    ids=["four bytes", "three bytes", "four, then three", "three, and more zeros"],
)
def test_a_byte_stream_plays(code: Callable[[int], bytes], source: Media, tmp_path: Path) -> None:
    record = box_body(source, b"avcC")
    stream = [byte_stream(frame, record, code) for frame in codec_frames(source, Kind.VIDEO)]
    archive = Archive()
    store(archive, video_track(codec="avc3.64000d"), groups(stream))
    assert_plays(archive, source, tmp_path, "v")
    (described,) = archive.descriptions.values()
    assert described.codec == b"avc3"
    assert (described.width, described.height) == (320 << 16, 180 << 16)


def test_a_byte_stream_that_changes_its_picture_plays(source: Media, tmp_path: Path) -> None:
    larger = encode(Encoding(size="480x272", seconds=2, audio=""))
    archive = Archive()
    streams = []
    for media, later in ((source, 0), (larger, 7_000_000)):
        record = box_body(media, b"avcC")
        video = codec_frames(media, Kind.VIDEO)
        moved = [CodecFrame(frame.time + later, frame.sync, frame.data) for frame in video]
        streams += [byte_stream(frame, record) for frame in moved]
    store(archive, video_track(codec="avc3.64000d"), groups(streams))
    flat = tmp_path / "flat.mp4"
    archive.record(flat)
    assert len(archive.descriptions) == 2
    report = probe(flat)
    assert report.streams[0].nb_read_frames == str(8 * RATE)
    shown = float(report.format.duration) - float(report.format.start_time)
    assert shown == pytest.approx(9, abs=0.1)


@pytest.mark.parametrize("checksum", [False, True])
def test_aac_with_adts_headers_plays(checksum: bool, source: Media, tmp_path: Path) -> None:
    encoded = [adts(frame, checksum=checksum) for frame in codec_frames(source, Kind.AUDIO)]
    archive = Archive()
    store(archive, audio_track(sample_rate=0, channels=0), runs(encoded))
    assert_plays(archive, source, tmp_path, "a")


def test_aac_without_a_description_plays(source: Media, tmp_path: Path) -> None:
    archive = Archive()
    store(archive, audio_track(), runs(codec_frames(source, Kind.AUDIO)))
    assert_plays(archive, source, tmp_path, "a")
    (table, *_) = archive.groups[1].tables
    assert set(table.durations) == {1024}  # what was rounded to microseconds is whole again


def test_opus_plays_one_frame_a_group(opus: Media, tmp_path: Path) -> None:
    encoded = codec_frames(opus, Kind.AUDIO)
    archive = Archive()
    # What an OpusHead of another number of dropped samples would change is where sound begins.
    head = b"OpusHead\1\2" + (312).to_bytes(2, "little") + (48000).to_bytes(4, "little") + bytes(3)
    store(archive, audio_track(codec="opus", description=head), [[frame] for frame in encoded])
    flat = tmp_path / "flat.mp4"
    recording = archive.record(flat)
    assert recording.samples == len(encoded)
    report = probe(flat)
    assert report.streams[0].codec_name == "opus"
    assert int(report.streams[0].nb_read_frames) == pytest.approx(len(encoded), abs=1)
    assert float(report.format.duration) == pytest.approx(len(encoded) * 0.02, abs=0.03)
    assert recording.duration == pytest.approx(6 * SECOND, abs=0.05 * SECOND)
