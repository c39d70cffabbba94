"""Sample tables derived while a broadcast is recorded: behind each commit, never before it.

What was committed is noted with its bytes, which are in memory anyway, and derived from in the
thread in which the index follows. Whatever goes wrong, or is too much at once, is left to whoever
needs the tables first.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from casfs.index.samples import PayloadName, SampleIndex
from casfs.manifests.record import INIT_TRACKS
from casfs.recordings.inits import Inits
from casfs.recordings.reading import manifest_frames, read_object
from casfs.recordings.tables import derive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.archive import Archive, Committed, Group
    from casfs.media.samples import GroupSamples

_MOST_BYTES: Final = 64 << 20
"""Of payloads that wait; of more the oldest are left to be read again."""

_LOG = logging.getLogger(__name__)


class Sampler:
    """Keeps the sample tables of one archive in step with its commits; close it when done."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._samples = SampleIndex.open(archive.index_path)
        self._reader = archive.reader()
        self._inits = Inits(
            self._reader,
            lambda digest: read_object(archive.objects, digest),
            manifest_frames(archive),
        )
        self._waiting: deque[tuple[PayloadName, tuple[bytes, ...]]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._trouble = ""

    def close(self) -> None:
        """Let go of the files."""
        self._samples.close()
        self._reader.close()

    def note(self, groups: Sequence[Group], committed: Sequence[Committed]) -> None:
        """Take what was committed; does nothing that could take long."""
        with self._lock:
            for group, done in zip(groups, committed, strict=True):
                record = done.record
                if group.track in INIT_TRACKS:
                    continue
                name = PayloadName(
                    record.hash, record.offset, record.size, group.track, record.init
                )
                self._waiting.append((name, group.frames))
                self._bytes += record.size
            while self._bytes > _MOST_BYTES:
                self._bytes -= self._waiting.popleft()[0].size

    def step(self) -> None:
        """Derive what was noted; never raises."""
        if not self._samples.writable:
            return
        with self._lock:
            waiting, self._waiting, self._bytes = self._waiting, deque(), 0
        derived: list[tuple[PayloadName, GroupSamples]] = []
        try:
            for name, frames in waiting:
                # Without an init of its own nobody can know now which one it will be played with.
                if name.init is not None:
                    sizes = [len(frame) for frame in frames]
                    init = self._inits.of(name.init)
                    derived.append((name, derive(b"".join(frames), sizes, name, init)))
        except Exception as error:  # noqa: BLE001  a cache is no reason to stop recording
            if str(error) != self._trouble:
                _LOG.exception("sample tables are left to be derived later")
            self._trouble = str(error)
        with contextlib.suppress(Exception):
            self._samples.put(derived)
