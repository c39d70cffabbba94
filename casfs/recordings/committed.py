"""What was committed and may be played: noted by a recorder, for whoever derives sample tables.

A recorder imports this module alone of the package; media is not its business.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.index.payload_names import PayloadName
from casfs.manifests.record import INIT_TRACKS, RunRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.archive import Committed
    from casfs.manifests.record import GroupRecord

_MOST_BYTES: Final = 64 << 20
"""Of payloads that wait; of more the oldest are left to be read again."""

_MOST_PAYLOADS: Final = 4096


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
