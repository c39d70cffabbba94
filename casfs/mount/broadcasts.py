"""The view ``/broadcasts``: every group or run as a file, by broadcast, track, date and hour.

```
/broadcasts/<broadcast/with/its/slashes>/<track>/<date>/<hour>/<group file>
/broadcasts/<broadcast/with/its/slashes>/<track>/latest.<ext>
```

Broadcasts that share a prefix share its directory, and so do a track of ``demo`` named ``tv`` and
the broadcast ``demo/tv``: one `NameDirectory` shows the dates of the one and the tracks of the
other. They cannot collide, because no name that a broadcast chose looks like a date or ``latest``
(`casfs.mount.filenames.component_of`). The date and hour of a group are those of its first byte's
arrival, UTC; its modification time is that of its last byte's.

Pure: everything comes from the `Lookup` that was given, nothing is read here, no clock is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.digest import digest_of
from casfs.mount.filenames import (
    HOURS_PER_DAY,
    component_of,
    components_of,
    file_name_endings,
    format_day,
    format_hour,
    group_file_name,
    latest_name,
    parse_day,
    parse_group_file_name,
    parse_hour,
)
from casfs.mount.inodes import group_inode, group_of_inode, leading_bits
from casfs.mount.tree import (
    Attributes,
    Directory,
    Entry,
    Following,
    Kind,
    Link,
    Listed,
    Node,
    ObjectRange,
    StoredFile,
    Validity,
)
from casfs.timestamps import HOUR, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from casfs.index.extents import ExtentRow
    from casfs.index.lookup import Lookup
    from casfs.index.rows import BroadcastRow, GroupEntry, TrackRow

# Where the three kinds of entries of a name directory stand in its listing: `latest` first, then
# the dates in their order, then names by their digest: an order that no later name disturbs.
_LATEST_COOKIE = 1
_FIRST_DAY_COOKIE = 2
_FIRST_NAME_COOKIE = 1 << 61


class BroadcastsView:
    """The broadcasts of one archive as a tree; ``path`` is where its root stands in the mount."""

    def __init__(self, lookup: Lookup, path: str) -> None:
        self._lookup = lookup
        self._names = BroadcastNames(lookup)
        self.root = NameDirectory(path, (), lookup, self._names)

    def resolve(self, inode: int) -> GroupFile | None:
        """Return the group file with this inode number; None if it is unknown or superseded."""
        number, n = group_of_inode(inode)
        group = self._lookup.extent(number, n)
        return None if group is None or group.n != n else GroupFile(group)

    def following(self, file: StoredFile, most: int) -> Sequence[Following]:
        """Return the files of the track's next sequence numbers, until one is missing."""
        if not isinstance(file, GroupFile):
            return ()
        group = file.group
        track = self._lookup.track(group.broadcast.name, group.track)
        if track is None:
            return ()
        hour = group.received_start // HOUR
        found: list[Following] = []
        for after in self._lookup.successors(track, group.epoch, group.last_sequence, most):
            is_near = after.received_start // HOUR == hour
            found.append(
                Following(GroupFile(after), str(group_file_name(after)) if is_near else None)
            )
        return found


class NameDirectory(Directory):
    """A directory on the way to a track, or the track itself, or both.

    ``components`` lead here from the view's root. What stands here is asked for anew each time: a
    broadcast may come to be where only a track was.
    """

    def __init__(
        self, path: str, components: tuple[str, ...], lookup: Lookup, names: BroadcastNames
    ) -> None:
        super().__init__(path)
        self._components = components
        self._lookup = lookup
        self._names = names

    def modified(self) -> int:
        """Return when the newest group began to arrive.

        It is looked for in the track, in the broadcast's tracks, and in the broadcast beneath that
        was first seen last: a thousand broadcasts cost no more than one.
        """
        tracks: list[TrackRow | None] = [self._track()]
        branch = self._names.branch(self._components)
        if branch is not None:
            rows = {row.number: row for row in (branch.broadcast, branch.youngest) if row}
            for broadcast in rows.values():
                tracks += self._lookup.tracks(broadcast)
        return max((_last_arrival(self._lookup, track) for track in tracks if track), default=0)

    def child(self, name: str) -> Node | None:
        """Return the date, the link or the further name that ``name`` is, or None."""
        day = parse_day(name)
        if day is not None:
            return self._day(day)
        track = self._track()
        if track is not None and name == latest_name(track.name):
            return self._latest(track)
        return self._beneath(name) if name in self._component_names() else None

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield ``latest``, the dates, and the names beneath."""
        track = self._track()
        if track is not None:
            yield from self._track_entries(track, after)
        for cookie, name in sorted((_name_cookie(n), n) for n in self._component_names()):
            if cookie > after:
                yield Entry(name, cookie, self._beneath(name))

    def _track_entries(self, track: TrackRow, after: int) -> Iterator[Entry]:
        latest = self._latest(track) if after < _LATEST_COOKIE else None
        if latest is not None:
            yield Entry(latest_name(track.name), _LATEST_COOKIE, latest)
        for day in sorted({hour // HOURS_PER_DAY for hour in self._lookup.hours(track)}):
            cookie = _FIRST_DAY_COOKIE + day
            if cookie > after:
                name = format_day(day)
                yield Entry(
                    name, cookie, DayDirectory(self.path_of(name), track, day, self._lookup)
                )

    def _day(self, day: int) -> DayDirectory | None:
        track = self._track()
        if track is None or not any(h // HOURS_PER_DAY == day for h in self._lookup.hours(track)):
            return None
        return DayDirectory(self.path_of(format_day(day)), track, day, self._lookup)

    def _latest(self, track: TrackRow) -> LatestLink | None:
        link = LatestLink(self.path_of(latest_name(track.name)), track, self._lookup)
        return None if link.target() is None else link

    def _beneath(self, component: str) -> NameDirectory:
        return NameDirectory(
            self.path_of(component), (*self._components, component), self._lookup, self._names
        )

    def _component_names(self) -> set[str]:
        """Return the broadcasts' next components and the tracks of the broadcast that ends here."""
        branch = self._names.branch(self._components)
        if branch is None:
            return set()
        tracks = () if branch.broadcast is None else self._lookup.tracks(branch.broadcast)
        return {*branch.children, *(component_of(track.name) for track in tracks)}

    def _track(self) -> TrackRow | None:
        """Return the track that this directory is, if it is one."""
        if not self._components:
            return None
        branch = self._names.branch(self._components[:-1])
        if branch is None or branch.broadcast is None:
            return None
        for track in self._lookup.tracks(branch.broadcast):
            if component_of(track.name) == self._components[-1]:
                return track
        return None


class DayDirectory(Directory):
    """The hours of one UTC day in which the track received groups."""

    def __init__(self, path: str, track: TrackRow, day: int, lookup: Lookup) -> None:
        super().__init__(path)
        self._track = track
        self._first_hour = day * HOURS_PER_DAY
        self._lookup = lookup

    def modified(self) -> int:
        """Return when the track's newest group began to arrive, as far as that was on this day."""
        return _last_arrival_within(
            self._lookup, self._track, self._first_hour, self._first_hour + HOURS_PER_DAY
        )

    def child(self, name: str) -> Node | None:
        """Return the hour, or None if nothing was received in it."""
        hour_of_day = parse_hour(name)
        if hour_of_day is None or hour_of_day not in self._hours():
            return None
        return self._hour(hour_of_day)

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the hours in their order."""
        for hour_of_day in self._hours():
            cookie = hour_of_day + 1
            if cookie > after:
                yield Entry(format_hour(hour_of_day), cookie, self._hour(hour_of_day))

    def _hours(self) -> Sequence[int]:
        hours = (hour - self._first_hour for hour in self._lookup.hours(self._track))
        return sorted(hour for hour in hours if 0 <= hour < HOURS_PER_DAY)

    def _hour(self, hour_of_day: int) -> HourDirectory:
        path = self.path_of(format_hour(hour_of_day))
        return HourDirectory(path, self._track, self._first_hour + hour_of_day, self._lookup)


class HourDirectory(Directory):
    """The groups of one hour, in the order of their commits; a lookup costs one index search."""

    def __init__(self, path: str, track: TrackRow, hour: int, lookup: Lookup) -> None:
        super().__init__(path)
        self._track = track
        self._hour = hour
        self._lookup = lookup

    def modified(self) -> int:
        """Return when the track's newest group began to arrive, as far as that was in this hour."""
        return _last_arrival_within(self._lookup, self._track, self._hour, self._hour + 1)

    def child(self, name: str) -> Node | None:
        """Return the group file whose name is exactly this, or None."""
        parsed = parse_group_file_name(name)
        if parsed is None:
            return None
        group = self._lookup.extent_of(self._track, parsed.epoch, parsed.sequence)
        if group is None or group.received_start // HOUR != self._hour:
            return None
        return GroupFile(group) if group_file_name(group) == parsed else None

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the files; their cookies are their commit numbers, so new ones come last."""
        start = self._hour * HOUR
        stop = start + HOUR
        for group in self._lookup.extents(self._track, start, stop, after=after):
            yield Entry(str(group_file_name(group)), group.n, GroupFile(group))

    def listing(self, after: int, most: int) -> Sequence[Listed]:
        """Return the same entries, of which an hour may have 100,000, without their full rows."""
        groups: list[GroupEntry] = []
        while len(groups) < most:
            page = self._lookup.group_entries(
                self._track, self._hour, after=after, most=most - len(groups)
            )
            if not page:
                break
            groups += page
            after = page[-1].n
        if not groups:
            return ()
        endings = file_name_endings(self._track.name)
        validities = (Validity.BRIEF, Validity.LASTING)
        # Numbers rise with n, so that the highest one vouches for all.
        inode_of_0 = group_inode(self._track.broadcast.number, groups[-1].n) - groups[-1].n
        return [
            Listed(
                group.label + endings[group.complete],
                n := group.n,
                Attributes(
                    inode_of_0 + n,
                    Kind.FILE,
                    group.size,
                    group.received_end,
                    validities[group.complete],
                ),
            )
            for group in groups
        ]


class GroupFile(StoredFile):
    """The bytes of one group, or of many small ones that were committed together (a run).

    A run is named by its first group.

    The name of an incomplete group stays when a longer record supersedes it; the inode number does
    not, so nothing that is open changes beneath its reader.
    """

    def __init__(self, group: ExtentRow) -> None:
        self.group = group
        self._inode = group_inode(group.broadcast.number, group.n)

    @property
    def inode(self) -> int:
        """Return the number made of the broadcast's number and the commit's."""
        return self._inode

    @property
    def payload(self) -> ObjectRange:
        """Return where the group's bytes lie."""
        return ObjectRange(self.group.hash, self.group.offset, self.group.size)

    def attributes(self) -> Attributes:
        """Return the size and the arrival of the last byte."""
        return Attributes(
            inode=self._inode,
            kind=Kind.FILE,
            size=self.group.size,
            modified=self.group.received_end,
            validity=Validity.LASTING if self.group.complete else Validity.BRIEF,
        )

    def extended_attributes(self) -> Mapping[str, bytes]:
        """Return what the group's record says; of a run, how far it goes, too."""
        group = self.group
        run = {
            "user.casfs.groups": str(group.groups).encode(),
            "user.casfs.last-sequence": str(group.last_sequence).encode(),
        }
        return {
            **({} if group.members is None else run),
            "user.casfs.blake3": group.hash.encode(),
            "user.casfs.broadcast": group.broadcast.name.encode(),
            "user.casfs.complete": b"true" if group.complete else b"false",
            "user.casfs.epoch": str(group.epoch).encode(),
            "user.casfs.received": format_time(group.received_start).encode(),
            "user.casfs.sequence": str(group.sequence).encode(),
            "user.casfs.track": group.track.encode(),
        }


class LatestLink(Link):
    """The link to a track's newest group: the highest epoch and sequence."""

    def __init__(self, path: str, track: TrackRow, lookup: Lookup) -> None:
        super().__init__(path)
        self._track = track
        self._lookup = lookup

    def target(self) -> str | None:
        """Return the group file's path from the track's directory; None if there is no group."""
        group = self._newest()
        return None if group is None else _path_in_track(group)

    def attributes(self) -> Attributes:
        """Return the target's length and the newest group's arrival."""
        group = self._newest()
        return Attributes(
            inode=self.inode,
            kind=Kind.LINK,
            size=0 if group is None else len(_path_in_track(group)),
            modified=0 if group is None else group.received_end,
            validity=Validity.NONE,
        )

    def _newest(self) -> ExtentRow | None:
        group = self._lookup.newest(self._track)
        if group is None:
            return None
        return self._lookup.extent_of(self._track, group.epoch, group.sequence)


class BroadcastNames:
    """The components of all broadcast names, as a tree that is rebuilt when a broadcast comes."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._rows: list[BroadcastRow] = []
        self._root = Branch()

    def branch(self, components: tuple[str, ...]) -> Branch | None:
        """Return what stands at the end of these components; None if no broadcast leads there."""
        rows = list(self._lookup.broadcasts())
        if rows != self._rows:
            self._root = _branches(rows)
            self._rows = rows
        branch: Branch | None = self._root
        for component in components:
            branch = None if branch is None else branch.children.get(component)
        return branch


class Branch:
    """A point in the tree of broadcast names."""

    __slots__ = ("broadcast", "children", "youngest")

    def __init__(self) -> None:
        self.broadcast: BroadcastRow | None = None
        """The broadcast whose name ends here."""
        self.youngest: BroadcastRow | None = None
        """The one with the highest number that ends here or beneath."""
        self.children: dict[str, Branch] = {}
        """The next components."""


def _branches(rows: Sequence[BroadcastRow]) -> Branch:
    root = Branch()
    for row in sorted(rows, key=lambda row: row.number):
        branch = root
        branch.youngest = row
        for component in components_of(row.name):
            branch = branch.children.setdefault(component, Branch())
            branch.youngest = row
        branch.broadcast = row
    return root


def _name_cookie(component: str) -> int:
    return _FIRST_NAME_COOKIE + leading_bits(digest_of(component.encode()))


def _last_arrival(lookup: Lookup, track: TrackRow) -> int:
    return lookup.summary(track).last or 0


def _last_arrival_within(lookup: Lookup, track: TrackRow, first_hour: int, end_hour: int) -> int:
    """Return the track's last arrival, held within ``first_hour <= time <= end_hour``."""
    return min(max(_last_arrival(lookup, track), first_hour * HOUR), end_hour * HOUR)


def _path_in_track(group: ExtentRow) -> str:
    day, hour_of_day = divmod(group.received_start // HOUR, HOURS_PER_DAY)
    return f"{format_day(day)}/{format_hour(hour_of_day)}/{group_file_name(group)}"
