"""What moq-rs's own importers publish plays from the mount, across a restart of the publisher."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from casfs.timestamps import format_time
from tests.fakes.flat_media import RATE, frames, packets, probe
from tests.real.programs import eventually
from tests.real.test_mount_filesystem import _why_not

if TYPE_CHECKING:
    from pathlib import Path

    from tests.real.programs import Installation
    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

pytestmark = [
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
    pytest.mark.skipif(_why_not() is not None, reason=f"cannot mount: {_why_not()}"),
]

NAME = "demo/tv"
SECONDS = 4
OUTPUTS = {
    "FMP4": ["-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"],
    "FLV": ["-f", "flv"],
    "TS": ["-f", "mpegts"],
}
TRACKS = {
    "FMP4": ("0.m4s", "1.m4s"),
    "FLV": ("0.flv-v", "1.flv-a"),
    "TS": ("0.avc3", "1.aac"),
}
"""The importers' own names."""


def encode(container: str, size: str) -> bytes:
    """Encode four seconds, a key frame a second, with B-frames."""
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate={RATE}"]
    command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", str(SECONDS)]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-bf", "2"]
    command += ["-g", str(RATE), "-sc_threshold", "0", "-c:a", "aac", "-ac", "2"]
    command += [*OUTPUTS[container], "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True, timeout=200).stdout


def video_groups(installation: Installation) -> int:
    """Return how many groups of video are kept; importers number their tracks, video first."""
    archive = installation.archive()
    with contextlib.closing(archive.reader()) as reader:
        return sum(
            reader.summary(track).groups
            for broadcast in reader.broadcasts()
            for track in reader.tracks(broadcast)
            if track.name.startswith("0.")
        )


def publish(installation: Installation, publisher: Publisher, container: str, data: bytes) -> None:
    """Publish a container as fast as a recorder surely follows, and wait until it is kept."""
    before = video_groups(installation)
    publisher.create_broadcast(NAME)
    publisher.announce(NAME)
    publisher.open_container(NAME, container)
    step = len(data) // (4 * SECONDS)
    for number, start in enumerate(range(0, len(data), step)):
        publisher.write_container(NAME, data[start : start + step])
        # A group that nobody has asked for yet is gone when the next ones come.
        wanted = before + number // 4 - 1
        eventually(lambda wanted=wanted: video_groups(installation) >= wanted, "groups of video")  # type: ignore[misc]
    publisher.finish_container(NAME)
    eventually(lambda: video_groups(installation) >= before + SECONDS, "the last group")
    publisher.end_broadcast(NAME)


@pytest.mark.parametrize("container", OUTPUTS)
def test_what_was_imported_plays(
    container: str, installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    began = time.time_ns()
    tracks = [word for track in TRACKS[container] for word in ("--track", track)]
    recording = ("--track", "catalog.json", *tracks)
    with installation.recording(relay, NAME, *recording) as recorder:
        for size in ("320x180", "480x270"):
            publish(installation, publisher, container, encode(container, size))
        recorder.stop()
    with installation.mounted() as mountpoint:
        assert_it_plays(mountpoint, began)


def assert_it_plays(mountpoint: Path, began: int) -> None:
    start, end = (
        "".join(character for character in format_time(time_)[:19] if character not in "-:") + "Z"
        for time_ in (began - 30 * 10**9, time.time_ns() + 60 * 10**9)
    )
    clips = mountpoint / "recordings" / NAME / "clip"
    parts = [clips / f"{start}--{end}.mp4"]
    status = (mountpoint / ".casfs/status.json").read_text()
    report = probe(parts[0])
    assert [stream.codec_name for stream in report.streams] == ["h264", "aac"], status
    shown = int(report.streams[0].nb_read_frames)
    # The importers hold back the last picture, which nothing tells to be whole.
    assert 2 * SECONDS * RATE - 4 <= shown <= 2 * SECONDS * RATE
    decoded = [float(packet.dts_time) for packet in packets(parts[0], "v:0")]
    assert all(before < after for before, after in itertools.pairwise(decoded))
    (playlist,) = (mountpoint / "hls" / NAME).glob("*/media.m3u8")
    # Segments are shown when nothing that belongs to them can still be on its way.
    eventually(
        lambda: playlist.read_text().count("#EXTINF") >= 2 * SECONDS - 1, "segments of both runs"
    )
    total = 0
    for number, stream in enumerate(streams(playlist)):
        path = mountpoint.parent / f"stream{number}.mp4"
        path.write_bytes(stream)
        total += len(frames(path, "v"))
    # The last segment waits for what else may belong to it.
    assert shown - RATE <= total <= shown


def streams(playlist: Path) -> list[bytes]:
    """Return what a playlist names: for each init segment, it and what goes with it."""
    found: list[bytearray] = []
    for line in playlist.read_text().splitlines():
        if line.startswith("#EXT-X-MAP"):
            found.append(bytearray((playlist.parent / line.split('"')[1]).read_bytes()))
        elif not line.startswith("#"):
            found[-1] += (playlist.parent / line).read_bytes()
    return [bytes(stream) for stream in found]
