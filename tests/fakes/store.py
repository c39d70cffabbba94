"""Archives in a temporary directory, groups to put in, and the ways in which a writer ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.archive import Archive, Group
from casfs.digest import Digest, digest_of
from casfs.index.reader import Reader
from casfs.manifests.chain import JournalReader
from casfs.manifests.record import Line
from casfs.manifests.runs import kept_groups
from casfs.objects.store import Payload
from casfs.roots import Roots, create
from casfs.timestamps import HOUR, parse_time
from casfs.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from casfs.archive import BroadcastWriter
    from casfs.index.rows import GroupRow
    from casfs.manifests.segment import Fault
    from casfs.verify import Report

NOON = parse_time("2026-11-22T12:00:00Z")


class Clock:
    """Nanoseconds UTC that pass only when told."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


class Known(Struct, frozen=True):
    """What a group must be found as."""

    track: str
    epoch: int
    sequence: int
    hash: Digest
    complete: bool


def make_archive(directory: Path) -> Archive:
    directory.mkdir(exist_ok=True)
    roots = Roots.of(str(directory / "cas"), str(directory / "manifests"))
    create(roots)
    return Archive(roots)


def group(
    sequence: int,
    payload: bytes | None = None,
    *,
    track: str = "video0.m4s",
    epoch: int = 1,
    complete: bool = True,
    received: int = NOON,
    init: Digest | None = None,
) -> Group:
    data = f"{track} {epoch} {sequence}".encode() if payload is None else payload
    return Group(
        track=track,
        epoch=epoch,
        sequence=sequence,
        frames=(data[:5], data[5:]),
        received_start=received,
        received_end=received + 1_000_000,
        complete=complete,
        reason="" if complete else "reset",
        init=init,
    )


def known(item: Group) -> Known:
    return Known(
        item.track, item.epoch, item.sequence, digest_of(b"".join(item.frames)), item.complete
    )


def row_known(row: GroupRow) -> Known:
    return Known(row.track, row.epoch, row.sequence, row.digest, row.complete)


def crash(writer: BroadcastWriter) -> None:
    """Let go of everything as a killed process does: no stop, no heads, lines as they are."""
    for journal in writer._journals.values():
        if journal._descriptor is not None:
            os.close(journal._descriptor)
            journal._descriptor = None
    committer = writer._committer
    temporaries = committer._temporaries
    temporary, temporaries._path = temporaries._path, ""
    writer._resources.close()
    assert os.path.isdir(temporary)


def contents(archive: Archive, *, index: bool = True) -> list[Known]:
    """Return every current group as a fresh reader sees it, sorted."""
    path = archive.index_path if index else os.path.join(archive.roots.manifests, "no-index")
    reader = Reader(archive.roots.manifests, path, archive.store_id)
    with contextlib.closing(reader):
        found = map(row_known, rows(reader))
        return sorted(found, key=lambda item: (item.track, item.epoch, item.sequence))


def rows(reader: Reader) -> Iterator[GroupRow]:
    for broadcast in reader.broadcasts():
        for track in reader.tracks(broadcast):
            yield from reader.groups(track, 0, 1 << 62)


def check(archive: Archive) -> Report:
    return verify(archive, threads=1)


def journal_directory(archive: Archive, broadcast: str, track: str) -> str:
    return os.path.join(archive.roots.manifests, broadcast, track)


def segments(directory: str) -> list[str]:
    return sorted(
        os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(".jsonl")
    )


def read_journal(directory: str) -> tuple[list[Line], list[Fault]]:
    items = list(JournalReader(directory))
    return (
        [item for item in items if isinstance(item, Line)],
        [item for item in items if not isinstance(item, Line)],
    )


def sequences(lines: list[Line]) -> list[int]:
    return [int(kept.record.sequence) for line in lines for kept in kept_groups(line.record)]


def object_file(archive: Archive, item: Group) -> str:
    return archive.objects.path(digest_of(b"".join(item.frames)))


def flip_bit(path: str, offset: int, bit: int = 0) -> None:
    """Change one bit of a file in place, whatever its mode says."""
    mode = os.stat(path).st_mode
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))
    os.chmod(path, mode)


def copy_tree(source: str, target: str) -> None:
    """Make ``target`` what ``source`` is, as a restore from a backup does."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def hour_of(nanoseconds: int) -> int:
    return nanoseconds // HOUR


def python(*arguments: str) -> list[str]:
    """Return the command that runs this Python without looking at its surroundings."""
    return [sys.executable, *arguments]


def write_unacknowledged(writer: BroadcastWriter, groups: list[Group]) -> dict[str, int]:
    """Do a commit up to the last sync; return the size of each segment before it, by path."""
    sizes: dict[str, int] = {}
    with writer._committer.batch() as batch:
        stored = batch.put([Payload(item.frames) for item in groups])
        for item, put in zip(groups, stored, strict=True):
            _, journal = writer._track_journal(item.track)
            journal.open_segment()
            assert journal._segment is not None
            path = os.path.join(journal.directory, str(journal._segment))
            sizes.setdefault(path, journal._synced)
            journal.append([writer._kept(item, put)])
    return sizes
