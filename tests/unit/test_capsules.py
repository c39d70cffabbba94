"""Capsules come out whole, in order, and in bounded memory, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.errors import ProtocolError
from ingest.capsules import Capsule, CapsuleParser, encode_capsule

_CLOSE = 0x2843
_kinds = st.sampled_from([_CLOSE, 0, 1, 0x78AE, (1 << 62) - 1])
_capsules = st.lists(st.builds(Capsule, _kinds, st.binary(max_size=80)), max_size=8)


def _cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


@given(capsules=_capsules, sizes=st.lists(st.integers(0, 20), max_size=60))
def test_known_capsules_come_out_however_the_bytes_are_cut(
    capsules: list[Capsule], sizes: list[int]
) -> None:
    parser = CapsuleParser([_CLOSE], longest=80)
    found: list[Capsule] = []
    for piece in _cut(b"".join(map(encode_capsule, capsules)), sizes):
        found += parser.feed(piece)
    assert found == [capsule for capsule in capsules if capsule.kind == _CLOSE]


@given(pieces=st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_is_a_protocol_error_or_nothing(pieces: list[bytes]) -> None:
    parser = CapsuleParser([_CLOSE], longest=80)
    try:
        for piece in pieces:
            for capsule in parser.feed(piece):
                assert capsule.kind == _CLOSE
                assert len(capsule.value) <= 80
    except ProtocolError:
        pass


def test_a_known_capsule_that_is_too_long_is_refused_at_its_header() -> None:
    parser = CapsuleParser([_CLOSE], longest=80)
    with pytest.raises(ProtocolError, match="81 bytes"):
        parser.feed(bytes.fromhex("6843 4051"))


def test_of_an_unknown_capsule_nothing_is_kept() -> None:
    parser = CapsuleParser([_CLOSE], longest=80)
    parser.feed(bytes.fromhex("00 c000000040000000"))  # a gibibyte is announced
    for _ in range(1 << 10):
        assert parser.feed(bytes(1 << 20)) == []
    assert parser._buffer == b""
    assert parser.feed(encode_capsule(Capsule(_CLOSE, b"over"))) == [Capsule(_CLOSE, b"over")]


def test_the_capsule_that_a_relay_refuses_with() -> None:
    captured = bytes.fromhex("6843 10 00000002 756e617574686f72697a6564")
    assert CapsuleParser([_CLOSE], longest=80).feed(captured) == [
        Capsule(_CLOSE, b"\0\0\0\x02unauthorized")
    ]
