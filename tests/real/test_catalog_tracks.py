"""What moq-rs's own importers publish is recorded, all of it, by the names that catalogs say."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from casfs.manifests.record import GroupRecord
from tests.real.programs import eventually
from tools.loopback.process import LoopbackError

if TYPE_CHECKING:
    from tests.real.programs import Installation
    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

TV = "demo/tv"
SECONDS = 3
FORMATS = {
    "FMP4": ["-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"],
    "TS": ["-f", "mpegts"],
}
TRACKS = {"FMP4": ("0.m4s", "1.m4s"), "TS": ("0.avc3", "1.aac")}
"""The importers' own names."""


def encode(container: str) -> bytes:
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"]
    command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", str(SECONDS)]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "25"]
    command += ["-sc_threshold", "0", "-c:a", "aac", "-ac", "2", *FORMATS[container], "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True, timeout=200).stdout


def copying(publisher: Publisher, track: str) -> bool:
    try:
        publisher.copy_track(TV, track)
    except LoopbackError:
        return False
    return True


@pytest.mark.parametrize(
    ("container", "protocol"), [("FMP4", "moq-lite-05"), ("TS", "moq-lite-04"), ("TS", "moqt-18")]
)
def test_what_importers_publish_is_recorded_byte_for_byte_without_naming_a_track(
    container: str,
    protocol: str,
    installation: Installation,
    relay: Relay,
    publisher: Publisher,
) -> None:
    media = encode(container)
    tracks = TRACKS[container]
    with installation.recording(relay, TV, "--protocol", protocol) as recorder:
        publisher.create_broadcast(TV)
        publisher.announce(TV)
        publisher.open_container(TV, container)
        step = len(media) // (4 * SECONDS)
        copied: set[str] = set()
        for number, start in enumerate(range(0, len(media), step)):
            publisher.write_container(TV, media[start : start + step])
            copied |= {name for name in set(tracks) - copied if copying(publisher, name)}
            # A group that nobody has asked for yet may be gone when the next ones come.
            wanted = number // 4 - 1
            eventually(
                lambda wanted=wanted: len(installation.recorded(TV, tracks[0])) >= wanted,  # type: ignore[misc]
                "groups of video",
            )
        assert copied == set(tracks)
        publisher.finish_container(TV)

        def all_recorded() -> bool:
            return all(
                publisher.copied(TV, track).keys()
                <= {sequence for _, sequence in installation.recorded(TV, track)}
                for track in tracks
            )

        eventually(lambda: len(publisher.copied(TV, tracks[0])) >= 2, "the last group")
        eventually(all_recorded, "everything that was published")
        time.sleep(1)
        outcome = recorder.stop()
        assert outcome.code == 0, outcome.err
    for track in tracks:
        sent = publisher.copied(TV, track)
        assert sent
        for sequence, payload in sent.items():
            got = installation.run("cat", TV, track, "--sequence", str(sequence))
            assert (got.code, got.out) == (0, payload), (track, sequence, got.err)
        records = installation.records(GroupRecord, TV, track)
        assert all(record.complete for record in records if int(record.sequence) in sent)
    # So is what tells how to play it, and the timeline that another section of the catalog names.
    assert {track for _, track in installation.ls()} == {"catalog.json", "timeline.z", *tracks}
    installation.verify_is_sound()


def test_globs_choose_among_the_tracks_that_a_catalog_names(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    publisher.create_broadcast(TV)
    for track in ("keep.1", "keep.2", "leave"):
        publisher.create_track(TV, track)
        publisher.append_group(TV, track, [track.encode()])
    publisher.set_catalog_section(TV, "other", {"tracks": ["keep.1", "keep.2", "leave"]})
    publisher.announce(TV)
    globs = ("--include-track", "keep.*", "--exclude-track", "*.2")
    with installation.recording(relay, TV, *globs) as recorder:
        installation.wait_for(TV, "keep.1", 1)
        # A track that comes later is taken as well.
        publisher.create_track(TV, "keep.3")
        publisher.append_group(TV, "keep.3", [b"later"])
        publisher.set_catalog_section(TV, "more", {"track": "keep.3"})
        installation.wait_for(TV, "keep.3", 1)
        assert recorder.stop().code == 0
    recorded = {track for _, track in installation.ls()}
    assert recorded == {"catalog.json", "keep.1", "keep.3"}
