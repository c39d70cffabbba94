"""The segments of a timeline come out of their list as they went in, and take little room."""

from __future__ import annotations

import pytest

from casfs.digest import digest_of
from casfs.media.descriptions import Kind, SampleDescription
from casfs.media.fragmented import FragmentMember, TablePlace
from casfs.media.moov import InitTrack
from casfs.media.segments import Segment
from casfs.recordings.segmentlist import SegmentList
from casfs.recordings.tables import Payload
from casfs.timestamps import HOUR, NANOSECONDS, parse_time

START = parse_time("2026-11-22T00:00:00Z")
PICTURE = InitTrack(SampleDescription(Kind.VIDEO, b"\0\0\0\x08avc1"), 12_800)
SOUND = InitTrack(SampleDescription(Kind.AUDIO, b"\0\0\0\x08mp4a"), 48_000)
INIT = digest_of(b"init")


def payload(number: int, track: str) -> Payload:
    return Payload(
        track=track,
        epoch=1 + number // 1000,
        received=START + number * 2 * NANOSECONDS,
        digest=digest_of(f"{track} {number}".encode()),
        offset=number,
        size=300_000 + number,
        tables=(),
        init=INIT if number % 3 else None,
    )


def segment(number: int) -> Segment:
    """Return the segment with this number: two seconds of picture and sound."""
    return Segment(
        number=number,
        epoch=1 + number // 1000,
        init=(PICTURE, SOUND),
        follows=number % 7 != 0,
        begin=number * 2 * NANOSECONDS,
        duration=2 * NANOSECONDS + number,
        received=START + number * 2 * NANOSECONDS,
        members=(
            FragmentMember(payload(number, "video0.m4s"), (TablePlace(1, number * 25_600, 1),)),
            FragmentMember(
                payload(number, "audio0.m4s"), (TablePlace(2, number * 96_000), TablePlace(0, 0))
            ),
        ),
        size=400_000 + number,
    )


def test_segments_come_out_as_they_went_in() -> None:
    kept = SegmentList()
    made = [segment(number) for number in range(1, 3000)]
    for item in made:
        kept.add(item, item.number % 4)
    found = kept.first(len(kept))
    for index, item in enumerate(made):
        assert found.members(index) == list(item.members)
        said = found[index]
        assert said.init == item.number % 4
        for name in ("number", "epoch", "follows", "begin", "duration", "received", "size"):
            assert getattr(said, name) == getattr(item, name)


def test_who_looks_at_the_first_segments_sees_no_more_of_them_later() -> None:
    kept = SegmentList()
    kept.add(segment(1), 0)
    first = kept.first(1)
    kept.add(segment(2), 0)
    assert len(first) == 1
    assert [item.number for item in first] == [1]
    with pytest.raises(IndexError):
        first[1]
    assert [item.number for item in kept.first(2)[1:]] == [2]


def test_a_day_of_segments_takes_ten_megabytes() -> None:
    kept = SegmentList()
    for number in range(1, 1801):
        kept.add(segment(number), 0)
    days = 24 * HOUR // (1800 * 2 * NANOSECONDS)
    assert kept.bytes * days < 10_000_000
