"""Whatever the index says, the views of what can be played are well-formed trees."""

from __future__ import annotations

from array import array
from contextlib import suppress
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from casfs.errors import NotFoundError
from casfs.index.rows import SealRow
from casfs.index.samples import SampleIndex
from casfs.media.descriptions import Kind, SampleDescription
from casfs.media.layout import Literal
from casfs.media.samples import GroupSamples, SampleTable
from casfs.mount.inodes import ROOT_INODE, family_of
from casfs.mount.status import Counters
from casfs.mount.tree import Directory, PathNode, Prepared, Tree, VirtualFile
from casfs.mount.views import ArchiveView, build_tree
from casfs.recordings.source import Recordings
from casfs.recordings.spool import Spool
from casfs.timestamps import HOUR
from tests.fakes.archive import Content, MemoryLookup
from tests.fakes.fragments import sample_entry
from tests.property.test_tree import DIGESTS, NoObjects, contents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from casfs.index.payload_names import PayloadName
    from casfs.mount.tree import Node

DESCRIPTIONS = {
    DIGESTS[0]: SampleDescription(Kind.VIDEO, sample_entry(b"avc1"), 320 << 16, 180 << 16),
    DIGESTS[1]: SampleDescription(Kind.VIDEO, sample_entry(b"vp09"), 640 << 16, 360 << 16),
    DIGESTS[2]: SampleDescription(Kind.AUDIO, sample_entry(b"mp4a")),
}
VIEWS = ("recordings", "hls")
FAR_AHEAD = 2**63 - 1


class SomeSamples(SampleIndex):
    """Knows samples of some payloads, as if they had been derived when they were committed."""

    def get(self, name: PayloadName) -> GroupSamples | None:
        described = DESCRIPTIONS.get(name.object)
        if described is None:
            return super().get(name)
        table = SampleTable(
            track=0,
            description=described.digest,
            timescale=1000,
            decode_time=name.offset * 1000,
            offsets=array("I", [0, 10]),
            sizes=array("I", [10, 20]),
            durations=array("I", [500, 500]),
            composition_offsets=array("i", [0, 0]),
            sync=b"\1\0",
        )
        return GroupSamples((table,), (described,))


@st.composite
def sealed_contents(draw: st.DrawFn) -> Content:
    """Any content, some of whose hours were sealed, with some or all of what is in them."""
    content = draw(contents())
    seals = [
        (
            group.broadcast.number,
            SealRow(group.received_start // HOUR, draw(st.integers(0, group.n + 2000))),
        )
        for group in content.groups
        if draw(st.booleans())
    ]
    return structs.replace(content, seals=tuple(seals))


def prepare(node: Node) -> None:
    """Do what an adapter does before it looks into a node."""
    if isinstance(node, Prepared):
        with suppress(NotFoundError):
            node.prepare()


def find(parent: Directory, name: str) -> Node | None:
    """Look a name up as an adapter does."""
    prepare(parent)
    node = parent.child(name)
    try:
        if isinstance(node, Prepared):
            node.prepare()
    except NotFoundError:
        return None
    return node


def tree_of(content: Content, spool: Spool) -> Tree:
    lookup, samples = MemoryLookup(content), SomeSamples.temporary()
    recordings = Recordings(
        lookup, NoObjects(), samples, spool, most_followed=1000, clock=lambda: FAR_AHEAD
    )
    view = ArchiveView(lookup=lookup, objects=NoObjects(), recordings=recordings)
    return build_tree(view, Counters(), 0)


def walk(directory: Directory) -> Iterator[tuple[Directory, str, Node]]:
    prepare(directory)
    for entry in list(directory.entries()):
        yield directory, entry.name, entry.node
        if isinstance(entry.node, Directory):
            yield from walk(entry.node)


def views(tree: Tree) -> Iterator[tuple[Directory, str, Node]]:
    for name in VIEWS:
        root = tree.root.child(name)
        assert isinstance(root, Directory)
        yield from walk(root)


@settings(max_examples=30)
@given(sealed_contents())
def test_the_views_of_what_can_be_played_are_a_tree(content: Content) -> None:
    spool = Spool(None)
    try:
        tree = tree_of(content, spool)
        # What is not known of a recording yet shows when it is asked for: here, all is.
        for _, _, node in views(tree):
            prepare(node)
        seen = {ROOT_INODE: "/"}
        listings: dict[str, list[str]] = {}
        for parent, name, node in views(tree):
            assert isinstance(node, PathNode)
            assert node.path == parent.path_of(name)
            assert seen.setdefault(node.inode, node.path) == node.path
            assert family_of(node.inode) is not None
            assert not set(name) & set(":\0\n")
            listings.setdefault(parent.path, []).append(name)
            found = find(parent, name)
            assert found is not None, node.path
            assert (type(found), found.inode) == (type(node), node.inode)
            assert found.attributes() == node.attributes()
            if isinstance(node, VirtualFile):
                layout = node.layout()
                assert layout.size == node.attributes().size
                pieces = layout.pieces()
                lengths = (
                    len(piece.data) if isinstance(piece, Literal) else piece.length
                    for piece in pieces
                )
                assert sum(lengths) == layout.size
        checked: set[str] = set()
        every_name = {name for names in listings.values() for name in names}
        for parent, _, _ in views(tree):
            listed = listings[parent.path]
            if parent.path in checked:
                continue
            checked.add(parent.path)
            assert len(listed) == len(set(listed))
            entries = list(parent.entries())
            cookies = [entry.cookie for entry in entries]
            assert cookies == sorted(set(cookies))
            assert [entry.name for entry in parent.entries(after=cookies[0])] == listed[1:]
            assert {name for name in every_name if find(parent, name) is not None} == set(listed)
    finally:
        spool.close()
