"""Whatever the manifests say, the mount is a well-formed tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.digest import digest_of
from casfs.index.rows import BroadcastRow, GroupRow, TrackRow
from casfs.mount.inodes import ROOT_INODE, family_of
from casfs.mount.listing import Listing
from casfs.mount.status import Counters
from casfs.mount.tree import Directory, Kind, Link, Listed, PathNode, StoredFile, Tree
from casfs.mount.views import ArchiveView, build_tree
from casfs.timestamps import DAY, HOUR
from tests.fakes.archive import Content, MemoryLookup

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from casfs.digest import Digest
    from casfs.mount.tree import Node


class NoObjects:
    """A store without objects: the tree of the groups does not need any."""

    root = "/"

    def open(self, digest: Digest) -> int:
        raise NotImplementedError

    def stat(self, digest: Digest) -> os.stat_result:
        raise NotImplementedError

    def shard(self, prefix: str) -> Iterator[Digest]:
        assert len(prefix) == 2
        return iter(())


# Few different parts, so that names share prefixes, meet each other and look like our own.
PARTS = st.sampled_from(
    [
        "a",
        "b",
        "tv",
        "latest",
        "latest.bin",
        "2026-11-22",
        "13",
        "clip",
        "",
        ".",
        "..",
        "é:",
        "m" * 200,
    ]
)
NAMES = st.one_of(
    st.lists(PARTS, min_size=1, max_size=4).map("/".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
TRACKS = st.one_of(PARTS, NAMES, st.sampled_from(["0.m4s", "init.mp4", "catalog.json"]))
DIGESTS = [digest_of(bytes([number])) for number in range(8)]
TIMES = st.one_of(
    st.integers(0, 2**63 - 1),
    st.integers(0, 3 * DAY).map(lambda t: 20_000 * DAY + t),
    st.sampled_from([20_000 * DAY + h * HOUR + e for h in range(30) for e in (-1, 0, 1)]),
)


@st.composite
def contents(draw: st.DrawFn) -> Content:
    names = draw(st.lists(NAMES, max_size=6, unique=True))
    numbers = draw(
        st.lists(st.integers(1, 2**24 - 1), min_size=len(names), max_size=len(names), unique=True)
    )
    content = Content(
        broadcasts=tuple(
            sorted(map(BroadcastRow, numbers, names), key=lambda row: row.number),
        )
    )
    for broadcast in content.broadcasts:
        n = 0
        for name in draw(st.lists(TRACKS, max_size=3, unique=True)):
            n += draw(st.integers(1, 1000))
            content = Content(
                content.broadcasts,
                (*content.tracks, TrackRow(broadcast, name, n)),
                content.groups,
            )
            for _ in range(draw(st.integers(0, 6))):
                n += draw(st.integers(1, 1000))
                content = content.with_groups(draw(groups(broadcast, name, n)))
    return content


@st.composite
def groups(draw: st.DrawFn, broadcast: BroadcastRow, track: str, n: int) -> GroupRow:
    start = draw(TIMES)
    return GroupRow(
        broadcast=broadcast,
        track=track,
        n=n,
        epoch=draw(st.integers(1, 3)),
        sequence=draw(st.one_of(st.integers(0, 3), st.integers(0, 2**62 - 1))),
        hash=draw(st.sampled_from(DIGESTS)),
        offset=draw(st.integers(0, 10)),
        size=draw(st.integers(0, 2**40)),
        received_start=start,
        received_end=start + draw(st.integers(0, 10 * HOUR)),
        complete=draw(st.booleans()),
        init=None,
    )


def tree_of(lookup: MemoryLookup) -> Tree:
    return build_tree(ArchiveView(lookup=lookup, objects=NoObjects()), Counters(), 0)


def walk(directory: Directory, path: str = "") -> Iterator[tuple[str, Directory, Node]]:
    """Yield every node below with its path and its parent; the shards of /objects are all empty."""
    for entry in directory.entries():
        yield f"{path}/{entry.name}", directory, entry.node
        if isinstance(entry.node, Directory) and entry.name != "objects":
            yield from walk(entry.node, f"{path}/{entry.name}")


def groups_in_view(tree: Tree) -> Iterator[tuple[str, StoredFile]]:
    for path, _, node in walk(tree.root):
        if path.startswith("/broadcasts/") and isinstance(node, StoredFile):
            yield path, node


@given(contents())
def test_names_are_unique_and_safe(content: Content) -> None:
    tree = tree_of(MemoryLookup(content))
    paths = [path for path, _, _ in walk(tree.root)]
    assert len(paths) == len(set(paths))
    for path in paths:
        name = path.rpartition("/")[2]
        assert name not in {"", ".", ".."}
        assert not set(name) & set(":\0\n")
        assert len(name.encode()) <= 255


@given(contents())
def test_a_lookup_finds_what_a_listing_shows(content: Content) -> None:
    tree = tree_of(MemoryLookup(content))
    for path, parent, node in walk(tree.root):
        found = parent.child(path.rpartition("/")[2])
        assert found is not None
        assert (type(found), found.inode) == (type(node), node.inode)
        assert found.attributes() == node.attributes()
        assert found.extended_attributes() == node.extended_attributes()


@given(contents())
def test_a_lookup_finds_nothing_that_no_listing_shows(content: Content) -> None:
    tree = tree_of(MemoryLookup(content))
    directories = [(p, n) for p, _, n in walk(tree.root) if isinstance(n, Directory)]
    names = {path.rpartition("/")[2] for path, _, _ in walk(tree.root)}
    names |= {name.upper() for name in names} | {"", ".", "..", "00", "1970-01-01", "latest.m4s"}
    for path, directory in directories:
        if path.startswith("/broadcasts"):
            listed = {entry.name for entry in directory.entries()}
            assert {name for name in names if directory.child(name) is not None} == listed & names


@given(contents())
def test_every_node_has_a_number_of_its_own_and_knows_its_parent(content: Content) -> None:
    tree = tree_of(MemoryLookup(content))
    seen = {ROOT_INODE: "/"}
    for path, parent, node in walk(tree.root):
        assert seen.setdefault(node.inode, path) == path
        assert node.attributes().inode == node.inode
        assert family_of(node.inode) is not None
        if isinstance(node, PathNode):
            assert node.path == path
        if isinstance(node, Directory):
            assert node.parent_inode == parent.inode


@given(contents())
def test_numbers_and_attributes_are_the_same_in_a_tree_built_anew(content: Content) -> None:
    def everything(tree: Tree) -> dict[str, object]:
        return {path: node.attributes() for path, _, node in walk(tree.root)}

    once, again = (everything(tree_of(MemoryLookup(content))) for _ in range(2))
    once.pop("/.casfs/status.json")
    again.pop("/.casfs/status.json")
    assert once == again


@given(contents())
def test_every_group_is_shown_once_and_found_by_its_number(content: Content) -> None:
    lookup = MemoryLookup(content)
    tree = tree_of(lookup)
    shown = {node.inode: node for _, node in groups_in_view(tree)}
    current = {
        (group.broadcast.number, group.n): group
        for group in content.groups
        if lookup.group(group.broadcast.number, group.n) is not None
    }
    assert len(shown) == len(current) == len(list(groups_in_view(tree)))
    for inode, node in shown.items():
        family = family_of(inode)
        assert family is not None
        resolved = tree.resolve(family, inode)
        assert resolved is not None
        assert resolved.payload == node.payload
        assert resolved.attributes() == node.attributes()


@given(contents())
def test_a_link_leads_to_a_file_of_its_directory(content: Content) -> None:
    tree = tree_of(MemoryLookup(content))
    files = dict(groups_in_view(tree))
    for path, parent, node in walk(tree.root):
        if isinstance(node, Link):
            target = node.target()
            assert target is not None
            assert f"{path.rpartition('/')[0]}/{target}" in files
            assert node.attributes().size == len(target)
            assert parent.attributes().kind is Kind.DIRECTORY


@given(contents(), st.data())
def test_a_listing_may_be_resumed_behind_every_entry(content: Content, data: st.DataObject) -> None:
    tree = tree_of(MemoryLookup(content))
    directories = [n for _, _, n in walk(tree.root) if isinstance(n, Directory)]
    for directory in directories:
        entries = list(directory.entries())
        cookies = [entry.cookie for entry in entries]
        assert cookies == sorted(set(cookies))
        assert all(0 < cookie < 2**63 - 2 for cookie in cookies)
        if entries:
            at = data.draw(st.integers(0, len(entries) - 1))
            names = [entry.name for entry in directory.entries(after=cookies[at])]
            assert names == [entry.name for entry in entries[at + 1 :]]


@settings(max_examples=50)
@given(contents(), st.data())
def test_a_listing_shows_each_name_once_while_groups_arrive(
    content: Content, data: st.DataObject
) -> None:
    """Groups come one by one; a reader takes entries in between and sees what was there, once."""
    arriving, content = content.groups, Content(content.broadcasts, content.tracks)
    lookup = MemoryLookup(content)
    directories = [
        n for _, _, n in walk(tree_of(MemoryLookup(content.with_groups(*arriving))).root)
    ]
    paths = sorted({n.path for n in directories if isinstance(n, Directory)})
    tree = tree_of(lookup)
    first = data.draw(st.integers(0, len(arriving)))
    lookup.content = content.with_groups(*arriving[:first])
    for path in paths:
        found = directory_at(tree, path)
        if found is None or path.startswith("/objects"):
            continue
        lookup.content = content.with_groups(*arriving[:first])
        before = {entry.name for entry in found.entries()}
        listing, position, more = Listing(found), 0, True
        names: list[str] = []
        while more:
            # The kernel's buffer holds three entries; it asks again from the last one it took.
            lookup.content = content.with_groups(*arriving[: first + len(names)])
            taken = (listing.buffered(position) or listing.fetch(position))[:3]
            names += [listed.name for listed in taken]
            position = taken[-1].cookie if taken else position
            more = bool(taken)
        assert len(names) == len(set(names))
        after = {entry.name for entry in found.entries()}
        assert before & after <= set(names)


def directory_at(tree: Tree, path: str) -> Directory | None:
    node: Node | None = tree.root
    for name in path.split("/")[1:]:
        node = node.child(name) if isinstance(node, Directory) and name else node
    return node if isinstance(node, Directory) else None


@given(contents(), st.integers(1, 5))
def test_every_directory_lists_what_its_entries_are(content: Content, most: int) -> None:
    tree = tree_of(MemoryLookup(content))
    directories = [node for _, _, node in walk(tree.root) if isinstance(node, Directory)]
    for directory in (tree.root, *directories):
        listed: list[Listed] = []
        while found := directory.listing(listed[-1].cookie if listed else 0, most):
            listed += found
        entries = list(directory.entries())
        assert [(entry.name, entry.cookie, entry.attributes) for entry in listed] == [
            (entry.name, entry.cookie, entry.node.attributes()) for entry in entries
        ]
        assert [entry.node.inode for entry in listed if entry.node] == [
            entry.node.inode for entry in entries if isinstance(entry.node, PathNode)
        ]
