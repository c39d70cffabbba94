"""Quantities as people write and read them: time, sizes, shares and room on a disk. Pure."""

from __future__ import annotations

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Room(float):
    """Space on a disk: a number of bytes, or, up to 1, a share of the whole disk."""

    __slots__ = ()

    def of(self, total: int) -> int:
        """Return the bytes that are meant on a disk of ``total`` bytes."""
        return int(self if self > 1 else self * total)

    def __str__(self) -> str:
        return f"{self:.0f}" if self > 1 else f"{100 * self:g}%"


def parse_duration(text: str) -> float:
    """Return the seconds of ``90``, ``90s``, ``15m``, ``2h`` or ``7d``; raises ValueError."""
    stripped = text.strip()
    unit = stripped[-1:] if stripped[-1:].isalpha() else ""
    try:
        seconds = float(stripped.removesuffix(unit)) * _SECONDS[unit]
    except (ValueError, KeyError):
        raise ValueError(f"{stripped!r} is no duration such as 90s, 15m or 2h") from None
    if not 0 < seconds < 1e10:
        raise ValueError(f"{stripped!r} is not a positive duration")
    return seconds


def parse_size(text: str) -> float:
    """Return the bytes of ``65536``, ``500K``, ``50M`` or ``2G`` (powers of 1000).

    Raises ValueError.
    """
    upper = text.strip().upper().removesuffix("B")
    unit = upper[-1:] if upper[-1:].isalpha() else ""
    try:
        size = float(upper.removesuffix(unit)) * _SIZES[unit]
    except (ValueError, KeyError):
        raise ValueError(f"{text!r} is no size such as 65536, 500K or 50M") from None
    if not 1 <= size < 1e18:
        raise ValueError(f"{text!r} is not a positive size")
    return size


def parse_share(text: str) -> float:
    """Return the part, above 0 and at most 1, that ``5%`` or ``0.05`` says; raises ValueError."""
    stripped = text.strip()
    try:
        share = float(stripped.removesuffix("%")) / (100 if stripped.endswith("%") else 1)
    except ValueError:
        raise ValueError(f"{stripped!r} is no share such as 5% or 0.05") from None
    if not 0 < share <= 1:
        raise ValueError(f"{stripped!r} is not above 0 and at most 100%")
    return share


def parse_room(text: str) -> Room:
    """Return the room that a size such as ``500G`` or a share such as ``10%`` says.

    Raises ValueError.
    """
    if text.strip().endswith("%"):
        return Room(parse_share(text))
    return Room(max(2.0, parse_size(text)))  # one byte would be the whole disk


def format_bytes(count: float) -> str:
    """Return ``count`` bytes in a unit that reads well, powers of 1000."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
