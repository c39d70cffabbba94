"""Variable-length integers of QUIC (RFC 9000, section 16).

The first two bits say how many bytes there are (1, 2, 4 or 8), the rest is the value, most
significant byte first. Longer forms than needed are legal and accepted.
"""

from __future__ import annotations

from typing import Final

MAX_VARINT: Final = (1 << 62) - 1
"""The largest value that fits."""


def encode_varint(value: int) -> bytes:
    """Return the shortest form of ``value``; raise `ValueError` outside 0 to `MAX_VARINT`."""
    if 0 <= value < 1 << 6:
        return value.to_bytes(1, "big")
    if 0 < value < 1 << 14:
        return (value | 0x4000).to_bytes(2, "big")
    if 0 < value < 1 << 30:
        return (value | 0x8000_0000).to_bytes(4, "big")
    if 0 < value <= MAX_VARINT:
        return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")
    raise ValueError(f"{value} does not fit a variable-length integer")


def read_varint(data: bytes | bytearray, offset: int) -> tuple[int, int] | None:
    """Return the integer at ``offset`` and the offset behind it; None when more bytes are needed.

    No exception and no object beyond the pair: this runs for every frame that arrives.
    """
    if offset >= len(data):
        return None
    first = data[offset]
    if first < 0x40:
        return first, offset + 1
    length = 1 << (first >> 6)
    end = offset + length
    if end > len(data):
        return None
    value = int.from_bytes(data[offset:end], "big")
    return value & ((1 << (8 * length - 2)) - 1), end
