"""Boxes: whatever the bytes, a walk stays within them and ends."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from casfs.media.boxes import MalformedMediaError, box, children, walk
from casfs.media.movie import read_movie
from tests.fakes.fragments import init, sample_entry, trak, trex

if TYPE_CHECKING:
    from collections.abc import Callable

    Tree = tuple[bytes, bytes | list["Tree"]]

KINDS = st.sampled_from([b"moov", b"moof", b"mdat", b"trak", b"free"])
TREES = st.recursive(
    st.tuples(KINDS, st.binary(max_size=20)),
    lambda inner: st.tuples(KINDS, st.lists(inner, max_size=4)),
    max_leaves=20,
)
HEADERS = st.builds(
    lambda size, large: struct.pack(">I4s", size, b"moof") + large,
    st.one_of(st.integers(0, 40), st.sampled_from([0, 1, 2**31, 2**32 - 1])),
    st.binary(max_size=16),
)
HOSTILE = st.one_of(st.binary(max_size=200), st.lists(HEADERS, max_size=8).map(b"".join))
INIT = init(
    trak(1, edits=((100, -1), (0, 1024))),
    trak(2, b"soun", entries=(sample_entry(b"mp4a"), sample_entry(b"Opus")), version=1),
    defaults=(trex(1, duration=5), trex(2)),
)


def write(tree: Tree) -> bytes:
    kind, content = tree
    return box(kind, content if isinstance(content, bytes) else b"".join(map(write, content)))


@given(TREES)
def test_what_is_written_is_found(tree: Tree) -> None:
    def check(data: bytes, start: int, end: int, node: Tree) -> None:
        kind, content = node
        (found,) = walk(data, start, end)
        assert (found.kind, found.start, found.end, found.whole) == (kind, start, end, True)
        if isinstance(content, bytes):
            assert data[found.body : found.end] == content
            return
        inner = list(children(data, found))
        assert len(inner) == len(content)
        for item, child in zip(inner, content, strict=True):
            check(data, item.start, item.end, child)

    data = write(tree)
    check(b"before" + data + b"behind", 6, 6 + len(data), tree)


@given(HOSTILE, st.booleans(), st.integers(0, 220), st.integers(0, 220))
@example(b"\0\0\0\1mdat" + b"\xff" * 8, True, 0, 16)
@example(b"\0\0\0\0mdat", True, 0, 8)
def test_boxes_of_any_bytes_follow_each_other_within_them(
    data: bytes, outermost: bool, start: int, end: int
) -> None:
    position = start
    try:
        for found in walk(data, start, end, outermost=outermost):
            assert found.start == position
            assert found.start + 8 <= found.body <= found.end <= min(end, len(data))
            assert found.whole or outermost
            position = found.end
    except MalformedMediaError:
        return
    assert outermost or position == min(end, len(data)) or start >= min(end, len(data))


def mutations(seed: bytes) -> st.SearchStrategy[bytes]:
    """Bytes flipped, cut out, put in and cut off."""

    def overwrite(data: bytes, place: int, value: bytes) -> bytes:
        place %= len(data) + 1
        return data[:place] + value + data[place + len(value) :]

    def insert(data: bytes, place: int, value: bytes) -> bytes:
        place %= len(data) + 1
        return data[:place] + value + data[place:]

    def remove(data: bytes, place: int, value: bytes) -> bytes:
        place %= len(data) + 1
        return data[:place] + data[place + len(value) :]

    def apply(steps: list[tuple[Callable[[bytes, int, bytes], bytes], int, bytes]]) -> bytes:
        data = seed
        for change, place, value in steps:
            data = change(data, place, value)
        return data

    values = st.one_of(
        st.binary(min_size=1, max_size=8),
        st.sampled_from([b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1"]),
    )
    changes: list[Callable[[bytes, int, bytes], bytes]] = [overwrite, overwrite, insert, remove]
    change = st.sampled_from(changes)
    step = st.tuples(change, st.integers(0, 2**16), values)
    return st.lists(step, min_size=1, max_size=4).map(apply)


@given(mutations(INIT))
def test_a_changed_init_is_read_or_refused(data: bytes) -> None:
    try:
        movie = read_movie(data)
    except MalformedMediaError:
        return
    assert len(movie.tracks) <= 64
    for track in movie.tracks:
        assert 0 < track.timescale < 1 << 31
        assert track.descriptions
        assert all(description.entry in data for description in track.descriptions)


@given(HOSTILE)
def test_any_bytes_are_read_as_an_init_or_refused(data: bytes) -> None:
    try:
        read_movie(data)
    except MalformedMediaError:
        return
