"""Reads every journal: sums, chains, and whether each reaches what the CAS root remembers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from casfs.errors import CasfsError, StorageError
from casfs.heads import read_expiry_heads, read_heads, remembered_broadcasts
from casfs.index.mirror import catch_up_journal
from casfs.manifests.chain import JournalReader, reaches
from casfs.manifests.layout import (
    EXPIRIES,
    JournalPlace,
    broadcast_directories,
    expiry_places,
    journal_places,
)
from casfs.manifests.record import Line
from casfs.roots import OWN
from casfs.verify.report import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from casfs.index.index import Index
    from casfs.manifests.record import Position
    from casfs.manifests.segment import Fault
    from casfs.roots import Roots
    from casfs.verify.report import Progress


_QUARANTINE = JournalPlace(OWN, "quarantine")


class ManifestCheck:
    """Reads the journals below ``roots``; what is wrong with them gathers in `errors`."""

    def __init__(self, roots: Roots, progress: Progress) -> None:
        self._roots = roots
        self._progress = progress
        self.errors: list[ManifestError] = []

    def run(self, index: Index | None) -> None:
        """Read them all, and apply their lines to ``index`` if one is given."""
        heads = self._heads()
        expiries = sorted({place for place in heads if place.of_expiries} | set(self._expiries()))
        journals = sorted({place for place in heads if not place.of_expiries} | set(self._places()))
        for place in [*expiries, *journals]:
            head = heads.get(place)
            found = len(self.errors)
            try:
                self._read(place, head, index)
                lost = head is not None and not reaches(
                    place.directory(self._roots.manifests), head
                )
            except StorageError as error:
                self.add(str(place), "", 0, 0, error.message)
                continue
            if lost and head is not None and len(self.errors) == found:
                reason = "records that were acknowledged up to here are gone"
                self.add(str(place), head.segment, head.offset, head.offset, reason)
        try:
            # It says nothing of what is needed.
            self._read(_QUARANTINE, None, None)
        except StorageError as error:
            self.add(str(_QUARANTINE), "", 0, 0, error.message)

    def catch_up_with_expiries(self, index: Index) -> None:
        """Apply what expired since the journals were read. What fails shows as it did before."""
        with contextlib.suppress(StorageError):
            for place in expiry_places(self._roots.manifests):
                catch_up_journal(index, self._roots.manifests, place, sync=False)

    def add(self, journal: str, segment: str, offset: int, end: int, reason: str) -> None:
        """Note a finding."""
        self.errors.append(ManifestError(journal, segment, offset, end, reason))
        self._progress.findings += 1

    def _heads(self) -> dict[JournalPlace, Position]:
        """Return what the CAS root remembers: a lost tail shows nowhere else."""
        places: dict[JournalPlace, Position] = {}
        cas = self._roots.cas
        try:
            expiries = read_expiry_heads(cas)
            if expiries is not None:
                places |= expiries.places
        except CasfsError as error:
            self.add(EXPIRIES, f"{OWN}/heads/.expired.json", 0, 0, error.message)
        try:
            directories = remembered_broadcasts(cas)
        except StorageError as error:
            self.add("", f"{OWN}/heads", 0, 0, error.message)
            return places
        for directory in directories:
            try:
                heads = read_heads(cas, directory)
            except CasfsError as error:
                self.add(directory, f"{OWN}/heads/{directory}.json", 0, 0, error.message)
                continue
            if heads is not None:
                for name, position in heads.journals.items():
                    places[JournalPlace(directory, name)] = position
        return places

    def _expiries(self) -> list[JournalPlace]:
        try:
            return expiry_places(self._roots.manifests)
        except StorageError as error:
            self.add(EXPIRIES, "", 0, 0, error.message)
            return []

    def _places(self) -> Iterator[JournalPlace]:
        root = self._roots.manifests
        for directory in broadcast_directories(root):
            try:
                yield from journal_places(root, directory)
            except StorageError as error:
                self.add(directory, "", 0, 0, error.message)

    def _read(self, place: JournalPlace, head: Position | None, index: Index | None) -> None:
        root = self._roots.manifests
        if index is not None:
            self._progress.lines += catch_up_journal(
                index, root, place, sync=False, fault=self._fault, trusted=head
            )
            return
        for item in JournalReader(place.directory(root), trusted=head):
            if isinstance(item, Line):
                self._progress.lines += 1
            else:
                self._fault(place, item)

    def _fault(self, place: JournalPlace, fault: Fault) -> None:
        self.add(str(place), fault.segment, fault.offset, fault.end, fault.reason)
