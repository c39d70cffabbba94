"""Groups are asked for once more in vain a few times, and never lost for it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ingest import refetching
from ingest.moq.events import GroupReceived
from ingest.refetching import PATIENCE, PAUSE, SKIPPED_AT_MOST, Refetching


class Relay:
    """Notes what is fetched."""

    def __init__(self, *, can: bool = True) -> None:
        self.can = can
        self.asked: list[tuple[int, int]] = []

    def fetch(self, subscription: int, sequence: int) -> bool:
        if self.can:
            self.asked.append((subscription, sequence))
        return self.can


def group(sequence: int, data: bytes = b"data", *, reason: str = "") -> GroupReceived:
    return GroupReceived(1, sequence, (data,), None, not reason, reason, 5, 6)


def cut(sequence: int = 7, data: bytes = b"da") -> GroupReceived:
    return group(sequence, data, reason="reset 64")


def test_a_group_that_was_cut_is_held_back_until_a_fetch_brings_it_whole() -> None:
    relay = Relay()
    refetching = Refetching(relay.fetch)
    assert refetching.received(cut(), 0) == ()
    assert relay.asked == [(1, 7)]
    whole = replace(group(7), fetched=True)
    assert refetching.received(whole, 1) == (whole,)
    assert refetching.give_up() == []


def test_after_its_tries_the_most_that_came_of_it_is_recorded() -> None:
    relay = Relay()
    refetching = Refetching(relay.fetch)
    refetching.received(cut(), 0)
    longer = replace(cut(data=b"dat"), fetched=True)
    assert refetching.received(longer, 1) == ()
    assert refetching.tick(1 + PAUSE / 2) == []
    assert refetching.tick(1 + PAUSE) == []
    assert relay.asked == [(1, 7)] * 2
    assert refetching.failed(1, 7, 3) == (longer,)
    assert refetching.give_up() == []


def test_where_nothing_can_be_fetched_it_is_recorded_at_once() -> None:
    refetching = Refetching(Relay(can=False).fetch)
    assert refetching.received(cut(), 0) == (cut(),)


@pytest.mark.parametrize("reason", ["session lost", "still open", "larger than may be"])
def test_what_the_relay_did_not_cut_is_not_fetched(reason: str) -> None:
    relay = Relay()
    incomplete = group(7, reason=reason)
    assert Refetching(relay.fetch).received(incomplete, 0) == (incomplete,)
    assert relay.asked == []


def test_nothing_is_held_back_for_long_nor_beyond_a_session() -> None:
    refetching = Refetching(Relay().fetch)
    refetching.received(cut(7), 0)
    assert refetching.tick(PATIENCE - 1) == []
    assert refetching.tick(PATIENCE) == [cut(7)]
    refetching.received(cut(8), 20)
    assert refetching.give_up(2) == []
    assert refetching.give_up(1) == [cut(8)]


def test_what_is_held_back_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refetching, "HELD_BYTES", 10)
    held = Refetching(Relay().fetch)
    assert held.received(cut(1, b"12345678"), 0) == ()
    assert held.received(cut(2, b"12345678"), 0) == (cut(2, b"12345678"),)


def test_a_sequence_that_was_skipped_is_asked_for_once_unless_it_comes_late() -> None:
    relay = Relay()
    refetching = Refetching(relay.fetch)
    for sequence in (3, 7, 5):
        refetching.received(group(sequence), 0)
    refetching.tick(1)
    assert relay.asked == []
    refetching.tick(60)
    assert relay.asked == [(1, 4), (1, 6)]
    refetching.tick(600)
    assert len(relay.asked) == 2


def test_what_is_missing_of_a_backlog_that_comes_newest_first_is_asked_for_too() -> None:
    relay = Relay()
    refetching = Refetching(relay.fetch)
    for sequence in (20, 19, 21, 15, 16, 10):
        refetching.received(group(sequence), 0)
    refetching.received(group(12), 3)
    refetching.tick(60)
    assert sorted(relay.asked) == [(1, 11), (1, 13), (1, 14), (1, 17), (1, 18)]


def test_a_publisher_that_skips_on_purpose_is_soon_left_alone() -> None:
    relay = Relay()
    refetching = Refetching(relay.fetch)
    for sequence in range(0, 100, 2):
        refetching.received(group(sequence), sequence)
        refetching.tick(sequence + 60)
        for subscription, missing in relay.asked[-1:]:
            refetching.failed(subscription, missing, sequence)
    assert len(relay.asked) < 6
    refetching.received(group(100 + SKIPPED_AT_MOST + 9), 500)
    refetching.tick(600)
    assert len(relay.asked) < 6
