"""Objects of MoQ transport on the wire: in subgroup streams, in fetch streams, in datagrams.

draft-ietf-moq-transport, section "Data Streams and Datagrams". What stands before an object's
payload is read by a function of (bytes, offset, the object before) that returns None while bytes
are missing; `ObjectCutter` cuts a stream by it, piece after piece, without looking at a payload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from casfs.errors import ProtocolError
from ingest.moq.moqt_parameters import Property

if TYPE_CHECKING:
    from ingest.moq.interface import Limits
    from ingest.moq.moqt_drafts import Draft

FETCH_STREAM: Final = 0x05
"""The kind of a stream that answers FETCH."""
PADDING_STREAM: Final = 0x132B3E28
"""The kind of a stream that says nothing (18)."""

NORMAL: Final = 0
DOES_NOT_EXIST: Final = 1
"""Of 14 alone."""
END_OF_GROUP: Final = 3
END_OF_TRACK: Final = 4
GONE_RANGE: Final = 0x8C
"""Of fetch streams, as is the next: nothing exists from the object before up to this one."""
UNKNOWN_RANGE: Final = 0x10C

_PROPERTIES: Final = 0x01
_MODE: Final = 0x06
_MODE_FIRST: Final = 0x02
_MODE_EXPLICIT: Final = 0x04
_SUBGROUP_END_OF_GROUP: Final = 0x08
_SUBGROUP: Final = 0x10
_DEFAULT_PRIORITY: Final = 0x20
_FIRST_OBJECT: Final = 0x40
_LONGEST_PROPERTIES: Final = 64 << 10
_LARGEST_ID: Final = (1 << 62) - 1
"""Of groups and objects; larger ones are refused, they would not fit our records."""
_TIMESTAMP_LIMIT: Final = 1 << 63


class SubgroupHeader(NamedTuple):
    """The beginning of a subgroup stream."""

    alias: int
    group: int
    properties: bool
    """Whether each object has properties."""
    end_of_group: bool
    """Whether the last object of the group is on this stream, if it ends with FIN."""
    size: int
    """Bytes that it takes, its kind included."""


class ObjectHeader(NamedTuple):
    """What stands before an object's payload."""

    group: int
    number: int
    size: int
    status: int
    timestamp: int | None
    """In units of the track's timescale."""
    gap: int
    """How many objects before it do not exist, by its own word."""
    payload: int
    """Where the payload begins, in the bytes that the header was read from."""


ReadObject = Callable[[bytes, int, ObjectHeader | None], ObjectHeader | None]


def is_subgroup(kind: int, draft: Draft) -> bool:
    """Return whether a stream of that kind carries a subgroup in this draft."""
    allowed = _SUBGROUP | _PROPERTIES | _MODE | _SUBGROUP_END_OF_GROUP
    if not draft.typed_replies:
        allowed |= _DEFAULT_PRIORITY
    if draft.request_streams:
        allowed |= _FIRST_OBJECT
    return bool(kind & _SUBGROUP) and not kind & ~allowed and kind & _MODE != _MODE


def read_subgroup_header(data: bytes, draft: Draft) -> SubgroupHeader | None:
    """Read the beginning of a stream whose kind `is_subgroup`; None while bytes are missing."""
    read = draft.integers.read
    kind = read(data, 0)
    alias = kind and read(data, kind[1])
    group = alias and read(data, alias[1])
    if not kind or not alias or not group:
        return None
    offset = group[1]
    if kind[0] & _MODE == _MODE_EXPLICIT:
        subgroup = read(data, offset)
        if subgroup is None:
            return None
        offset = subgroup[1]
    if not kind[0] & _DEFAULT_PRIORITY:
        offset += 1
    if offset > len(data):
        return None
    _check_id(group[0])
    return SubgroupHeader(
        alias=alias[0],
        group=group[0],
        properties=bool(kind[0] & _PROPERTIES),
        end_of_group=bool(kind[0] & _SUBGROUP_END_OF_GROUP),
        size=offset,
    )


def subgroup_reader(header: SubgroupHeader, draft: Draft) -> ReadObject:
    """Return what reads the objects behind a subgroup header."""
    read = draft.integers.read
    group, properties = header.group, header.properties

    def read_object(data: bytes, offset: int, before: ObjectHeader | None) -> ObjectHeader | None:
        delta = read(data, offset)
        if delta is None:
            return None
        number, offset = delta
        if before is not None:
            number += before.number + 1
        timestamp, gap = None, 0
        if properties:
            found = _read_properties(data, offset, draft)
            if found is None:
                return None
            timestamp, gap, offset = found
        size = read(data, offset)
        if size is None:
            return None
        status = (NORMAL, size[1])
        if not size[0]:
            told = read(data, size[1])
            if told is None:
                return None
            status = told
        _check_id(number)
        return ObjectHeader(group, number, size[0], status[0], timestamp, gap, status[1])

    return read_object


def fetch_reader(draft: Draft) -> ReadObject:
    """Return what reads the objects of a fetch stream, behind its kind and request number."""
    return _fetch_reader_14(draft) if draft.typed_replies else _fetch_reader_16(draft)


def _fetch_reader_14(draft: Draft) -> ReadObject:
    read = draft.integers.read

    def read_object(data: bytes, offset: int, before: ObjectHeader | None) -> ObjectHeader | None:  # noqa: ARG001 - each object stands for itself
        fields = []
        for _ in range(3):
            field = read(data, offset)
            if field is None:
                return None
            fields.append(field[0])
            offset = field[1]
        found = _read_properties(data, offset + 1, draft)
        size = found and read(data, found[2])
        if found is None or size is None:
            return None
        status = (NORMAL, size[1])
        if not size[0]:
            told = read(data, size[1])
            if told is None:
                return None
            status = told
        group, _, number = fields
        _check_id(group)
        _check_id(number)
        return ObjectHeader(group, number, size[0], status[0], found[0], found[1], status[1])

    return read_object


_FETCH_SUBGROUP_PRESENT: Final = 0x03
_FETCH_OBJECT: Final = 0x04
_FETCH_GROUP: Final = 0x08
_FETCH_PRIORITY: Final = 0x10
_FETCH_PROPERTIES: Final = 0x20
_FETCH_DATAGRAM: Final = 0x40
_FETCH_FLAGS: Final = 0x80


def _fetch_reader_16(draft: Draft) -> ReadObject:
    """Since 15, with flags; since 17 group and object are differences.

    We ask for ascending groups, so a difference adds.
    """
    read = draft.integers.read

    def read_object(data: bytes, offset: int, before: ObjectHeader | None) -> ObjectHeader | None:
        found = read(data, offset)
        if found is None:
            return None
        flags, offset = found
        ranged = flags in {GONE_RANGE, UNKNOWN_RANGE}
        if flags >= _FETCH_FLAGS and not ranged:
            raise ProtocolError(f"an object of a fetch has the unknown flags {flags:#x}")
        present = {
            _FETCH_GROUP: flags & _FETCH_GROUP,
            _FETCH_SUBGROUP_PRESENT: not ranged
            and not flags & _FETCH_DATAGRAM
            and flags & _FETCH_SUBGROUP_PRESENT == _FETCH_SUBGROUP_PRESENT,
            _FETCH_OBJECT: flags & _FETCH_OBJECT,
        }
        values: dict[int, int] = {}
        for field, there in present.items():
            if there:
                value = read(data, offset)
                if value is None:
                    return None
                values[field], offset = value
        group, number = _fetch_location(
            values.get(_FETCH_GROUP), values.get(_FETCH_OBJECT), before, draft
        )
        if ranged:
            return ObjectHeader(group, number, 0, flags, None, 0, offset)
        offset += bool(flags & _FETCH_PRIORITY)
        timestamp, gap = None, 0
        if flags & _FETCH_PROPERTIES:
            properties = _read_properties(data, offset, draft)
            if properties is None:
                return None
            timestamp, gap, offset = properties
        size = read(data, offset)
        if size is None:
            return None
        return ObjectHeader(group, number, size[0], NORMAL, timestamp, gap, size[1])

    return read_object


def _fetch_location(
    group: int | None, number: int | None, before: ObjectHeader | None, draft: Draft
) -> tuple[int, int]:
    if before is None:
        if group is None or number is None:
            raise ProtocolError("the first object of a fetch does not say where it is")
    elif not draft.request_streams:
        group = before.group if group is None else group
        number = before.number + 1 if number is None else number
    elif group is None:
        group = before.group
        number = before.number + (1 if number is None else number)
    else:
        group += before.group + 1
        number = before.number + 1 if number is None else number
    _check_id(group)
    _check_id(number)
    return group, number


class ObjectDatagram(NamedTuple):
    """An object in a datagram."""

    alias: int
    group: int
    number: int
    status: int
    timestamp: int | None
    end_of_group: bool
    payload: bytes


_DATAGRAM_END_OF_GROUP: Final = 0x02
_DATAGRAM_ZERO_ID: Final = 0x04
_DATAGRAM_DEFAULT_PRIORITY: Final = 0x08
_DATAGRAM_STATUS: Final = 0x20


def read_datagram(data: bytes, draft: Draft) -> ObjectDatagram:
    """Parse a datagram; raise `ProtocolError` for one that carries no object."""
    read = draft.integers.read

    def integer(offset: int) -> tuple[int, int]:
        found = read(data, offset)
        if found is None:
            raise ProtocolError("a datagram is shorter than its fields")
        return found

    kind, offset = integer(0)
    allowed = _PROPERTIES | _DATAGRAM_END_OF_GROUP | _DATAGRAM_ZERO_ID | _DATAGRAM_STATUS
    if not draft.typed_replies:
        allowed |= _DATAGRAM_DEFAULT_PRIORITY
    if kind & ~allowed:
        raise ProtocolError(f"a datagram of the unknown kind {kind:#x}")
    alias, offset = integer(offset)
    group, offset = integer(offset)
    number = 0
    if not kind & _DATAGRAM_ZERO_ID:
        number, offset = integer(offset)
    offset += not kind & _DATAGRAM_DEFAULT_PRIORITY
    timestamp = None
    if kind & _PROPERTIES:
        found = _read_properties(data, offset, draft)
        if found is None:
            raise ProtocolError("a datagram is shorter than its properties")
        timestamp, _, offset = found
    status = NORMAL
    if kind & _DATAGRAM_STATUS:
        status, offset = integer(offset)
    if offset > len(data):
        raise ProtocolError("a datagram is shorter than its fields")
    _check_id(group)
    _check_id(number)
    end_of_group = bool(kind & _DATAGRAM_END_OF_GROUP)
    return ObjectDatagram(alias, group, number, status, timestamp, end_of_group, data[offset:])


class CutObject(NamedTuple):
    """A whole object."""

    header: ObjectHeader
    payload: bytes


class ObjectCutter:
    """The objects of one stream: bytes in, whole objects out."""

    __slots__ = ("_before", "_head", "_lacking", "_limits", "_parts", "_read")

    def __init__(self, read: ReadObject, limits: Limits) -> None:
        self._read = read
        self._limits = limits
        self._before: ObjectHeader | None = None
        """The newest object, which may not be whole."""
        self._head = b""
        """The beginning of an object's header that is not whole yet."""
        self._parts: list[bytes] = []
        self._lacking = 0

    def append(self, data: bytes) -> list[CutObject]:
        """Take the next piece, return the objects that are whole by it.

        Raise `ProtocolError` for what is malformed or over a limit; then nothing more is taken.
        """
        cut: list[CutObject] = []
        offset = 0
        if self._lacking:
            offset = min(self._lacking, len(data))
            self._parts.append(data[:offset])
            self._lacking -= offset
            if self._lacking:
                return cut
            assert self._before is not None
            cut.append(CutObject(self._before, b"".join(self._parts)))
            self._parts = []
        elif self._head:
            data = self._head + data
            self._head = b""
        size = len(data)
        while offset < size:
            header = self._read(data, offset, self._before)
            if header is None:
                self._head = data[offset:]
                if len(self._head) > 2 * _LONGEST_PROPERTIES:
                    raise ProtocolError("an object's header does not end")
                break
            if header.size > self._limits.frame_bytes:
                raise ProtocolError(
                    f"a frame of {header.size} bytes is over the limit of "
                    f"{self._limits.frame_bytes}"
                )
            self._before = header
            offset = header.payload
            end = offset + header.size
            if end > size:
                self._lacking = end - size
                self._parts = [data[offset:]]
                break
            cut.append(CutObject(header, data[offset:end]))
            offset = end
        return cut

    def finish(self) -> None:
        """Take the stream's end; raise `ProtocolError` when it cuts an object."""
        if self._lacking or self._head:
            raise ProtocolError("the stream ended in the middle of an object")

    @property
    def last(self) -> int | None:
        """The number of the newest object."""
        return None if self._before is None else self._before.number

    @property
    def held(self) -> int:
        """Payload bytes of the object that is not whole."""
        return self._before.size - self._lacking if self._lacking and self._before else 0

    def cut_short(self) -> tuple[ObjectHeader, bytes] | None:
        """Return the object that is not whole, as far as it came; None if there is none."""
        if not self._lacking or self._before is None:
            return None
        payload = b"".join(self._parts)
        self._parts = [payload]
        return self._before, payload


def _read_properties(data: bytes, offset: int, draft: Draft) -> tuple[int | None, int, int] | None:
    """Return an object's timestamp and gap, and the offset behind its properties."""
    read = draft.integers.read
    length = read(data, offset)
    if length is None:
        return None
    if length[0] > _LONGEST_PROPERTIES:
        raise ProtocolError(f"an object has {length[0]} bytes of properties")
    offset = length[1]
    end = offset + length[0]
    if end > len(data):
        return None
    timestamp: int | None = None
    gap = key = 0
    while offset < end:
        found = read(data, offset)
        value = found and read(data, found[1])
        if not found or not value:
            raise ProtocolError("an object's properties are malformed")
        key = found[0] + (key if draft.delta_keys else 0)
        offset = value[1]
        if key & 1:
            offset += value[0]
        elif key == Property.TIMESTAMP and value[0] < _TIMESTAMP_LIMIT:
            timestamp = value[0]
        elif key == Property.PRIOR_OBJECT_ID_GAP:
            gap = value[0]
    if offset != end:
        raise ProtocolError("an object's properties are malformed")
    return timestamp, gap, end


def _check_id(number: int) -> None:
    if number > _LARGEST_ID:
        raise ProtocolError(f"a group or object number of {number} is over the limit")
