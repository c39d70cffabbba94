"""Groups: the catalog says what wraps their samples."""

from __future__ import annotations

from casfs.media.catalog import Container
from casfs.media.groups import movie_of, samples_of_group
from casfs.media.movie import read_movie
from tests.fakes.codec_frames import CodecFrame, audio_track, legacy, video_track
from tests.fakes.fragments import Sample, fragment, init, trak

INIT = init(trak(7, timescale=12800))
PAYLOAD = fragment(7, 512, Sample(b"picture"))


def test_fragments_are_read_with_the_init_of_their_catalog() -> None:
    found = samples_of_group(PAYLOAD, [], track=video_track(Container.CMAF, init=INIT))
    assert (found.tables[0].decode_time, found.reason) == (512, "")


def test_fragments_are_read_with_an_init_that_was_archived() -> None:
    assert samples_of_group(PAYLOAD, [], movie=read_movie(INIT)).tables[0].timescale == 12800


def test_a_catalog_may_tell_timescale_and_track_alone() -> None:
    track = video_track(
        Container.CMAF,
        codec="vp09.00.10.08",
        timescale=90_000,
        track_id=7,
        width=320,
        height=180,
    )
    found = samples_of_group(PAYLOAD, [], track=track)
    assert found.tables[0].timescale == 90_000
    assert found.descriptions[0].codec == b"vp09"
    assert movie_of(track).tracks[0].id == 7


def test_frames_need_no_init() -> None:
    payload = legacy(CodecFrame(0, True, b"sound"))
    found = samples_of_group(payload, [len(payload)], track=audio_track())
    assert list(found.tables[0].sizes) == [5]


def test_what_cannot_be_read_says_why() -> None:
    assert samples_of_group(PAYLOAD, []).reason == "fragments without an init segment"
    lies = video_track(Container.CMAF, init=b"no init")
    assert samples_of_group(PAYLOAD, [], track=lies).reason
    bare = video_track(Container.CMAF)
    expected = "a track of fragments without an init segment"
    assert samples_of_group(PAYLOAD, [], track=bare).reason == expected


def test_more_channels_than_an_entry_can_tell_are_a_reason() -> None:
    payload = legacy(CodecFrame(0, True, b"sound"))
    for codec in ("flac", "mp4a.40.2"):
        track = audio_track(codec=codec, description=b"\x11\x90", channels=99_999_999)
        found = samples_of_group(payload, [len(payload)], track=track)
        assert (found.tables, found.reason) == ((), "sound of 48000 Hz and 99999999 channels")
