"""The nodes that the kernel may ask for by number and that no number leads back to.

Those are the nodes whose path makes their number: directories, links, generated files. Each answer
that names one to the kernel is a reference; the kernel gives its references back by forgetting.
Stored files need no place here (`casfs.mount.tree.Tree.resolve`), so the table grows with the
directories in use, not with the files. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.mount.tree import PathNode

if TYPE_CHECKING:
    from casfs.mount.tree import Directory, Node


class NodeTable:
    """Path nodes by inode number with their references. The root is always there."""

    def __init__(self, root: Directory) -> None:
        self._root = root
        self._nodes: dict[int, PathNode] = {}
        self._references: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, inode: int) -> PathNode | None:
        """Return the node with this number, or None if the kernel holds no reference to one."""
        return self._root if inode == self._root.inode else self._nodes.get(inode)

    def admits(self, node: Node) -> bool:
        """Say whether the node may be named to the kernel.

        It may not if the kernel knows another path under its number. That takes two paths whose
        digests share 60 bits, which somebody must have searched for.
        """
        if not isinstance(node, PathNode):
            return True
        known = self.get(node.inode)
        return known is None or known.path == node.path

    def reference(self, node: Node) -> None:
        """Note that the kernel was told of the node once more."""
        if isinstance(node, PathNode) and node.inode != self._root.inode:
            self._nodes[node.inode] = node
            self._references[node.inode] = self._references.get(node.inode, 0) + 1

    def forget(self, inode: int, count: int) -> None:
        """Take back ``count`` references; without any the node is dropped."""
        left = self._references.get(inode, 0) - count
        if left > 0:
            self._references[inode] = left
        else:
            self._references.pop(inode, None)
            self._nodes.pop(inode, None)
