"""One open directory: entries fetched ahead in growing portions, each name given once.

Pure. A portion is fetched by one call, which may block; no iterator and no transaction outlives it,
so a listing that stops half-way holds nothing but the entries of its last portion.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.mount.tree import Attributes, Node, Validity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.mount.tree import Directory

_FIRST_PORTION = 64
_LARGEST_PORTION = 4096


class Listed(Struct, frozen=True):
    """An entry with its attributes at the time that it was fetched."""

    name: str
    cookie: int
    node: Node
    attributes: Attributes


class Listing:
    """The entries of ``directory`` for one reader, who may seek by cookie."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._portion: list[Listed] = []
        self._begins_after = 0
        self._size = _FIRST_PORTION
        self._brief: dict[str, int] = {}

    def buffered(self, after: int) -> Sequence[Listed]:
        """Return what is at hand behind this cookie; empty if it has to be fetched.

        From the beginning nothing is ever at hand: a listing that starts again sees what is new.
        """
        if after == 0 or after < self._begins_after:
            return ()
        return self._portion[bisect_right(self._portion, after, key=attrgetter("cookie")) :]

    def fetch(self, after: int) -> Sequence[Listed]:
        """Return the next portion behind this cookie, empty at the end. May block."""
        if after == 0:
            self._size = _FIRST_PORTION
        self._brief = {name: cookie for name, cookie in self._brief.items() if cookie <= after}
        portion: list[Listed] = []
        position = after
        while not portion:
            entries = list(islice(self.directory.entries(position), self._size))
            for entry in entries:
                listed = Listed(entry.name, entry.cookie, entry.node, entry.node.attributes())
                if not self._given_before(listed):
                    portion.append(listed)
            if len(entries) < self._size:
                break
            position = entries[-1].cookie
        self._portion = portion
        self._begins_after = after
        self._size = min(self._size * 2, _LARGEST_PORTION)
        return portion

    def _given_before(self, listed: Listed) -> bool:
        """Say whether this name stood in the listing already.

        An incomplete group that a longer record superseded meanwhile comes again, under the same
        name with a later cookie.
        """
        if listed.attributes.validity is not Validity.BRIEF:
            return False
        return self._brief.setdefault(listed.name, listed.cookie) != listed.cookie
