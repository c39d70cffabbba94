"""What a lookup answers: small frozen rows, the same whether they come from disk or memory."""

from __future__ import annotations

from msgspec import Struct

from casfs.digest import Digest
from casfs.manifests.record import Position


class BroadcastRow(Struct, frozen=True):
    """A broadcast that the archive holds."""

    number: int
    """Given once in this archive, from 1; never used again for another broadcast."""
    name: str
    """The full name as the relay announced it, slashes included."""


class TrackRow(Struct, frozen=True):
    """A track of a broadcast."""

    broadcast: BroadcastRow
    name: str
    """The full name as the relay has it."""
    first_n: int
    """The commit number of the track's first record; with the broadcast's number, unique."""


class SealRow(Struct, frozen=True):
    """An hour of a broadcast that was sealed."""

    hour: int
    """In hours since the Unix epoch."""
    through: int
    """The highest commit number of what belongs to it."""


class TrackSummary(Struct, frozen=True):
    """What a track holds in all."""

    track: TrackRow
    groups: int
    """Groups, superseded records not counted."""
    bytes: int
    """The sum of their payload sizes."""
    first: int | None
    """Earliest received-start, nanoseconds UTC; None if the track holds no group."""
    last: int | None
    """Latest received-start, nanoseconds UTC."""


class GroupRow(Struct, frozen=True):
    """One group as its newest record has it."""

    broadcast: BroadcastRow
    track: str
    n: int
    """Commit number, unique in its broadcast and rising in the order of commits."""
    epoch: int
    """From 1; rises when the publisher's sequence numbers start again."""
    sequence: int
    """The publisher's group number, 0 to 2**62 - 1."""
    hash: Digest
    """The object that holds the payload."""
    offset: int
    """Where the payload starts in the object, bytes."""
    size: int
    """The payload's length, bytes."""
    received_start: int
    """Nanoseconds UTC of the first byte's arrival."""
    received_end: int
    """Nanoseconds UTC of the last byte's arrival."""
    complete: bool
    """False if the group was cut short; ``size`` is then what arrived."""
    init: Digest | None
    """The init or catalog object that a player needs first, where known."""
    payload: Digest | None = None
    """The BLAKE3 of the payload alone; None where that is the whole object."""

    @property
    def digest(self) -> Digest:
        """The BLAKE3 of the payload."""
        return self.payload or self.hash


class GroupEntry(Struct, frozen=True, array_like=True, gc=False):
    """What a listing shows of an extent; the members but the label are those of its row."""

    label: str
    """``e<epoch>-<sequence>-<HHMMSS.mmm>Z``, with four and twenty digits, and the time of day (UTC)
    of the first byte's arrival."""
    n: int
    size: int
    received_end: int
    complete: bool


class JournalRow(Struct, frozen=True):
    """A journal as far as it is applied."""

    id: int
    place: str
    position: Position
    track: TrackRow | None
    """None for a broadcast's own journal."""
    broadcast: BroadcastRow


class EventRow(Struct, frozen=True):
    """A record that is not a group."""

    number: int
    n: int
    kind: str
    time: int
    """Nanoseconds UTC."""
    body: str
    """The record as JSON."""
