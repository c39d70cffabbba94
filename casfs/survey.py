"""What a collector must know before it takes anything away: all that the manifests say.

They are read from their beginnings, never from the index on disk. Damage is refused, since a lost
line may be the one that needs an object. Damage that is there for ever can be accepted by its name:
then whatever its broadcast received about the time of the lost lines is protected instead.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
from typing import TYPE_CHECKING, Self

from casfs.errors import DamageError, UnsupportedFormatError, UsageError
from casfs.expire import check_all_heads
from casfs.index.expiring import objects_around
from casfs.index.index import Index
from casfs.manifests.chain import JournalReader, PositionLostError
from casfs.manifests.layout import all_journals
from casfs.manifests.record import GroupRecord, Line, Record, RunRecord
from casfs.timestamps import HOUR, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from casfs.archive import Archive
    from casfs.digest import Digest
    from casfs.manifests.layout import JournalPlace
    from casfs.manifests.record import Position
    from casfs.manifests.segment import Fault

_LINES = 2000
_FOR_EVER = 1 << 62


class Survey:
    """All that the manifests say, read from their beginnings; `refresh` reads what has come since.

    ``strict``: damage is refused, but for what is accepted by its name.
    """

    def __init__(self, archive: Archive, *, strict: bool, accept: Iterable[str] = ()) -> None:
        self._root = archive.roots.manifests
        self._strict = strict
        self._accept = frozenset(accept)
        self._accepted: set[str] = set()
        self._windows: list[tuple[JournalPlace, int, int]] = []
        self._trusted: Mapping[JournalPlace, Position] = check_all_heads(archive)
        self.index = Index.temporary(archive.store_id)

    def __enter__(self) -> Self:
        try:
            with self.index.filling():
                self.refresh()
        except BaseException:
            self.index.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.index.close()

    def refresh(self) -> None:
        """Read the tails; raises DamageError, UnsupportedFormatError, StorageError."""
        for place in all_journals(self._root):
            try:
                self._follow(place)
            except PositionLostError:
                # A writer took back what it had begun and never acknowledged.
                self.index.forget(place)
                self._follow(place)

    def check_accepted(self) -> None:
        """Raise UsageError if some damage is accepted that was not met."""
        for name in sorted(self._accept - self._accepted):
            raise UsageError(
                f"there is no damage {name!r} to accept",
                advice="give the name that casfs collect said when it refused",
            )

    def protected(self) -> set[Digest]:
        """Return the objects that a line lost to accepted damage may need."""
        found: set[Digest] = set()
        for place, start, end in self._windows:
            found |= objects_around(self.index, place, start - HOUR, end + HOUR)
        return found

    def _follow(self, place: JournalPlace) -> None:
        since = self.index.position(place)
        reader = JournalReader(
            place.directory(self._root), since=since, trusted=self._trusted.get(place)
        )
        with contextlib.closing(iter(reader)) as found:
            items = self._windowed(place, found)
            while batch := list(itertools.islice(items, _LINES)):
                lines = [line for item in batch if (line := self._sound(place, item)) is not None]
                if reader.position is not None and lines:
                    try:
                        self.index.apply(place, lines, reader.position, since=since)
                    except (ValueError, OverflowError) as error:
                        raise _beyond_us(place, error) from error
                    since = self.index.position(place)

    def _windowed(
        self, place: JournalPlace, items: Iterable[Line | Fault]
    ) -> Iterator[Line | Fault]:
        """Pass the items on; note between which receptions lines are lost to accepted damage."""
        last, broken = 0, False
        for item in items:
            if isinstance(item, Line):
                if isinstance(item.record, GroupRecord | RunRecord):
                    received = _received(place, item.record)
                    if broken:
                        self._windows.append((place, min(last, received), max(last, received)))
                    last, broken = received, False
            elif self._strict and self._takes(place, item):
                broken = True
            yield item
        if broken:
            self._windows.append((place, last, _FOR_EVER))

    def _takes(self, place: JournalPlace, fault: Fault) -> bool:
        """Say whether a fault is accepted. One of expiries never is: a lost line may restore."""
        name = _damage_name(place, fault)
        if name not in self._accept or place.of_expiries:
            return False
        self._accepted.add(name)
        return True

    def _sound(self, place: JournalPlace, item: Line | Fault) -> Line | None:
        if isinstance(item, Line):
            if isinstance(item.record, Record):
                return item
            raise UnsupportedFormatError(
                f"{place} holds a record of kind {item.record.kind!r} (version {item.record.v}), "
                "which may need objects that this version does not know of",
                advice="use a newer casfs to expire, collect and restore; nothing was changed",
            )
        if self._strict and not self._takes(place, item):
            raise DamageError(
                f"the manifest {place}/{item.segment} is damaged at byte {item.offset} "
                f"({item.reason}), and a lost record may need what would be collected",
                advice="put the segment back from a copy (casfs verify lists all damage); nothing "
                "was changed" + ("" if place.of_expiries else _last_resort(place, item)),
            )
        return None


def _received(place: JournalPlace, record: GroupRecord | RunRecord) -> int:
    try:
        return parse_time(record.received_start)
    except ValueError as error:
        raise _beyond_us(place, error) from error


def _beyond_us(place: JournalPlace, error: Exception) -> UnsupportedFormatError:
    return UnsupportedFormatError(
        f"{place} holds a record that cannot be meant as it stands ({error}), and may need what "
        "would be collected",
        advice="casfs verify names its place; nothing was changed",
    )


def _damage_name(place: JournalPlace, fault: Fault) -> str:
    return f"{place}/{fault.segment}@{fault.offset}"


def _last_resort(place: JournalPlace, fault: Fault) -> str:
    name = shlex.quote(_damage_name(place, fault))
    return f". If there is no copy: casfs collect --accept-damage {name}"
