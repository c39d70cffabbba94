from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.digest import Hasher, digest_of, digest_of_parts, is_digest, parse_digest

# The paper's own vector for the empty input, and for the bytes 0, 1, 2.
EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
ZERO_ONE_TWO = "e1be4d7a8ab5560aa4199eea339849ba8e293d55ca0a81006726d184519e647f"


def test_the_digest_is_blake3_in_hexadecimal() -> None:
    assert digest_of(b"") == EMPTY
    assert digest_of(bytes([0, 1, 2])) == ZERO_ONE_TWO


@given(st.lists(st.binary(max_size=50)))
def test_parts_hash_like_their_concatenation(parts: list[bytes]) -> None:
    hasher = Hasher()
    for part in parts:
        hasher.update(part)
    whole = b"".join(parts)
    assert digest_of(whole) == digest_of_parts(parts) == hasher.digest()
    assert hasher.size == len(whole)


def test_a_hasher_goes_on_after_it_was_asked() -> None:
    hasher = Hasher()
    assert hasher.digest() == EMPTY
    hasher.update(bytes([0, 1, 2]))
    assert hasher.digest() == ZERO_ONE_TWO


@pytest.mark.parametrize(
    "text",
    [
        "",
        "af",
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY.upper(),
        "g" * 64,
        EMPTY + "\n",
        "\uff10" * 64,
        " " * 64,
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises(ValueError, match="not a BLAKE3 digest"):
        parse_digest(text)


def test_a_digest_is_taken_as_it_is() -> None:
    assert is_digest(EMPTY)
    assert parse_digest(EMPTY) == EMPTY
