"""What is handed to `casfs.archive` to be kept, and what its record will say. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import Digest, block_digests, digest_of_parts
from casfs.errors import UsageError
from casfs.manifests.record import GroupRecord, RunRecord
from casfs.objects.local import object_path
from casfs.objects.store import Payload, Staged
from casfs.timestamps import HOUR, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from casfs.objects.store import Stored

_SEQUENCES = 1 << 62  # RFC 9000, section 16: no variable-length integer is larger

MOST_BYTES = 1 << 20
"""A run is not larger."""

MOST_GROUPS = 4096
"""Nor has it more groups."""

_FAR = 16
"""A step of the sequences that is so many times the least one ends a run. Whoever looks for a
sequence has to look at every run that may reach over it."""


class Group(Struct, frozen=True, kw_only=True):
    """A group to be kept."""

    track: str
    epoch: int
    sequence: int
    frames: tuple[bytes, ...]
    """The payload, frame by frame; none if it is staged."""
    digest: Digest | None = None
    """Of the payload, where the caller has computed it."""
    staged: Staged | None = None
    """The payload where memory does not hold it, from `BroadcastWriter.stage`."""
    staged_sizes: tuple[int, ...] | None = None
    """Bytes of each frame of what is staged; None: it is one frame."""
    lacking: int = 0
    """Bytes of the last frame that did not come."""
    timestamps: tuple[int, ...] | None = None
    """One for each frame, in units of ``timescale``."""
    timescale: int | None = None
    """Units a second."""
    received_start: int
    """Nanoseconds UTC of the first byte's arrival."""
    received_end: int
    complete: bool = True
    reason: str = ""
    """Why it is not complete; empty if it is."""
    init: Digest | None = None
    """The init or catalog object that a player needs first."""
    relay: str = ""
    """Scheme, host and port."""
    protocol: str = ""

    @property
    def payload(self) -> Payload | Staged:
        """The bytes of its object."""
        return self.staged or Payload(self.frames, self.digest)

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return self.staged.size if self.staged is not None else sum(map(len, self.frames))

    @property
    def frame_sizes(self) -> list[int]:
        """Bytes of each frame."""
        if self.staged is not None:
            return list(self.staged_sizes or (self.staged.size,))
        return [len(frame) for frame in self.frames]

    @property
    def blocks(self) -> list[Digest] | None:
        """The digest of each block of a large payload."""
        return block_digests(self.frames) if self.staged is None else self.staged.blocks


class Run(Struct, frozen=True):
    """Small complete groups to be kept as one object with one record.

    They are of one track, epoch and hour, by rising sequence, and agree in all that the record says
    once.
    """

    groups: tuple[Group, ...]


class Committed(Struct, frozen=True):
    """A group or a run that is kept."""

    record: GroupRecord | RunRecord
    new: bool
    """False if an object of the same bytes was there already."""
    healed: bool
    """True if a damaged object was replaced."""


def groups_of(item: Group | Run) -> Sequence[Group]:
    """Return the groups of what is to be kept."""
    return item.groups if isinstance(item, Run) else (item,)


def payload_of(item: Group | Run) -> Payload | Staged:
    """Return the bytes of its object; raises UsageError for a run of what is staged."""
    if isinstance(item, Group):
        return item.payload
    if any(group.staged is not None for group in item.groups):
        raise UsageError("what is staged is an object of its own, and none of a run")
    return Payload([frame for group in item.groups for frame in group.frames])


def together(group: Group) -> tuple[object, ...]:
    """Return what all groups of a run must have in common."""
    return (
        *(group.track, group.epoch, group.received_start // HOUR, group.init, group.complete),
        *(group.timescale, group.timestamps is None, group.relay, group.protocol),
    )


def group_members(group: Group, stored: Stored) -> dict[str, object]:
    """Return what a group's record says of it; raises UsageError if no group can be like that."""
    _check_identity(group)
    return {
        "epoch": group.epoch,
        "sequence": str(group.sequence),
        "hash": stored.digest,
        "path": object_path(stored.digest),
        "offset": 0,
        "size": stored.size,
        "frame_sizes": group.frame_sizes,
        "lacking": group.lacking,
        "frame_timestamps": _decimal(group.timestamps),
        "timescale": None if group.timescale is None else str(group.timescale),
        "blocks": group.blocks,
        "init": group.init,
        "received_start": format_time(group.received_start),
        "received_end": format_time(group.received_end),
        "complete": group.complete,
        "reason": group.reason or None,
        "relay": group.relay,
        "protocol": group.protocol,
    }


def run_members(run: Run, stored: Stored) -> dict[str, object]:
    """Return what a run's record says of it; raises UsageError if its groups make no run."""
    groups = run.groups
    for group in groups:
        _check_identity(group)
    first = groups[0]
    if (
        not first.complete
        or len({together(group) for group in groups}) != 1
        or any(one.sequence >= other.sequence for one, other in itertools.pairwise(groups))
    ):
        raise UsageError(f"groups of {first.track!r} from {first.sequence} on make no run")
    start = min(group.received_start for group in groups)
    return {
        "epoch": first.epoch,
        "sequences": [str(group.sequence) for group in groups],
        "sizes": [group.size for group in groups],
        "hashes": [group.digest or digest_of_parts(group.frames) for group in groups],
        "frame_sizes": [group.frame_sizes for group in groups],
        "frame_timestamps": (
            None if first.timestamps is None else [_decimal(group.timestamps) for group in groups]
        ),
        "timescale": None if first.timescale is None else str(first.timescale),
        "starts": [group.received_start - start for group in groups],
        "ends": [group.received_end - start for group in groups],
        "hash": stored.digest,
        "path": object_path(stored.digest),
        "offset": 0,
        "size": stored.size,
        "init": first.init,
        "received_start": format_time(start),
        "received_end": format_time(max(group.received_end for group in groups)),
        "relay": first.relay,
        "protocol": first.protocol,
    }


def runs_of(groups: Sequence[Group]) -> Iterator[Group | Run]:
    """Yield small groups of one track as runs, or alone where no others fit with them."""
    by_kind: dict[tuple[object, ...], list[Group]] = {}
    for group in groups:
        if group.staged is not None:
            yield group
            continue
        by_kind.setdefault(together(group), []).append(group)
    for alike in by_kind.values():
        alike.sort(key=lambda group: group.sequence)
        for part in _parts(alike):
            yield Run(tuple(part)) if len(part) > 1 else part[0]


def _parts(groups: Sequence[Group]) -> Iterator[list[Group]]:
    """Split where a run would grow too large, or reach over too many sequences to search."""
    steps = [other.sequence - one.sequence for one, other in itertools.pairwise(groups)]
    far = _FAR * min((step for step in steps if step), default=1)
    part: list[Group] = []
    size = 0
    for group in groups:
        if part and (
            size + group.size > MOST_BYTES
            or len(part) == MOST_GROUPS
            or not 0 < group.sequence - part[-1].sequence <= far
        ):
            yield part
            part, size = [], 0
        part.append(group)
        size += group.size
    yield part


def _decimal(numbers: Sequence[int] | None) -> list[str] | None:
    return None if numbers is None else [str(number) for number in numbers]


def _check_identity(group: Group) -> None:
    if not (0 <= group.sequence < _SEQUENCES and group.epoch > 0):
        raise UsageError(
            f"{group.track!r} cannot have sequence {group.sequence} in epoch {group.epoch}"
        )
