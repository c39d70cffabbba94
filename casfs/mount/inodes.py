"""Inode numbers: 64 bits, computed from what a node is, so that they survive every remount.

The four highest bits name the family, the other sixty say which node of it:

- ``PATH`` (1): directories, links and generated files: the first 60 bits of the BLAKE3 of the path;
- ``GROUP`` (2): a group file: its broadcast's number (24 bits) and its commit number (36 bits);
- ``OBJECT`` (3): an object file: the first 60 bits of its digest.

Families 4 to 7 are free for further views; the highest bit stays 0 for the programs that take an
inode number for a signed one. The root is 1, as FUSE demands, and 0 is nothing. A group's number
leads back to the group; the other two families have to be remembered or searched for.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from casfs.digest import digest_of

if TYPE_CHECKING:
    from casfs.digest import Digest

ROOT_INODE = 1
"""The inode number of the mount's root."""

ROOT_PATH = "/"
"""The path of the mount's root."""

_FAMILY_SHIFT = 60
_FAMILY_MASK = (1 << _FAMILY_SHIFT) - 1
_COMMIT_BITS = 36
_BROADCAST_BITS = 24
_HEX_DIGITS = _FAMILY_SHIFT // 4
_GENERATION_DIGITS = 8


class Family(enum.IntEnum):
    """What kind of thing an inode number stands for."""

    PATH = 1
    GROUP = 2
    OBJECT = 3


def family_of(inode: int) -> Family | None:
    """Return the family of an inode number; the root's is ``PATH``; None if it is none of ours."""
    if inode == ROOT_INODE:
        return Family.PATH
    try:
        return Family(inode >> _FAMILY_SHIFT)
    except ValueError:
        return None


def path_inode(path: str) -> int:
    """Return the inode number of the directory, link or generated file at this absolute path."""
    if path == ROOT_PATH:
        return ROOT_INODE
    return _in_family(Family.PATH, leading_bits(digest_of(path.encode())))


def group_inode(broadcast_number: int, n: int) -> int:
    """Return the inode number of the group that commit ``n`` of this broadcast made.

    Raises ValueError for a number that does not fit: a broadcast number above 2**24 - 1 or a commit
    number above 2**36 - 1 (ten years of 200 commits a second).
    """
    if not 0 <= broadcast_number < 1 << _BROADCAST_BITS or not 0 <= n < 1 << _COMMIT_BITS:
        raise ValueError(f"no inode number for commit {n} of broadcast {broadcast_number}")
    return _in_family(Family.GROUP, broadcast_number << _COMMIT_BITS | n)


def group_of_inode(inode: int) -> tuple[int, int]:
    """Return the broadcast number and the commit number that `group_inode` packed."""
    packed = inode & _FAMILY_MASK
    return packed >> _COMMIT_BITS, packed & ((1 << _COMMIT_BITS) - 1)


def object_inode(digest: Digest) -> int:
    """Return the inode number of an object file."""
    return _in_family(Family.OBJECT, leading_bits(digest))


def object_generation(digest: Digest) -> int:
    """Return the 32 bits that follow those in the inode number.

    The kernel takes two nodes of one number and different generations for different files: whoever
    finds two objects with 60 equal bits still cannot have one served as the other.
    """
    return int(digest[_HEX_DIGITS : _HEX_DIGITS + _GENERATION_DIGITS], 16)


def object_prefix(inode: int) -> str:
    """Return the leading hexadecimal digits of the digest that an object's number was made of."""
    return f"{inode & _FAMILY_MASK:0{_HEX_DIGITS}x}"


def leading_bits(digest: str) -> int:
    """Return the first 60 bits of a digest."""
    return int(digest[:_HEX_DIGITS], 16)


def _in_family(family: Family, rest: int) -> int:
    return family << _FAMILY_SHIFT | rest
