"""Groups are cut into frames, within limits, and what came of a cut one is a valid prefix."""

from __future__ import annotations

import tracemalloc

import pytest

from ingest.moq.groups import Framing, OpenGroups
from ingest.moq.interface import Limits
from ingest.moq.lite_frames import PLAIN, TIMED, encode_zigzag
from ingest.moq.varint import encode_varint

STREAM = 3


def plain(*payloads: bytes) -> bytes:
    return b"".join(encode_varint(len(payload)) + payload for payload in payloads)


def timed(*frames: tuple[int, bytes]) -> bytes:
    """Frames of (difference to the timestamp before, payload)."""
    return b"".join(
        encode_varint(encode_zigzag(delta)) + encode_varint(len(payload)) + payload
        for delta, payload in frames
    )


class Groups(OpenGroups):
    """Open groups that remember which streams they stopped."""

    def __init__(self, **limits: int) -> None:
        self.stopped: list[int] = []
        super().__init__(Limits(**limits), self.stopped.append)


def test_a_group_is_its_frames_and_the_times_of_its_first_and_last_byte() -> None:
    groups = Groups()
    groups.open(STREAM, 7, 42, 1000, PLAIN)
    assert groups.append(STREAM, plain(b"one"), 1001, end=False) == ()
    (group,) = groups.append(STREAM, plain(b"", b"three"), 1002, end=True)
    assert (group.subscription, group.sequence) == (7, 42)
    assert group.frames == (b"one", b"", b"three")
    assert group.timestamps is None
    assert (group.complete, group.reason, group.lacking) == (True, "", 0)
    assert (group.received_start, group.received_end) == (1000, 1002)
    assert STREAM not in groups
    assert groups.buffered == 0


def test_timestamps_are_sums_of_signed_differences() -> None:
    groups = Groups()
    groups.open(STREAM, 0, 0, 0, TIMED)
    data = timed((160_000, b"I"), (40_000, b"P"), (-20_000, b"B"))
    (group,) = groups.append(STREAM, data, 0, end=True)
    assert group.timestamps == (160_000, 200_000, 180_000)


@pytest.mark.parametrize(("framing", "timestamps"), [(PLAIN, None), (TIMED, ())])
def test_an_empty_group_is_complete(framing: Framing, timestamps: tuple[int, ...] | None) -> None:
    groups = Groups()
    groups.open(STREAM, 0, 0, 0, framing)
    (group,) = groups.append(STREAM, b"", 0, end=True)
    assert group.complete
    assert group.frames == ()
    assert group.timestamps == timestamps


def test_a_reset_leaves_the_whole_frames_and_what_came_of_the_last() -> None:
    groups = Groups()
    groups.open(STREAM, 0, 0, 0, TIMED)
    groups.append(STREAM, timed((5, b"whole"), (5, b"and a half"))[:-4], 0, end=False)
    group = groups.reset(STREAM, 64)
    assert group.frames == (b"whole", b"and a ")
    assert group.timestamps == (5, 10)
    assert group.lacking == 4
    assert (group.complete, group.reason) == (False, "reset 64")


@pytest.mark.parametrize("cut", [1, 2])
def test_a_frame_of_which_no_byte_came_is_not_told(cut: int) -> None:
    groups = Groups()
    groups.open(STREAM, 0, 0, 0, TIMED)
    groups.append(STREAM, timed((5, b"whole")) + timed((5, b"x"))[:cut], 0, end=False)
    group = groups.reset(STREAM, 0)
    assert group.frames == (b"whole",)
    assert group.timestamps == (5,)
    assert group.lacking == 0


@pytest.mark.parametrize("cut", [-1, -4, -5])
def test_an_end_in_the_middle_of_a_frame_is_no_end(cut: int) -> None:
    groups = Groups()
    groups.open(STREAM, 0, 0, 0, TIMED)
    (group,) = groups.append(STREAM, timed((0, b"abcd"))[:cut], 0, end=True)
    assert not group.complete
    assert "middle of a frame" in group.reason
    assert b"".join(group.frames) == b"abcd"[: max(0, 4 + cut)]
    assert groups.stopped == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"frame_bytes": 9}, "a frame of 10 bytes"),
        ({"group_bytes": 14}, "over the limit of 14 bytes"),
        ({"group_frames": 1}, "over the limit of 1 frames"),
    ],
)
def test_a_group_over_a_limit_is_cut_before_the_frame_that_breaks_it(
    limits: dict[str, int], reason: str
) -> None:
    groups = Groups(**limits)
    groups.open(STREAM, 0, 0, 0, PLAIN)
    (group,) = groups.append(STREAM, plain(b"12345", b"1234567890"), 0, end=False)
    assert group.frames == (b"12345",)
    assert not group.complete
    assert reason in group.reason
    assert groups.stopped == [STREAM]
    assert groups.buffered == 0


@pytest.mark.parametrize("limits", [{"frame_bytes": 10}, {"group_bytes": 15}, {"group_frames": 2}])
def test_a_group_that_just_fits_is_whole(limits: dict[str, int]) -> None:
    groups = Groups(**limits)
    groups.open(STREAM, 0, 0, 0, PLAIN)
    (group,) = groups.append(STREAM, plain(b"12345", b"1234567890"), 0, end=True)
    assert group.complete


def test_together_over_the_limit_the_largest_group_is_cut() -> None:
    groups = Groups(buffered_bytes=10_000)
    for stream, size in ((3, 1000), (7, 6000), (11, 2000)):
        groups.open(stream, 0, stream, 0, PLAIN)
        groups.append(stream, encode_varint(9000) + bytes(size), 0, end=False)
    (group,) = groups.append(11, bytes(2000), 0, end=False)
    assert group.sequence == 7
    assert len(group.frames[0]) == 6000
    assert "10000 bytes" in group.reason
    assert groups.stopped == [7]
    assert groups.buffered == 5000


def test_tiny_pieces_count_for_what_they_really_take() -> None:
    groups = Groups(buffered_bytes=100_000)
    groups.open(STREAM, 0, 0, 0, PLAIN)
    groups.append(STREAM, encode_varint(60_000), 0, end=False)
    pieces = 0
    while not groups.stopped:
        groups.append(STREAM, b"xy", 0, end=False)
        pieces += 1
    assert pieces < 2000


def test_empty_frames_count_for_what_they_really_take() -> None:
    groups = Groups(buffered_bytes=100_000)
    groups.open(STREAM, 0, 0, 0, TIMED)
    (group,) = groups.append(STREAM, bytes(2 * 2000), 0, end=False)
    assert len(group.frames) == 2000
    assert groups.stopped == [STREAM]


def test_a_group_that_ends_in_the_piece_that_is_too_much_is_whole() -> None:
    groups = Groups(buffered_bytes=1000)
    groups.open(STREAM, 0, 0, 0, PLAIN)
    (group,) = groups.append(STREAM, plain(bytes(2000)), 0, end=True)
    assert group.complete


@pytest.mark.parametrize("outcome", ["end", "reset", "cut", "forget"])
def test_a_group_that_is_over_is_held_no_more(outcome: str) -> None:
    groups = Groups(buffered_bytes=5000, frame_bytes=2000)
    for _ in range(10):
        groups.open(STREAM, 0, 0, 0, PLAIN)
        groups.append(STREAM, plain(bytes(1000)), 0, end=False)
        if outcome == "end":
            groups.append(STREAM, plain(bytes(1000)), 0, end=True)
        elif outcome == "reset":
            groups.reset(STREAM, 0)
        elif outcome == "cut":
            groups.append(STREAM, encode_varint(2001), 0, end=False)
        else:
            groups.forget(0)
        assert STREAM not in groups
    groups.open(STREAM, 0, 0, 0, PLAIN)
    assert groups.append(STREAM, plain(bytes(1500), bytes(1500)), 0, end=False) == ()


def test_a_declared_length_allocates_nothing() -> None:
    groups = Groups()
    groups.open(STREAM, 0, 0, 0, PLAIN)
    header = encode_varint(64 << 20)
    tracemalloc.start()
    try:
        groups.append(STREAM, header + b"x", 0, end=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000
    assert groups.buffered == 1


def test_an_open_group_is_told_when_old_and_again_only_when_grown() -> None:
    groups = Groups()
    groups.open(STREAM, 0, 0, 100, TIMED)
    groups.append(STREAM, timed((1, b"snapshot"), (1, b"delta"))[:-2], 200, end=False)
    assert groups.snapshot(100) == []
    (group,) = groups.snapshot(101)
    assert group.frames == (b"snapshot", b"del")
    assert (group.complete, group.reason) == (False, "still open")
    assert (group.received_start, group.received_end) == (100, 200)
    assert groups.snapshot(1000) == []

    groups.append(STREAM, b"t", 300, end=False)
    (group,) = groups.snapshot(1000)
    assert group.frames == (b"snapshot", b"delt")
    groups.append(STREAM, b"a", 400, end=False)
    (group,) = groups.append(STREAM, timed((1, b"")), 500, end=True)
    assert group.complete
    assert group.frames == (b"snapshot", b"delta", b"")
    assert groups.buffered == 0


def test_a_group_of_which_nothing_came_is_not_told_as_open() -> None:
    groups = Groups()
    groups.open(STREAM, 0, 0, 0, PLAIN)
    assert groups.snapshot(1000) == []


def test_telling_of_an_open_group_keeps_the_sum_of_what_is_held() -> None:
    groups = Groups(buffered_bytes=1000)
    for sequence in range(50):
        groups.open(STREAM, 0, sequence, 0, PLAIN)
        groups.append(STREAM, encode_varint(100), 0, end=False)
        for _ in range(5):
            groups.append(STREAM, b"piece", 0, end=False)
        assert len(groups.snapshot(1)) == 1
        groups.reset(STREAM, 0)
    assert groups.stopped == []


def test_abandoning_tells_all_groups_and_holds_none() -> None:
    groups = Groups()
    for stream in (3, 7):
        groups.open(stream, 0, stream, 0, PLAIN)
        groups.append(stream, plain(b"frame"), 0, end=False)
    reported = groups.abandon("session lost")
    assert [(group.sequence, group.reason) for group in reported] == [
        (3, "session lost"),
        (7, "session lost"),
    ]
    assert groups.buffered == 0
    assert groups.abandon("again") == []


def test_forgetting_a_subscription_stops_its_groups_alone() -> None:
    groups = Groups()
    groups.open(3, 1, 0, 0, PLAIN)
    groups.open(7, 2, 0, 0, PLAIN)
    groups.forget(1)
    assert groups.stopped == [3]
    assert not groups.has(1)
    assert groups.has(2)
