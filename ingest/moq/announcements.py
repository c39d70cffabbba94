"""Which broadcasts a relay has announced, and how often each has been replaced.

Shared by every MoQ protocol. Bounded: beyond `Limits.announcements` new names are counted and
otherwise ignored, so that one publisher's flood costs us neither memory nor the names we know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ingest.moq.events import BroadcastAnnounced, BroadcastEnded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.moq.interface import Limits

_ENDED_REMEMBERED: Final = 4096
"""For how many ended broadcasts we remember the generation before they share one."""


def join_path(prefix: str, suffix: str) -> str:
    """Return the full name of the broadcast ``suffix`` below ``prefix``: joined by one "/"."""
    prefix = prefix.rstrip("/")
    return f"{prefix}/{suffix.removeprefix('/')}" if prefix and suffix else prefix or suffix


class Announcements:
    """The announced broadcasts of one session.

    Requests may overlap: a broadcast belongs to the stream that told of it first, and what other
    streams say of it in the meantime is ignored.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._owners: dict[str, int] = {}
        """Announced path -> the stream that told."""
        self._generations: dict[str, int] = {}
        """Of announced paths, and of some that have ended."""
        self._floor = 0
        """The highest generation that was forgotten: no path may begin below it again."""
        self.ignored = 0
        """How many announcements could not be taken: bad names, or too many."""

    def __len__(self) -> int:
        return len(self._owners)

    def active(self, stream: int, prefix: str, suffix: bytes) -> Sequence[BroadcastAnnounced]:
        """Take an announcement; of a path that is there, it is a replacement."""
        path = self._path(prefix, suffix)
        if path is None:
            self.ignored += 1
            return ()
        owner = self._owners.setdefault(path, stream)
        if owner != stream:
            return ()
        if len(self._owners) > self._limits.announcements:
            del self._owners[path]
            self.ignored += 1
            return ()
        generation = self._generations.get(path, self._floor) + 1
        self._generations[path] = generation
        return (BroadcastAnnounced(path, generation),)

    def ended(self, stream: int, prefix: str, suffix: bytes) -> Sequence[BroadcastEnded]:
        """Take a withdrawal; of a path that is not there, it means nothing."""
        path = self._path(prefix, suffix)
        if path is None or self._owners.get(path) != stream:
            return ()
        del self._owners[path]
        if len(self._generations) > len(self._owners) + _ENDED_REMEMBERED:
            self._forget_ended()
        return (BroadcastEnded(path),)

    def closed(self, stream: int) -> Sequence[BroadcastEnded]:
        """Take the end of a stream: what it announced is announced no more."""
        gone = [path for path, owner in self._owners.items() if owner == stream]
        for path in gone:
            del self._owners[path]
        if len(self._generations) > len(self._owners) + _ENDED_REMEMBERED:
            self._forget_ended()
        return [BroadcastEnded(path) for path in gone]

    def _path(self, prefix: str, suffix: bytes) -> str | None:
        limit = self._limits.name_bytes
        if len(suffix) > limit:
            return None
        try:
            path = join_path(prefix, suffix.decode())
        except UnicodeDecodeError:
            return None
        return path if path and len(path.encode()) <= limit else None

    def _forget_ended(self) -> None:
        kept = {path: self._generations[path] for path in self._owners}
        self._floor = max(
            self._floor,
            *(number for path, number in self._generations.items() if path not in kept),
        )
        self._generations = kept
