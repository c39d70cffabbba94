"""Delays that grow, up to a bound, and never in step."""

from __future__ import annotations

import pytest

from ingest.backoff import Backoff


def delays(backoff: Backoff, count: int) -> list[float]:
    return [backoff.delay() for _ in range(count)]


def test_each_delay_is_twice_the_one_before_up_to_half_a_minute() -> None:
    assert delays(Backoff(lambda: 0.5), 7) == [1, 2, 4, 8, 16, 30, 30]


def test_chance_makes_them_a_quarter_shorter_or_longer() -> None:
    assert delays(Backoff(lambda: 0.0), 3) == [0.75, 1.5, 3.0]
    assert delays(Backoff(lambda: 1.0), 3) == [1.25, 2.5, 5.0]


def test_what_has_worked_is_tried_soon_again() -> None:
    backoff = Backoff(lambda: 0.5, first=2.0, most=5.0)
    assert delays(backoff, 3) == [2, 4, 5]
    backoff.reset()
    assert backoff.delay() == 2


def test_two_recorders_are_not_in_step() -> None:
    assert delays(Backoff(), 5) != pytest.approx(delays(Backoff(), 5), rel=1e-9)
