"""What a directory lists: any envelope, and nothing that it says is believed."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.errors import ConfigError, DirectoryError
from casfs.names import MAX_NAME_BYTES
from ingest.directory import (
    Fields,
    Listed,
    Listing,
    ListingLimits,
    announcing_relay,
    check_source_url,
    read_listing,
    shown_source,
)

RELAY = "https://relay.example/anon"
ENTRY = {"relay_url": RELAY, "broadcast_name": "demo/tv", "track_name": "video0.m4s"}
ODD_NAMES: list[object] = ["", None, 5, "a\0b", [], "ä" * 4096]
LISTED = Listed("demo/tv", (RELAY,), ("video0.m4s",))


def read(value: object, **how: object) -> Listing:
    return read_listing(json.dumps(value).encode(), **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        [ENTRY],
        {"streams": [ENTRY]},
        {"version": 1, "streams": [ENTRY], "tags": []},
        {"data": {"items": [ENTRY], "next": None}},
        [{**ENTRY, "viewers": 5, "nested": {"a": [1]}}],
    ],
)
def test_any_envelope_is_taken(value: object) -> None:
    assert read(value) == Listing((LISTED,))


@pytest.mark.parametrize("value", [[], {"streams": []}])
def test_an_empty_list_is_a_list(value: object) -> None:
    assert read(value) == Listing()


@pytest.mark.parametrize(
    "value", [{}, {"error": "x"}, 5, None, "x", {"a": [], "b": []}, {"a": [ENTRY], "b": [ENTRY]}]
)
def test_what_is_no_list_is_an_error(value: object) -> None:
    with pytest.raises(DirectoryError):
        read(value)


def test_names_alone_are_taken() -> None:
    assert read(["a", "b/c"]).listed == (Listed("a"), Listed("b/c"))


def test_a_relays_plain_list_is_taken() -> None:
    assert read_listing(b"demo/tv\n[odd]\n", plain=True).listed == (
        Listed("demo/tv"),
        Listed("[odd]"),
    )
    assert read_listing(b"", plain=True).listed == ()
    with pytest.raises(DirectoryError):
        read_listing(b"\xff\xfe", plain=True)


def test_fields_may_have_other_names() -> None:
    fields = Fields(relay="where", name="id", track="tracks")
    entry = {"where": RELAY, "id": "demo/tv", "tracks": ["video0.m4s"]}
    assert read({"a": [entry], "b": [1]}, fields=fields).listed == (LISTED,)


def test_a_broadcast_is_listed_once_with_all_its_relays_and_tracks() -> None:
    other = "https://other.example/"
    entries = [ENTRY, {**ENTRY, "relay_url": other}, {**ENTRY, "track_name": ["audio0.m4s"]}]
    assert read([*entries, *entries]).listed == (
        Listed("demo/tv", (RELAY, other), ("video0.m4s", "audio0.m4s")),
    )


@pytest.mark.parametrize(
    "entry",
    [
        *({**ENTRY, "broadcast_name": name} for name in ODD_NAMES),
        *({**ENTRY, "relay_url": url} for url in ("", "http://x/", "https://", "https://u:p@x/")),
        *({**ENTRY, "relay_url": url} for url in ("https://x/ y", "https://x:0", "file:///etc")),
        {**ENTRY, "relay_url": "https://x/" + "a" * 5000},
        *({**ENTRY, "track_name": track} for track in ("", 5, ["a", None], "\0")),
        *(5, None, [], {}, "", True),
    ],
)
def test_a_hostile_entry_is_refused_and_the_others_are_taken(entry: object) -> None:
    listing = read([entry, {"broadcast_name": "good"}])
    assert listing.listed[-1] == Listed("good")
    assert listing.refused == 1
    assert listing.problem


@pytest.mark.parametrize("name", ["../../etc", "/", ".", "..", "-rf", "\x1b[2J", "a\nb", "@x", "~"])
def test_odd_names_are_names(name: str) -> None:
    assert read([{"broadcast_name": name}]).listed == (Listed(name),)


def test_counts_are_bounded() -> None:
    limits = ListingLimits(broadcasts=3, relays=2, tracks=2)
    listing = read([str(number) for number in range(10)], limits=limits)
    assert (len(listing.listed), listing.refused) == (3, 7)
    many = [{**ENTRY, "relay_url": f"https://{n}.example/", "track_name": f"{n}"} for n in range(5)]
    listing = read(many, limits=limits)
    assert [len(listing.listed[0].relays), len(listing.listed[0].tracks)] == [2, 2]
    with pytest.raises(DirectoryError):
        read(["a" * 100], limits=ListingLimits(bytes=50))


@given(st.binary(max_size=200))
def test_garbage_is_an_error_or_a_list(body: bytes) -> None:
    for plain in (False, True):
        try:
            listing = read_listing(body, plain=plain)
        except DirectoryError:
            continue
        for entry in listing.listed:
            assert 0 < len(entry.broadcast.encode()) <= MAX_NAME_BYTES
            assert "\0" not in entry.broadcast


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(RELAY),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["relay_url", "broadcast_name", "track_name", "x"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_json_is_an_error_or_a_list(value: object) -> None:
    try:
        listing = read(value)
    except DirectoryError:
        return
    assert len({entry.broadcast for entry in listing.listed}) == len(listing.listed)


def test_nesting_without_end_is_an_error() -> None:
    with pytest.raises(DirectoryError):
        read_listing(b"[" * 100_000)


@pytest.mark.parametrize(
    ("url", "relay"),
    [
        ("https://r.example/announced", "https://r.example/"),
        ("https://r.example:4443/announced/anon/?jwt=x", "https://r.example:4443/anon?jwt=x"),
        ("http://127.0.0.1:4443/announced/a/b", "https://127.0.0.1:4443/a/b"),
        ("https://r.example/announcedx", None),
        ("https://r.example/api/public-streams", None),
        ("file:///announced/x", None),
    ],
)
def test_the_relay_of_an_announced_listing_is_its_own(url: str, relay: str | None) -> None:
    assert announcing_relay(url) == relay


@pytest.mark.parametrize("url", ["", "x", "ftp://x/", "http://", "file://host/x", "http://x:y/"])
def test_a_url_that_no_directory_can_have_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        check_source_url(url)


def test_of_a_url_only_that_is_shown_which_is_no_secret() -> None:
    assert shown_source("https://u:p@x.example:8/a?token=secret") == "https://x.example:8/a"
    assert shown_source("file:///etc/list.json") == "file:///etc/list.json"


def test_ten_thousand_entries_cost_little() -> None:
    entries = [{**ENTRY, "broadcast_name": f"demo/tv-{number}"} for number in range(10_000)]
    body = json.dumps({"streams": entries}).encode()
    before = time.process_time()
    assert len(read_listing(body).listed) == 10_000
    assert time.process_time() - before < 1.0  # 0.05 on a quiet machine: tools/bench supervise
