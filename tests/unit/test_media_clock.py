"""When the media of a group begin, by each container and by the protocol."""

from __future__ import annotations

import base64

import msgspec
import pytest

from ingest.media_clock import Clock, MediaClock, MediaTime
from ingest.moq.varint import encode_varint
from tests.fakes.fragments import Sample, fragment, init, trak, trex

SECOND = 10**9
INIT = init(trak(1, timescale=90_000), defaults=(trex(1),))
VIDEO = "video0.m4s"


def catalog(container: dict[str, str]) -> bytes:
    rendition = {"codec": "avc1.64001f", "container": container}
    return msgspec.json.encode({"video": {"renditions": {VIDEO: rendition}}})


def test_fragments_tell_it_by_the_init_that_was_archived_or_stands_in_the_catalog() -> None:
    frames = [fragment(1, 180_000, Sample(b"sample")), b"more"]
    clock = MediaClock()
    assert clock.time(VIDEO, frames, None, None) is None
    clock.note("init.mp4", [INIT])
    assert clock.time(VIDEO, frames, None, None) == MediaTime(Clock.PAYLOAD, 2 * SECOND)
    clock = MediaClock()
    told = {"kind": "cmaf", "init": base64.b64encode(INIT).decode()}
    clock.note("catalog.json", [catalog(told)])
    assert clock.time(VIDEO, frames, (7,), 1) == MediaTime(Clock.PAYLOAD, 2 * SECOND)


@pytest.mark.parametrize(
    ("kind", "frame"),
    [
        ("legacy", encode_varint(3_000_000) + b"codec"),
        ("loc", encode_varint(5) + b"\x10" + encode_varint(3_000_000) + b"codec"),
    ],
)
def test_frames_of_hang_and_loc_tell_it_themselves(kind: str, frame: bytes) -> None:
    clock = MediaClock()
    clock.note("catalog.json", [catalog({"kind": kind})])
    assert clock.time(VIDEO, [frame], None, None) == MediaTime(Clock.PAYLOAD, 3 * SECOND)


def test_else_the_protocol_tells_it() -> None:
    clock = MediaClock()
    assert clock.time(VIDEO, [b"opaque"], (90, 180), 90) == MediaTime(Clock.TRANSPORT, SECOND)
    assert clock.time(VIDEO, [b"opaque"], None, 90) is None
    assert clock.time(VIDEO, [], (), 90) is None


def test_catalogs_and_inits_are_no_media() -> None:
    clock = MediaClock()
    assert clock.time("catalog.json", [b"{}"], (90,), 90) is None


@pytest.mark.parametrize("frame", [b"", b"\x00", b"\x00\x00\x00\x08moof", b"\xff" * 50])
def test_garbage_tells_nothing_and_breaks_nothing(frame: bytes) -> None:
    clock = MediaClock()
    clock.note("init.mp4", [b"\x00\x00\x00\x10moov garbage"])
    clock.note("catalog.json", [b"{", b"garbage"])
    clock.note("init.mp4", [INIT])
    assert clock.time(VIDEO, [frame], None, None) is None
