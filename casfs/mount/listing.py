"""One open directory: entries fetched ahead in growing portions, each name given once.

Pure. A portion is fetched by one call, which may block; no iterator and no transaction outlives it,
so a listing that stops half-way holds nothing but the entries of its last portion and the next.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING

from casfs.mount.tree import Validity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.mount.tree import Directory, Listed

_BRIEF = Validity.BRIEF  # looked up for each entry
_FIRST_PORTION = 256
_GROWTH = 4
_LONG_PORTION = 512
_LARGEST_PORTION = 4096
# More than the kernel takes at a time, and few enough to copy for each of its requests.
_AT_HAND = 512
_COOKIE = attrgetter("cookie")


class Listing:
    """The entries of ``directory`` for one reader, who may seek by cookie.

    The two that fetch must not run at the same time; `buffered` may be called while one does.
    """

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._portion: Sequence[Listed] = ()
        self._begins_after = 0
        self._next: Sequence[Listed] | None = None
        self._size = _FIRST_PORTION
        self._ends_at: int | None = None
        self._brief: dict[str, int] = {}

    def buffered(self, after: int) -> Sequence[Listed]:
        """Return some of what is at hand behind this cookie; empty if it has to be fetched.

        From the beginning nothing is ever at hand: a listing that starts again sees what is new.
        """
        if after == 0 or after < self._begins_after:
            return ()
        if self._next and after >= self._portion[-1].cookie:
            self._begins_after, self._portion = self._portion[-1].cookie, self._next
            self._next = None
        begin = bisect_right(self._portion, after, key=_COOKIE)
        return self._portion[begin : begin + _AT_HAND]

    def ends_at(self, after: int) -> bool:
        """Say whether nothing stood behind this cookie when the directory was read in one go.

        What came in that moment is in the next listing.
        """
        return after == self._ends_at

    @property
    def is_long(self) -> bool:
        """Say whether so much was read that the next portion is worth fetching before its time."""
        return self._next is None and len(self._portion) >= _LONG_PORTION

    def fetch(self, after: int) -> Sequence[Listed]:
        """Return the next portion behind this cookie, empty at the end. May block."""
        if after == 0:
            self._size = _FIRST_PORTION
        self._brief = {name: cookie for name, cookie in self._brief.items() if cookie <= after}
        self._next = None
        self._portion = self._read(after)
        self._begins_after = after
        is_all = after == 0 and 0 < len(self._portion) < _FIRST_PORTION
        self._ends_at = self._portion[-1].cookie if is_all else None
        return self._portion

    def fetch_next(self) -> None:
        """Have the portion at hand that follows the last one. May block."""
        self._next = self._read(self._portion[-1].cookie)

    def _read(self, after: int) -> Sequence[Listed]:
        """Return entries behind this cookie that did not stand in the listing already."""
        portion: Sequence[Listed] = ()
        while not portion:
            found = self.directory.listing(after, self._size)
            if not found:
                break
            portion = [
                listed
                for listed in found
                if listed.attributes.validity is not _BRIEF or not self._given_before(listed)
            ]
            after = found[-1].cookie
        self._size = min(self._size * _GROWTH, _LARGEST_PORTION)
        return portion

    def _given_before(self, listed: Listed) -> bool:
        """Say whether this name stood in the listing already.

        An incomplete group that a longer record superseded meanwhile comes again, under the same
        name with a later cookie.
        """
        return self._brief.setdefault(listed.name, listed.cookie) != listed.cookie
