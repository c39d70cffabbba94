"""Which tracks are recorded, when nobody names any: what catalogs say, within bounds."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.media.catalog import MAX_CATALOG_BYTES, MAX_CATALOG_TRACKS
from casfs.media.catalog_names import CATALOG_TRACKS, named_tracks
from ingest.track_choice import DEFAULT_TRACKS, MAX_TRACKS, TrackChoice

HANG, MSF, CLOUDFLARE = CATALOG_TRACKS


def frame(document: object) -> bytes:
    return msgspec.json.encode(document)


def hang(*names: str) -> bytes:
    return frame({"video": {"renditions": {name: {"codec": "avc1"} for name in names}}})


# What a catalog names


def test_a_hang_catalog_names_its_renditions_and_the_tracks_of_other_sections() -> None:
    document = {
        "video": {"renditions": {"0.avc3": {"codec": "avc3"}, "far": {"broadcast": "./other"}}},
        "audio": {"renditions": {"1.aac": {}, "near": {"broadcast": "."}}},
        "archive": {"track": "timeline"},
        "json": {"tracks": {"scores": {}}},
        "text": {"tracks": [{"name": "captions"}, "chapters", 7]},
        "clock": {"wall": 1},
    }
    names = ("0.avc3", "1.aac", "near", "timeline", "scores", "chapters", "captions")
    assert named_tracks(HANG, [frame(document)]) == names


def test_deltas_add_tracks_and_take_them_away() -> None:
    patch = {"video": {"renditions": {"a": None, "c": {}}}, "audio": {"renditions": {"d": {}}}}
    assert named_tracks(HANG, [hang("a", "b"), frame(patch)]) == ("b", "c", "d")


def test_an_msf_catalog_names_all_that_is_or_was_there() -> None:
    full = {"version": 1, "tracks": [{"name": "v"}, {"name": "x", "namespace": "other"}]}
    delta = {
        "deltaUpdate": [
            {"op": "add", "tracks": [{"name": "captions", "packaging": "eventtimeline"}]},
            {"op": "clone", "tracks": [{"name": "v2", "parentName": "v"}]},
            {"op": "remove", "tracks": [{"name": "v"}]},
        ]
    }
    assert named_tracks(MSF, [frame(full), frame(delta)]) == ("v", "captions", "v2")


def test_the_catalog_of_cloudflare_names_its_inits_too() -> None:
    document = {"tracks": [{"name": "1.m4s", "initTrack": "0.mp4"}, {"name": "2.m4s"}]}
    assert named_tracks(CLOUDFLARE, [frame(document)]) == ("1.m4s", "0.mp4", "2.m4s")


def test_a_frame_that_is_cut_counts_for_nothing() -> None:
    assert named_tracks(HANG, [hang("a"), b'{"video": {"ren']) == ("a",)
    assert named_tracks(HANG, [b"[1]", b"\xff", b""]) == ()


def test_a_hostile_catalog_is_bounded() -> None:
    many = frame({"video": {"renditions": {f"t{number}": {} for number in range(5000)}}})
    assert len(named_tracks(HANG, [many])) == MAX_CATALOG_TRACKS
    assert named_tracks(HANG, [hang("", "n" * 2000, "ok")]) == ("ok",)
    assert named_tracks(HANG, [hang("ok"), b" " * MAX_CATALOG_BYTES]) == ()
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    assert named_tracks(HANG, [deep]) == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["video", "renditions", "tracks", "track", "name", "deltaUpdate"])
            | st.text(max_size=3),
            children,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.sampled_from(CATALOG_TRACKS), st.lists(_JSON | st.binary(), max_size=4))
def test_no_catalog_raises_anything(catalog: str, documents: list[object]) -> None:
    frames = [item if isinstance(item, bytes) else frame(item) for item in documents]
    names = named_tracks(catalog, frames)
    assert len(set(names)) == len(names)
    assert all(names)


# What is chosen


def test_what_the_user_names_is_all() -> None:
    choice = TrackChoice(("a", HANG))
    assert choice.take(HANG, 0, [hang("b")]) == ()
    assert choice.tracks == ("a", HANG)
    assert choice.worth_asking_again("a")


def test_the_default_tracks_are_asked_for_first_and_other_catalogs_where_that_one_fails() -> None:
    choice = TrackChoice()
    assert set(choice.tracks) == set(DEFAULT_TRACKS)
    assert choice.other_catalogs() == (MSF, CLOUDFLARE)
    assert choice.other_catalogs() == ()
    assert set(choice.tracks) == {*DEFAULT_TRACKS, MSF, CLOUDFLARE}
    assert TrackChoice(("a",)).other_catalogs() == ()


def test_tracks_are_added_as_they_are_named_and_stay() -> None:
    choice = TrackChoice()
    assert choice.take(HANG, 3, [hang("a", "b")]) == ("a", "b")
    assert choice.take(HANG, 3, [hang("a", "b"), hang("c")]) == ("c",)
    assert choice.take(HANG, 4, [hang("c")]) == ()
    assert {"a", "b", "c"} <= set(choice.tracks)
    # Relays deliver the newest group first: an older one does not speak for now.
    assert choice.take(HANG, 2, [hang("old")]) == ()
    choice.begin()
    assert choice.take(HANG, 0, [hang("d")]) == ("d",)


def test_a_default_track_that_was_refused_is_given_up_once_a_catalog_names_others() -> None:
    choice = TrackChoice()
    assert choice.worth_asking_again("video0.m4s")
    choice.take(HANG, 0, [hang("0.avc3")])
    assert not choice.worth_asking_again("video0.m4s")
    assert choice.worth_asking_again("0.avc3")
    assert choice.worth_asking_again(".catalog")


def test_globs_choose_among_what_is_found_and_excluding_wins() -> None:
    choice = TrackChoice(include=("video*", "0.*"), exclude=("*.aac", "catalog"))
    assert choice.tracks == ("catalog.json", "init.mp4", "video0.m4s")
    assert choice.other_catalogs() == (CLOUDFLARE,)
    assert choice.take(HANG, 0, [hang("0.avc3", "0.aac", "1.avc3")]) == ("0.avc3",)


@pytest.mark.parametrize("catalog", CATALOG_TRACKS)
def test_catalogs_that_name_new_tracks_for_ever_end_at_a_bound(catalog: str) -> None:
    choice = TrackChoice()
    for number in range(2 * MAX_TRACKS):
        document = {
            "tracks": [{"name": f"n{number}"}],
            "video": {"renditions": {f"n{number}": {}}},
        }
        choice.take(catalog, number, [frame(document)])
    assert len(choice.tracks) == MAX_TRACKS
    assert choice.turned_away > 0
