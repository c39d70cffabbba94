"""The schema of one manifest line, its sum and its chain. Pure: bytes in, records out.

A line is one JSON object (RFC 8259) in UTF-8 and a newline. Every line carries the members of
`Record` and those of its kind, and ends with three members that the journal adds:

- ``synced``: how many bytes of this segment were durable when the line was written. A reader that
  meets a bad stretch before a line which claims more knows that synced bytes were damaged; a bad
  stretch that no later line vouches for is a torn tail, which a power cut may leave.
- ``prev``: the ``sum`` of the line before it in this journal, across segments; null at the first.
- ``sum``: BLAKE3-256 of all bytes of the line before the text ``,"sum":``. Always last.

Times are RFC 3339 text with nine decimals; integers that can pass 2**53 are text.
``docs/format.md`` specifies all of it.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Struct

from casfs.digest import Digest, digest_of

RECORD_VERSION: Final = 1
"""The ``v`` of the lines that this version writes."""

MAX_LINE_BYTES: Final = 64 << 20
"""No line is longer; a longer one is damage."""

LINE_START: Final = b'{"kind":'
"""What a line of ours begins with, and what within a line only ever stands escaped."""

INIT_TRACKS: Final = ("init.mp4", "catalog.json", "catalog", ".catalog")
"""Tracks whose newest group a player needs before any media, the better one first."""

_SUM_KEY: Final = b',"sum":"'
_SUM_TAIL: Final = len(_SUM_KEY) + 64 + len(b'"}')
_TAIL: Final = re.compile(rb',"synced":(0|[1-9]\d{0,17}),"prev":(?:null|"([0-9a-f]{64})")$')
_MOST_TAIL: Final = 120


class Position(Struct, frozen=True):
    """A place in a journal: behind a line."""

    segment: str
    """The segment's file name."""
    offset: int
    """Bytes of the segment up to and with the line's newline."""
    hash: str
    """The line's ``sum``."""


class Record(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every line says."""

    v: int = RECORD_VERSION
    broadcast: str
    """Full name of the broadcast."""
    number: int
    """The broadcast's number in this archive, from 1."""
    track: str | None
    """Full name of the track; null in the broadcast's own journal."""
    n: int
    """Commit number: rises by at least one with each record of the broadcast, over all tracks."""
    time: str
    """When the record was made."""


class SegmentRecord(Record, frozen=True, kw_only=True, tag="segment"):
    """The first line of every segment."""

    store: str
    """The archive's id, as in format.json."""
    writer: str
    """Program and version."""
    recorder: str
    """The recording session that writes."""
    reason: str
    """Why the segment was begun: ``first``, ``date``, ``restart``, ``failure``."""
    continues: Position | None
    """Where the journal goes on; what lies behind that place is dead. Null in the first."""


class GroupRecord(Record, frozen=True, kw_only=True, gc=False, tag="group"):
    """One group and the object that holds its payload."""

    epoch: int
    sequence: str
    """The publisher's group number, decimal."""
    hash: Digest
    path: str
    """The object, relative to the CAS root."""
    offset: int
    """Where the payload begins in the object, bytes."""
    size: int
    """Payload length, bytes."""
    frame_sizes: list[int]
    """Bytes of each frame; their sum is ``size``."""
    lacking: int
    """Bytes of the last frame that did not come; 0 unless the group was cut inside a frame."""
    frame_timestamps: list[str] | None
    """One for each frame, in units of ``timescale``; null where the protocol has none."""
    timescale: str | None
    """Units a second, decimal."""
    blocks: list[Digest] | None
    """For an object above `BLOCK_BYTES`: the BLAKE3 of each of its blocks."""
    init: Digest | None
    """The init or catalog object that a player needs first, where known."""
    received_start: str
    received_end: str
    complete: bool
    reason: str | None
    """Why the group is not complete; null if it is."""
    relay: str
    """Scheme, host and port. Never path or query, which may hold a token."""
    protocol: str
    recorder: str
    writer: str


class RunRecord(Record, frozen=True, kw_only=True, gc=False, tag="run"):
    """Many small complete groups of one track, epoch and hour, whose payloads are one object.

    The arrays have one item for each group, by rising sequence; the payloads lie in the object in
    the same order, one behind the other. Each group has a commit number of its own: ``n`` is that
    of the last one, and the numbers of the others come right before it.
    `casfs.manifests.runs.kept_groups` takes a run apart. Raises ValueError if the arrays are not of
    one length; whether they make sense is for `casfs.manifests.plausible`.
    """

    epoch: int
    sequences: list[str]
    """The publisher's group numbers, decimal, rising."""
    sizes: list[int]
    """The length of each payload, bytes; their sum is ``size``."""
    hashes: list[Digest]
    """The BLAKE3 of each payload for itself."""
    frame_sizes: list[list[int]]
    frame_timestamps: list[list[str]] | None
    timescale: str | None
    starts: list[int]
    """When the first byte of each group came, in nanoseconds since ``received_start``."""
    ends: list[int]
    """When its last byte came, likewise."""
    hash: Digest
    path: str
    """The object, relative to the CAS root."""
    offset: int
    """Where the first payload begins in the object, bytes."""
    size: int
    init: Digest | None
    received_start: str
    """When the earliest group began."""
    received_end: str
    """When the latest one ended."""
    relay: str
    protocol: str
    recorder: str
    writer: str

    def __post_init__(self) -> None:
        """Refuse what cannot be taken apart."""
        count = len(self.sequences)
        columns = (self.sizes, self.hashes, self.frame_sizes, self.starts, self.ends)
        if (
            not count
            or any(len(column) != count for column in columns)
            or (self.frame_timestamps is not None and len(self.frame_timestamps) != count)
        ):
            raise ValueError("a run whose arrays do not fit each other")


class GapRecord(Record, frozen=True, kw_only=True, tag="gap"):
    """What we missed of a track, as far as we can know it. A later back-fill supersedes it."""

    epoch: int
    first: str | None
    """Sequence numbers between which nothing came, inclusive; null where unknown. A publisher may
    also have skipped them."""
    last: str | None
    start: str
    """From when to when we were not receiving."""
    end: str
    reason: str
    recorder: str


class StartRecord(Record, frozen=True, kw_only=True, tag="start"):
    """A recording session began."""

    recorder: str
    writer: str
    relay: str
    """Scheme, host and port."""
    host: str
    """The machine that records."""


class StopRecord(Record, frozen=True, kw_only=True, tag="stop"):
    """A recording session ended in good order."""

    recorder: str
    reason: str


class LostSessionRecord(Record, frozen=True, kw_only=True, tag="lost-session"):
    """A session ended without a stop (killed, power cut); found at the next start."""

    lost: str
    """The session that was lost."""
    last: str
    """The time of the newest record that it left: nothing later was acknowledged."""
    recorder: str
    """The session that found it."""


class EpochRecord(Record, frozen=True, kw_only=True, tag="epoch"):
    """The publisher began again: its sequences, or its media time with sequences that go on."""

    epoch: int
    reason: str
    recorder: str


class AliveRecord(Record, frozen=True, kw_only=True, tag="alive"):
    """No group came for a while, and we were there."""

    connected: bool
    since: str
    """When the last group came, or the session began."""
    recorder: str


class SealRecord(Record, frozen=True, kw_only=True, tag="seal"):
    """An hour is closed.

    What belongs to it: every group of the broadcast whose received-start lies in the hour and
    whose ``n`` is at most ``through``. What comes later of that hour does not change it.
    """

    hour: str
    """The hour's beginning."""
    through: int
    """The highest commit number that was given before."""
    recorder: str


class ExpiredRecord(Record, frozen=True, kw_only=True, tag="expired"):
    """An hour need not be kept any longer. Stands in a journal of expiries, never in a track's.

    It names every record of a group of the broadcast whose received-start lies in the hour and
    whose ``n`` is at most ``through``, but those in ``keep``. The newest record of an hour counts.
    """

    hour: str
    """The hour's beginning."""
    through: int
    keep: list[int]
    """Commit numbers of init and catalog groups that other hours still need."""
    groups: int
    """Groups that it took out of the archive, for people."""
    bytes: int
    """Their payload."""
    policy: str
    """The rule that wanted it, for people."""
    by: str
    """User and machine."""
    writer: str
    """Program and version."""


class RestoredRecord(Record, frozen=True, kw_only=True, tag="restored"):
    """An hour that had expired is to be kept after all: nothing of it is expired any more."""

    hour: str
    """The hour's beginning."""
    by: str
    """User and machine."""
    writer: str
    """Program and version."""


class UnknownRecord(Struct, frozen=True, kw_only=True):
    """A record of a kind or version that this program does not know: kept and skipped."""

    kind: str
    n: int
    v: int = 0


KnownRecord = (
    SegmentRecord
    | GroupRecord
    | RunRecord
    | GapRecord
    | StartRecord
    | StopRecord
    | LostSessionRecord
    | EpochRecord
    | AliveRecord
    | SealRecord
    | ExpiredRecord
    | RestoredRecord
)

AnyRecord = Record | UnknownRecord


class Line(Struct, frozen=True, gc=False):
    """A record with its place in a segment."""

    record: AnyRecord
    offset: int
    """Where the line begins in its segment, bytes."""
    end: int
    """Behind its newline."""
    synced: int
    prev: str | None
    sum: str


_ENCODER = msgspec.json.Encoder()
_RECORD_DECODER = msgspec.json.Decoder(KnownRecord)
_UNKNOWN_DECODER = msgspec.json.Decoder(UnknownRecord)


def encode_line(
    record: Record, *, offset: int, synced: int, prev: str | None
) -> tuple[bytes, Line]:
    """Return the bytes of the line (with its newline) that begins at ``offset``, and the line."""
    body = _ENCODER.encode(record)[:-1]
    chain = "null" if prev is None else f'"{prev}"'
    head = body + f',"synced":{synced},"prev":{chain}'.encode()
    total = digest_of(head)
    text = head + _SUM_KEY + total.encode() + b'"}\n'
    line = Line(
        record=record,
        offset=offset,
        end=offset + len(text),
        synced=synced,
        prev=prev,
        sum=total,
    )
    return text, line


def parse_line(text: bytes, offset: int) -> Line | None:
    """Return the line that ``text`` (without its newline) holds at ``offset``, or None.

    None means that these are not the bytes that were written: the sum does not match, or what it
    covers is no record.
    """
    head, found = text[:-_SUM_TAIL], text[-66:-2]
    if (
        len(text) <= _SUM_TAIL
        or text[-_SUM_TAIL:-66] != _SUM_KEY
        or found != digest_of(head).encode()
    ):
        return None
    # The journal's own members stand right before the sum, as it wrote them.
    tail = _TAIL.search(head, max(0, len(head) - _MOST_TAIL))
    if tail is None:
        return None
    try:
        record = _decode_record(text)
    except msgspec.DecodeError:
        return None
    synced, prev = tail.groups()
    return Line(
        record=record,
        offset=offset,
        end=offset + len(text) + 1,
        synced=int(synced),
        prev=None if prev is None else prev.decode(),
        sum=found.decode(),
    )


def _decode_record(text: bytes) -> AnyRecord:
    try:
        record: Record = _RECORD_DECODER.decode(text)
    except msgspec.ValidationError:
        return _UNKNOWN_DECODER.decode(text)
    return record if record.v <= RECORD_VERSION else _UNKNOWN_DECODER.decode(text)
