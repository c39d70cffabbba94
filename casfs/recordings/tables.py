"""The sample tables of groups: as they are known, else derived from the objects and then known.

Adjacent groups of one object (a run) are taken as one payload, with one table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.errors import DamagedObjectError, ObjectNotFoundError
from casfs.index.payload_names import PayloadName
from casfs.media.groups import samples_of_group
from casfs.media.timeline import RecordedGroup
from casfs.recordings.inits import InitChoice
from casfs.recordings.lacking import LeftOut
from casfs.recordings.reading import read_object

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from casfs.digest import Digest
    from casfs.index.rows import BroadcastRow, GroupRow
    from casfs.index.samples import SampleIndex
    from casfs.media.descriptions import SampleDescription
    from casfs.media.samples import GroupSamples
    from casfs.recordings.inits import Init, Inits
    from casfs.recordings.reading import FramesOf, ObjectSource

_BATCH = 64


class Payload(RecordedGroup, frozen=True, kw_only=True):
    """A group or a run of groups, with what is needed to find its tables again."""

    init: Digest | None
    """What its samples are told by; for a group that names none, the nearest init."""


class TableSource:
    """Finds tables. Any thread may ask; ``lock`` is held while ``inits`` and ``frames_of`` are."""

    def __init__(
        self,
        objects: ObjectSource,
        samples: SampleIndex,
        inits: Inits,
        frames_of: FramesOf,
        lock: threading.Lock,
    ) -> None:
        self._objects = objects
        self._samples = samples
        self._inits = inits
        self._frames_of = frames_of
        self._lock = lock

    def payloads(
        self,
        broadcast: BroadcastRow,
        rows: Sequence[GroupRow],
        descriptions: dict[Digest, SampleDescription],
        left_out: list[LeftOut],
        through: int | None = None,
    ) -> Iterator[Payload]:
        """Yield what of a track's groups can be played, in the order of epoch and sequence.

        Adds to ``descriptions`` those that their tables name, to ``left_out`` what cannot be
        played. With ``through`` nothing counts that was committed later. Raises StorageError.
        """
        if not rows:
            return
        choice = InitChoice(self._inits, broadcast.name, rows[0].track, lambda: rows, through)
        frames: Mapping[int, Sequence[int]] | None = None
        derived: list[tuple[PayloadName, GroupSamples]] = []
        for run in _runs(rows):
            first = run[0]
            with self._lock:
                init = choice.of(first.n, first.epoch, first.init, first.received_start)
            size = sum(row.size for row in run)
            name = PayloadName(first.hash, first.offset, size, first.track, init)
            found = self._samples.get(name)
            if found is None:
                if frames is None:
                    with self._lock:
                        frames = self._frames_of(rows)
                try:
                    found = self._derive(name, run, frames)
                except (ObjectNotFoundError, DamagedObjectError) as error:
                    left_out.append(LeftOut(first.track, error.message, lacking=True))
                    continue
                derived.append((name, found))
                if len(derived) == _BATCH:
                    self._samples.put(derived)
                    derived = []
            if not found.tables:
                left_out.append(LeftOut(first.track, found.reason or "no samples", lacking=False))
                continue
            descriptions.update((item.digest, item) for item in found.descriptions)
            yield Payload(
                track=first.track,
                epoch=first.epoch,
                received=first.received_start,
                digest=first.hash,
                offset=first.offset,
                size=size,
                tables=found.tables,
                init=init,
            )
        self._samples.put(derived)

    def again(self, payload: Payload) -> Payload:
        """Return a payload with its tables, which were there before.

        Raises DamagedObjectError if they cannot be found any more.
        """
        name = PayloadName(
            payload.digest, payload.offset, payload.size, payload.track, payload.init
        )
        found = self._samples.get(name)
        if found is None or not found.tables:
            raise DamagedObjectError(
                f"the samples of object {payload.digest} are not known any more"
            )
        return Payload(
            track=payload.track,
            epoch=payload.epoch,
            received=payload.received,
            digest=payload.digest,
            offset=payload.offset,
            size=payload.size,
            tables=found.tables,
            init=payload.init,
        )

    def _derive(
        self, name: PayloadName, run: Sequence[GroupRow], frames: Mapping[int, Sequence[int]]
    ) -> GroupSamples:
        data = read_object(self._objects, name.object)
        sizes: list[int] = []
        for row in run:
            sizes += frames.get(row.n, [row.size])
        return derive(
            data[name.offset : name.offset + name.size], sizes, name, self._init(name.init)
        )

    def _init(self, digest: Digest | None) -> Init:
        with self._lock:
            return self._inits.of(digest)


def derive(
    payload: bytes, frame_sizes: Sequence[int], name: PayloadName, init: Init
) -> GroupSamples:
    """Return what a payload holds; nothing is raised."""
    catalog = init.catalog
    return samples_of_group(
        payload,
        frame_sizes,
        track=catalog.track(name.track) if catalog is not None else None,
        movie=init.movie,
    )


def _runs(rows: Iterable[GroupRow]) -> Iterator[list[GroupRow]]:
    """Yield the groups by epoch and sequence, those that are adjacent in one object together."""
    run: list[GroupRow] = []
    for row in sorted(rows, key=lambda row: (row.epoch, row.sequence)):
        last = run[-1] if run else None
        if last is None or not (
            (last.hash, last.epoch, last.init) == (row.hash, row.epoch, row.init)
            and last.offset + last.size == row.offset
        ):
            if run:
                yield run
            run = []
        run.append(row)
    if run:
        yield run
