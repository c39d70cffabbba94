"""What the kernel knows by number, and what it has forgotten."""

from __future__ import annotations

from casfs.digest import digest_of
from casfs.mount.nodetable import NodeTable
from casfs.mount.objects import ObjectFile
from casfs.mount.tree import FixedDirectory


def directory(path: str) -> FixedDirectory:
    return FixedDirectory(path, [], lambda: 0)


def test_a_node_is_known_until_the_last_reference_is_given_back() -> None:
    table, node = NodeTable(directory("/")), directory("/a")
    table.reference(node)
    table.reference(node)
    table.forget(node.inode, 1)
    assert table.get(node.inode) is node
    table.forget(node.inode, 1)
    assert table.get(node.inode) is None
    assert len(table) == 0


def test_the_root_is_never_forgotten() -> None:
    root = directory("/")
    table = NodeTable(root)
    table.reference(root)
    table.forget(root.inode, 5)
    assert table.get(root.inode) is root


def test_stored_files_take_no_room() -> None:
    table = NodeTable(directory("/"))
    file = ObjectFile(digest_of(b""), size=0, modified=0)
    table.reference(file)
    table.forget(file.inode, 1)
    assert len(table) == 0
    assert table.admits(file)


def test_another_path_under_a_number_in_use_is_not_admitted() -> None:
    table = NodeTable(directory("/"))
    known, other = directory("/a"), directory("/b")
    table.reference(known)
    other._inode = known.inode
    assert table.admits(directory("/a"))
    assert not table.admits(other)
    table.forget(known.inode, 1)
    assert table.admits(other)
