"""The view /broadcasts over an archive in memory."""

from __future__ import annotations

import msgspec
import pytest

from casfs.digest import digest_of
from casfs.index.rows import BroadcastRow, GroupRow
from casfs.mount.broadcasts import BroadcastsView, GroupFile, LatestLink, NameDirectory
from casfs.mount.filenames import component_of, components_of
from casfs.mount.tree import Directory, Node, ObjectRange, Validity
from casfs.timestamps import HOUR, parse_time
from tests.fakes.archive import Content, MemoryLookup

DEMO = BroadcastRow(1, "demo")
DEMO_TV = BroadcastRow(2, "demo/tv")
RECEIVED = parse_time("2026-11-22T13:00:00.123456789Z")


def group(broadcast: BroadcastRow = DEMO, track: str = "0.m4s", **changes: object) -> GroupRow:
    row = GroupRow(
        broadcast=broadcast,
        track=track,
        n=1,
        epoch=1,
        sequence=42,
        hash=digest_of(b"payload"),
        offset=3,
        size=7,
        received_start=RECEIVED,
        received_end=RECEIVED + 5,
        complete=True,
        init=None,
    )
    return msgspec.structs.replace(row, **changes)


def view_of(*groups: GroupRow) -> tuple[BroadcastsView, MemoryLookup]:
    lookup = MemoryLookup(Content().with_groups(*groups))
    return BroadcastsView(lookup, "/broadcasts"), lookup


def at(view: BroadcastsView, path: str) -> Node:
    node: Node | None = view.root
    for name in path.split("/"):
        assert isinstance(node, Directory), path
        node = node.child(name)
    assert node is not None, path
    return node


def names(node: Node) -> list[str]:
    assert isinstance(node, Directory)
    return [entry.name for entry in node.entries()]


def test_a_group_stands_under_its_broadcast_track_date_and_hour() -> None:
    view, _ = view_of(group(DEMO_TV))
    file = at(view, "demo/tv/0.m4s/2026-11-22/13/e0001-00000000000000000042-130000.123Z.m4s")
    assert isinstance(file, GroupFile)
    assert file.payload == ObjectRange(digest_of(b"payload"), 3, 7)
    assert file.attributes().size == 7
    assert file.attributes().modified == RECEIVED + 5
    assert file.attributes().validity is Validity.LASTING


def test_a_group_tells_what_its_record_says() -> None:
    view, _ = view_of(group(BroadcastRow(2, "demo/ö"), complete=False))
    file = at(
        view,
        "demo/%C3%B6/0.m4s/2026-11-22/13/e0001-00000000000000000042-130000.123Z.m4s.partial",
    )
    assert file.extended_attributes() == {
        "user.casfs.blake3": digest_of(b"payload").encode(),
        "user.casfs.broadcast": "demo/ö".encode(),
        "user.casfs.complete": b"false",
        "user.casfs.epoch": b"1",
        "user.casfs.received": b"2026-11-22T13:00:00.123456789Z",
        "user.casfs.sequence": b"42",
        "user.casfs.track": b"0.m4s",
    }


def test_a_track_and_a_broadcast_of_one_path_share_a_directory() -> None:
    view, _ = view_of(group(DEMO, "tv"), group(DEMO_TV, "0.m4s", n=2))
    assert sorted(names(at(view, "demo/tv"))) == ["0.m4s", "2026-11-22", "latest.bin"]
    assert isinstance(at(view, "demo/tv/0.m4s"), NameDirectory)
    assert isinstance(at(view, "demo/tv/latest.bin"), LatestLink)


def test_a_broadcast_that_comes_to_be_where_a_track_was_shows_in_a_directory_held_open() -> None:
    view, lookup = view_of(group(DEMO, "tv"))
    held = at(view, "demo/tv")
    lookup.content = lookup.content.with_groups(group(DEMO_TV, "0.m4s", n=2))
    assert "0.m4s" in names(held)


def test_latest_moves_with_the_newest_group() -> None:
    view, lookup = view_of(group())
    link = at(view, "demo/0.m4s/latest.m4s")
    assert isinstance(link, LatestLink)
    assert link.target() == "2026-11-22/13/e0001-00000000000000000042-130000.123Z.m4s"
    lookup.content = lookup.content.with_groups(
        group(n=2, sequence=0, epoch=2, received_start=RECEIVED + HOUR)
    )
    assert link.target() == "2026-11-22/14/e0002-00000000000000000000-140000.123Z.m4s"
    assert link.attributes().validity is Validity.NONE


def test_a_track_without_groups_is_an_empty_directory() -> None:
    view, lookup = view_of(group())
    lookup.content = Content(lookup.content.broadcasts, lookup.content.tracks)
    assert names(at(view, "demo/0.m4s")) == []


def test_a_superseded_group_is_gone_and_the_longer_one_has_another_number() -> None:
    partial = group(complete=False)
    view, lookup = view_of(partial)
    hour = at(view, "demo/0.m4s/2026-11-22/13")
    (name,) = names(hour)
    assert name.endswith(".m4s.partial")
    first = at(view, f"demo/0.m4s/2026-11-22/13/{name}")
    lookup.content = lookup.content.with_groups(group(n=2, size=9, complete=False))
    second = at(view, f"demo/0.m4s/2026-11-22/13/{name}")
    assert names(hour) == [name]
    assert first.inode != second.inode
    assert view.resolve(first.inode) is None
    assert second.attributes().size == 9


@pytest.mark.parametrize(
    "name",
    [
        "e0001-00000000000000000042-130000.124Z.m4s",
        "e0001-00000000000000000042-130000.123Z.bin",
        "e0001-00000000000000000042-130000.123Z.m4s.partial",
        "e0001-00000000000000000043-130000.123Z.m4s",
        "e1-42-130000.123Z.m4s",
        "latest.m4s",
        "",
    ],
)
def test_only_the_exact_name_finds_a_group(name: str) -> None:
    view, _ = view_of(group())
    hour = at(view, "demo/0.m4s/2026-11-22/13")
    assert isinstance(hour, Directory)
    assert hour.child(name) is None


def test_a_group_is_not_found_in_another_hour() -> None:
    view, _ = view_of(group(), group(n=2, sequence=43, received_start=RECEIVED + HOUR))
    other = at(view, "demo/0.m4s/2026-11-22/14")
    assert isinstance(other, Directory)
    assert other.child("e0001-00000000000000000042-130000.123Z.m4s") is None


def test_directories_show_when_their_newest_group_began_to_arrive() -> None:
    view, lookup = view_of(group(), group(n=2, sequence=43, received_start=RECEIVED + HOUR))
    end_of_hour = parse_time("2026-11-22T14:00:00Z")
    assert at(view, "demo/0.m4s/2026-11-22/13").attributes().modified == end_of_hour
    for path in ("demo", "demo/0.m4s", "demo/0.m4s/2026-11-22", "demo/0.m4s/2026-11-22/14"):
        assert at(view, path).attributes().modified == RECEIVED + HOUR
    lookup.content = lookup.content.with_groups(
        group(BroadcastRow(3, "other/x"), n=9, received_start=RECEIVED + 2 * HOUR)
    )
    assert view.root.attributes().modified == RECEIVED + 2 * HOUR
    assert at(view, "other").attributes().modified == RECEIVED + 2 * HOUR


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("news", "news"),
        ("catalog.json", "catalog.json"),
        ("2026-11-22", "%32026-11-22"),
        ("2026-11-22.mp4", "%32026-11-22.mp4"),
        ("13", "%313"),
        ("13.mp4", "%313.mp4"),
        ("latest", "%6Catest"),
        ("latest.m4s", "%6Catest.m4s"),
        ("latestnews", "latestnews"),
        ("clip", "%63lip"),
        ("..", "%2E."),
        (".casfs", "%2Ecasfs"),
        ("", "~"),
        ("a:b", "a%3Ab"),
    ],
)
def test_a_chosen_name_never_looks_like_ours(name: str, component: str) -> None:
    assert component_of(name) == component


def test_an_empty_part_of_a_broadcast_name_is_a_directory_of_its_own() -> None:
    assert components_of("a/b") == ("a", "b")
    assert components_of("a//b") == ("a", "~", "b")
    assert components_of("/a/") == ("~", "a", "~")
    assert components_of("") == ("~",)
