"""Key-value pairs of MoQ transport: setup options, message parameters, properties.

A pair is a key and a value: a number behind an even key, bytes behind an odd one (section
"Key-Value-Pair Structure"). Since draft 16 keys are sorted and written as differences. Message
parameters of draft 18 alone have types of their own (section "Message Parameters"); here a location
(two integers) is the bytes that it is written in, and small numbers are numbers.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ingest.moq.moqt_drafts import Draft
    from ingest.moq.reading import MessageBody

_MOST: Final = 1024
"""Pairs of one message; nobody needs more than a few."""


class SetupOption(IntEnum):
    """Keys in SETUP."""

    PATH = 0x01
    MAX_REQUEST_ID = 0x02
    AUTHORITY = 0x05
    IMPLEMENTATION = 0x07


class Parameter(IntEnum):
    """Keys in other messages."""

    AUTHORIZATION_TOKEN = 0x03
    LARGEST_OBJECT = 0x09
    FORWARD = 0x10
    SUBSCRIBER_PRIORITY = 0x20
    SUBSCRIPTION_FILTER = 0x21
    GROUP_ORDER = 0x22
    TRACK_NAMESPACE_PREFIX = 0x34


class Property(IntEnum):
    """Keys of tracks and objects."""

    TIMESCALE = 0x08
    TIMESTAMP = 0x10
    """As moq-dev publishes it, in units of the track's timescale."""
    PRIOR_OBJECT_ID_GAP = 0x3E


class Pair(Struct, frozen=True):
    """A key and its value."""

    key: int
    value: int | bytes


class Location(Struct, frozen=True, order=True):
    """Where an object stands in its track."""

    group: int
    object: int

    def encode(self, draft: Draft) -> bytes:
        """Return the two integers."""
        return draft.integers.encode(self.group) + draft.integers.encode(self.object)

    @classmethod
    def decode_fields(cls, fields: MessageBody) -> Location:
        """Parse the two integers where they stand in a message."""
        return cls(fields.varint(), fields.varint())


_BYTE_PARAMETERS: Final = frozenset(
    {Parameter.FORWARD, Parameter.SUBSCRIBER_PRIORITY, Parameter.GROUP_ORDER}
)
_NUMBER_PARAMETERS: Final = frozenset({0x02, 0x04, 0x06, 0x08, 0x0A, 0x32})
_LENGTH_PARAMETERS: Final = frozenset(
    {Parameter.AUTHORIZATION_TOKEN, Parameter.SUBSCRIPTION_FILTER}
)


def encode_pairs(pairs: Iterable[Pair], draft: Draft) -> bytes:
    """Return pairs without their number; since 16 in the order of their keys."""
    integers = draft.integers
    encoded = bytearray()
    for pair, key in _keyed(pairs, draft):
        encoded += integers.encode(key)
        if isinstance(pair.value, int):
            encoded += integers.encode(pair.value)
        else:
            encoded += integers.encode(len(pair.value)) + pair.value
    return bytes(encoded)


def encode_counted_pairs(pairs: Sequence[Pair], draft: Draft) -> bytes:
    """Return pairs behind their number."""
    return draft.integers.encode(len(pairs)) + encode_pairs(pairs, draft)


def encode_parameters(pairs: Sequence[Pair], draft: Draft) -> bytes:
    """Return message parameters behind their number."""
    if not draft.request_streams:
        return encode_counted_pairs(pairs, draft)
    integers = draft.integers
    encoded = bytearray(integers.encode(len(pairs)))
    for pair, key in _keyed(pairs, draft):
        encoded += integers.encode(key)
        if isinstance(pair.value, bytes):
            if pair.key in _LENGTH_PARAMETERS:
                encoded += integers.encode(len(pair.value))
            encoded += pair.value
        elif pair.key in _BYTE_PARAMETERS:
            encoded += pair.value.to_bytes(1, "big")
        else:
            encoded += integers.encode(pair.value)
    return bytes(encoded)


def decode_pairs(fields: MessageBody, draft: Draft, count: int | None = None) -> tuple[Pair, ...]:
    """Take so many pairs, or all up to the end of the message."""
    pairs: list[Pair] = []
    previous = 0
    while fields.unread if count is None else len(pairs) < count:
        if len(pairs) >= _MOST:
            raise ProtocolError(f"a message holds over {_MOST} parameters")
        previous = fields.varint() + (previous if draft.delta_keys else 0)
        pairs.append(Pair(previous, fields.octets() if previous & 1 else fields.varint()))
    return tuple(pairs)


def decode_counted_pairs(fields: MessageBody, draft: Draft) -> tuple[Pair, ...]:
    """Take pairs that stand behind their number."""
    return decode_pairs(fields, draft, fields.count())


def decode_parameters(fields: MessageBody, draft: Draft) -> tuple[Pair, ...]:
    """Take message parameters; since 17 raise `ProtocolError` at a key that is not known.

    Its value has a length that only those know who know the key.
    """
    if not draft.request_streams:
        return decode_counted_pairs(fields, draft)
    pairs: list[Pair] = []
    key = 0
    for _ in range(fields.count()):
        key += fields.varint()
        value: int | bytes
        if key in _BYTE_PARAMETERS:
            value = fields.byte()
        elif key in _NUMBER_PARAMETERS:
            value = fields.varint()
        elif key in _LENGTH_PARAMETERS:
            value = fields.octets()
        elif key == Parameter.LARGEST_OBJECT:
            value = Location.decode_fields(fields).encode(draft)
        elif key == Parameter.TRACK_NAMESPACE_PREFIX:
            value = encode_namespace(decode_namespace(fields), draft)
        else:
            raise ProtocolError(f"the message parameter {key:#x} is not known")
        pairs.append(Pair(key, value))
    return tuple(pairs)


def number_of(pairs: Iterable[Pair], key: int) -> int | None:
    """Return the number behind a key; None if there is none."""
    for pair in pairs:
        if pair.key == key and isinstance(pair.value, int):
            return pair.value
    return None


def octets_of(pairs: Iterable[Pair], key: int) -> bytes | None:
    """Return the bytes behind a key; None if there are none."""
    for pair in pairs:
        if pair.key == key and isinstance(pair.value, bytes):
            return pair.value
    return None


def encode_namespace(namespace: Sequence[bytes], draft: Draft) -> bytes:
    """Return a namespace: how many fields it has, and each behind its length."""
    encode = draft.integers.encode
    return encode(len(namespace)) + b"".join(encode(len(part)) + part for part in namespace)


def decode_namespace(fields: MessageBody) -> tuple[bytes, ...]:
    """Take a namespace."""
    return tuple(fields.octets() for _ in range(fields.count()))


def _keyed(pairs: Iterable[Pair], draft: Draft) -> Iterable[tuple[Pair, int]]:
    """Yield each pair and what is written for its key."""
    if not draft.delta_keys:
        for pair in pairs:
            yield pair, pair.key
        return
    previous = 0
    for pair in sorted(pairs, key=lambda pair: pair.key):
        yield pair, pair.key - previous
        previous = pair.key
