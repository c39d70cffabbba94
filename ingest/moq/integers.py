"""The two ways in which MoQ writes variable-length integers.

moq-lite and drafts of MoQ transport up to 16 take QUIC's (RFC 9000, section 16; 62 bits). Since 17
the number of leading ones of the first byte says how many bytes follow, and a value may take all 64
bits (draft-ietf-moq-transport-18, section "Variable-Length Integers"). Longer forms than needed are
legal in both and accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ingest.moq.varint import MAX_VARINT, encode_varint, read_varint

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LEADING_ONES: Final = (1 << 64) - 1
"""The largest value of the newer kind."""

_LONGEST_TAGGED: Final = 8
"""Bytes of the longest form whose first byte still marks an end of its ones."""


class Integers(NamedTuple):
    """One way of writing integers."""

    encode: Callable[[int], bytes]
    """Returns the shortest form; raises `ValueError` for what does not fit."""
    read: Callable[[bytes | bytearray, int], tuple[int, int] | None]
    """Returns the integer at an offset and the offset behind it; None when bytes are missing."""
    largest: int
    """What fits."""


def encode_leading_ones(value: int) -> bytes:
    """Return the shortest form of ``value``; raise `ValueError` outside 64 bits."""
    if not 0 <= value <= MAX_LEADING_ONES:
        raise ValueError(f"{value} does not fit a variable-length integer")
    length = max(1, -(-value.bit_length() // 7))
    if length > _LONGEST_TAGGED:
        return b"\xff" + value.to_bytes(8, "big")
    ones = (1 << (length - 1)) - 1
    tag = ones << (8 * length - length + 1)
    return (tag | value).to_bytes(length, "big")


def read_leading_ones(data: bytes | bytearray, offset: int) -> tuple[int, int] | None:
    """Return the integer at ``offset`` and the offset behind it; None when bytes are missing."""
    if offset >= len(data):
        return None
    first = data[offset]
    if first < 0x80:
        return first, offset + 1
    length = 9 - (first ^ 0xFF).bit_length()
    end = offset + length
    if end > len(data):
        return None
    value = int.from_bytes(data[offset:end], "big")
    return value & ((1 << (7 * length if length <= _LONGEST_TAGGED else 64)) - 1), end


QUIC_INTEGERS: Final = Integers(encode_varint, read_varint, MAX_VARINT)
LEADING_ONES: Final = Integers(encode_leading_ones, read_leading_ones, MAX_LEADING_ONES)
