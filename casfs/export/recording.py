"""Exports a span of a broadcast as one flat MP4 that any player opens, with the media verbatim.

Each object is read and compared with its hash twice: once to find the samples in it, once more as
its bytes are written. Where a track changes its codec, which one file cannot hold, a further file
begins: ``<name>-2.mp4``. Time 0 is when the first group was received.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.errors import (
    DamagedObjectError,
    NotFoundError,
    ObjectNotFoundError,
    storage_error,
)
from casfs.export.manifest import Lacking, PassedOver, Progress, Span
from casfs.export.selection import Selection
from casfs.export.target import Target
from casfs.manifests.record import INIT_TRACKS
from casfs.media.groups import samples_of_group
from casfs.media.layout import Literal
from casfs.media.recording import flat_recording
from casfs.media.timeline import RecordedGroup, split_by_codec
from casfs.recordings.inits import InitChoice, Inits
from casfs.recordings.reading import manifest_frames, read_object
from casfs.timestamps import format_time, parse_time

if TYPE_CHECKING:
    from typing import BinaryIO

    from casfs.archive import Archive
    from casfs.digest import Digest
    from casfs.index.reader import Reader
    from casfs.index.rows import TrackRow
    from casfs.manifests.record import GroupRecord
    from casfs.media.descriptions import SampleDescription
    from casfs.media.recording import Recording


class RecordingFile(Struct, frozen=True):
    """One file that was written."""

    path: str
    """Absolute."""
    start: str
    """The instant of its time 0."""
    tracks: list[str]
    """The broadcast's tracks, in the order of the tracks in the file."""
    bytes: int
    samples: int
    duration: float
    """Seconds."""


class LeftOut(Struct, frozen=True):
    """A track that is not in the recording."""

    track: str
    groups: int
    """How many of its groups have no samples."""
    reason: str
    """Of the first of them."""


class ExportedRecording(Struct, frozen=True, kw_only=True):
    """What was exported."""

    store: str
    """The archive that it comes from."""
    broadcast: str
    since: str | None
    until: str | None
    groups: int
    """Groups whose samples are in the files."""
    files: list[RecordingFile]
    complete: bool
    """No object lacks, and no line was passed over."""
    lacking: list[Lacking]
    passed_over: list[PassedOver]
    left_out: list[LeftOut]
    """Of these tracks some groups have no samples that a file could hold."""


def export_recording(
    archive: Archive, span: Span, target: str, *, progress: Progress | None = None
) -> ExportedRecording:
    """Export a span of a broadcast to a new MP4 file, durable on return.

    What is damaged or missing is left out, and the file is then named ``.incomplete``. Raises
    NotFoundError if there is nothing to play in the span, ConfigError, DamagedObjectError if an
    object is damaged between its two readings, StorageError; then nothing is left.
    """
    with contextlib.closing(archive.reader()) as reader:
        # Before hours are spent on reading.
        Target(target, archive.roots, directory=False)
        export = _Export(archive, reader, span, progress or Progress())
        return export.run(target)


class _Export:
    def __init__(self, archive: Archive, reader: Reader, span: Span, progress: Progress) -> None:
        self._archive = archive
        self._span = span
        self._progress = progress
        self._selection = Selection(archive, reader, span)
        self._objects = _Objects(archive)
        self._inits = Inits(reader, self._objects.read, manifest_frames(archive))
        self._reader = reader
        self._descriptions: dict[Digest, SampleDescription] = {}
        self._lacking: list[Lacking] = []
        self._left_out: dict[str, LeftOut] = {}

    def run(self, target: str) -> ExportedRecording:
        groups = self._groups()
        if not groups:
            reasons = "; ".join(f"{item.track}: {item.reason}" for item in self._left_out.values())
            raise NotFoundError(
                f"nothing of {self._span.broadcast!r} in that range can be played"
                + (f" ({reasons})" if reasons else ""),
                advice="casfs export --format files exports it as it is",
            )
        parts = split_by_codec(groups, self._descriptions)
        files: list[RecordingFile] = []
        with contextlib.ExitStack() as made:
            targets = [
                made.enter_context(Target(path, self._archive.roots, directory=False))
                for path in _paths(target, len(parts))
            ]
            written = [
                self._write(part, one.path) for part, one in zip(parts, targets, strict=True)
            ]
            for one, file in zip(targets, written, strict=True):
                path = one.finish(complete=self._complete)
                files.append(
                    RecordingFile(
                        path, file.start, file.tracks, file.bytes, file.samples, file.duration
                    )
                )
        since, until = self._span.since, self._span.until
        return ExportedRecording(
            store=self._archive.store_id,
            broadcast=self._span.broadcast,
            since=None if since is None else format_time(since),
            until=None if until is None else format_time(until),
            groups=len(groups),
            files=files,
            complete=self._complete,
            lacking=self._lacking,
            passed_over=self._selection.passed_over,
            left_out=list(self._left_out.values()),
        )

    @property
    def _complete(self) -> bool:
        return not self._lacking and not self._selection.passed_over

    # First: which samples there are

    def _groups(self) -> list[RecordedGroup]:
        """Return the groups with samples: epoch by epoch, each track by sequence, as received."""
        tracks = [track for track in self._selection.tracks() if track.name not in INIT_TRACKS]
        commits = self._selection.commits(tracks)
        self._progress.groups_total = sum(part.groups for part in commits.values())
        epochs: dict[int, dict[TrackRow, list[tuple[int, RecordedGroup]]]] = {}
        for track, part in commits.items():
            since, until = self._span.since or 0, self._span.until or 1 << 63
            choice = InitChoice(
                self._inits,
                self._span.broadcast,
                track.name,
                partial(self._reader.groups, track, since, until),
            )
            with contextlib.closing(self._selection.lines(track, part)) as lines:
                for placed in lines:
                    for record in self._selection.groups(track, placed.line.record):
                        group = self._group(track, record, choice)
                        self._progress.groups += 1
                        if group is not None:
                            own = epochs.setdefault(record.epoch, {}).setdefault(track, [])
                            own.append((int(record.sequence), group))
        ordered: list[RecordedGroup] = []
        for epoch in sorted(epochs):
            streams = [
                [group for _, group in sorted(own, key=lambda pair: pair[0])]
                for own in epochs[epoch].values()
            ]
            ordered += heapq.merge(*streams, key=lambda group: group.received)
        return ordered

    def _group(
        self, track: TrackRow, record: GroupRecord, choice: InitChoice
    ) -> RecordedGroup | None:
        try:
            data = self._objects.read(record.hash)
        except (ObjectNotFoundError, DamagedObjectError) as error:
            missing = isinstance(error, ObjectNotFoundError)
            reason = "missing" if missing else error.message
            self._lacking.append(
                Lacking(track.name, record.epoch, record.sequence, record.hash, reason)
            )
            return None
        received = parse_time(record.received_start)
        init = self._inits.of(choice.of(record.n, record.epoch, record.init, received))
        found = samples_of_group(
            data[record.offset : record.offset + record.size],
            record.frame_sizes,
            track=init.catalog.track(track.name) if init.catalog is not None else None,
            movie=init.movie,
        )
        if not found.tables:
            before = self._left_out.get(track.name)
            self._left_out[track.name] = LeftOut(
                track.name,
                1 + (before.groups if before is not None else 0),
                before.reason if before is not None else found.reason or "no samples",
            )
            return None
        self._descriptions |= {item.digest: item for item in found.descriptions}
        return RecordedGroup(
            track=track.name,
            epoch=record.epoch,
            received=received,
            digest=record.hash,
            offset=record.offset,
            size=record.size,
            tables=found.tables,
        )

    # Then: write them

    def _write(self, groups: list[RecordedGroup], path: str) -> RecordingFile:
        start = min(group.received for group in groups)
        recording = flat_recording(groups, self._descriptions, start=start)
        try:
            with open(path, "r+b") as file:
                self._write_pieces(recording, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(error, "writing", path) from error
        return RecordingFile(
            path=path,
            start=format_time(start),
            tracks=[key.name for key in recording.tracks],
            bytes=recording.layout.size,
            samples=recording.samples,
            duration=recording.duration / 10**9,
        )

    def _write_pieces(self, recording: Recording, file: BinaryIO) -> None:
        position = 0
        for piece in recording.layout.pieces():
            if isinstance(piece, Literal):
                data = bytearray(piece.data)
            else:
                whole = memoryview(self._objects.read(piece.digest))
                data = bytearray(whole[piece.offset : piece.offset + piece.length])
            recording.layout.overlay(data, position)
            file.write(data)
            position += len(data)
            self._progress.bytes += len(data)


class _Objects:
    """Reads objects whole and proves them; keeps the one that was read last."""

    def __init__(self, archive: Archive) -> None:
        self._store = archive.objects
        self._digest: Digest | None = None
        self._data = b""

    def read(self, digest: Digest) -> bytes:
        """Return an object's content.

        Raises ObjectNotFoundError, DamagedObjectError if it is not what its name says or cannot be
        read, StorageError.
        """
        if digest != self._digest:
            data = read_object(self._store, digest)
            self._digest, self._data = digest, data
        return self._data


def _paths(target: str, count: int) -> list[str]:
    stem, ending = os.path.splitext(target)
    return [target, *(f"{stem}-{number}{ending}" for number in range(2, count + 1))]
