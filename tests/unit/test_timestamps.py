from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.timestamps import DAY, HOUR, NANOSECONDS, date_of, format_time, parse_time

FIRST = parse_time("0001-01-01T00:00:00Z")
LAST = parse_time("9999-12-31T23:59:59.999999999Z")

instants = st.integers(FIRST, LAST)


def test_an_instant_reads_as_its_text() -> None:
    assert format_time(0) == "1970-01-01T00:00:00.000000000Z"
    assert format_time(-1) == "1969-12-31T23:59:59.999999999Z"
    assert format_time(1_795_352_400_123_456_789) == "2026-11-22T13:00:00.123456789Z"
    assert format_time(FIRST) == "0001-01-01T00:00:00.000000000Z"


@given(instants)
def test_every_nanosecond_survives_the_text(instant: int) -> None:
    assert parse_time(format_time(instant)) == instant


@given(instants, instants)
def test_text_sorts_as_the_instants_do(one: int, other: int) -> None:
    assert (one < other) == (format_time(one) < format_time(other))


@given(instants)
def test_the_date_is_that_of_the_text(instant: int) -> None:
    assert format_time(instant).startswith(date_of(instant) + "T")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-22T13:00Z", "2026-11-22T13:00:00.000000000Z"),
        ("2026-11-22 13:00:00", "2026-11-22T13:00:00.000000000Z"),
        ("2026-11-22t13:00:00z", "2026-11-22T13:00:00.000000000Z"),
        ("  2026-11-22T13:00:00.5Z ", "2026-11-22T13:00:00.500000000Z"),
        ("2026-11-22T13:00:00+02:00", "2026-11-22T11:00:00.000000000Z"),
        ("2026-11-22T13:00:00.25-05:30", "2026-11-22T18:30:00.250000000Z"),
        ("2026-11-22T13:00:00.1234567891234Z", "2026-11-22T13:00:00.123456789Z"),
    ],
)
def test_other_forms_of_rfc_3339_are_read(text: str, same: str) -> None:
    assert format_time(parse_time(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026-11-22", "13:00:00", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z",
        "2026-11-22T25:00:00Z", "2026-11-22T13:60:00Z", "2026-11-22T13:00:60Z",
        "2026-11-22T13:00:00.Z", "2026-11-22T13:00:00+2", "2026-11-22T13:00:00+25:00",
        "20261122T130000Z", "2026-11-22T13:00:00.٣Z", "2026-11-22T13:00:00Z and more",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the message is ours or datetime's
        parse_time(text)


def test_units_fit_together() -> None:
    assert (NANOSECONDS, HOUR, DAY) == (10**9, 3600 * 10**9, 24 * HOUR)
