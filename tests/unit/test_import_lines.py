"""What is understood of the lines that other programs write."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.adopt.lines import LineError, ListedGroup, instant_of, names_of_path, read_line
from casfs.digest import digest_of
from casfs.timestamps import format_time, parse_time

HASH = digest_of(b"payload")
NOON = parse_time("2026-11-22T12:00:00Z")


def read(**members: object) -> ListedGroup | None:
    return read_line(json.dumps(members).encode())


@pytest.mark.parametrize("name", ["hash", "blake3", "cas_hash", "object", "digest"])
@pytest.mark.parametrize("text", [HASH, HASH.upper(), f"blake3:{HASH}"])
def test_a_hash_may_have_several_names_and_forms(name: str, text: str) -> None:
    group = read(**{name: text, "sequence": 7})
    assert group is not None
    assert group.hash == HASH


@pytest.mark.parametrize(
    "name", ["sequence", "group", "group_sequence", "group_id", "seq", "groupSequence"]
)
@pytest.mark.parametrize("value", [7, "7"])
def test_a_sequence_may_have_several_names_and_forms(name: str, value: object) -> None:
    group = read(**{name: value, "hash": HASH})
    assert group is not None
    assert group.sequence == 7


@pytest.mark.parametrize("name", ["size", "bytes", "len"])
def test_a_size_may_have_several_names(name: str) -> None:
    group = read(**{name: 99, "hash": HASH, "sequence": 7})
    assert group is not None
    assert group.size == 99


@pytest.mark.parametrize("name", ["received_at", "ts", "timestamp", "time", "received_unix_ms"])
@pytest.mark.parametrize(
    "value",
    [
        "2026-11-22T12:00:00Z",
        "2026-11-22T13:00:00.000+01:00",
        NOON // 10**9,
        NOON // 10**6,
        NOON // 10**3,
        NOON,
        str(NOON // 10**6),
        NOON / 10**9,
    ],
)
def test_a_time_is_text_or_a_number_in_the_unit_of_its_magnitude(name: str, value: object) -> None:
    group = read(**{name: value, "hash": HASH, "sequence": 7})
    assert group is not None
    assert group.received_start == NOON


@given(st.integers(parse_time("1980-01-01T00:00:00Z"), parse_time("2200-01-01T00:00:00Z")))
def test_every_unit_gives_the_same_instant(instant: int) -> None:
    for unit in (10**9, 10**6, 10**3, 1):
        assert instant_of(instant // unit) == instant // unit * unit
    assert instant_of(format_time(instant)) == instant


@pytest.mark.parametrize("value", [0, -5, True, None, [], "soon", 10**30, "9999-01-01T00:00:00Z"])
def test_what_is_no_time_is_none(value: object) -> None:
    assert instant_of(value) is None


def test_members_may_lie_one_level_below() -> None:
    group = read(
        group={"sequence": 7, "received_at": "2026-11-22T12:00:00Z"},
        object={"hash": HASH, "size": 9, "path": "objects/x.bin"},
        broadcast="demo/tv",
        track={"name": "ignored"},
        track_name="video0.m4s",
    )
    assert group is not None
    assert (group.hash, group.sequence, group.size) == (HASH, 7, 9)
    assert (group.broadcast, group.track) == ("demo/tv", "video0.m4s")


def test_a_path_may_tell_the_hash() -> None:
    group = read(path=f"objects/blake3/{HASH[:2]}/{HASH}.bin", seq=1)
    assert group is not None
    assert group.hash == HASH


def test_no_token_of_a_relays_address_is_kept() -> None:
    group = read(hash=HASH, seq=1, relay_url="https://me:pw@relay.example:4443/live?jwt=secret")
    assert group is not None
    assert group.relay == "https://relay.example:4443"


@pytest.mark.parametrize(
    "text",
    [
        b'{"hash": "' + HASH.encode() + b'", "sequ',
        b"\x00\x00\x00\x00",
        b"[1, 2]",
        b'"text"',
        json.dumps({"hash": HASH}).encode(),
        json.dumps({"sequence": 4}).encode(),
        json.dumps({"hash": HASH[:-1], "sequence": 4}).encode(),
        json.dumps({"hash": HASH, "sequence": 2**62}).encode(),
        json.dumps({"hash": HASH, "sequence": -1}).encode(),
        b'{"hash": "\xff\xfe"}',
    ],
)
def test_a_line_that_was_meant_to_be_a_group_and_is_none_is_an_error(text: bytes) -> None:
    with pytest.raises(LineError):
        read_line(text)


@pytest.mark.parametrize("text", [b"{}", b'{"event": "connected", "relay": "https://a"}'])
def test_a_line_about_something_else_is_passed_over(text: bytes) -> None:
    assert read_line(text) is None


@given(st.binary(max_size=200) | st.text().map(lambda text: json.dumps({text: text}).encode()))
def test_no_line_does_more_than_fail(text: bytes) -> None:
    with contextlib.suppress(LineError):
        read_line(text)


@given(
    st.dictionaries(
        st.sampled_from(
            ["hash", "object", "seq", "group", "size", "ts", "frame_sizes", "offset", "init"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HASH),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_no_value_under_a_known_name_does_more_than_fail(members: dict[str, object]) -> None:
    try:
        group = read_line(json.dumps(members).encode())
    except LineError:
        return
    if group is not None:
        assert group.hash == HASH
        assert 0 <= group.sequence < 2**62


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("demo/tv/video0.m4s.jsonl", ("demo/tv", "video0.m4s")),
        ("demo/tv/video0.m4s/2026-11-22.jsonl", ("demo/tv", "video0.m4s")),
        ("demo/tv/video0.m4s/manifest.jsonl", ("demo/tv", "video0.m4s")),
        ("demo%2Ftv/init.mp4/2026-11-22.003.jsonl", ("demo/tv", "init.mp4")),
        ("video0.m4s.jsonl", (None, "video0.m4s")),
        ("index.jsonl", (None, None)),
    ],
)
def test_a_path_names_broadcast_and_track(path: str, names: tuple[str, str]) -> None:
    assert names_of_path(path.split("/")) == names
