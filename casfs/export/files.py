"""Exports a span of a broadcast as files: the objects, and the manifest lines as they are stored.

    <target>/export.json                      what was exported; says whether anything lacks
    <target>/manifests/<broadcast>/<track>.jsonl   group and gap lines, in the order of commits
    <target>/manifests/<broadcast>/@first.jsonl    lines of groups outside of the span, or of other
                                              tracks, that are what a player needs first
    <target>/objects/blake3/aa/<hash>.bin     the objects of all of these groups

Each line proves itself by its ``sum``; the chain (``prev``) has holes where lines were left out.
``casfs import`` takes such a directory into another archive.
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.archive import WRITER
from casfs.digest import SHARD_LENGTH, Digest
from casfs.durable import sync_directory
from casfs.errors import (
    DamagedObjectError,
    ObjectNotFoundError,
    storage_error,
)
from casfs.export.manifest import Exported, Lacking, Manifest, Progress, Span
from casfs.export.placing import Placer, Way
from casfs.export.selection import Selection
from casfs.export.target import Target
from casfs.manifests.locate import LineTexts, find_line
from casfs.manifests.record import AnyRecord, GroupRecord, RunRecord
from casfs.manifests.runs import kept_groups
from casfs.objects.local import object_path
from casfs.timestamps import format_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import BinaryIO

    from casfs.archive import Archive
    from casfs.export.selection import Commits
    from casfs.index.reader import Reader
    from casfs.index.rows import TrackRow

_BATCH = 64
_HOLDERS = 1000
_THREADS = 4


class _Placed(Struct, frozen=True):
    """An object that is there."""

    way: Way
    size: int


class _Wanted(Struct, frozen=True):
    """A line to be written once its objects are there."""

    text: bytes
    record: AnyRecord


def export_files(
    archive: Archive,
    span: Span,
    target: str,
    *,
    way: Way = Way.AUTO,
    progress: Progress | None = None,
) -> Exported:
    """Export a span of a broadcast to a directory that does not exist yet; durable on return.

    What is damaged or missing is left out, and the directory is then named ``.incomplete``. Raises
    NotFoundError if nothing lies in the span, ConfigError, StorageError; then nothing is left.
    """
    with contextlib.closing(archive.reader()) as reader:
        selection = Selection(archive, reader, span)
        tracks = selection.tracks()
        with Target(target, archive.roots, directory=True) as made:
            export = _Export(archive, reader, selection, made.path, way, progress or Progress())
            export.run(tracks)
            return export.finish(made, tracks)


class _Export:
    def __init__(
        self,
        archive: Archive,
        reader: Reader,
        selection: Selection,
        path: str,
        way: Way,
        progress: Progress,
    ) -> None:
        self._archive = archive
        self._reader = reader
        self._selection = selection
        self._span = selection.span
        self._path = path
        self._placer = Placer(archive.objects, way)
        self._progress = progress
        self._groups = self._objects = self._bytes = 0
        self._placed = dict.fromkeys(Way, 0)
        self._lacking: list[Lacking] = []
        self._bad: dict[Digest, str] = {}
        self._inits: dict[Digest, None] = {}
        self._directories: dict[str, None] = {}

    def run(self, tracks: Sequence[TrackRow]) -> None:
        commits = self._selection.commits(tracks)
        self._progress.groups_total = sum(part.groups for part in commits.values())
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="casfs-export") as threads:
            for track, part in commits.items():
                self._track(track, part, threads)
        self._first({track.name for track in tracks})

    def finish(self, made: Target, tracks: Sequence[TrackRow]) -> Exported:
        span, passed_over = self._span, self._selection.passed_over
        complete = not self._lacking and not passed_over
        manifest = Manifest(
            store=self._archive.store_id,
            broadcast=span.broadcast,
            tracks=[track.name for track in tracks],
            since=None if span.since is None else format_time(span.since),
            until=None if span.until is None else format_time(span.until),
            writer=WRITER,
            groups=self._groups,
            objects=self._objects,
            bytes=self._bytes,
            reflinked=self._placed[Way.REFLINK],
            hard_linked=self._placed[Way.HARD],
            copied=self._placed[Way.COPY],
            complete=complete,
            lacking=self._lacking,
            passed_over=passed_over,
        )
        with self._file("export.json") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        for path in reversed(self._directories):
            try:
                sync_directory(path)
            except OSError as error:
                raise storage_error(error, "syncing", path) from error
        name = made.finish(complete=complete)
        return Exported(**msgspec.structs.asdict(manifest), target=name)

    def _track(self, track: TrackRow, part: Commits, threads: ThreadPoolExecutor) -> None:
        place = self._selection.journal(track.name)
        directory = place.directory(self._archive.roots.manifests)
        with (
            LineTexts(directory) as texts,
            contextlib.closing(self._selection.lines(track, part)) as lines,
            self._file("manifests", place.broadcast, f"{place.track}.jsonl") as file,
        ):
            batch: list[_Wanted] = []
            for placed in lines:
                batch.append(_Wanted(texts.text(placed), placed.line.record))
                if len(batch) == _BATCH:
                    self._write(file, batch, threads)
                    batch = []
            self._write(file, batch, threads)

    # Objects

    def _write(self, file: BinaryIO, batch: Sequence[_Wanted], threads: ThreadPoolExecutor) -> None:
        """Place the objects of some lines, then write the lines of those that are there."""
        groups = [
            wanted.record for wanted in batch if isinstance(wanted.record, GroupRecord | RunRecord)
        ]
        needed: dict[Digest, GroupRecord | RunRecord] = {}
        for record in groups:
            needed.setdefault(record.hash, record)
            if record.init is not None:
                needed.setdefault(record.init, record)
                self._inits[record.init] = None
        new = [
            digest
            for digest in needed
            if digest not in self._bad and not os.path.lexists(self._place_of(digest))
        ]
        for digest in new:
            self._directory("objects", "blake3", digest[:SHARD_LENGTH])
        for digest, outcome in zip(new, threads.map(self._place, new), strict=True):
            if isinstance(outcome, _Placed):
                self._placed[outcome.way] += 1
                self._objects += 1
                self._bytes += outcome.size
                self._progress.bytes += outcome.size
                continue
            self._bad[digest] = outcome
            first = needed[digest]
            if first.hash != digest:
                self._lack(first, digest, f"needed first: {outcome}")
        for wanted in batch:
            line = wanted.record
            if not isinstance(line, GroupRecord | RunRecord):
                file.write(wanted.text)
            elif line.hash in self._bad:
                self._lack(line, line.hash, self._bad[line.hash])
            else:
                file.write(wanted.text)
                self._groups += sum(1 for _ in kept_groups(line))
        self._progress.groups += sum(1 for line in groups for _ in kept_groups(line))

    def _place(self, digest: Digest) -> _Placed | str:
        """Place an object; return why that could not be done, if the archive is to blame."""
        path = self._place_of(digest)
        try:
            way = self._placer.place(digest, path)
            return _Placed(way, os.stat(path).st_size)
        except ObjectNotFoundError:
            return "missing"
        except DamagedObjectError as error:
            return error.message
        except OSError as error:
            raise storage_error(error, "looking at", path) from error

    def _lack(self, record: GroupRecord | RunRecord, digest: Digest, reason: str) -> None:
        self._lacking += [
            Lacking(record.track or "", record.epoch, kept.record.sequence, digest, reason)
            for kept in kept_groups(record)
        ]

    def _place_of(self, digest: Digest) -> str:
        return os.path.join(self._path, object_path(digest))

    def _first(self, tracks: Collection[str]) -> None:
        """Write the lines of the groups that players need first, where they are not in the span."""
        lines: list[bytes] = []
        for digest in self._inits:
            holders = [
                held
                for held in self._reader.references(digest, _HOLDERS).listed
                if held.broadcast == self._span.broadcast and held.current
            ]
            if digest in self._bad or any(
                held.track in tracks and self._span.holds(held.received_start) for held in holders
            ):
                continue
            for held in holders[:1]:
                journal = self._selection.journal(held.track).directory(
                    self._archive.roots.manifests
                )
                placed = find_line(journal, held.n)
                if placed is not None:
                    with LineTexts(journal) as texts:
                        lines.append(texts.text(placed))
        if lines:
            directory = self._selection.journal("").broadcast
            with self._file("manifests", directory, "@first.jsonl") as file:
                file.writelines(lines)

    # Below the target

    @contextlib.contextmanager
    def _file(self, *parts: str) -> Iterator[BinaryIO]:
        """Write a new file below the target; it is durable after the block."""
        path = os.path.join(self._directory(*parts[:-1]), parts[-1])
        try:
            with open(path, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(error, "writing", path) from error

    def _directory(self, *parts: str) -> str:
        """Have a directory below the target, and remember to sync it."""
        path = self._path
        for part in parts:
            path = os.path.join(path, part)
            if path not in self._directories:
                try:
                    os.mkdir(path)
                except OSError as error:
                    raise storage_error(error, "creating", path) from error
                self._directories[path] = None
        return path
