"""Recordings of HEVC, AV1 and VP9: they play, and playlists name them as RFC 6381 has it."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest

from casfs.media.codec_strings import codec_string
from casfs.media.descriptions import Kind
from casfs.media.frames import samples_of_frames
from tests.fakes.codec_frames import box_body, codec_frames, groups, legacy, video_track
from tests.fakes.flat_media import START, Archive, Media, cut, frame_at, frames, probe, write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

QUIET = ["-x265-params", "log-level=none"]
CODECS = {
    "hvc1": (["libx265", "-tag:v", "hvc1", *QUIET], b"hvcC", r"hvc1\.1\.6\.L\d+\.90"),
    "hev1": (["libx265", "-tag:v", "hev1", *QUIET], b"hvcC", r"hev1\.1\.6\.L\d+\.90"),
    "av01": (["libaom-av1", "-cpu-used", "8"], b"av1C", r"av01\.0\.\d\dM\.08"),
    "vp09": (["libvpx-vp9", "-deadline", "realtime"], b"vpcC", r"vp09\.00\.\d\d\.08"),
}
"""How ffmpeg makes it, where its configuration stands, and what it is called."""


@cache
def encoded(codec: str) -> Media:
    """Return two seconds, a key frame each half of one."""
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25"]
    command += ["-t", "2", "-pix_fmt", "yuv420p", "-g", "12", "-c:v", *CODECS[codec][0]]
    # The configuration of AV1 is known when its first frame is.
    command += ["-f", "mp4", "-movflags", "frag_keyframe+delay_moov+default_base_moof", "pipe:1"]
    return cut(subprocess.run(command, check=True, capture_output=True, timeout=200).stdout)


def assert_plays(archive: Archive, codec: str, directory: Path) -> None:
    flat = directory / "flat.mp4"
    archive.record(flat)
    plain = frames(write(directory / "plain.mp4", encoded(codec).stream), "v")
    assert len(plain) == 50
    assert frames(flat, "v") == plain
    lead = float(probe(flat).streams[0].start_time)
    assert frame_at(flat, lead + 33 / 25) == plain[33]
    (description,) = archive.descriptions.values()
    assert description.codec == codec.encode()
    assert re.fullmatch(CODECS[codec][2], codec_string(description))


@pytest.mark.parametrize("codec", CODECS)
def test_fragments_of_other_codecs_play(codec: str, tmp_path: Path) -> None:
    archive = Archive()
    archive.add_fragments(encoded(codec), received=START)
    assert_plays(archive, codec, tmp_path)


@pytest.mark.parametrize(
    ("codec", "name", "described"),
    [
        ("hvc1", "hvc1.1.6.L30.90", True),
        ("av01", "av01.0.00M.08", True),
        ("av01", "av01.0.00M.08", False),
        ("vp09", "vp09.00.10.08", False),
    ],
)
def test_frames_of_other_codecs_play(
    codec: str, name: str, described: bool, tmp_path: Path
) -> None:
    source = encoded(codec)
    record = box_body(source, CODECS[codec][1]) if described else None
    track = video_track(codec=name, description=record, width=160, height=90)
    archive = Archive()
    for group in groups(codec_frames(source, Kind.VIDEO)):
        wrapped = [legacy(frame) for frame in group]
        payload = b"".join(wrapped)
        samples = samples_of_frames(payload, [len(part) for part in wrapped], track)
        received = START + group[0].time * 1000
        archive.add(payload, samples, track=track.name, epoch=1, received=received)
    assert_plays(archive, codec, tmp_path)
