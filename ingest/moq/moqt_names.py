"""Broadcasts of MoQ transport: namespaces there, paths here.

A namespace is a tuple of bytes, a path its fields joined by "/". One whose fields are empty or
hold a "/" themselves is remembered as it came, or it could not be asked for again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ingest.moq.announcements import Announcements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.moq.events import BroadcastAnnounced, BroadcastEnded
    from ingest.moq.interface import Limits

UNASKED: Final = -1
"""Who tells of namespaces outside of any answer (PUBLISH_NAMESPACE)."""
OFFERED: Final = -2
"""Who tells of namespaces by offering a track of theirs (PUBLISH)."""


class Names:
    """What has been announced, and by which stream."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._announcements = Announcements(limits)
        self._asked: dict[str, None] = {}
        self._odd: dict[str, tuple[bytes, ...]] = {}
        self._published: dict[int, tuple[int, tuple[bytes, ...]]] = {}
        """Namespaces that the relay told of by itself, by the number of its request: the stream
        on which it did, and the name."""
        self._untold: list[BroadcastAnnounced] = []
        self._offers: dict[int, tuple[bytes, ...]] = {}
        """Namespaces of tracks that the relay offers or pushes, by the number of its request."""
        self._offered: set[tuple[bytes, ...]] = set()
        """Namespaces that are there because of that."""

    def __len__(self) -> int:
        return len(self._announcements)

    @property
    def ignored(self) -> int:
        """How many announcements could not be taken."""
        return self._announcements.ignored

    def ask(self, prefix: str) -> None:
        """Note that broadcasts below ``prefix`` are wanted."""
        self._asked[prefix.strip("/")] = None
        for stream, namespace in self._published.values():
            if self.wanted(namespace):
                self._untold.extend(self.active(stream, "", namespace))

    def namespace(self, path: str) -> tuple[bytes, ...]:
        """Return the namespace of a broadcast or of a prefix."""
        odd = self._odd.get(path)
        if odd is not None:
            return odd
        stripped = path.rstrip("/")
        return tuple(part.encode() for part in stripped.split("/")) if stripped else ()

    def active(
        self, stream: int, prefix: str, suffix: tuple[bytes, ...]
    ) -> Sequence[BroadcastAnnounced]:
        """Take a namespace that is there, told behind the prefix that was asked for."""
        told = self._announcements.active(stream, prefix, b"/".join(suffix))
        for event in told:
            namespace = (*self.namespace(prefix), *suffix)
            if any(not part or b"/" in part for part in namespace):
                if len(self._odd) < self._limits.announcements:
                    self._odd[event.path] = namespace
            else:
                self._odd.pop(event.path, None)
        return told

    def ended(
        self, stream: int, prefix: str, suffix: tuple[bytes, ...]
    ) -> Sequence[BroadcastEnded]:
        """Take a namespace that is there no more."""
        return self._announcements.ended(stream, prefix, b"/".join(suffix))

    def closed(self, stream: int) -> Sequence[BroadcastEnded]:
        """Take the end of a stream: what it told is there no more."""
        for number, (teller, _) in list(self._published.items()):
            if teller == stream:
                del self._published[number]
        return self._announcements.closed(stream)

    def published(
        self, stream: int, request: int, namespace: tuple[bytes, ...]
    ) -> Sequence[BroadcastAnnounced]:
        """Take a namespace that the relay tells of by itself; it counts once it is asked for."""
        if len(self._published) < self._limits.announcements:
            self._published[request] = (stream, namespace)
        if not self.wanted(namespace):
            return ()
        return self.active(stream, "", namespace)

    def withdrawn(
        self, request: int | None, namespace: tuple[bytes, ...] | None
    ) -> Sequence[BroadcastEnded]:
        """Take that such a namespace is there no more, told by request (16) or by name (14)."""
        for number, (stream, known) in list(self._published.items()):
            if number == request or (request is None and known == namespace):
                del self._published[number]
                return self.ended(stream, "", known)
        return ()

    def offered(self, request: int, namespace: tuple[bytes, ...]) -> Sequence[BroadcastAnnounced]:
        """Take that the relay offers a track: its namespace is there, however many come."""
        self._offers[request] = namespace
        known = namespace in self._offered or len(self._offered) >= self._limits.announcements
        if known or not self.wanted(namespace):
            return ()
        self._offered.add(namespace)
        return self.active(OFFERED, "", namespace)

    def refused(self, request: int) -> None:
        """Take that we do not want the track; whether its namespace stands is not told any more."""
        self._offers.pop(request, None)

    def withdrawn_offer(self, request: int) -> Sequence[BroadcastEnded]:
        """Take that such a track is over: with the last one, its namespace is there no more."""
        namespace = self._offers.pop(request, None)
        if namespace not in self._offered or namespace in self._offers.values():
            return ()
        self._offered.discard(namespace)
        return self.ended(OFFERED, "", namespace)

    @property
    def untold(self) -> bool:
        """Whether `take_untold` would return anything."""
        return bool(self._untold)

    def take_untold(self) -> list[BroadcastAnnounced]:
        """Return what was there already when it was asked for, once."""
        untold, self._untold = self._untold, []
        return untold

    def wanted(self, namespace: tuple[bytes, ...]) -> bool:
        """Whether a namespace is among those that were asked for."""
        return any(
            namespace[: len(wanted)] == wanted for wanted in map(self.namespace, self._asked)
        )

    def asked_for(self, namespace: tuple[bytes, ...]) -> bool:
        """Whether it was asked for by its whole name."""
        return any(namespace == wanted for wanted in map(self.namespace, self._asked))
