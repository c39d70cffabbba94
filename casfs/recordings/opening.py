"""Opens the recordings of an archive, with what is kept of them beside its index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.index.samples import SampleIndex
from casfs.recordings.reading import manifest_frames
from casfs.recordings.source import Recordings
from casfs.recordings.spool import DIRECTORY_SUFFIX, Spool

if TYPE_CHECKING:
    from casfs.archive import Archive


def open_recordings(archive: Archive) -> Recordings:
    """Return the recordings of an archive; close it when done."""
    reader = archive.reader()
    return Recordings(
        reader,
        archive.objects,
        SampleIndex.open(archive.index_path),
        Spool(archive.index_path + DIRECTORY_SUFFIX),
        frames_of=manifest_frames(archive),
        closing=reader.close,
    )
