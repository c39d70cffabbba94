"""Names: every name has a safe component, and no two names meet."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casfs.errors import InvalidNameError
from casfs.names import MAX_NAME_BYTES, decode_name, encode_name

NAMES = st.text(st.characters(codec="utf-8"), max_size=300)
CLOSE_NAMES = st.text("aA%/.@~24EFef", max_size=6)


@given(NAMES, st.booleans())
@example("..", False)
@example("@broadcast", False)
@example("a\0b", False)
@example("x" * 4096, False)
@example("lost+found", False)
def test_a_component_is_plain_ascii_of_at_most_255_bytes(name: str, fold_case: bool) -> None:
    component = encode_name(name, fold_case=fold_case)
    assert component.isascii()
    assert component.isprintable()
    assert 0 < len(component) <= 255
    assert not set(component) & set('/:\\ *?"<>|')
    assert component[0] not in ".@"
    assert component != "lost+found"


@given(CLOSE_NAMES, CLOSE_NAMES, st.booleans())
def test_no_two_names_meet(first: str, second: str, fold_case: bool) -> None:
    one, other = (encode_name(name, fold_case=fold_case) for name in (first, second))
    if fold_case:
        one, other = one.lower(), other.lower()
    assert (one == other) == (first == second)


@given(st.text("ab", min_size=170, max_size=260), st.text("ab", min_size=170, max_size=260))
@example("a" * 181, "a" * 182)
def test_no_two_long_names_meet(first: str, second: str) -> None:
    assert (encode_name(first) == encode_name(second)) == (first == second)


@given(NAMES, st.booleans())
@example("lost+found", False)
def test_a_component_that_was_not_cut_decodes(name: str, fold_case: bool) -> None:
    component = encode_name(name, fold_case=fold_case)
    if component == "~" or "~" not in component:
        assert decode_name(component) == name
    else:
        assert decode_name(component) is None


@pytest.mark.parametrize("component", ["%2f", "a%", "a/b", "caf\u00e9", "%FF", ".hidden", "%61"])
def test_components_of_other_making_are_not_decoded(component: str) -> None:
    assert decode_name(component) is None


@pytest.mark.parametrize("name", ["\ud800", "x" * (MAX_NAME_BYTES + 1)])
def test_names_that_no_archive_can_hold_are_refused(name: str) -> None:
    with pytest.raises(InvalidNameError):
        encode_name(name)
