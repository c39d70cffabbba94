"""Writing control messages: the fields that `ingest.moq.reading` reads, and what frames them."""

from __future__ import annotations

from ingest.moq.varint import encode_varint


def message(*fields: bytes) -> bytes:
    """Return a message as it stands on a stream: its length, then its fields."""
    body = b"".join(fields)
    return encode_varint(len(body)) + body


def octets(value: bytes) -> bytes:
    """Return bytes behind their length."""
    return encode_varint(len(value)) + value


def text(value: str) -> bytes:
    """Return UTF-8 text behind its length in bytes."""
    return octets(value.encode())


def byte(value: int) -> bytes:
    """Return 0 to 255 as one byte."""
    return value.to_bytes(1, "big")


def varints(values: tuple[int, ...]) -> bytes:
    """Return integers behind their number."""
    return b"".join(map(encode_varint, (len(values), *values)))


def optional(value: int | None) -> bytes:
    """Return an integer that may be missing: one more than it is, or 0 for None."""
    return encode_varint(0 if value is None else value + 1)
