"""ffmpeg's media, cut into groups and published: exact, decodable, and ended with its publisher."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.demo.checks import Report
from tools.loopback.fragments import Fragment, FragmentError, FragmentReader, Init
from tools.loopback.media import (
    FRAME_RATE,
    GROUP_SECONDS,
    MEDIA_TRACKS,
    OnAir,
    ffmpeg_command,
    has_audio,
    read_media,
    running_ffmpeg,
)
from tools.loopback.process import LineProcess, LoopbackError
from tools.loopback.relay import running_relay

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

SECONDS = 3
GOP = FRAME_RATE * GROUP_SECONDS


@dataclass(frozen=True)
class Media:
    """A few seconds of the test picture: the bytes of ffmpeg, and what was made of them."""

    stream: bytes
    init: Init
    fragments: tuple[Fragment, ...]

    def of(self, kind: str) -> list[Fragment]:
        return [fragment for fragment in self.fragments if fragment.track.kind == kind]


def cut(*pieces: bytes) -> list[Init | Fragment]:
    reader = FragmentReader()
    return [item for piece in pieces for item in reader.feed(piece)]


@pytest.fixture(scope="module")
def media() -> Media:
    reader = FragmentReader()
    pieces: list[bytes] = []
    items: list[Init | Fragment] = []
    with running_ffmpeg(ffmpeg_command(live=False)) as stdout:
        while sum(is_video(item) for item in items) < SECONDS * FRAME_RATE:
            pieces.append(os.read(stdout, 1 << 16))
            items += reader.feed(pieces[-1])
    init, *fragments = items
    assert isinstance(init, Init)
    return Media(b"".join(pieces), init, tuple(map(as_fragment, fragments)))


def as_fragment(item: Init | Fragment) -> Fragment:
    assert isinstance(item, Fragment)
    return item


def is_video(item: Init | Fragment) -> bool:
    return isinstance(item, Fragment) and item.track.kind == "video"


def decoded_frames(*payloads: bytes) -> dict[str, int]:
    """Kind of stream -> frames that ffprobe decodes from the payloads, without an error."""
    probe = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", "-"],
        input=b"".join(payloads),
        capture_output=True,
        check=True,
    )
    assert probe.stderr == b""
    streams = msgspec.json.decode(probe.stdout, type=Report).streams
    return {
        stream.codec_type: int(stream.nb_read_frames)
        for stream in streams
        if stream.nb_read_frames != "0"
    }


def test_init_and_fragments_are_the_bytes_of_the_stream(media: Media) -> None:
    payloads = [fragment.payload for fragment in media.fragments]
    whole = b"".join([media.init.payload, *payloads])
    assert media.stream.startswith(whole)
    assert not cut(media.stream[len(whole) :])  # what is left is no whole fragment


def test_each_fragment_is_one_frame(media: Media) -> None:
    durations = {"video": 1 / FRAME_RATE, "audio": 1024 / 48000}
    for kind, duration in durations.items():
        # The first one of ffmpeg's may be longer.
        first, *_, last = (fragment.presentation_time for fragment in media.of(kind)[1:])
        assert last - first == pytest.approx((len(media.of(kind)) - 2) * duration * 1e6, abs=2)


def test_a_sync_sample_begins_each_gop_and_nothing_else(media: Media) -> None:
    sync = [number for number, fragment in enumerate(media.of("video")) if fragment.sync]
    assert sync == list(range(0, len(media.of("video")), GOP))


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_times_rise(media: Media, kind: str) -> None:
    times = [fragment.decode_time for fragment in media.of(kind)]
    assert times == sorted(set(times))


@pytest.mark.parametrize("number", range(SECONDS))
def test_the_init_and_any_single_video_group_decode(media: Media, number: int) -> None:
    group = media.of("video")[number * GOP : (number + 1) * GOP]
    payload = b"".join(fragment.payload for fragment in group)
    assert decoded_frames(media.init.payload, payload) == {"video": GOP}


def test_the_init_and_audio_from_the_middle_decode(media: Media) -> None:
    payload = b"".join(fragment.payload for fragment in media.of("audio")[40:80])
    assert decoded_frames(media.init.payload, payload) == {"audio": 40}


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_the_init_of_one_track_decodes_that_track(media: Media, kind: str) -> None:
    (track,) = [track for track in media.init.tracks if track.kind == kind]
    payload = b"".join(fragment.payload for fragment in media.of(kind)[:GOP])
    assert decoded_frames(track.init, payload) == {kind: GOP}


def test_the_tracks_are_described(media: Media) -> None:
    video, audio = media.init.tracks
    assert (video.kind, video.codec[:7], video.width, video.height) == (
        "video",
        "avc1.64",
        640,
        360,
    )
    assert (audio.kind, audio.codec, audio.sample_rate) == ("audio", "mp4a.40.2", 48000)
    assert audio.channels == 2


@settings(max_examples=25)
@given(data=st.data())
def test_it_does_not_matter_how_the_stream_is_cut_into_pieces(
    media: Media, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(media.stream)), max_size=40).map(sorted))
    edges = [0, *cuts, len(media.stream)]
    pieces = [media.stream[start:end] for start, end in itertools.pairwise(edges)]
    assert cut(*pieces) == [media.init, *media.fragments]


@settings(max_examples=200)
@given(garbage=st.binary(max_size=400), keep=st.integers(0, 3000))
def test_garbage_is_an_error_of_ours_or_waits_for_more(
    media: Media, garbage: bytes, keep: int
) -> None:
    try:
        items = cut(media.stream[:keep] + garbage)
    except FragmentError:
        return
    assert len(items) <= 3


def test_a_video_without_sound_is_known_as_such(tmp_path: Path) -> None:
    silent = tmp_path / "si:lent 'film'.mkv"
    source = ["-f", "lavfi", "-i", "testsrc2=size=320x241:rate=30", "-t", "1"]
    subprocess.run(
        ["ffmpeg", "-v", "error", *source, "-c:v", "mpeg4", f"file:{silent}"], check=True
    )
    assert not has_audio(str(silent))
    with running_ffmpeg(ffmpeg_command(str(silent), with_audio=False, live=False)) as stdout:
        # Its one second, more than twice.
        init, *fragments = itertools.islice(read_media(stdout), 1 + 2 * FRAME_RATE + 1)
    assert isinstance(init, Init)
    assert [track.kind for track in init.tracks] == ["video"]
    assert all(is_video(fragment) for fragment in fragments)


def test_a_file_that_is_no_video_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video at all")
    with pytest.raises(LoopbackError, match=r"no video in .*text\.mp4"):
        has_audio(str(text))


def test_ffmpeg_ends_with_its_context(media: Media) -> None:
    with running_ffmpeg(ffmpeg_command()) as stdout:
        item = next(read_media(stdout))
        assert isinstance(item, Init)
        assert item.payload == media.init.payload
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(stdout)


def test_a_failing_ffmpeg_is_an_error() -> None:
    with (
        pytest.raises(LoopbackError, match="ffmpeg ended with code"),
        running_ffmpeg(
            ["ffmpeg", "-loglevel", "quiet", "-i", "file:/nowhere", "-f", "null", "-"]
        ) as out,
    ):
        assert list(read_media(out)) == []


async def _receive(url: str, fingerprint: str, broadcast: str, track: str) -> list[bytes]:
    """Receive the frames of the next group of a track, by the other implementation of MoQ."""
    import moq

    async with moq.Client(
        url, tls_fingerprints=[fingerprint], websocket_enabled=False, bind="127.0.0.1:0"
    ) as client:
        consumer = await client.announced_broadcast(broadcast)
        subscription = await consumer.subscribe_track(track)
        group = await subscription.recv_group()
        assert group is not None
        return [frame.payload async for frame in group]


def test_groups_from_the_relay_decode() -> None:
    with running_relay() as relay:
        options = ["--url", relay.url, "--fingerprint", relay.fingerprint, "--name", "news/one"]
        with LineProcess("tools.loopback.media", options) as publisher:
            on_air = msgspec.json.decode(publisher.receive(30), type=OnAir)
            assert on_air == OnAir("news/one", ("init.mp4", *MEDIA_TRACKS.values()))

            async def receive_all() -> list[list[bytes]]:
                tracks = ("init.mp4", *MEDIA_TRACKS.values())
                return await asyncio.gather(
                    *(_receive(relay.url, relay.fingerprint, "news/one", track) for track in tracks)
                )

            init, video, audio = asyncio.run(receive_all())
            assert decoded_frames(*init, *video) == {"video": GOP}
            assert decoded_frames(*init, *audio) == {"audio": len(audio)}
        assert not publisher.running
