"""Objects read whole and proven, and how their payloads were cut into frames."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol

from casfs.digest import digest_of
from casfs.errors import DamagedObjectError
from casfs.manifests.layout import JournalPlace
from casfs.manifests.locate import lines_from
from casfs.manifests.record import GroupRecord, RunRecord
from casfs.manifests.runs import first_number
from casfs.names import encode_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from casfs.archive import Archive
    from casfs.digest import Digest
    from casfs.index.rows import GroupRow

    FramesOf = Callable[[Sequence[GroupRow]], Mapping[int, Sequence[int]]]
    """Tells the frame sizes of groups of one track, by commit number; may know only some."""


class ObjectSource(Protocol):
    """Where objects are."""

    def open(self, digest: Digest) -> int:
        """Return a new read-only descriptor; raise ObjectNotFoundError if there is no object."""


def read_object(source: ObjectSource, digest: Digest) -> bytes:
    """Return an object's content.

    Raises ObjectNotFoundError, DamagedObjectError if it is not what its name says or cannot be
    read, StorageError.
    """
    descriptor = source.open(digest)
    try:
        with os.fdopen(descriptor, "rb") as file:
            data = file.read()
    except OSError as error:
        raise DamagedObjectError(f"object {digest} cannot be read: {error.strerror}") from error
    if digest_of(data) != digest:
        raise DamagedObjectError(f"object {digest} hashes to {digest_of(data)}")
    return data


def no_frames(_rows: Sequence[GroupRow]) -> Mapping[int, Sequence[int]]:
    """Know of no frames (`FramesOf`)."""
    return {}


def manifest_frames(archive: Archive) -> FramesOf:
    """Return what tells the frame sizes of groups from their manifest lines."""

    def frames_of(rows: Sequence[GroupRow]) -> Mapping[int, Sequence[int]]:
        fold = archive.format.fold_case
        place = JournalPlace(
            encode_name(rows[0].broadcast.name, fold_case=fold),
            encode_name(rows[0].track, fold_case=fold),
        )
        wanted = {row.n for row in rows}
        found: dict[int, Sequence[int]] = {}
        last = max(wanted)
        directory = place.directory(archive.roots.manifests)
        with contextlib.closing(lines_from(directory, min(wanted))) as lines:
            for record in (placed.line.record for placed in lines):
                if first_number(record) > last:
                    break
                if isinstance(record, GroupRecord) and record.n in wanted:
                    found[record.n] = record.frame_sizes
                elif isinstance(record, RunRecord):
                    numbered = enumerate(record.frame_sizes, first_number(record))
                    found.update((n, sizes) for n, sizes in numbered if n in wanted)
        return found

    return frames_of
