"""Sample tables derived while a broadcast is recorded: behind each commit, never before it.

A recorder notes what it has committed (`casfs.recordings.committed`), and who keeps its index
(`casfs.follower`) derives from the objects (`Sampler`), which are in the page cache then. Whatever
goes wrong, or is too much at once, is left to whoever needs the tables first.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from casfs.errors import CasfsError
from casfs.index.samples import SampleIndex
from casfs.recordings.inits import Inits
from casfs.recordings.reading import manifest_frames, read_object
from casfs.recordings.tables import derive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from casfs.archive import Archive
    from casfs.index.payload_names import PayloadName
    from casfs.media.samples import GroupSamples
    from casfs.recordings.committed import CommittedPayload

_LOG = logging.getLogger(__name__)


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
