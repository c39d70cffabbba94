"""How the versions of moq-lite announce: by name in 04 and 05, by number in 06.

Both become the announcements of 04 (`ingest.moq.lite_messages.Announcement`): a name is active,
again or for the first time, or has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from casfs.errors import ProtocolError
from ingest.moq.lite_messages import Announcement
from ingest.moq.lite_messages_06 import AnnounceEnd, AnnounceKind, AnnounceStart, AnnounceUpdate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.moq.interface import Limits
    from ingest.moq.reading import StreamReader

_NOBODY = 0
"""The id of hops that have none."""


class AnnounceReader(Protocol):
    """Reads the announcements of one stream."""

    def read(self, reader: StreamReader) -> Iterator[Announcement]:
        """Take every announcement that is whole; raise `ProtocolError` for one that cannot be."""


class NamedAnnouncements:
    """Announcements of 04 and 05, each with its name."""

    def __init__(self, limits: Limits) -> None:
        """``limits`` matters not: nothing is remembered."""

    def read(self, reader: StreamReader) -> Iterator[Announcement]:
        """Take every announcement that is whole; raise `ProtocolError` for one that cannot be."""
        while (body := reader.message()) is not None:
            yield Announcement.decode(body)


class _Started(Struct):
    """What is remembered of a broadcast that has come."""

    suffix: bytes
    publisher: int
    """The first hop of the newest route: changes with the publisher, not with the way to it."""


class NumberedAnnouncements:
    """Announcements of 06: START gives a name the next number, UPDATE and END say the number.

    An UPDATE that names the same publisher tells only of another way to it, and is passed over: a
    broadcast counts as replaced when the publisher is another or not known. Where a name has been
    given two numbers, the newer one counts.

    Bounded as the announcements themselves are: of names that are too long or no UTF-8, and beyond
    `Limits.announcements`, nothing is remembered; such a name is told when it comes, for whoever
    counts those that cannot be taken, and never again.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._count = 0
        """How many have come."""
        self._started: dict[int, _Started] = {}
        self._newest: dict[bytes, int] = {}
        """Suffix -> the newest of its numbers."""

    def read(self, reader: StreamReader) -> Iterator[Announcement]:
        """Take every announcement that is whole; raise `ProtocolError` for one that cannot be.

        Kinds that are not known are skipped.
        """
        while (message := reader.typed_message()) is not None:
            announcement: Announcement | None = None
            if message.kind == AnnounceKind.START:
                announcement = self._start(AnnounceStart.decode(message.body))
            elif message.kind == AnnounceKind.END:
                announcement = self._end(AnnounceEnd.decode(message.body))
            elif message.kind == AnnounceKind.UPDATE:
                announcement = self._update(AnnounceUpdate.decode(message.body))
            if announcement is not None:
                yield announcement

    def _start(self, start: AnnounceStart) -> Announcement:
        number = self._count
        self._count += 1
        if len(self._started) < self._limits.announcements and self._can_be(start.suffix):
            self._started[number] = _Started(start.suffix, _publisher(start.route.hops))
            self._newest[start.suffix] = number
        return Announcement(active=True, suffix=start.suffix, hops=start.route.hops)

    def _end(self, end: AnnounceEnd) -> Announcement | None:
        started = self._find(end.number)
        if started is None:
            return None
        del self._started[end.number]
        if self._newest[started.suffix] != end.number:
            return None
        del self._newest[started.suffix]
        return Announcement(active=False, suffix=started.suffix)

    def _update(self, update: AnnounceUpdate) -> Announcement | None:
        started = self._find(update.number)
        if started is None or self._newest[started.suffix] != update.number:
            return None
        publisher = _publisher(update.route.hops)
        if publisher == started.publisher != _NOBODY:
            return None
        started.publisher = publisher
        return Announcement(active=True, suffix=started.suffix, hops=update.route.hops)

    def _find(self, number: int) -> _Started | None:
        if number >= self._count:
            raise ProtocolError(f"broadcast {number} of {self._count} is not announced yet")
        return self._started.get(number)

    def _can_be(self, suffix: bytes) -> bool:
        try:
            suffix.decode()
        except UnicodeDecodeError:
            return False
        return len(suffix) <= self._limits.name_bytes


def _publisher(hops: tuple[int, ...]) -> int:
    return hops[0] if hops else _NOBODY
