"""Opens the recordings of an archive, with what is kept of them beside its index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.index.samples import SampleIndex
from casfs.recordings.apart import BuilderApart
from casfs.recordings.reading import manifest_frames
from casfs.recordings.source import Recordings
from casfs.recordings.spool import DIRECTORY_SUFFIX, Spool

if TYPE_CHECKING:
    from casfs.archive import Archive


def open_recordings(archive: Archive, spool: str | None = None) -> Recordings:
    """Return the recordings of an archive; close it when done.

    ``spool`` is the directory for what is kept of them, else it is beside the index. Then large
    recordings are put together by a process of its own.
    """
    reader = archive.reader()
    kept = Spool(spool or archive.index_path + DIRECTORY_SUFFIX)
    return Recordings(
        reader,
        archive.objects,
        SampleIndex.open(archive.index_path),
        kept,
        frames_of=manifest_frames(archive),
        closing=reader.close,
        apart=BuilderApart(archive, kept.directory) if spool is None else None,
    )
