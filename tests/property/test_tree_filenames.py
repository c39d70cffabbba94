"""The names in the mount and the inode numbers: what is formatted parses back, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from casfs.digest import Digest
from casfs.mount.filenames import (
    GroupFileName,
    component_of,
    components_of,
    format_day,
    format_hour,
    parse_day,
    parse_group_file_name,
    parse_hour,
)
from casfs.mount.inodes import (
    ROOT_INODE,
    Family,
    family_of,
    group_inode,
    group_of_inode,
    object_inode,
    object_prefix,
    path_inode,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
LIKE_OURS = st.from_regex(
    r"(\d\d\d\d-\d\d-\d\d|\d\d|latest|clip|\.\.?|@broadcast|~|%6Catest)(\.[a-z0-9]+)?",
    fullmatch=True,
)
GROUP_NAMES = st.builds(
    GroupFileName,
    epoch=st.integers(0, 10**18 - 1),
    sequence=st.integers(0, 2**62 - 1),
    time_of_day=st.integers(0, 86_400_000 - 1),
    extension=st.sampled_from([".m4s", ".mp4", ".json", ".bin"]),
    complete=st.booleans(),
)
MANGLED = st.tuples(
    GROUP_NAMES.map(str), st.integers(0, 60), st.sampled_from("0x9:-./Z٣ \n"), st.booleans()
).map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + t[3] :])


@given(GROUP_NAMES)
def test_a_group_file_name_says_what_it_was_made_of(name: GroupFileName) -> None:
    assert parse_group_file_name(str(name)) == name


@given(GROUP_NAMES)
def test_a_group_file_name_is_safe_for_every_tool(name: GroupFileName) -> None:
    text = str(name)
    assert text.isascii()
    assert not set(text) & set(':/% \\"')
    assert len(text) < 100


@given(st.one_of(MANGLED, NAMES))
def test_a_group_has_one_name_only(text: str) -> None:
    name = parse_group_file_name(text)
    assert name is None or str(name) == text


@given(st.integers(0, 366 * 8000))
def test_a_day_is_found_by_its_name(day: int) -> None:
    assert parse_day(format_day(day)) == day


@given(st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", fullmatch=True))
def test_a_day_has_one_name_only(text: str) -> None:
    day = parse_day(text)
    assert day is None or format_day(day) == text


@given(st.text("0123456789٣ ", max_size=3))
def test_an_hour_has_one_name_only(text: str) -> None:
    hour = parse_hour(text)
    assert hour is None or format_hour(hour) == text


@given(st.one_of(NAMES, LIKE_OURS), st.one_of(NAMES, LIKE_OURS))
def test_two_names_never_share_a_component(one: str, other: str) -> None:
    assert (one == other) == (component_of(one) == component_of(other))


@given(st.one_of(NAMES, LIKE_OURS), st.one_of(NAMES, LIKE_OURS))
def test_two_broadcasts_never_share_a_directory(one: str, other: str) -> None:
    assert (one == other) == (components_of(one) == components_of(other))


@given(st.one_of(NAMES, LIKE_OURS, NAMES.map(lambda name: name * 20)))
def test_a_component_is_safe_and_looks_like_none_of_ours(name: str) -> None:
    component = component_of(name)
    assert component.isascii()
    assert 0 < len(component) <= 255
    assert not set(component) & set("/:\0\n")
    assert not component.startswith(".")
    assert parse_day(component) is None
    assert parse_hour(component) is None
    assert component.split(".")[0] not in {"latest", "clip"}


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**36 - 1))
def test_a_group_is_found_by_its_inode_number(number: int, n: int) -> None:
    inode = group_inode(number, n)
    assert group_of_inode(inode) == (number, n)
    assert family_of(inode) is Family.GROUP
    assert 1 < inode < 2**63


@given(st.text("0123456789abcdef", min_size=64, max_size=64).map(Digest))
def test_an_object_is_found_by_its_inode_number(digest: Digest) -> None:
    inode = object_inode(digest)
    assert digest.startswith(object_prefix(inode))
    assert family_of(inode) is Family.OBJECT
    assert 1 < inode < 2**63


@given(NAMES.map(lambda name: "/" + name))
def test_only_the_root_has_the_number_of_the_root(path: str) -> None:
    inode = path_inode(path)
    assert family_of(inode) is Family.PATH
    assert (path == "/") == (inode == ROOT_INODE)
    assert 0 < inode < 2**63
