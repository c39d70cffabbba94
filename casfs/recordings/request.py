"""What `casfs.recordings.apart` asks of `casfs.recordings.building`."""

from __future__ import annotations

from msgspec import Struct

from casfs.recordings.source import RecordingSpan


class BuildRequest(Struct, frozen=True):
    """A recording that is to be put together."""

    cas: str
    manifests: str
    index_path: str
    spool: str
    """The directory to leave layouts in."""
    span: RecordingSpan
