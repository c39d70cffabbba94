"""Which manifest lines belong to a span of a broadcast."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.errors import NotFoundError
from casfs.export.manifest import PassedOver
from casfs.manifests.layout import JournalPlace
from casfs.manifests.locate import lines_from
from casfs.manifests.plausible import implausible
from casfs.manifests.record import GapRecord, Record
from casfs.manifests.runs import first_number, kept_groups
from casfs.names import encode_name
from casfs.timestamps import parse_time

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from casfs.archive import Archive
    from casfs.export.manifest import Span
    from casfs.index.extents import ExtentRow
    from casfs.index.reader import Reader
    from casfs.index.rows import TrackRow
    from casfs.manifests.locate import PlacedLine
    from casfs.manifests.record import AnyRecord, GroupRecord


class Commits(Struct, frozen=True):
    """Among which commits the groups of a track lie."""

    first: int
    """The lowest commit number."""
    last: int
    groups: int
    """How many of them belong to the span."""


class Selection:
    """What of an archive a span names. Raises NotFoundError, StorageError."""

    def __init__(self, archive: Archive, reader: Reader, span: Span) -> None:
        self.span = span
        self.passed_over: list[PassedOver] = []
        """Lines that were met and cannot mean what they say."""
        self._archive = archive
        self._reader = reader

    def tracks(self) -> list[TrackRow]:
        """Return the tracks of the span, by name."""
        name = self.span.broadcast
        broadcast = next((row for row in self._reader.broadcasts() if row.name == name), None)
        if broadcast is None:
            raise NotFoundError(
                f"the archive holds no broadcast {name!r}", advice="casfs ls lists them all"
            )
        known = {track.name: track for track in self._reader.tracks(broadcast)}
        for track in self.span.tracks:
            if track not in known:
                raise NotFoundError(
                    f"the archive holds no track {track!r} of broadcast {name!r}",
                    advice="casfs ls lists what it holds",
                )
        return [known[track] for track in sorted(set(self.span.tracks) or known)]

    def commits(self, tracks: Sequence[TrackRow]) -> dict[TrackRow, Commits]:
        """Return where the groups of each track lie that has any in the span."""
        found: dict[TrackRow, Commits] = {}
        since, until = self.span.since or 0, self.span.until or 1 << 63
        for track in tracks:
            first = last = groups = 0
            for row in self._reader.groups(track, since, until):
                first, last = min(first or row.n, row.n), max(last, row.n)
                groups += 1
            if groups:
                found[track] = Commits(first, last, groups)
        if not found:
            raise NotFoundError(
                f"no group of {self.span.broadcast!r} is in that range",
                advice="casfs ls --json tells from when to when there are groups",
            )
        return found

    def journal(self, track: str) -> JournalPlace:
        """Return the journal of a track."""
        fold = self._archive.format.fold_case
        return JournalPlace(
            encode_name(self.span.broadcast, fold_case=fold), encode_name(track, fold_case=fold)
        )

    def lines(self, track: TrackRow, commits: Commits) -> Generator[PlacedLine]:
        """Yield the lines of the groups that stand, and of the gaps, in the order of commits.

        The line of a run comes whole, if any of its groups belongs to the span. Whoever may stop
        before the end closes it (`contextlib.closing`).
        """
        directory = self.journal(track.name).directory(self._archive.roots.manifests)
        with contextlib.closing(lines_from(directory, commits.first)) as lines:
            for placed in lines:
                record = placed.line.record
                reason = implausible(record) if isinstance(record, Record) else None
                if reason is not None:
                    self.passed_over.append(PassedOver(track.name, str(record.n), reason))
                    continue
                if first_number(record) > commits.last:
                    return
                if isinstance(record, GapRecord):
                    belongs = self._touches(record)
                else:
                    belongs = any(True for _ in self.groups(track, record))
                if belongs:
                    yield placed

    def groups(self, track: TrackRow, record: AnyRecord) -> Iterator[GroupRecord]:
        """Yield those groups of a record that belong to the span and stand."""
        extent: ExtentRow | None = None
        for kept in kept_groups(record):
            if not self.span.holds(parse_time(kept.record.received_start)):
                continue
            if extent is None or extent.n < kept.record.n:
                extent = self._reader.extent(track.broadcast.number, kept.record.n)
            if extent is not None:
                yield kept.record

    def _touches(self, gap: GapRecord) -> bool:
        since, until = self.span.since, self.span.until
        return (since is None or parse_time(gap.end) > since) and (
            until is None or parse_time(gap.start) < until
        )
