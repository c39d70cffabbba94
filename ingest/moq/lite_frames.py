"""How moq-lite frames the payload of a group: 04 by size alone, since 05 with timestamps."""

from __future__ import annotations

from typing import Final

from casfs.errors import ProtocolError
from ingest.moq.groups import FrameHeader, Framing
from ingest.moq.varint import read_varint

_TIMESTAMP_LIMIT: Final = 1 << 63


def read_plain_frame(data: bytes, offset: int, _previous: int) -> FrameHeader | None:
    """Read a frame header of 04: the size alone. None when more bytes are needed."""
    size = read_varint(data, offset)
    return None if size is None else FrameHeader(size[0], None, size[1])


def read_timed_frame(data: bytes, offset: int, previous: int) -> FrameHeader | None:
    """Read a frame header of 05: the timestamp as a zigzag difference, then the size.

    ``previous`` is the timestamp of the frame before, 0 for the first. None when more bytes are
    needed; raise `ProtocolError` for a timestamp that leaves 64 bits.
    """
    delta = read_varint(data, offset)
    if delta is None:
        return None
    size = read_varint(data, delta[1])
    if size is None:
        return None
    timestamp = previous + decode_zigzag(delta[0])
    if not -_TIMESTAMP_LIMIT <= timestamp < _TIMESTAMP_LIMIT:
        raise ProtocolError("a frame's timestamp leaves 64 bits")
    return FrameHeader(size[0], timestamp, size[1])


def decode_zigzag(value: int) -> int:
    """Return the signed number that ``value`` stands for: 0, -1, 1, -2, ..."""
    return (value >> 1) ^ -(value & 1)


def encode_zigzag(value: int) -> int:
    """Return the unsigned number that stands for ``value``."""
    return value << 1 if value >= 0 else (-value << 1) - 1


PLAIN: Final = Framing(read_plain_frame, timed=False)
"""The framing of 04."""

TIMED: Final = Framing(read_timed_frame, timed=True)
"""The framing of 05 and 06."""
