"""Groups as records tell of them: one for each `GroupRecord`, many for each `RunRecord`. Pure.

Whoever reads manifests for their groups asks `kept_groups`, and need not know that runs exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import Digest
from casfs.manifests.record import GroupRecord, RunRecord
from casfs.timestamps import HOUR, format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from casfs.manifests.record import AnyRecord


class KeptGroup(Struct, frozen=True, gc=False):
    """A group that a record keeps."""

    record: GroupRecord
    """What is said of it, as if it had a record of its own; ``hash`` is still the whole object."""
    digest: Digest
    """BLAKE3 of the payload alone."""


def kept_groups(record: AnyRecord) -> Iterator[KeptGroup]:
    """Yield the groups that a record keeps, in the order of their commit numbers."""
    if isinstance(record, GroupRecord):
        yield KeptGroup(record, record.hash)
    elif isinstance(record, RunRecord):
        yield from _of_run(record)


def names_group(record: AnyRecord, n: int) -> bool:
    """Say whether a record holds the commit number ``n``."""
    return first_number(record) <= n <= record.n


def first_number(record: AnyRecord) -> int:
    """Return the lowest commit number that a record holds."""
    return record.n - (len(record.sequences) - 1 if isinstance(record, RunRecord) else 0)


def one_hour(record: RunRecord) -> bool:
    """Say whether all groups of a run began in one hour, as they must."""
    start = parse_time(record.received_start)
    return (start + max(record.starts)) // HOUR == start // HOUR


def _of_run(run: RunRecord) -> Iterator[KeptGroup]:
    start = parse_time(run.received_start)
    offset, first = run.offset, first_number(run)
    for at, sequence in enumerate(run.sequences):
        record = GroupRecord(
            broadcast=run.broadcast,
            number=run.number,
            track=run.track,
            n=first + at,
            time=run.time,
            epoch=run.epoch,
            sequence=sequence,
            hash=run.hash,
            path=run.path,
            offset=offset,
            size=run.sizes[at],
            frame_sizes=run.frame_sizes[at],
            lacking=0,
            frame_timestamps=None if run.frame_timestamps is None else run.frame_timestamps[at],
            timescale=run.timescale,
            blocks=None,
            init=run.init,
            received_start=format_time(start + run.starts[at]),
            received_end=format_time(start + run.ends[at]),
            complete=True,
            reason=None,
            relay=run.relay,
            protocol=run.protocol,
            recorder=run.recorder,
            writer=run.writer,
        )
        offset += record.size
        yield KeptGroup(record, run.hashes[at])
