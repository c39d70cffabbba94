"""Imports plain files: each becomes one group of a track, in the order in which they are given.

A file's time of modification counts as the time at which it was received. What the track holds
already, it is not given again: the bytes decide. A large file is read piece by piece, twice: once
to learn whether the track holds it, once into the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from casfs.adopt.filing import Filing
from casfs.adopt.reading import open_source
from casfs.adopt.report import Totals
from casfs.adopt.source import Problem, SourceError
from casfs.archive import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.adopt.report import Tell
    from casfs.archive import Archive
    from casfs.digest import Digest


def import_files(
    archive: Archive,
    paths: Sequence[str],
    broadcast: str,
    track: str,
    *,
    tell: Tell,
    dry_run: bool = False,
    totals: Totals | None = None,
) -> Totals:
    """Put each file in as a group of the track, behind its newest group.

    ``tell`` is told which files could not be read. Raises what the archive raises.
    """
    totals = totals or Totals()
    with (
        _Track(archive, broadcast, track) as end,
        Filing(archive, broadcast, totals, dry_run=dry_run) as filing,
    ):
        for path in paths:
            totals.lines += 1
            try:
                source = open_source(path)
                if not end.holds(source.digest) and filing.begin():
                    # Until now another writer may have put groups in.
                    end.renew()
                if end.holds(source.digest):
                    totals.known += 1
                    continue
                staged = filing.stage(source) if source.payload is None else None
            except SourceError as error:
                totals.problems += 1
                tell(Problem(problem=error.problem, reason=error.reason, file=path))
                continue
            filing.put(
                Group(
                    track=track,
                    epoch=end.epoch,
                    sequence=end.go_on(source.digest),
                    frames=() if source.payload is None else (source.payload,),
                    staged=staged,
                    digest=source.digest,
                    received_start=source.modified,
                    received_end=source.modified,
                )
            )
    return totals


class _Track:
    """The end of a track, and what it holds; a context manager."""

    def __init__(self, archive: Archive, broadcast: str, track: str) -> None:
        self._archive = archive
        self._broadcast = broadcast
        self._name = track
        self._added: set[Digest] = set()
        self._reader = archive.reader()
        self.epoch, self._sequence = self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def renew(self) -> None:
        """See the archive as it is now."""
        self._reader.close()
        self._reader = self._archive.reader()
        self.epoch, self._sequence = self._end()

    def holds(self, digest: Digest) -> bool:
        """Say whether a group of the track has these bytes."""
        return digest in self._added or any(
            (group.broadcast.name, group.track) == (self._broadcast, self._name)
            for group in self._reader.referencing(digest)
        )

    def go_on(self, digest: Digest) -> int:
        """Return the next sequence, which goes to a group of these bytes."""
        self._added.add(digest)
        self._sequence += 1
        return self._sequence

    def _end(self) -> tuple[int, int]:
        """Return the broadcast's newest epoch, and the track's highest sequence in it or -1."""
        reader = self._reader
        row = reader.track(self._broadcast, self._name)
        tracks = [
            other
            for broadcast in reader.broadcasts()
            if broadcast.name == self._broadcast
            for other in reader.tracks(broadcast)
        ]
        epoch = max((max(reader.epochs(other), default=1) for other in tracks), default=1)
        newest, _ = reader.neighbours(row, epoch, 1 << 62) if row is not None else (None, None)
        return epoch, newest.sequence if newest is not None else -1
