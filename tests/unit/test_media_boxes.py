"""Boxes: found where they are, refused where they lie."""

from __future__ import annotations

import struct

import pytest

from casfs.media import boxes
from casfs.media.boxes import (
    Box,
    Fields,
    MalformedMediaError,
    box,
    children,
    find,
    full_box,
    large_header,
    require,
    walk,
)


def test_boxes_follow_each_other() -> None:
    data = box(b"ftyp", b"isom") + box(b"free") + box(b"mdat", b"media")
    assert [(item.kind, data[item.body : item.end]) for item in walk(data)] == [
        (b"ftyp", b"isom"),
        (b"free", b""),
        (b"mdat", b"media"),
    ]


def test_a_large_size_is_read() -> None:
    data = large_header(b"mdat", 5) + b"media" + box(b"free")
    first, second = walk(data)
    assert (data[first.body : first.end], second.kind) == (b"media", b"free")


def test_a_box_to_the_end_is_read_at_the_outermost_level_alone() -> None:
    data = struct.pack(">I4s", 0, b"mdat") + b"all the rest"
    (item,) = walk(data, outermost=True)
    assert (item.end, item.whole) == (len(data), True)
    with pytest.raises(MalformedMediaError, match="of 0 bytes"):
        list(walk(data))


def test_a_box_that_is_cut_is_told_at_the_outermost_level_and_refused_within() -> None:
    data = box(b"mdat", b"media")[:-2]
    (item,) = walk(data, outermost=True)
    assert (item.end, item.whole) == (len(data), False)
    with pytest.raises(MalformedMediaError, match="13 bytes in 11"):
        list(walk(data))


@pytest.mark.parametrize("size", [2, 7])
@pytest.mark.parametrize("outermost", [False, True])
def test_a_size_below_the_header_is_refused(size: int, outermost: bool) -> None:
    with pytest.raises(MalformedMediaError, match=f"of {size} bytes"):
        list(walk(struct.pack(">I4s", size, b"moof") + bytes(20), outermost=outermost))


@pytest.mark.parametrize("size", [0, 15, 1 << 63])
def test_a_large_size_that_lies_is_refused(size: int) -> None:
    with pytest.raises(MalformedMediaError):
        list(walk(struct.pack(">I4sQ", 1, b"mdat", size) + bytes(8)))


def test_a_child_that_is_larger_than_its_parent_is_refused() -> None:
    data = box(b"moof", struct.pack(">I4s", 24, b"traf")) + bytes(100)
    (parent, *_) = walk(data[:16])
    with pytest.raises(MalformedMediaError, match="24 bytes in 8"):
        list(children(data, parent))


@pytest.mark.parametrize("left", [1, 7])
def test_bytes_too_few_for_a_box_end_a_stream_but_not_a_box(left: int) -> None:
    data = box(b"free") + bytes(left)
    assert len(list(walk(data, outermost=True))) == 1
    with pytest.raises(MalformedMediaError, match="where a box should begin"):
        list(walk(data))


def test_the_number_of_boxes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "MAX_BOXES", 10)
    assert len(list(walk(box(b"free") * 10))) == 10
    with pytest.raises(MalformedMediaError, match="more than 10"):
        list(walk(box(b"free") * 11))


def test_a_path_leads_to_the_first_box_at_its_end() -> None:
    data = box(b"trak", box(b"mdia", box(b"hdlr", b"one"), box(b"hdlr", b"two")))
    (trak,) = walk(data)
    found = require(data, trak, b"mdia", b"hdlr")
    assert data[found.body : found.end] == b"one"
    assert find(data, trak, b"mdia", b"minf", b"stbl") is None
    with pytest.raises(MalformedMediaError, match="no b'mdia/minf'"):
        require(data, trak, b"mdia", b"minf")


def test_fields_are_read_in_order_and_never_past_the_box() -> None:
    data = full_box(b"test", b"\x00\x05\xff\xfe", version=1, flags=0x20305) + b"behind"
    fields = Fields(data, next(iter(walk(data, 0, len(data) - 6))))
    assert fields.version_and_flags() == (1, 0x20305)
    assert (fields.unsigned(2), fields.signed(2)) == (5, -2)
    with pytest.raises(MalformedMediaError, match="ends within its fields"):
        fields.take(1)


def test_a_parent_without_room_for_its_own_fields_is_refused() -> None:
    with pytest.raises(MalformedMediaError):
        children(bytes(12), Box(b"stsd", 0, 8, 12), skip=8)
