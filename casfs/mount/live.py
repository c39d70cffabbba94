"""The recording of an hour that is being written: init and segments, one behind the other.

It only grows. A stretch is what one init segment serves, from one publisher; each is a file of its
own. Pure.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from casfs.errors import NotFoundError
from casfs.media.layout import Literal
from casfs.mount.tree import Attributes, Kind, Validity, VirtualFile
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from casfs.index.rows import BroadcastRow
    from casfs.media.layout import Extent, Layout
    from casfs.mount.tree import FileLayout
    from casfs.recordings.following import Following, Timeline
    from casfs.recordings.source import Recordings

_KEPT_LAYOUTS = 16


def stretches(timeline: Timeline) -> list[list[int]]:
    """Return the indexes of the segments of each stretch, in order."""
    found: list[list[int]] = []
    before: tuple[int, int] | None = None
    for index, segment in enumerate(timeline.segments):
        if (segment.epoch, segment.init) != before:
            found.append([])
            before = (segment.epoch, segment.init)
        found[-1].append(index)
    return found


def live_stretches(recordings: Recordings, broadcast: BroadcastRow, hour: int) -> int:
    """Return how many live files an hour has, as far as that is known: at least one."""
    following = recordings.following(broadcast, hour * HOUR, (hour + 1) * HOUR)
    return max(1, len(stretches(following.timeline)))


class JoinedLayout:
    """An init segment and then segments, each laid out when it is read. Any thread may ask.

    To lay one out may wait for a disk.
    """

    def __init__(self, following: Following, init: bytes, segments: list[int]) -> None:
        self._following = following
        self._init = init
        self._segments = segments
        sizes = (following.timeline.segments[index].size for index in segments)
        self._ends = list(accumulate(sizes, initial=len(init)))
        self._layouts: dict[int, Layout] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Return the bytes of the file as far as it goes."""
        return self._ends[-1]

    def pieces(self, position: int = 0, length: int | None = None) -> Iterator[Literal | Extent]:
        """Yield what ``length`` bytes from ``position`` consist of, in order."""
        end = self.size if length is None else min(self.size, position + length)
        if position < min(end, len(self._init)):
            yield Literal(self._init[position:end])
            position = len(self._init)
        place = bisect_right(self._ends, position) - 1
        while position < end:
            begin, stop = self._ends[place], min(end, self._ends[place + 1])
            yield from self._layout(place).pieces(position - begin, stop - position)
            position = stop
            place += 1

    def overlay(self, data: bytearray, position: int) -> None:
        """Write what overlays the file's bytes from ``position`` on into ``data``."""
        end = position + len(data)
        start = max(position, len(self._init))
        place = bisect_right(self._ends, start) - 1
        while start < min(end, self.size):
            begin, stop = self._ends[place], min(end, self._ends[place + 1])
            part = data[start - position : stop - position]
            self._layout(place).overlay(part, start - begin)
            data[start - position : stop - position] = part
            start = stop
            place += 1

    def _layout(self, place: int) -> Layout:
        with self._lock:
            layout = self._layouts.get(place)
        if layout is None:
            layout = self._following.layout(self._segments[place])
            with self._lock:
                self._layouts[place] = layout
                while len(self._layouts) > _KEPT_LAYOUTS:
                    del self._layouts[next(iter(self._layouts))]
        return layout


class LiveFile(VirtualFile):
    """One stretch of an hour that is not sealed yet."""

    growing = True

    def __init__(
        self, path: str, broadcast: BroadcastRow, hour: int, part: int, recordings: Recordings
    ) -> None:
        super().__init__(path, f"live {broadcast.number}")
        self._following = recordings.following(broadcast, hour * HOUR, (hour + 1) * HOUR)
        self._part = part

    def prepare(self) -> None:
        """Look for what is new. Raises NotFoundError if there is no such stretch (yet)."""
        timeline = self._following.refresh(ended=False)
        if self._part and self._part >= len(stretches(timeline)):
            raise NotFoundError(f"{self.path} has not begun")

    def layout(self) -> FileLayout:
        """Return what the bytes are made of now."""
        timeline = self._following.refresh(ended=False)
        found = stretches(timeline)
        if self._part >= len(found):
            return JoinedLayout(self._following, b"", [])
        own = found[self._part]
        init = timeline.inits[timeline.segments[own[0]].init]
        return JoinedLayout(self._following, init, own)

    def attributes(self) -> Attributes:
        """Return how far it goes, and when its newest group came."""
        timeline = self._following.timeline
        found = stretches(timeline)
        size = 0
        if self._part < len(found):
            own = found[self._part]
            size = len(timeline.inits[timeline.segments[own[0]].init])
            size += sum(timeline.segments[index].size for index in own)
        return Attributes(
            inode=self.inode,
            kind=Kind.FILE,
            size=size,
            modified=timeline.modified,
            validity=Validity.NONE,
        )
