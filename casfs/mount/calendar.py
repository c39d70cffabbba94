"""Directories of broadcasts with their days: what ``/recordings`` and ``/hls`` have in common.

Broadcasts that share a prefix share its directory, as in `casfs.mount.broadcasts`. In the directory
of a broadcast stand its days, and what else the view puts there. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from casfs.digest import digest_of
from casfs.manifests.record import INIT_TRACKS
from casfs.mount.filenames import HOURS_PER_DAY, format_day, parse_day
from casfs.mount.inodes import leading_bits
from casfs.mount.tree import Directory, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from casfs.index.lookup import Lookup
    from casfs.index.rows import BroadcastRow, TrackRow
    from casfs.mount.broadcasts import Branch, BroadcastNames
    from casfs.mount.tree import Node

# Other children first, then the days in their order, then names by their digest.
_FIRST_DAY_COOKIE = 1 << 16
_FIRST_NAME_COOKIE = 1 << 61


class CalendarView(Protocol):
    """What a view shows of a broadcast."""

    def day(self, path: str, broadcast: BroadcastRow, day: int) -> Directory:
        """Return the directory of a day, which has groups of media."""

    def others(self, path: str, broadcast: BroadcastRow) -> Mapping[str, Directory]:
        """Return what stands beside the days, by name; always the same."""


class CalendarDirectory(Directory):
    """A directory on the way to a broadcast, or that of a broadcast, or both."""

    def __init__(
        self,
        path: str,
        components: tuple[str, ...],
        lookup: Lookup,
        names: BroadcastNames,
        view: CalendarView,
    ) -> None:
        super().__init__(path)
        self._components = components
        self._lookup = lookup
        self._names = names
        self._view = view

    def modified(self) -> int:
        """Return when the newest group of media began to arrive."""
        branch = self._branch()
        if branch is None:
            return 0
        rows = {row.number: row for row in (branch.broadcast, branch.youngest) if row}
        return max((last_arrival(self._lookup, row) for row in rows.values()), default=0)

    def child(self, name: str) -> Node | None:
        """Return the day, or what else this is the name of, or None."""
        branch = self._branch()
        if branch is None:
            return None
        if branch.broadcast is not None:
            day = parse_day(name)
            if day is not None:
                days = media_days(self._lookup, branch.broadcast)
                return self._day(branch.broadcast, day) if day in days else None
            other = self._view.others(self.path, branch.broadcast).get(name)
            if other is not None:
                return other
        return self._beneath(name) if name in branch.children else None

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield what stands beside the days, the days, and the names beneath."""
        branch = self._branch()
        if branch is None:
            return
        if branch.broadcast is not None:
            others = self._view.others(self.path, branch.broadcast)
            for cookie, (name, node) in enumerate(others.items(), 1):
                if cookie > after:
                    yield Entry(name, cookie, node)
            for day in media_days(self._lookup, branch.broadcast):
                cookie = _FIRST_DAY_COOKIE + day
                if cookie > after:
                    yield Entry(format_day(day), cookie, self._day(branch.broadcast, day))
        for cookie, name in sorted((_name_cookie(name), name) for name in branch.children):
            if cookie > after:
                yield Entry(name, cookie, self._beneath(name))

    def _branch(self) -> Branch | None:
        return self._names.branch(self._components)

    def _day(self, broadcast: BroadcastRow, day: int) -> Directory:
        return self._view.day(self.path_of(format_day(day)), broadcast, day)

    def _beneath(self, component: str) -> CalendarDirectory:
        return CalendarDirectory(
            self.path_of(component),
            (*self._components, component),
            self._lookup,
            self._names,
            self._view,
        )


def media_tracks(lookup: Lookup, broadcast: BroadcastRow) -> Sequence[TrackRow]:
    """Return the tracks that may hold media."""
    return [track for track in lookup.tracks(broadcast) if track.name not in INIT_TRACKS]


def media_hours(lookup: Lookup, broadcast: BroadcastRow) -> list[int]:
    """Return the hours in which media came, as hours since the Unix epoch, in order."""
    tracks = media_tracks(lookup, broadcast)
    return sorted({hour for track in tracks for hour in lookup.hours(track)})


def media_days(lookup: Lookup, broadcast: BroadcastRow) -> list[int]:
    """Return the days on which media came, as days since the Unix epoch, in order."""
    return sorted({hour // HOURS_PER_DAY for hour in media_hours(lookup, broadcast)})


def last_arrival(lookup: Lookup, broadcast: BroadcastRow) -> int:
    """Return when the newest group of media began to arrive, ns UTC; 0 if there is none."""
    tracks = media_tracks(lookup, broadcast)
    return max((lookup.summary(track).last or 0 for track in tracks), default=0)


def _name_cookie(component: str) -> int:
    return _FIRST_NAME_COOKIE + leading_bits(digest_of(component.encode()))
