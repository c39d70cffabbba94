"""A flat recording is what was published: ffmpeg decodes the same frames, at the right times."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.media.fragments import samples_of_fragments
from casfs.media.layout import Literal
from casfs.media.movie import read_movie
from casfs.media.recording import flat_recording
from casfs.media.timeline import split_by_codec
from tests.fakes.flat_media import (
    GOP,
    RATE,
    SECOND,
    START,
    Archive,
    Encoding,
    Media,
    encode,
    frame_at,
    frames,
    packets,
    probe,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

SHAPES = {
    "a fragment a GOP": Encoding(),
    "both tracks in a fragment": Encoding(flags="frag_keyframe+empty_moov+default_base_moof"),
    "base data offsets of a file": Encoding(flags="frag_keyframe+empty_moov", b_frames=2),
    "B-frames": Encoding(b_frames=2),
    "B-frames with an edit list": Encoding(flags="frag_keyframe+delay_moov", b_frames=2),
    "B-frames shown before they are decoded": Encoding(
        flags="frag_keyframe+delay_moov+negative_cts_offsets", b_frames=2
    ),
    "Opus": Encoding(audio="libopus"),
    "no sound": Encoding(audio=""),
    "a fragment a frame": Encoding(
        flags="empty_moov+default_base_moof+frag_every_frame+separate_moof", audio=""
    ),
}


@cache
def media(encoding: Encoding) -> Media:
    return encode(encoding)


def assert_times_rise(path: Path) -> None:
    for stream in ("v:0", "a:0"):
        read = packets(path, stream)
        decoded = [float(packet.dts_time) for packet in read]
        assert all(before < after for before, after in itertools.pairwise(decoded))
        shown = sorted(float(packet.pts_time) for packet in read)
        assert all(before < after for before, after in itertools.pairwise(shown))


@pytest.mark.parametrize("encoding", SHAPES.values(), ids=SHAPES)
def test_it_decodes_as_init_and_groups_do(encoding: Encoding, tmp_path: Path) -> None:
    source = media(encoding)
    archive = Archive()
    archive.add_fragments(source, received=START + 10 * SECOND)
    flat = tmp_path / "flat.mp4"
    recording = archive.record(flat)
    plain = write(tmp_path / "plain.mp4", source.stream)

    assert len(frames(flat, "v")) == encoding.seconds * RATE
    assert frames(flat, "v") == frames(plain, "v")
    report = probe(flat)
    if encoding.audio:
        assert frames(flat, "a") == frames(plain, "a")
        assert len(report.streams) == 2
    assert_times_rise(flat)
    assert float(report.format.duration) == pytest.approx(10 + encoding.seconds, abs=0.2)
    assert float(report.streams[0].start_time) == pytest.approx(10, abs=0.2)
    assert recording.duration == pytest.approx(float(report.format.duration) * SECOND, abs=1e6)


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("number", [0, 31, 77, 149])
def test_a_seek_lands_on_the_frame(b_frames: int, number: int, tmp_path: Path) -> None:
    source = media(Encoding(b_frames=b_frames))
    archive = Archive()
    archive.add_fragments(source, received=START + 10 * SECOND)
    flat = tmp_path / "flat.mp4"
    archive.record(flat)
    decoded = frames(flat, "v")
    assert frame_at(flat, 10 + number / RATE) == decoded[number]


class Restarted:
    """Two epochs of five and six seconds, twenty seconds apart, both with timestamps from 0."""

    def __init__(self, second: Encoding, path: Path) -> None:
        self.first = media(Encoding(seconds=5, b_frames=2))
        self.second = media(second)
        archive = Archive()
        archive.add_fragments(self.first, received=START + SECOND, epoch=1)
        archive.add_fragments(self.second, received=START + 21 * SECOND, epoch=2)
        self.path = path / "flat.mp4"
        self.recording = archive.record(self.path)
        plains = [
            write(path / f"{number}.mp4", source.stream)
            for number, source in enumerate((self.first, self.second))
        ]
        self.decoded = [frames(plain, "v") for plain in plains]


@pytest.mark.parametrize(
    "second",
    [
        Encoding(b_frames=2, offset=300),
        Encoding(b_frames=2, size="480x270"),
        Encoding(b_frames=2, size="640x360", flags="frag_keyframe+delay_moov"),
    ],
    ids=["same parameters", "another resolution", "another resolution and edit list"],
)
def test_both_epochs_of_a_restart_play_at_their_times(second: Encoding, tmp_path: Path) -> None:
    restarted = Restarted(second, tmp_path)
    flat, (before, after) = restarted.path, restarted.decoded
    if second.size == Encoding().size:
        assert frames(flat, "v") == before + after
    report = probe(flat)
    assert report.streams[0].nb_read_frames == str(len(before) + len(after))
    assert_times_rise(flat)
    assert float(report.format.duration) == pytest.approx(27, abs=0.2)
    for number in (0, 40, 149):
        time = 21 + number / RATE
        # Sound leads by some milliseconds in these files, and an epoch moves as a whole.
        assert frame_at(flat, time) in after[max(0, number - 3) : number + 4]
    assert frame_at(flat, 1 + 30 / RATE) == before[30]


def test_a_change_of_resolution_is_shown_in_each_size(tmp_path: Path) -> None:
    restarted = Restarted(Encoding(b_frames=2, size="480x270"), tmp_path)
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "frame=width"]
    done = subprocess.run([*command, "-of", "csv=p=0", restarted.path], capture_output=True)
    widths = [line.strip(",") for line in done.stdout.decode().split()]
    assert widths == ["320"] * len(restarted.decoded[0]) + ["480"] * len(restarted.decoded[1])


def test_a_gap_stays_a_gap(tmp_path: Path) -> None:
    source = media(Encoding(seconds=10, b_frames=2))
    kinds = [
        {item.kind for item in samples_of_fragments(part, read_movie(source.init)).descriptions}
        for part in source.fragments
    ]
    assert kinds[0] != kinds[1]  # a fragment for each kind, in turn
    archive = Archive()
    archive.add_fragments(source, received=START, skip=range(6, 14))
    flat = tmp_path / "flat.mp4"
    archive.record(flat)
    decoded = frames(write(tmp_path / "plain.mp4", source.stream), "v")
    missing = slice(3 * GOP, 7 * GOP)
    assert frames(flat, "v") == decoded[: missing.start] + decoded[missing.stop :]
    assert_times_rise(flat)
    assert float(probe(flat).format.duration) == pytest.approx(10, abs=0.2)
    lead = float(probe(flat).streams[0].start_time)
    assert frame_at(flat, lead + 8.2) == decoded[round(8.2 * RATE)]
    # In the gap a player goes on with what comes after it, or stands on what was before.
    around = decoded[missing.start - 1], decoded[missing.stop]
    assert frame_at(flat, lead + 5.0) in around


@pytest.mark.parametrize("hours", [1, 20])
def test_a_seek_across_a_gap_of_hours_lands_on_the_frame(hours: int, tmp_path: Path) -> None:
    source, later = media(Encoding(b_frames=2)), media(Encoding(b_frames=2, offset=300))
    gap = hours * 3600
    archive = Archive()
    archive.add_fragments(source, received=START + 600 * SECOND)
    archive.add_fragments(later, received=START + (600 + gap) * SECOND, epoch=2)
    flat = tmp_path / "flat.mp4"
    archive.record(flat)
    plains = [write(tmp_path / f"{n}.mp4", part.stream) for n, part in enumerate((source, later))]
    before, after = (frames(plain, "v") for plain in plains)
    assert frames(flat, "v") == before + after
    assert float(probe(flat).format.duration) == pytest.approx(606 + gap, abs=0.2)
    assert frame_at(flat, 602.0) == before[50]
    assert frame_at(flat, 600 + gap) == after[0]
    assert frame_at(flat, 600 + gap + 2.48) == after[62]


def test_a_file_beyond_4_gib_plays(tmp_path: Path) -> None:
    source = media(Encoding(b_frames=2))
    archive = Archive()
    archive.add_fragments(source, received=START)
    # Payloads with much behind their samples; in the file that is a hole.
    groups = [
        msgspec.structs.replace(group, size=group.size + (2 << 30))
        if number in (2, 5, 8)
        else group
        for number, group in enumerate(archive.groups)
    ]
    layout = flat_recording(groups, archive.descriptions, start=START).layout
    flat = tmp_path / "flat.mp4"
    with flat.open("wb") as file:
        for piece in layout.pieces():
            if isinstance(piece, Literal):
                file.write(piece.data)
            else:
                stored = archive.objects[piece.digest][piece.offset :]
                file.write(stored[: piece.length])
                file.seek(max(0, piece.length - len(stored)), os.SEEK_CUR)
        file.truncate(layout.size)
    assert layout.size > 6 << 30
    plain = write(tmp_path / "plain.mp4", source.stream)
    assert frames(flat, "v") == frames(plain, "v")
    assert frames(flat, "a") == frames(plain, "a")
    flat.unlink()


def test_a_clip_begins_and_ends_at_the_frame(tmp_path: Path) -> None:
    source = media(Encoding(b_frames=2))
    archive = Archive()
    archive.add_fragments(source, received=START)
    flat = tmp_path / "clip.mp4"
    begin, end = START + 1_400_000_000, START + 3_600_000_000
    recording = archive.record(flat, start=begin, end=end)
    decoded = frames(write(tmp_path / "plain.mp4", source.stream), "v")
    assert frames(flat, "v") == decoded[35:90]
    assert recording.duration == end - begin
    report = probe(flat)
    assert float(report.format.duration) == pytest.approx(2.2, abs=0.03)
    assert float(report.streams[0].start_time) == pytest.approx(0, abs=0.03)


def test_another_codec_needs_another_file(tmp_path: Path) -> None:
    archive = Archive()
    archive.add_fragments(media(Encoding(audio="aac")), received=START, epoch=1)
    archive.add_fragments(media(Encoding(audio="libopus")), received=START + 9 * SECOND, epoch=2)
    whole = archive.record(tmp_path / "whole.mp4")
    assert whole.left_out
    first, second = split_by_codec(archive.groups, archive.descriptions)
    for groups, codec in ((first, "aac"), (second, "opus")):
        part = Archive()
        part.objects, part.descriptions = archive.objects, archive.descriptions
        part.groups = groups
        path = tmp_path / f"{codec}.mp4"
        assert part.record(path).left_out == 0
        report = probe(path)
        assert [stream.codec_name for stream in report.streams] == ["h264", codec]
        assert report.streams[0].nb_read_frames == str(6 * RATE)


@pytest.mark.skipif(shutil.which("mpv") is None, reason="mpv is not installed")
@pytest.mark.parametrize("seconds", [1.4, 5.9, 22.44, 26.0])
def test_mpv_seeks_to_the_frame_across_a_restart(seconds: float, tmp_path: Path) -> None:
    restarted = Restarted(Encoding(b_frames=2, offset=300), tmp_path)
    shown = tmp_path / "shown.framemd5"
    command = ["mpv", "--no-config", "--no-terminal", "--no-audio", "--rebase-start-time=no"]
    command += [f"--start={seconds}", "--hr-seek=yes", "--frames=1", str(restarted.path)]
    command += [f"--o={shown}", "--of=framemd5", "--ovc=rawvideo"]
    subprocess.run(command, check=True, timeout=200, stdin=subprocess.DEVNULL)
    digest = shown.read_text().splitlines()[-1].split(",")[-1].strip()
    before, after = restarted.decoded
    times = [packet.pts_time for packet in packets(restarted.path, "v:0")]
    by_time = dict(zip(sorted(map(float, times)), before + after, strict=True))
    nearest = [time for time, frame in by_time.items() if frame == digest]
    assert any(abs(time - seconds) <= 1 / RATE for time in nearest)
