"""The view ``/hls``: a day of a broadcast for players that take playlists (RFC 8216).

```
/hls/<broadcast/with/its/slashes>/<date>/index.m3u8      what to give to a player: names media.m3u8
                                         media.m3u8      the day, with discontinuities
                                         epoch-<n>.m3u8  one epoch of it, for ffmpeg and mpv
                                         init-<n>.mp4    init segments, in the order of their need
                                         seg/e0001-046800000.m4s
```

``epoch-<n>-2.m3u8`` goes on where an epoch needs another init segment. A segment is named by its
epoch and its begin, milliseconds from midnight. All names are siblings made of [A-Za-z0-9._-], so a
playlist is as good from a file as from any server of files. While the day lasts playlists grow.

Pure: what takes time is done when a directory is prepared.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING

from casfs.digest import digest_of
from casfs.media.layout import Literal
from casfs.media.playlist import ListedSegment, Variant, media_playlist, multivariant_playlist
from casfs.mount.broadcasts import BroadcastNames
from casfs.mount.calendar import CalendarDirectory, last_arrival, media_hours
from casfs.mount.filenames import HOURS_PER_DAY
from casfs.mount.live import stretches
from casfs.mount.sealing import sealed_day, sealed_hours
from casfs.mount.tree import (
    Attributes,
    Directory,
    Entry,
    GeneratedFile,
    Kind,
    Prepared,
    Validity,
    VirtualFile,
)
from casfs.timestamps import HOUR, NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from casfs.index.lookup import Lookup
    from casfs.index.rows import BroadcastRow
    from casfs.media.layout import Extent
    from casfs.mount.tree import FileLayout, Node
    from casfs.recordings.following import Following, Timeline
    from casfs.recordings.segmentlist import KeptSegment
    from casfs.recordings.source import Recordings

_MILLISECOND = NANOSECONDS // 1000
_SEGMENT = re.compile(r"e(?P<epoch>[0-9]{4,18})-(?P<begin>[0-9]{9,12})\.m4s")
_FIXED_COOKIES = ("index.m3u8", "media.m3u8", "seg")
_EPOCH_COOKIES = 1 << 20
_INIT_COOKIES = 1 << 40


class HlsView:
    """The days of one archive as HLS; ``path`` is where its root stands in the mount."""

    def __init__(self, lookup: Lookup, recordings: Recordings, path: str) -> None:
        self._lookup = lookup
        self._recordings = recordings
        self.root = CalendarDirectory(path, (), lookup, BroadcastNames(lookup), self)

    def day(self, path: str, broadcast: BroadcastRow, day: int) -> Directory:
        """Return the directory of a day."""
        return HlsDay(path, HlsSource(broadcast, day, self._lookup, self._recordings))

    def others(self, path: str, broadcast: BroadcastRow) -> Mapping[str, Directory]:  # noqa: ARG002
        """Return nothing."""
        return {}


class HlsSource:
    """The timeline of a broadcast's day."""

    def __init__(
        self, broadcast: BroadcastRow, day: int, lookup: Lookup, recordings: Recordings
    ) -> None:
        self._broadcast = broadcast
        self._day = day
        self._lookup = lookup
        self._recordings = recordings
        first = day * HOURS_PER_DAY
        self.start, self.end = first * HOUR, (first + HOURS_PER_DAY) * HOUR
        self._ended = self._closed()

    def prepare(self) -> None:
        """Look for what is new."""
        self._followed().refresh(ended=self._ended)

    def refreshed(self) -> Following:
        """Return the day, followed, as it was when it was prepared last.

        Nothing is known any more of a day if many others were asked for since: then it is looked at
        again.
        """
        following = self._followed()
        if not following.was_refreshed:
            following.refresh(ended=self._ended)
        return following

    @property
    def timeline(self) -> Timeline:
        """What was known of the day when it was prepared last."""
        return self.refreshed().timeline

    def _followed(self) -> Following:
        return self._recordings.following(self._broadcast, self.start, self.end)

    def modified(self) -> int:
        """Return when the newest group of media began to arrive, as far as within the day."""
        return min(max(last_arrival(self._lookup, self._broadcast), self.start), self.end)

    def _closed(self) -> bool:
        first = self._day * HOURS_PER_DAY
        hours = [
            hour
            for hour in media_hours(self._lookup, self._broadcast)
            if first <= hour < first + HOURS_PER_DAY
        ]
        sealed = sealed_hours(self._lookup, self._broadcast, hours)
        return sealed_day(self._day, hours, sealed, self._recordings.now()) is not None


class HlsDay(Directory, Prepared):
    """The playlists and init segments of a day; empty if nothing can be played."""

    def __init__(self, path: str, source: HlsSource) -> None:
        super().__init__(path)
        self._source = source

    def prepare(self) -> None:
        """Look for what is new."""
        self._source.prepare()

    def modified(self) -> int:
        """Return when the newest group of media began to arrive, as far as within the day."""
        return self._source.modified()

    def child(self, name: str) -> Node | None:
        """Return the file of this name, or the directory of segments, or None."""
        return next((entry.node for entry in self.entries() if entry.name == name), None)

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the playlists, the segments' directory and the init segments."""
        timeline = self._source.timeline
        if not timeline.segments:
            return
        fixed: tuple[Node, ...] = (
            Playlist(self.path_of("index.m3u8"), self._source, _index),
            Playlist(self.path_of("media.m3u8"), self._source, _media),
            SegmentDirectory(self.path_of("seg"), self._source),
        )
        for cookie, (name, node) in enumerate(zip(_FIXED_COOKIES, fixed, strict=True), 1):
            if cookie > after:
                yield Entry(name, cookie, node)
        for cookie, (name, segments) in enumerate(_epochs(timeline), _EPOCH_COOKIES):
            if cookie > after:
                yield Entry(name, cookie, self._epoch(name, segments[0]))
        for number, init in enumerate(timeline.inits):
            if _INIT_COOKIES + number > after:
                name = _init_name(number)
                node = InitFile(self.path_of(name), init, self._source.start)
                yield Entry(name, _INIT_COOKIES + number, node)

    def _epoch(self, name: str, first: int) -> Playlist:
        """Return the playlist of the stretch that begins with this segment."""

        def text(timeline: Timeline) -> str:
            own = next(found for found in stretches(timeline) if found[0] == first)
            last = own[-1] + 1 == len(timeline.segments)
            ended = timeline.ended or not last
            return media_playlist(_listed(timeline, own), ended=ended)

        return Playlist(self.path_of(name), self._source, text)


class Playlist(GeneratedFile):
    """A playlist as it is now."""

    def __init__(self, path: str, source: HlsSource, text: Callable[[Timeline], str]) -> None:
        super().__init__(path)
        self._source = source
        self._text = text

    def render(self) -> bytes:
        """Return the text."""
        return self._text(self._source.timeline).encode()

    def modified(self) -> int:
        """Return when the newest group of the day had come."""
        return self._source.timeline.modified


class InitFile(VirtualFile):
    """An init segment."""

    def __init__(self, path: str, content: bytes, modified: int) -> None:
        super().__init__(path, digest_of(content))
        self._content = content
        self._modified = modified

    def prepare(self) -> None:
        """Do nothing: it is there."""

    def layout(self) -> FileLayout:
        """Return the bytes."""
        return BytesLayout(self._content)

    def attributes(self) -> Attributes:
        """Return its size; its time is that of the day's begin."""
        return Attributes(
            inode=self.inode,
            kind=Kind.FILE,
            size=len(self._content),
            modified=self._modified,
            validity=Validity.LASTING,
        )


class BytesLayout:
    """A file whose bytes are at hand."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        """Return the bytes of the file."""
        return len(self._content)

    def pieces(self, position: int = 0, length: int | None = None) -> Iterator[Literal | Extent]:
        """Yield the bytes."""
        end = self.size if length is None else position + length
        yield Literal(self._content[position:end])

    def overlay(self, data: bytearray, position: int) -> None:
        """Do nothing."""


class SegmentDirectory(Directory, Prepared):
    """The segments of a day."""

    def __init__(self, path: str, source: HlsSource) -> None:
        super().__init__(path)
        self._source = source

    def prepare(self) -> None:
        """Look for what is new."""
        self._source.prepare()

    def modified(self) -> int:
        """Return when the newest group of media began to arrive, as far as within the day."""
        return self._source.modified()

    def child(self, name: str) -> Node | None:
        """Return the segment of this name, or None."""
        match = _SEGMENT.fullmatch(name)
        if match is None:
            return None
        following = self._source.refreshed()
        segments = following.timeline.segments
        index = bisect_left(segments, int(match["begin"]) * _MILLISECOND, key=attrgetter("begin"))
        if index == len(segments) or _segment_name(segments[index]) != name:
            return None
        return self._file(index, segments[index], following)

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the segments in their order."""
        following = self._source.refreshed()
        segments = following.timeline.segments
        for index in range(max(0, after), len(segments)):
            segment = segments[index]
            yield Entry(_segment_name(segment), index + 1, self._file(index, segment, following))

    def _file(self, index: int, segment: KeptSegment, following: Following) -> SegmentFile:
        path = self.path_of(_segment_name(segment))
        return SegmentFile(path, index, segment, following)


class SegmentFile(VirtualFile):
    """One segment."""

    def __init__(self, path: str, index: int, segment: KeptSegment, following: Following) -> None:
        kept = following.timeline.segments.members(index)
        members = " ".join(member.group.digest for member in kept)
        super().__init__(path, f"{segment.number} {segment.size} {digest_of(members.encode())}")
        self._index = index
        self._segment = segment
        self._following = following

    def prepare(self) -> None:
        """Do nothing: its size is known."""

    def layout(self) -> FileLayout:
        """Return what the bytes are made of."""
        return self._following.layout(self._index)

    def attributes(self) -> Attributes:
        """Return its size and when it began to come."""
        return Attributes(
            inode=self.inode,
            kind=Kind.FILE,
            size=self._segment.size,
            modified=self._segment.received,
            validity=Validity.LASTING,
        )


# Playlists


def _index(timeline: Timeline) -> str:
    descriptions = dict.fromkeys(
        track.description for tracks in timeline.described for track in tracks
    )
    bits = (
        8 * segment.size * NANOSECONDS // max(segment.duration, NANOSECONDS // 10)
        for segment in timeline.segments
    )
    return multivariant_playlist([Variant("media.m3u8", tuple(descriptions), max(bits, default=1))])


def _media(timeline: Timeline) -> str:
    listed = _listed(timeline, range(len(timeline.segments)))
    return media_playlist(listed, ended=timeline.ended)


def _listed(timeline: Timeline, indexes: Sequence[int]) -> list[ListedSegment]:
    return [
        ListedSegment(
            uri=f"seg/{_segment_name(segment)}",
            init=_init_name(segment.init),
            follows=segment.follows,
            instant=timeline.start + segment.begin,
            duration=segment.duration,
        )
        for index in indexes
        for segment in [timeline.segments[index]]
    ]


def _epochs(timeline: Timeline) -> Iterator[tuple[str, list[int]]]:
    """Yield name and segments of each playlist of a stretch."""
    counts: dict[int, int] = {}
    for own in stretches(timeline):
        epoch = timeline.segments[own[0]].epoch
        counts[epoch] = counts.get(epoch, 0) + 1
        suffix = f"-{counts[epoch]}" if counts[epoch] > 1 else ""
        yield f"epoch-{epoch}{suffix}.m3u8", own


def _init_name(number: int) -> str:
    return f"init-{number + 1}.mp4"


def _segment_name(segment: KeptSegment) -> str:
    return f"e{segment.epoch:04d}-{segment.begin // _MILLISECOND:09d}.m4s"
