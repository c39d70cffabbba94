"""Instants as nanoseconds since the Unix epoch (UTC, no leap seconds) and as RFC 3339 text.

The text form always has nine decimals and a ``Z``, so that it sorts as it reads and loses nothing
(RFC 3339, section 5.6; of longer fractions the first nine digits are read).
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta

NANOSECONDS = 1_000_000_000
"""Nanoseconds in a second."""

HOUR = 3600 * NANOSECONDS
"""Nanoseconds in an hour."""

DAY = 24 * HOUR
"""Nanoseconds in a day."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OURS = re.compile(r"(?a)(\d{4}-\d\d-\d\dT\d\d):([0-5]\d):([0-5]\d)\.(\d{9})Z")
_TEXT = re.compile(
    r"(?a)(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)?",
)


def format_time(nanoseconds: int) -> str:
    """Return ``2026-11-22T13:00:00.123456789Z`` for an instant of the years 1 to 9999."""
    seconds, fraction = divmod(nanoseconds, NANOSECONDS)
    whole = _EPOCH + timedelta(seconds=seconds)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z".rjust(30, "0")


def parse_time(text: str) -> int:
    """Return the instant that ``text`` names; without an offset it is UTC.

    Raises ValueError for anything that is not an RFC 3339 date and time (seconds may be left out).
    """
    match = _OURS.fullmatch(text)
    if match is not None:
        hour, minute, second, nanosecond = match.groups()
        return _hour(hour) + (int(minute) * 60 + int(second)) * NANOSECONDS + int(nanosecond)
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a time: {text[:60]!r}")
    date, clock, fraction, zone = match.groups()
    moment = datetime.fromisoformat(
        f"{date}T{clock}{'+00:00' if zone in (None, 'Z', 'z') else zone}"
    )
    since = moment - _EPOCH
    nanoseconds = int((fraction or "")[:9].ljust(9, "0"))
    return (since.days * 86400 + since.seconds) * NANOSECONDS + nanoseconds


@functools.lru_cache(maxsize=64)
def _hour(text: str) -> int:
    """Return the beginning of the hour ``2026-11-22T13``: times come by the thousand of one."""
    since = datetime.fromisoformat(f"{text}:00:00+00:00") - _EPOCH
    return (since.days * 86400 + since.seconds) * NANOSECONDS


def date_of(nanoseconds: int) -> str:
    """Return the UTC date, ``2026-11-22``."""
    return format_time(nanoseconds)[:10]
