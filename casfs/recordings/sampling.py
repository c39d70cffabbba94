"""Sample tables derived while a broadcast is recorded: behind each commit, never before it.

A recorder notes what it has committed (`CommittedPayloads`), and who keeps its index
(`casfs.follower`) derives from the objects (`Sampler`), which are in the page cache then. Whatever
goes wrong, or is too much at once, is left to whoever needs the tables first.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.errors import CasfsError
from casfs.index.samples import PayloadName, SampleIndex
from casfs.manifests.record import INIT_TRACKS, RunRecord
from casfs.recordings.inits import Inits
from casfs.recordings.reading import manifest_frames, read_object
from casfs.recordings.tables import derive

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from casfs.archive import Archive, Committed
    from casfs.manifests.record import GroupRecord
    from casfs.media.samples import GroupSamples

_MOST_BYTES: Final = 64 << 20
"""Of payloads that wait; of more the oldest are left to be read again."""

_MOST_PAYLOADS: Final = 4096

_LOG = logging.getLogger(__name__)


class CommittedPayload(Struct, frozen=True):
    """A payload of which tables may be derived."""

    name: PayloadName
    frame_sizes: list[int]


class CommittedPayloads:
    """What was committed and has not been derived from; any thread may use it. Bounded."""

    def __init__(self) -> None:
        self._waiting: deque[CommittedPayload] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def note(self, committed: Sequence[Committed]) -> None:
        """Take what was committed; does nothing that could take long.

        The groups of a run are one payload, as `casfs.recordings.tables` takes them.
        """
        with self._lock:
            for record in (done.record for done in committed):
                track = record.track
                # Without an init of its own nobody can know now which one it will be played with.
                if track is None or track in INIT_TRACKS or record.init is None:
                    continue
                name = PayloadName(record.hash, record.offset, record.size, track, record.init)
                self._waiting.append(CommittedPayload(name, _frame_sizes(record)))
                self._bytes += record.size
            while self._bytes > _MOST_BYTES or len(self._waiting) > _MOST_PAYLOADS:
                self._bytes -= self._waiting.popleft().name.size

    def take(self) -> list[CommittedPayload]:
        """Return all that waits, which waits no more."""
        with self._lock:
            waiting, self._waiting, self._bytes = self._waiting, deque(), 0
        return list(waiting)


def _frame_sizes(record: GroupRecord | RunRecord) -> list[int]:
    if isinstance(record, RunRecord):
        return list(itertools.chain.from_iterable(record.frame_sizes))
    return record.frame_sizes


class Sampler:
    """Derives the sample tables of an archive's payloads and keeps them; close it when done."""

    def __init__(self, archive: Archive) -> None:
        self._objects = archive.objects
        self._samples = SampleIndex.open(archive.index_path)
        self._reader = archive.reader()
        self._inits = Inits(
            self._reader,
            lambda digest: read_object(archive.objects, digest),
            manifest_frames(archive),
        )
        self._trouble = ""

    def close(self) -> None:
        """Let go of the files."""
        self._samples.close()
        self._reader.close()

    def derive(self, payloads: Iterable[CommittedPayload]) -> None:
        """Derive and keep the tables of these; never raises."""
        if not self._samples.writable:
            return
        derived: list[tuple[PayloadName, GroupSamples]] = []
        try:
            for item in payloads:
                name = item.name
                try:
                    data = read_object(self._objects, name.object)
                except CasfsError:
                    # Gone or damaged already: whoever wants to play it is told.
                    continue
                payload = data[name.offset : name.offset + name.size]
                init = self._inits.of(name.init)
                derived.append((name, derive(payload, item.frame_sizes, name, init)))
        except Exception as error:  # noqa: BLE001  a cache is no reason to stop recording
            if str(error) != self._trouble:
                _LOG.exception("sample tables are left to be derived later")
            self._trouble = str(error)
        with contextlib.suppress(Exception):
            self._samples.put(derived)
