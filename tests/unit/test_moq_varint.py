"""Variable-length integers against the examples of RFC 9000, appendix A.1, and captures."""

from __future__ import annotations

import pytest

from ingest.moq.varint import MAX_VARINT, encode_varint, read_varint

SHORTEST_FORMS = [
    (0, "00"),
    (37, "25"),
    (63, "3f"),
    (64, "4040"),
    (1000, "43e8"),
    (15293, "7bbd"),
    (16383, "7fff"),
    (16384, "80004000"),
    (40000, "80009c40"),
    (494878333, "9d7f3e7d"),
    ((1 << 30) - 1, "bfffffff"),
    (1 << 30, "c000000040000000"),
    (0xFF00000E, "c0000000ff00000e"),
    (151288809941952652, "c2197c5eff14e88c"),
    (MAX_VARINT, "ffffffffffffffff"),
]


@pytest.mark.parametrize(("value", "encoded"), SHORTEST_FORMS)
def test_the_shortest_form_is_written_and_read(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded
    assert read_varint(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


@pytest.mark.parametrize("encoded", ["4025", "80000025", "c000000000000025"])
def test_a_longer_form_than_needed_is_read(encoded: str) -> None:
    assert read_varint(bytes.fromhex(encoded), 0) == (37, len(encoded) // 2)


@pytest.mark.parametrize(("_value", "encoded"), SHORTEST_FORMS)
def test_a_cut_form_needs_more(_value: int, encoded: str) -> None:
    whole = bytes.fromhex(encoded)
    assert [read_varint(whole[:length], 0) for length in range(len(whole))] == [None] * len(whole)


def test_reading_begins_at_the_offset() -> None:
    assert read_varint(bytes.fromhex("ff4040ff"), 1) == (64, 3)


@pytest.mark.parametrize("value", [-1, MAX_VARINT + 1])
def test_a_value_that_does_not_fit_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_varint(value)
