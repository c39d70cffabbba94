"""What a line of somebody else's manifest says of a group. Pure: bytes in, a value out.

Programs name the same things differently; any of the usual names is understood, at the top of the
JSON object or one level below it. Times may be RFC 3339 text or a number since the Unix epoch, in
the unit that its magnitude tells. Lines that casfs wrote must fit their own ``sum``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from casfs.digest import Digest
from casfs.manifests.plausible import implausible
from casfs.manifests.record import RunRecord, parse_line
from casfs.manifests.runs import kept_groups
from casfs.timestamps import NANOSECONDS, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")

MAX_SEQUENCE = 2**62 - 1
"""The highest sequence that a publisher can give a group (RFC 9000, section 16)."""

_HASH = ("hash", "blake3", "cas_hash", "object", "object_hash", "digest", "cas", "id")
_SEQUENCE = (
    *("sequence", "group_sequence", "group_id", "group_seq", "group", "seq", "group_number"),
    *("groupSequence", "groupId"),
)
_SIZE = ("size", "bytes", "len", "length", "size_bytes", "byte_length")
_START = (
    *("received_start", "received_at", "received", "ts", "timestamp", "time", "received_unix_ms"),
    *("received_at_ms", "received_ms", "received_at_unix_ms", "ts_ms", "timestamp_ms", "unix_ms"),
    *("time_ms", "recorded_at", "created_at", "archived_at"),
)
_END = ("received_end", "received_end_ms", "completed_at")
_BROADCAST = ("broadcast", "broadcast_name", "broadcast_id", "stream", "name")
_TRACK = ("track", "track_name")
_PATH = ("path", "object_path", "cas_path", "file")
_RELAY = ("relay", "relay_url", "url")

_DIGEST = re.compile(r"(?:blake3[:-])?([0-9a-fA-F]{64})")
_OBJECT_PATH = re.compile(r"(?:.*/)?([0-9a-f]{64})\.bin")
_SUM = b',"sum":"'
_LATEST = 1 << 63
_SEGMENT = re.compile(r"[\d._T:Z-]*|manifest|index|groups|objects|segments?|records")


class LineError(ValueError):
    """The line says nothing that could be a group, though it was meant to."""


class ListedGroup(Struct, frozen=True, kw_only=True):
    """A group as a manifest lists it."""

    hash: Digest
    sequence: int
    broadcast: str | None = None
    """Full name; None if the line does not say."""
    track: str | None = None
    path: str | None = None
    """Where the line says that the object is; not to be trusted."""
    size: int | None = None
    """Bytes of the payload."""
    offset: int | None = None
    """Where the payload begins in the object, bytes; None: it is the whole object."""
    received_start: int | None = None
    """Nanoseconds UTC."""
    received_end: int | None = None
    frame_sizes: tuple[int, ...] | None = None
    timestamps: tuple[int, ...] | None = None
    """One for each frame, in units of ``timescale``."""
    timescale: int | None = None
    init: Digest | None = None
    payload: Digest | None = None
    """BLAKE3 of the payload alone, where the line tells it."""
    run: bool = False
    """Whether it was committed together with others in one object."""
    lacking: int = 0
    complete: bool = True
    reason: str = ""
    relay: str = ""
    """Scheme, host and port alone."""
    protocol: str = ""


def read_line(text: bytes) -> ListedGroup | None:
    """Return the group that a line lists; None for a line about something else.

    Raises LineError.
    """
    ours = _SUM in text[-80:]
    if ours and parse_line(text, 0) is None:
        raise LineError("its sum does not fit: the line is damaged")
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LineError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise LineError("not a JSON object")
    members = _Members(value)
    if ours and value.get("kind") != "group":
        return None
    digest = members.first(_HASH, _digest) or members.first(_PATH, _digest_of_path)
    sequence = members.first(_SEQUENCE, _whole)
    if digest is None and sequence is None:
        return None
    if digest is None:
        raise LineError("it names no object by its hash")
    if sequence is None or sequence > MAX_SEQUENCE:
        raise LineError("it names no group by its sequence")
    frames = _numbers(value.get("frame_sizes"))
    stamps = _numbers(value.get("frame_timestamps"))
    size = members.first(_SIZE, _whole)
    start = members.first(_START, instant_of)
    return ListedGroup(
        hash=digest,
        sequence=sequence,
        broadcast=members.first(_BROADCAST, _text),
        track=members.first(_TRACK, _text),
        path=members.first(_PATH, _text),
        size=size,
        offset=_whole(value.get("offset")),
        received_start=start,
        received_end=members.first(_END, instant_of),
        frame_sizes=frames if frames is not None and size == sum(frames) else None,
        timestamps=stamps if stamps and frames and len(stamps) == len(frames) else None,
        timescale=_whole(value.get("timescale")) or None,
        init=members.first(("init", "init_hash"), _digest),
        lacking=_whole(value.get("lacking")) or 0,
        complete=value.get("complete") is not False,
        reason=_text(value.get("reason")) or "",
        relay=_origin(members.first(_RELAY, _text) or ""),
        protocol=_text(value.get("protocol")) or "",
    )


def read_run(text: bytes) -> list[ListedGroup]:
    """Return the groups that a line of kind ``run``, which casfs wrote, lists; else nothing."""
    line = parse_line(text, 0) if _SUM in text[-80:] else None
    if line is None or not isinstance(line.record, RunRecord) or implausible(line.record):
        return []
    return [
        ListedGroup(
            hash=kept.record.hash,
            sequence=int(kept.record.sequence),
            broadcast=kept.record.broadcast,
            track=kept.record.track,
            path=kept.record.path,
            size=kept.record.size,
            offset=kept.record.offset,
            received_start=parse_time(kept.record.received_start),
            received_end=parse_time(kept.record.received_end),
            frame_sizes=tuple(kept.record.frame_sizes),
            timestamps=_numbers(kept.record.frame_timestamps),
            timescale=_whole(kept.record.timescale) or None,
            init=kept.record.init,
            payload=kept.digest,
            run=True,
            relay=_origin(kept.record.relay),
            protocol=kept.record.protocol,
        )
        for kept in kept_groups(line.record)
    ]


def names_of_path(parts: Sequence[str]) -> tuple[str | None, str | None]:
    """Return (broadcast, track) as a manifest's path below the manifest root tells them.

    ``<broadcast>/<track>.jsonl`` or ``<broadcast>/<track>/<anything that looks like a date or a
    number>.jsonl``; a broadcast may be several directories. Percent-encoding is undone.
    """
    stem = parts[-1].split(".jsonl")[0]
    names = [*parts[:-1], stem]
    if _SEGMENT.fullmatch(stem):
        names.pop()
    decoded = [unquote(name) for name in names]
    track = decoded[-1] if decoded else None
    return "/".join(decoded[:-1]) or None, track


def instant_of(value: object) -> int | None:
    """Return the instant (ns UTC) that a JSON value says, or None.

    A number is taken for seconds, milliseconds, microseconds or nanoseconds since the Unix epoch:
    the coarsest unit that makes it no later than the year 5138.
    """
    if isinstance(value, str):
        if re.fullmatch(r"\d+(\.\d+)?", value):
            value = float(value) if "." in value else int(value)
        else:
            try:
                return _plausible(parse_time(value))
            except ValueError:
                return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    for unit in (NANOSECONDS, 10**6, 10**3, 1):
        if value * unit < 10**20:
            scaled = value * unit if isinstance(value, int) else int(value * 10**6) * unit // 10**6
            return _plausible(scaled)
    return None


class _Members:
    """The members of a JSON object and, behind them, those of the objects in it."""

    def __init__(self, value: Mapping[str, object]) -> None:
        self._levels: list[Mapping[str, object]] = [value]
        self._levels += [inner for inner in value.values() if isinstance(inner, dict)]

    def first(self, names: tuple[str, ...], read: Callable[[object], T | None]) -> T | None:
        """Return the first value under any of the names that ``read`` understands."""
        return next(self._read(names, read), None)

    def _read(self, names: tuple[str, ...], read: Callable[[object], T | None]) -> Iterator[T]:
        for level in self._levels:
            for name in names:
                value = read(level[name]) if name in level else None
                if value is not None:
                    yield value


def _digest(value: object) -> Digest | None:
    match = _DIGEST.fullmatch(value.strip()) if isinstance(value, str) else None
    return Digest(match[1].lower()) if match is not None else None


def _digest_of_path(value: object) -> Digest | None:
    match = _OBJECT_PATH.fullmatch(value) if isinstance(value, str) else None
    return Digest(match[1]) if match is not None else None


def _whole(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\d{1,19}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _numbers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = tuple(number for number in map(_whole, value) if number is not None)
    return numbers if len(numbers) == len(value) else None


def _plausible(instant: int) -> int | None:
    """Return the instant if the index can hold it: from 1970 to 2262."""
    return instant if 0 < instant < _LATEST else None


def _origin(url: str) -> str:
    """Return scheme, host and port: path and query may hold a token."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.scheme and parts.hostname else ""
