"""Catalogs: what publishers say of their tracks, and what is not believed."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from casfs.media.catalog import (
    Catalog,
    CatalogTrack,
    Container,
    merge_patch,
    parse_hang_catalog,
    parse_msf_catalog,
)
from casfs.media.descriptions import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

INIT = base64.b64encode(b"an init segment").decode()

HANG = {
    "video": {
        "renditions": {
            "0.m4s": {
                "codec": "avc1.64001f",
                "codedWidth": 1280,
                "codedHeight": 720,
                "framerate": 29.97,
                "bitrate": 3_000_000,
                "container": {"kind": "cmaf", "init": INIT},
            }
        }
    },
    "audio": {
        "renditions": {
            "1.aac": {
                "codec": "mp4a.40.2",
                "description": "1190",
                "sampleRate": 48000,
                "numberOfChannels": 2,
                "broadcast": "./other",
            }
        }
    },
    "chat": {"anything": [1, 2, {"else": None}]},
}


def frames(*values: object) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


def test_a_hang_catalog_describes_its_tracks() -> None:
    assert parse_hang_catalog(frames(HANG)) == Catalog(
        (
            CatalogTrack(
                name="0.m4s",
                kind=Kind.VIDEO,
                codec="avc1.64001f",
                container=Container.CMAF,
                init=b"an init segment",
                width=1280,
                height=720,
                frame_rate=29.97,
                bitrate=3_000_000,
            ),
            CatalogTrack(
                name="1.aac",
                kind=Kind.AUDIO,
                codec="mp4a.40.2",
                container=Container.LEGACY,
                description=b"\x11\x90",
                broadcast="./other",
                sample_rate=48000,
                channels=2,
            ),
        )
    )


def test_further_frames_are_merge_patches() -> None:
    patch = {
        "video": {"renditions": {"0.m4s": {"codedWidth": 640, "bitrate": None}}},
        "audio": {"renditions": {"1.aac": None, "2.opus": {"codec": "opus"}}},
    }
    catalog = parse_hang_catalog(frames(HANG, patch))
    assert [track.name for track in catalog.tracks] == ["0.m4s", "2.opus"]
    assert (catalog.tracks[0].width, catalog.tracks[0].height) == (640, 720)
    assert catalog.tracks[0].bitrate == 0


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_patches_merge_as_the_rfc_says(target: object, patch: object, merged: object) -> None:
    assert merge_patch(target, patch) == merged


def test_what_is_out_of_range_is_left_out_and_named() -> None:
    rendition = {
        "codec": "avc1.64001f",
        "codedWidth": -1,
        "codedHeight": "720",
        "framerate": True,
        "bitrate": 1e300,
        "description": "not hex",
        "container": {"kind": "cmaf", "init": "***"},
    }
    catalog = parse_hang_catalog(frames({"video": {"renditions": {"v": rendition}}}))
    (track,) = catalog.tracks
    expected = CatalogTrack(
        name="v", kind=Kind.VIDEO, codec="avc1.64001f", container=Container.CMAF
    )
    assert track == expected
    assert len(catalog.problems) == 6


@pytest.mark.parametrize("container", ["new", {"kind": "new"}, {"kind": 5}, {}, 7])
def test_a_container_of_the_future_is_unknown(container: object) -> None:
    rendition = {"codec": "avc1.64001f", "container": container}
    (track,) = parse_hang_catalog(frames({"video": {"renditions": {"v": rendition}}})).tracks
    assert track.container is Container.UNKNOWN


def test_the_container_of_early_2026_tells_timescale_and_track() -> None:
    container = {"kind": "cmaf", "timescale": 12800, "trackId": 3}
    rendition = {"codec": "avc1.64001f", "container": container}
    (track,) = parse_hang_catalog(frames({"video": {"renditions": {"v": rendition}}})).tracks
    assert (track.timescale, track.track_id, track.init) == (12800, 3, None)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"[1]", b"7", b'"text"', b"[" * 100_000, b'{"video":' * 100_000],
)
@pytest.mark.parametrize("parse", [parse_hang_catalog, parse_msf_catalog])
def test_what_is_no_catalog_has_no_tracks(
    parse: Callable[[list[bytes]], Catalog], data: bytes
) -> None:
    catalog = parse([data])
    assert catalog.tracks == ()
    assert catalog.problems


@pytest.mark.parametrize("section", [None, 5, [], {"renditions": 5}, {"renditions": {"v": 5}}])
def test_sections_of_another_shape_do_no_harm(section: object) -> None:
    (data,) = frames({"video": section})
    catalog = parse_hang_catalog([data])
    assert all(track.codec == "" for track in catalog.tracks)


@pytest.mark.parametrize("inline", [True, False])
def test_an_msf_catalog_describes_its_tracks(inline: bool) -> None:
    described = {"initData": INIT} if inline else {"initRef": "first"}
    root = {
        "version": 1 if inline else "draft-01",
        "initDataList": [{"id": "first", "type": "inline", "data": INIT}],
        "tracks": [
            {
                "name": "v",
                "packaging": "cmaf",
                "role": "video",
                "codec": "avc1.64001f",
                "width": 1280,
                "height": 720,
                "framerate": 30,
                **described,
            },
            {
                "name": "a",
                "packaging": "loc",
                "codec": "opus",
                "samplerate": 48000,
                "channelConfig": "2",
            },
            {"name": "t", "packaging": "mediatimeline"},
            {"name": "s", "packaging": "loc", "role": "subtitle", "codec": "wvtt"},
        ],
    }
    video, audio = parse_msf_catalog(frames(root)).tracks
    assert (video.name, video.kind, video.container) == ("v", Kind.VIDEO, Container.CMAF)
    assert (video.init, video.description) == (b"an init segment", None)
    assert (audio.name, audio.kind, audio.container) == ("a", Kind.AUDIO, Container.LOC)
    assert (audio.sample_rate, audio.channels) == (48000, 2)


def test_msf_delta_updates_add_and_remove() -> None:
    def track(name: str) -> dict[str, object]:
        return {"name": name, "packaging": "loc", "role": "audio", "codec": "opus"}

    root = {"version": "draft-01", "tracks": [track("a"), track("b")]}
    delta = {
        "deltaUpdate": [
            {"op": "remove", "tracks": [{"name": "a"}]},
            {"op": "add", "tracks": [track("c")]},
            {"op": "clone", "tracks": [{"name": "d", "parentName": "c"}]},
        ]
    }
    catalog = parse_msf_catalog(frames(root, delta))
    assert [item.name for item in catalog.tracks] == ["b", "c"]
    assert catalog.problems == ("a delta update that is not understood: 'clone'",)
    again = parse_msf_catalog(frames(root, delta, root))
    assert [item.name for item in again.tracks] == ["a", "b"]
