"""Which recordings begin and end, decided without a clock, a process or a network."""

from __future__ import annotations

import pytest

from ingest.directory import Listed
from ingest.supervision import Phase, Policy, Room, Start, Stop, Supervision

RELAY = "https://relay.example/anon"
OTHER = "https://other.example/anon"
GRACE = 600.0


def listed(*names: str, relay: str = RELAY) -> tuple[Listed, ...]:
    return tuple(Listed(name, (relay,)) for name in names)


def supervision(**policy: object) -> Supervision:
    return Supervision(Policy(**policy), chance=lambda: 0.5)  # type: ignore[arg-type]


def started(actions: list[Start | Stop]) -> list[str]:
    return [action.broadcast for action in actions if isinstance(action, Start)]


def stopped(actions: list[Start | Stop]) -> list[str]:
    return [action.broadcast for action in actions if isinstance(action, Stop)]


def recording(*names: str, **policy: object) -> Supervision:
    """Return a supervision that has begun to record these broadcasts at time 0."""
    begun = supervision(**policy)
    begun.take_listing("list", listed(*names), 0)
    assert started(begun.decide(0)) == list(names)
    return begun


def test_what_is_listed_is_started_once() -> None:
    begun = supervision()
    begun.take_listing("list", listed("a", "b"), 0)
    assert begun.decide(0) == [Start("a", RELAY, ()), Start("b", RELAY, ())]
    begun.take_listing("list", listed("b", "a", "c"), 30)
    assert begun.decide(30) == [Start("c", RELAY, ())]
    assert begun.decide(31) == []


def test_a_broadcast_known_to_several_directories_and_relays_is_recorded_once() -> None:
    begun = recording("a")
    begun.take_listing("another", listed("a", relay=OTHER), 1)
    assert begun.decide(1) == []


def test_a_directory_that_empties_ends_nothing_that_still_receives() -> None:
    begun = recording("a")
    begun.take_listing("list", (), 30)
    for now in range(60, 10_000, 60):
        begun.worker_received("a", now)
        assert begun.decide(now) == []
    silent = 9_960
    assert begun.decide(silent + GRACE - 1) == []
    assert stopped(begun.decide(silent + GRACE)) == ["a"]
    begun.worker_ended("a", 0, silent + GRACE + 1)
    begun.decide(silent + GRACE + 2)
    assert not list(begun.supervised())


def test_a_broadcast_that_flaps_within_the_grace_period_is_not_stopped() -> None:
    begun = recording("a")
    for number in range(10):
        begun.take_listing("list", listed("a") if number % 2 else (), 400.0 * number)
        assert begun.decide(400.0 * number) == []


def test_a_broadcast_that_never_sends_goes_a_grace_period_after_it_vanished() -> None:
    begun = recording("a")
    begun.take_listing("list", (), 5000)
    assert begun.decide(5000 + GRACE - 1) == []
    assert stopped(begun.decide(5000 + GRACE)) == ["a"]


def test_a_worker_that_dies_is_started_again_later_each_time_and_afresh_once_it_worked() -> None:
    begun = recording("a")
    now, delays = 0.0, []
    (item,) = begun.supervised()
    for _ in range(9):
        begun.worker_ended("a", -9, now)
        delays.append(item.not_before - now)
        assert begun.decide(item.not_before - 0.01) == []
        now = item.not_before
        assert started(begun.decide(now)) == ["a"]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    begun.worker_ended("a", -9, now + 61)
    assert item.not_before == now + 62
    assert item.restarts == 9


def test_wrong_settings_are_tried_again_slowly() -> None:
    begun = recording("a")
    begun.worker_ended("a", 2, 1)
    assert begun.decide(300) == []
    assert started(begun.decide(301)) == ["a"]


def test_a_worker_that_dies_after_the_directory_emptied_is_started_again() -> None:
    begun = recording("a")
    begun.worker_received("a", 100)
    begun.take_listing("list", (), 101)
    begun.worker_ended("a", -9, 102)
    assert started(begun.decide(104)) == ["a"]


def test_a_worker_that_received_nothing_tries_the_next_relay() -> None:
    begun = supervision()
    begun.take_listing("list", [Listed("a", (RELAY, OTHER))], 0)
    (first,) = begun.decide(0)
    begun.worker_ended("a", 6, 1)
    (second,) = begun.decide(10)
    begun.worker_received("a", 20)
    begun.worker_ended("a", 6, 30)
    (third,) = begun.decide(40)
    assert isinstance(first, Start)
    assert isinstance(second, Start)
    assert isinstance(third, Start)
    assert [first.relay, second.relay, third.relay] == [RELAY, OTHER, OTHER]


def test_a_silent_relay_is_left_for_another() -> None:
    begun = supervision()
    begun.take_listing("list", [Listed("a", (RELAY, OTHER))], 0)
    begun.decide(0)
    assert stopped(begun.decide(GRACE)) == ["a"]
    begun.worker_ended("a", 0, GRACE + 1)
    assert begun.decide(GRACE + 1) == [Start("a", OTHER, ())]


def test_no_more_are_recorded_than_may_be_and_a_silent_one_makes_way() -> None:
    begun = recording("a", "b", max_workers=2)
    begun.take_listing("list", listed("a", "b", "c"), 1)
    assert begun.decide(1) == []
    (waiting,) = [item for item in begun.supervised() if item.phase is Phase.WAITING]
    assert begun.why_waiting(waiting, 1) == "as many are recorded as may be"
    begun.worker_received("b", 500)
    assert stopped(begun.decide(GRACE)) == ["a"]
    assert begun.decide(GRACE + 1) == []
    begun.worker_ended("a", 0, GRACE + 2)
    assert started(begun.decide(GRACE + 2)) == ["c"]


def test_a_disk_that_hangs_ends_no_recording() -> None:
    begun = recording("a")
    begun.worker_received("a", 10)
    begun.reports_read(10)
    begun.take_listing("list", (), 11)
    assert begun.decide(10 * GRACE) == [], "nobody could read who received what"
    begun.reports_read(10 * GRACE + 1)
    assert begun.decide(10 * GRACE + 1) == [], "the recorders are no sooner done than we"
    for later in range(0, int(GRACE), 50):
        begun.reports_read(10 * GRACE + 1 + later)
    begun.reports_read(11 * GRACE + 1)
    assert stopped(begun.decide(11 * GRACE + 1)) == ["a"]


def test_names_and_hosts_that_are_not_asked_for_are_not_recorded() -> None:
    begun = supervision(include=("news/*", "tv"), exclude=("*/test",), relay_hosts=("relay.*",))
    begun.take_listing("list", listed("news/a", "news/test", "tv", "other"), 0)
    begun.take_listing("elsewhere", listed("news/b", relay=OTHER), 0)
    assert started(begun.decide(0)) == ["news/a", "tv"]


def test_another_policy_ends_no_recording_and_starts_what_it_refuses_no_more() -> None:
    begun = recording("a", "b")
    begun.configure(Policy(exclude=("a",)), 1)
    begun.worker_received("a", GRACE)
    assert begun.decide(GRACE) == []
    begun.worker_ended("a", 0, GRACE)
    assert begun.decide(GRACE + 100) == []
    begun.configure(Policy(), GRACE + 101)
    assert started(begun.decide(GRACE + 101)) == ["a"]


def test_while_room_is_short_nothing_begins_and_nothing_ends() -> None:
    begun = recording("a")
    begun.take_room(Room.LOW)
    begun.take_listing("list", listed("a", "b"), 1)
    begun.worker_ended("a", -9, 2)
    assert begun.decide(100) == []
    begun.take_room(Room.AMPLE)
    assert started(begun.decide(101)) == ["a", "b"]


def test_where_room_is_very_short_the_newest_recording_ends_one_for_each_look() -> None:
    begun = recording("a")
    begun.take_listing("list", listed("a", "b"), 1)
    begun.decide(1)
    begun.take_room(Room.CRITICAL)
    assert stopped(begun.decide(2)) == ["b"]
    assert begun.decide(3) == []
    begun.take_room(Room.CRITICAL)
    assert stopped(begun.decide(4)) == ["a"]


@pytest.mark.parametrize(
    ("policy", "tracks"),
    [({}, ()), ({"tracks": ("t",)}, ("t",)), ({"listed_tracks": True}, ("x", "y"))],
)
def test_tracks_are_the_recorders_choice_unless_said(
    policy: dict[str, object], tracks: tuple[str, ...]
) -> None:
    begun = supervision(**policy)
    begun.take_listing("list", [Listed("a", (RELAY,), ("x", "y"))], 0)
    assert begun.decide(0) == [Start("a", RELAY, tracks)]


def test_pinned_broadcasts_are_at_the_default_relay() -> None:
    begun = supervision(default_relay=OTHER)
    begun.take_listing("pinned", [Listed("a")], 0)
    assert begun.decide(0) == [Start("a", OTHER, ())]


def test_a_source_that_is_dropped_counts_as_empty() -> None:
    begun = recording("a")
    begun.drop_source("list", 10)
    assert stopped(begun.decide(10 + GRACE)) == ["a"]
