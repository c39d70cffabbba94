"""The check after each crash: whether the archive holds what was promised, to a fresh reader."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import Digest, digest_of
from casfs.errors import CasfsError
from casfs.index.reader import Reader
from casfs.verify import verify
from tools.crashes.writer import payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from casfs.archive import Archive

DURABLE = "acknowledged-is-durable"
CONTENT = "name-is-content"
RECORD = "record-implies-object"
SOUND = "verify-finds-it-sound"
GOES_ON = "writer-goes-on"
FAILS_CLEANLY = "writer-fails-cleanly"

UNFINISHED = "no-end-in-time"
"""No promise of the archive's: a limit of ours was reached, and what was tried proves nothing."""

_TOLD = 5


class Violation(Struct, frozen=True):
    """A promise that was broken."""

    promise: str
    what: str


def violations(archive: Archive, kept: Mapping[str, set[int]]) -> list[Violation]:
    """Return what is broken in an archive in which those sequences were acknowledged.

    ``kept`` is by broadcast; payloads are those of `tools.crashes.writer.payload`.
    """
    try:
        return [
            *_unfound(archive, kept, by_index=True),
            *_unfound(archive, kept, by_index=False),
            *_unreadable(archive, kept),
            *_misnamed(archive),
            *_unsound(archive),
        ]
    except CasfsError as error:
        return [Violation(SOUND, f"the archive cannot be read: {error}")]


def found_groups(archive: Archive, *, by_index: bool) -> Iterator[tuple[str, int, Digest]]:
    """Yield broadcast, sequence and hash of all groups, by the index or the manifests alone."""
    path = archive.index_path if by_index else os.path.join(archive.roots.manifests, "no-index")
    reader = Reader(archive.roots.manifests, path, archive.store_id)
    with contextlib.closing(reader):
        for broadcast in reader.broadcasts():
            for track in reader.tracks(broadcast):
                for row in reader.groups(track, 0, 1 << 62):
                    yield broadcast.name, row.sequence, row.digest


def _unfound(
    archive: Archive, kept: Mapping[str, set[int]], *, by_index: bool
) -> Iterator[Violation]:
    """Every group is found, with the index and by the manifests alone, and names its bytes."""
    found: dict[tuple[str, int], Digest] = {}
    for broadcast, sequence, digest in found_groups(archive, by_index=by_index):
        if (broadcast, sequence) in found:
            yield Violation(SOUND, f"{broadcast} {sequence} is there twice")
        found[broadcast, sequence] = digest
    where = "by the index" if by_index else "in the manifests"
    for broadcast, sequences in kept.items():
        lost = [number for number in sequences if (broadcast, number) not in found]
        if lost:
            yield Violation(
                DURABLE,
                f"{broadcast}: {len(lost)} of {len(sequences)} acknowledged groups are not "
                f"found {where}: {_some(sorted(lost))}",
            )
        others = [
            number
            for number in sequences
            if found.get((broadcast, number), digest_of(payload(number)))
            != digest_of(payload(number))
        ]
        if others:
            yield Violation(DURABLE, f"{broadcast}: other bytes: {_some(sorted(others))}")


def _unreadable(archive: Archive, kept: Mapping[str, set[int]]) -> Iterator[Violation]:
    """Every acknowledged object is there byte for byte, by its path."""
    wrong: list[int] = []
    for sequence in sorted(set().union(*kept.values())):
        try:
            with open(archive.objects.path(digest_of(payload(sequence))), "rb") as file:
                same = file.read() == payload(sequence)
        except OSError:
            same = False
        if not same:
            wrong.append(sequence)
    if wrong:
        yield Violation(DURABLE, f"{len(wrong)} objects are missing or differ: {_some(wrong)}")


def _misnamed(archive: Archive) -> Iterator[Violation]:
    """Every file under an object's name has its content, whether or not a record needs it."""
    store = archive.objects
    wrong: list[str] = []
    for shard in store.shards():
        for digest in store.shard(shard):
            reason = store.check(digest)
            if reason is not None:
                wrong.append(f"{digest[:12]} {reason}")
    if wrong:
        yield Violation(CONTENT, f"{len(wrong)} objects: {_some(wrong)}")


def _unsound(archive: Archive) -> Iterator[Violation]:
    report = verify(archive, threads=1)
    missing = [item.hash[:12] for item in report.missing]
    if missing:
        yield Violation(RECORD, f"{len(missing)} objects are missing: {_some(missing)}")
    errors = [error.reason for error in report.manifest_errors]
    if report.damaged or errors:
        yield Violation(
            SOUND, f"{len(report.damaged)} objects damaged; in manifests: {_some(errors)}"
        )


def _some(items: list[int] | list[str]) -> str:
    more = f" and {len(items) - _TOLD} more" if len(items) > _TOLD else ""
    return ", ".join(map(str, items[:_TOLD])) + more
