"""The view ``/recordings``: hours, days and spans of a broadcast as files that players open.

```
/recordings/<broadcast/with/its/slashes>/<date>/<hour>.mp4, <date>.mp4    once they are sealed
/recordings/<broadcast/with/its/slashes>/<date>/<hour>.live.mp4          until then; it only grows
/recordings/<broadcast/with/its/slashes>/clip/20261122T130000Z--20261122T131500Z.mp4
```

Where a track changes its codec, which one file cannot hold, ``<hour>-2.mp4`` goes on; a live file
ends where a publisher restarts or its init changes, and ``<hour>-2.live.mp4`` goes on. Clips are
found by name and not listed. How large a file is may take long to find out: it is as long as its
sample tables are unknown. An hour of which nothing can be played is listed until that is known.

Pure: lookups and the `Recordings` that were given do what takes time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from casfs.errors import NotFoundError
from casfs.mount.broadcasts import BroadcastNames
from casfs.mount.calendar import CalendarDirectory, last_arrival, media_hours, media_tracks
from casfs.mount.filenames import HOURS_PER_DAY, format_day, format_hour
from casfs.mount.live import LiveFile, live_stretches
from casfs.mount.sealing import sealed_day, sealed_hours
from casfs.mount.tree import Attributes, Directory, Entry, Kind, Validity, VirtualFile
from casfs.recordings.source import RecordingSpan
from casfs.timestamps import HOUR, format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from casfs.index.lookup import Lookup
    from casfs.index.rows import BroadcastRow, SealRow
    from casfs.mount.tree import FileLayout, Node
    from casfs.recordings.source import Recordings

LONGEST_CLIP = 48 * HOUR
"""Nanoseconds; no longer one is put together."""

_MOST_PARTS = 400
_HOUR_COOKIES = 1000
_LIVE_COOKIE = 500
_DAY_COOKIE = (HOURS_PER_DAY + 1) * _HOUR_COOKIES

_RECORDING = re.compile(
    r"(?P<hour>[01][0-9]|2[0-3])(-(?P<part>[1-9][0-9]*))?(?P<live>\.live)?\.mp4"
)
_DAY_RECORDING = re.compile(r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})(-(?P<part>[1-9][0-9]*))?\.mp4")
_CLIP = re.compile(
    r"(?P<start>[0-9]{8}T[0-9]{6}Z)--(?P<end>[0-9]{8}T[0-9]{6}Z)(-(?P<part>[1-9][0-9]*))?\.mp4"
)


class RecordingsView:
    """The recordings of one archive as a tree; ``path`` is where its root stands in the mount."""

    def __init__(self, lookup: Lookup, recordings: Recordings, path: str) -> None:
        self._lookup = lookup
        self._recordings = recordings
        self.root = CalendarDirectory(path, (), lookup, BroadcastNames(lookup), self)

    def day(self, path: str, broadcast: BroadcastRow, day: int) -> Directory:
        """Return the directory of a day."""
        return RecordingsDay(path, broadcast, day, self._lookup, self._recordings)

    def others(self, path: str, broadcast: BroadcastRow) -> Mapping[str, Directory]:
        """Return the directory of clips."""
        clips = ClipDirectory(f"{path}/clip", broadcast, self._lookup, self._recordings)
        return {"clip": clips}


class RecordingFile(VirtualFile):
    """One file of a recording that does not change any more."""

    def __init__(self, path: str, span: RecordingSpan, part: int, recordings: Recordings) -> None:
        super().__init__(path, f"{span.name} {part}")
        self._span = span
        self._part = part
        self._recordings = recordings

    def prepare(self) -> None:
        """Find out how large it is. Raises NotFoundError if there is nothing to play."""
        if self._part >= len(self._recordings.build(self._span).sizes):
            raise NotFoundError(f"nothing of {self._span} can be played")

    def layout(self) -> FileLayout:
        """Return what the bytes are made of."""
        return self._recordings.layout(self._span, self._part)

    def attributes(self) -> Attributes:
        """Return its size, if that is known by now, and the end of what it shows."""
        known = self._recordings.known(self._span)
        there = known is not None and self._part < len(known.sizes)
        return Attributes(
            inode=self.inode,
            kind=Kind.FILE,
            size=known.sizes[self._part] if there and known is not None else 0,
            modified=self._span.end,
            validity=Validity.LASTING if there else Validity.NONE,
        )


class RecordingsDay(Directory):
    """The recordings of a broadcast's hours on one UTC day, and that of the day."""

    def __init__(
        self,
        path: str,
        broadcast: BroadcastRow,
        day: int,
        lookup: Lookup,
        recordings: Recordings,
    ) -> None:
        super().__init__(path)
        self._broadcast = broadcast
        self._day = day
        self._lookup = lookup
        self._recordings = recordings

    def modified(self) -> int:
        """Return when the broadcast's newest group began to arrive, as far as within the day."""
        first = self._day * HOURS_PER_DAY
        last = last_arrival(self._lookup, self._broadcast)
        return min(max(last, first * HOUR), (first + HOURS_PER_DAY) * HOUR)

    def child(self, name: str) -> Node | None:
        """Return the recording of this name, or None."""
        match = _RECORDING.fullmatch(name)
        if match is not None:
            part = _part(match["part"])
            hour = self._day * HOURS_PER_DAY + int(match["hour"])
            if part is None or hour not in self._hours():
                return None
            seal = sealed_hours(self._lookup, self._broadcast, [hour]).get(hour)
            if match["live"]:
                return self._live(hour, part) if seal is None else None
            return None if seal is None else self._recording(name, self._span_of(seal), part)
        match = _DAY_RECORDING.fullmatch(name)
        if match is not None and match["day"] == format_day(self._day):
            part, span = _part(match["part"]), self._day_span()
            if part is not None and span is not None:
                return self._recording(name, span, part)
        return None

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the recordings of the hours in their order, then that of the day."""
        hours = self._hours()
        sealed = sealed_hours(self._lookup, self._broadcast, hours)
        for hour in hours:
            cookie = 1 + (hour % HOURS_PER_DAY) * _HOUR_COOKIES
            if cookie + _HOUR_COOKIES <= after:
                continue
            if hour in sealed:
                span, stem = self._span_of(sealed[hour]), format_hour(hour % HOURS_PER_DAY)
                yield from self._entries(span, stem, cookie, after)
            else:
                for part in range(live_stretches(self._recordings, self._broadcast, hour)):
                    name, place = _live_name(hour, part), cookie + _LIVE_COOKIE + part
                    if place > after:
                        yield Entry(name, place, self._live(hour, part))
        day = self._day_span()
        if day is not None:
            yield from self._entries(day, format_day(self._day), _DAY_COOKIE, after)

    def _entries(self, span: RecordingSpan, stem: str, cookie: int, after: int) -> Iterator[Entry]:
        known = self._recordings.known(span)
        parts = 1 if known is None else min(len(known.sizes), _MOST_PARTS)
        for part in range(parts):
            if cookie + part > after:
                name = f"{stem}{_suffix(part)}.mp4"
                yield Entry(name, cookie + part, self._file(name, span, part))

    def _recording(self, name: str, span: RecordingSpan, part: int) -> RecordingFile | None:
        known = self._recordings.known(span)
        if known is not None and part >= len(known.sizes):
            return None
        return self._file(name, span, part)

    def _file(self, name: str, span: RecordingSpan, part: int) -> RecordingFile:
        return RecordingFile(self.path_of(name), span, part, self._recordings)

    def _live(self, hour: int, part: int) -> LiveFile:
        path = self.path_of(_live_name(hour, part))
        return LiveFile(path, self._broadcast, hour, part, self._recordings)

    def _hours(self) -> list[int]:
        first = self._day * HOURS_PER_DAY
        hours = media_hours(self._lookup, self._broadcast)
        return [hour for hour in hours if first <= hour < first + HOURS_PER_DAY]

    def _span_of(self, seal: SealRow) -> RecordingSpan:
        start = seal.hour * HOUR
        return RecordingSpan(self._broadcast, start, start + HOUR, (seal,))

    def _day_span(self) -> RecordingSpan | None:
        hours = self._hours()
        sealed = sealed_hours(self._lookup, self._broadcast, hours)
        seals = sealed_day(self._day, hours, sealed, self._recordings.now())
        if seals is None:
            return None
        start = self._day * HOURS_PER_DAY * HOUR
        return RecordingSpan(self._broadcast, start, start + HOURS_PER_DAY * HOUR, seals)


class ClipDirectory(Directory):
    """Any span of a broadcast, by its name; nothing is listed."""

    def __init__(
        self, path: str, broadcast: BroadcastRow, lookup: Lookup, recordings: Recordings
    ) -> None:
        super().__init__(path)
        self._broadcast = broadcast
        self._lookup = lookup
        self._recordings = recordings

    def modified(self) -> int:
        """Return when the broadcast's newest group began to arrive."""
        return last_arrival(self._lookup, self._broadcast)

    def child(self, name: str) -> Node | None:
        """Return the clip of this name, if there are groups of media in that span."""
        match = _CLIP.fullmatch(name)
        if match is None:
            return None
        part = _part(match["part"])
        start, end = _parse_instant(match["start"]), _parse_instant(match["end"])
        if part is None or start is None or end is None or not start < end <= start + LONGEST_CLIP:
            return None
        hours = media_hours(self._lookup, self._broadcast)
        touched = [hour for hour in hours if (hour + 1) * HOUR > start and hour * HOUR < end]
        if not touched:
            return None
        state = 0
        if len(sealed_hours(self._lookup, self._broadcast, touched)) < len(touched):
            tracks = media_tracks(self._lookup, self._broadcast)
            newest = (self._lookup.newest(track) for track in tracks)
            state = max((row.n for row in newest if row is not None), default=0)
        span = RecordingSpan(self._broadcast, start, end, clip=True, state=state)
        return RecordingFile(self.path_of(name), span, part, self._recordings)

    def entries(self, after: int = 0) -> Iterator[Entry]:  # noqa: ARG002
        """Yield nothing."""
        return iter(())


def _part(text: str | None) -> int | None:
    """Return the index of a part, which names count from 2; None if no name says so."""
    if text is None:
        return 0
    number = int(text)
    return number - 1 if 2 <= number <= _MOST_PARTS else None


def _suffix(part: int) -> str:
    return f"-{part + 1}" if part else ""


def _live_name(hour: int, part: int) -> str:
    return f"{format_hour(hour % HOURS_PER_DAY)}{_suffix(part)}.live.mp4"


def _parse_instant(text: str) -> int | None:
    """Return the instant that ``YYYYMMDDThhmmssZ`` names, if there is one."""
    date, time = f"{text[:4]}-{text[4:6]}-{text[6:8]}", f"{text[9:11]}:{text[11:13]}:{text[13:15]}"
    try:
        instant = parse_time(f"{date}T{time}Z")
    except ValueError:
        return None
    return instant if format_time(instant)[:19] == f"{date}T{time}" else None
