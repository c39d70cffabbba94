"""The media times of what was recorded before, so that a recorder that starts again knows them.

Only as much is read back as is needed to go on: the newest catalog and init segment, and of each
track the head of its newest group. What cannot be read is not known; nothing is raised.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from casfs.errors import ObjectNotFoundError, StorageError
from casfs.manifests.record import INIT_TRACKS
from ingest.media_clock import MediaClock, MediaTime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from casfs.archive import Archive
    from casfs.manifests.runs import KeptGroup

_HEAD: Final = 64 << 10
"""How much of a group is read, bytes: its first ``moof``, or the time before its first frame."""
_LARGEST_INIT: Final = 8 << 20

Identity = tuple[str, int, int]
"""Track, epoch, sequence."""


def restored_times(
    archive: Archive, recent: Iterable[KeptGroup]
) -> tuple[MediaClock, dict[Identity, MediaTime]]:
    """Return a clock that knows the newest catalogs, and the times of the newest groups."""
    newest: dict[str, tuple[Identity, KeptGroup]] = {}
    for kept in recent:
        record = kept.record
        identity = (record.track or "", record.epoch, int(record.sequence))
        before = newest.get(identity[0])
        if before is None or before[0] <= identity:
            newest[identity[0]] = identity, kept
    clock = MediaClock()
    for track in INIT_TRACKS:
        if track in newest:
            clock.note(track, _frames(archive, newest[track][1], _LARGEST_INIT))
    times: dict[Identity, MediaTime] = {}
    for track, (identity, kept) in newest.items():
        stamps, scale = kept.record.frame_timestamps, kept.record.timescale
        time = clock.time(
            track,
            _frames(archive, kept, _HEAD)[:1],
            None if not stamps else [int(stamps[0])],
            None if scale is None else int(scale),
        )
        if time is not None:
            times[identity] = time
    return clock, times


def _frames(archive: Archive, kept: KeptGroup, most: int) -> list[bytes]:
    """Return the frames in the first ``most`` bytes of a group, the last one cut there."""
    record = kept.record
    try:
        descriptor = archive.objects.open(record.hash)
    except (ObjectNotFoundError, StorageError):
        return []
    try:
        data = os.pread(descriptor, min(record.size, most), record.offset)
    except OSError:
        return []
    finally:
        os.close(descriptor)
    frames: list[bytes] = []
    start = 0
    for size in record.frame_sizes:
        if start >= len(data):
            break
        frames.append(data[start : start + size])
        start += size
    return frames
