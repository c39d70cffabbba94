"""The control messages of MoQ transport (draft-ietf-moq-transport, section "Control Messages").

Each class is one message in all three drafts; ``encode`` returns its body and ``decode`` parses it,
both told the draft. On a stream a body stands behind its kind and two bytes of length (`frame`).
``request`` is None in replies of the drafts whose replies name no request
(`Draft.request_streams`). What is malformed raises `ProtocolError`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.errors import ProtocolError
from ingest.moq.moqt_parameters import (
    Location,
    Pair,
    Parameter,
    decode_counted_pairs,
    decode_namespace,
    decode_pairs,
    decode_parameters,
    encode_counted_pairs,
    encode_namespace,
    encode_pairs,
    encode_parameters,
    number_of,
    octets_of,
)
from ingest.moq.reading import MessageBody
from ingest.moq.writing import byte

if TYPE_CHECKING:
    from ingest.moq.moqt_drafts import Draft


class Kind(IntEnum):
    """What a message is. Some numbers changed their meaning with the drafts."""

    SUBSCRIBE = 0x03
    SUBSCRIBE_OK = 0x04
    REQUEST_ERROR = 0x05
    """14: SUBSCRIBE_ERROR."""
    PUBLISH_NAMESPACE = 0x06
    REQUEST_OK = 0x07
    """14: PUBLISH_NAMESPACE_OK."""
    NAMESPACE = 0x08
    """14: PUBLISH_NAMESPACE_ERROR."""
    PUBLISH_NAMESPACE_DONE = 0x09
    UNSUBSCRIBE = 0x0A
    PUBLISH_DONE = 0x0B
    NAMESPACE_DONE = 0x0E
    GOAWAY = 0x10
    SUBSCRIBE_NAMESPACE = 0x11
    SUBSCRIBE_NAMESPACE_OK = 0x12
    SUBSCRIBE_NAMESPACE_ERROR = 0x13
    MAX_REQUEST_ID = 0x15
    FETCH = 0x16
    FETCH_CANCEL = 0x17
    FETCH_OK = 0x18
    FETCH_ERROR = 0x19
    PUBLISH = 0x1D
    PUBLISH_OK = 0x1E
    PUBLISH_ERROR = 0x1F
    CLIENT_SETUP = 0x20
    SERVER_SETUP = 0x21
    SUBSCRIBE_NAMESPACE_18 = 0x50
    SUBSCRIBE_TRACKS = 0x51
    SETUP = 0x2F00


class FilterKind(IntEnum):
    """Where a subscription begins."""

    NEXT_GROUP_START = 1
    LARGEST_OBJECT = 2
    ABSOLUTE_START = 3
    ABSOLUTE_RANGE = 4


ASCENDING: Final = 1
_STANDALONE: Final = 1
_LONGEST: Final = 0xFFFF


def frame(kind: int, body: bytes, draft: Draft) -> bytes:
    """Return a message as it stands on a stream; raise `ProtocolError` for one that is too long."""
    if len(body) > _LONGEST:
        raise ProtocolError(f"a control message of {len(body)} bytes cannot be sent")
    return draft.integers.encode(kind) + len(body).to_bytes(2, "big") + body


class ClientSetup(Struct, frozen=True):
    """What we say first. CLIENT_SETUP up to 16, SETUP since."""

    parameters: tuple[Pair, ...] = ()

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        if draft.request_streams:
            return encode_pairs(self.parameters, draft)
        encode = draft.integers.encode
        versions = encode(1) + encode(draft.version) if draft.typed_replies else b""
        return versions + encode_counted_pairs(self.parameters, draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> ClientSetup:
        """Parse a body."""
        fields = MessageBody(body, draft.integers)
        if draft.request_streams:
            return cls(decode_pairs(fields, draft))
        if draft.typed_replies:
            fields.varints()
        return cls(decode_counted_pairs(fields, draft))


class ServerSetup(Struct, frozen=True):
    """What the relay says first. SERVER_SETUP up to 16, SETUP since."""

    version: int | None = None
    """The draft that the relay has chosen (14)."""
    parameters: tuple[Pair, ...] = ()

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        if draft.request_streams:
            return encode_pairs(self.parameters, draft)
        version = draft.integers.encode(self.version or 0) if draft.typed_replies else b""
        return version + encode_counted_pairs(self.parameters, draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> ServerSetup:
        """Parse a body."""
        fields = MessageBody(body, draft.integers)
        if draft.request_streams:
            return cls(None, decode_pairs(fields, draft))
        version = fields.varint() if draft.typed_replies else None
        return cls(version, decode_counted_pairs(fields, draft))


class Subscribe(Struct, frozen=True):
    """Ask for what a track brings."""

    request: int
    namespace: tuple[bytes, ...]
    track: bytes
    priority: int
    """0 to 255, lower first."""
    filter: FilterKind = FilterKind.ABSOLUTE_START
    start: Location | None = Location(0, 0)
    """Where an absolute filter begins."""

    def encode(self, draft: Draft) -> bytes:
        """Return the body; oldest groups first, objects forwarded at once."""
        encode = draft.integers.encode
        wanted = encode(self.filter) + (b"" if self.start is None else self.start.encode(draft))
        head = (
            encode(self.request)
            + encode_namespace(self.namespace, draft)
            + encode(len(self.track))
            + self.track
        )
        if draft.typed_replies:
            return head + byte(self.priority) + byte(ASCENDING) + byte(1) + wanted + encode(0)
        parameters = (
            Pair(Parameter.FORWARD, 1),
            Pair(Parameter.SUBSCRIBER_PRIORITY, self.priority),
            Pair(Parameter.SUBSCRIPTION_FILTER, wanted),
            Pair(Parameter.GROUP_ORDER, ASCENDING),
        )
        return head + encode_parameters(parameters, draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> Subscribe:
        """Parse a body as we write it."""
        fields = MessageBody(body, draft.integers)
        request, namespace, track = fields.varint(), decode_namespace(fields), fields.octets()
        if draft.typed_replies:
            priority = fields.byte()
            fields.byte()
            fields.byte()
            wanted = fields
        else:
            parameters = decode_parameters(fields, draft)
            priority = number_of(parameters, Parameter.SUBSCRIBER_PRIORITY) or 0
            octets = octets_of(parameters, Parameter.SUBSCRIPTION_FILTER)
            wanted = MessageBody(octets or b"", draft.integers)
        try:
            kind = FilterKind(wanted.varint())
        except ValueError as error:
            raise ProtocolError("a subscription has an unknown filter") from error
        absolute = kind is FilterKind.ABSOLUTE_START
        start = Location.decode_fields(wanted) if absolute else None
        return cls(request, namespace, track, priority, kind, start)


class SubscribeOk(Struct, frozen=True):
    """The relay delivers."""

    request: int | None
    alias: int
    """What the track is called on streams and in datagrams."""
    largest: Location | None = None
    """The newest object that exists; None if there is none yet."""
    properties: tuple[Pair, ...] = ()
    """Of the track (in 14 the message's parameters, where moq-dev puts the same)."""

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        encode = draft.integers.encode
        request = b"" if self.request is None else encode(self.request)
        head = request + encode(self.alias)
        largest = b"" if self.largest is None else self.largest.encode(draft)
        if draft.typed_replies:
            exists = byte(self.largest is not None)
            fixed = encode(0) + byte(ASCENDING) + exists + largest
            return head + fixed + encode_counted_pairs(self.properties, draft)
        parameters = (Pair(Parameter.LARGEST_OBJECT, largest),) if largest else ()
        return head + encode_parameters(parameters, draft) + encode_pairs(self.properties, draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> SubscribeOk:
        """Parse a body."""
        fields = MessageBody(body, draft.integers)
        request = None if draft.request_streams else fields.varint()
        alias = fields.varint()
        largest: Location | None = None
        if draft.typed_replies:
            fields.varint()
            fields.byte()
            if fields.byte():
                largest = Location.decode_fields(fields)
            return cls(request, alias, largest, decode_counted_pairs(fields, draft))
        octets = octets_of(decode_parameters(fields, draft), Parameter.LARGEST_OBJECT)
        if octets is not None:
            largest = Location.decode_fields(MessageBody(octets, draft.integers))
        return cls(request, alias, largest, decode_pairs(fields, draft))


class RequestOk(Struct, frozen=True):
    """A request is granted that needs no more of an answer; also what we answer."""

    request: int | None

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        request = b"" if self.request is None else draft.integers.encode(self.request)
        return request if draft.typed_replies else request + encode_parameters((), draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> RequestOk:
        """Parse a body as far as we need it."""
        return cls(None if draft.request_streams else MessageBody(body, draft.integers).varint())


class RequestError(Struct, frozen=True):
    """A request is refused; also what we answer."""

    request: int | None
    code: int
    reason: str = ""
    retry: int = 0
    """Milliseconds until it may be tried again, plus one; 0: never (since 15)."""

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        encode = draft.integers.encode
        request = b"" if self.request is None else encode(self.request)
        retry = b"" if draft.typed_replies else encode(self.retry)
        reason = self.reason.encode()
        return request + encode(self.code) + retry + encode(len(reason)) + reason

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> RequestError:
        """Parse a body; where else to try is not read."""
        fields = MessageBody(body, draft.integers)
        request = None if draft.request_streams else fields.varint()
        code = fields.varint()
        retry = 0 if draft.typed_replies else fields.varint()
        return cls(request, code, fields.octets().decode("utf-8", "replace"), retry)


class PublishDone(Struct, frozen=True):
    """A subscription is over."""

    request: int | None
    status: int
    streams: int
    """How many streams were opened for it."""
    reason: str = ""

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        encode = draft.integers.encode
        request = b"" if self.request is None else encode(self.request)
        reason = self.reason.encode()
        head = request + encode(self.status) + encode(self.streams)
        return head + encode(len(reason)) + reason

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> PublishDone:
        """Parse a body."""
        fields = MessageBody(body, draft.integers)
        request = None if draft.request_streams else fields.varint()
        status, streams = fields.varint(), fields.varint()
        return cls(request, status, streams, fields.octets().decode("utf-8", "replace"))


class Fetch(Struct, frozen=True):
    """Ask for objects that exist (a standalone FETCH)."""

    request: int
    namespace: tuple[bytes, ...]
    track: bytes
    priority: int
    start: Location
    end: Location
    """Its object is one more than the last; 0: all of that group."""

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        encode = draft.integers.encode
        wanted = (
            encode(_STANDALONE)
            + encode_namespace(self.namespace, draft)
            + encode(len(self.track))
            + self.track
            + self.start.encode(draft)
            + self.end.encode(draft)
        )
        request = encode(self.request)
        if draft.typed_replies:
            return request + byte(self.priority) + byte(ASCENDING) + wanted + encode(0)
        parameters = (
            Pair(Parameter.SUBSCRIBER_PRIORITY, self.priority),
            Pair(Parameter.GROUP_ORDER, ASCENDING),
        )
        return request + wanted + encode_parameters(parameters, draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> Fetch:
        """Parse a body as we write it."""
        fields = MessageBody(body, draft.integers)
        request = fields.varint()
        priority = fields.byte() if draft.typed_replies else 0
        if draft.typed_replies:
            fields.byte()
        fields.varint()
        namespace, track = decode_namespace(fields), fields.octets()
        start, end = Location.decode_fields(fields), Location.decode_fields(fields)
        if not draft.typed_replies:
            parameters = decode_parameters(fields, draft)
            priority = number_of(parameters, Parameter.SUBSCRIBER_PRIORITY) or 0
        return cls(request, namespace, track, priority, start, end)


class FetchOk(Struct, frozen=True):
    """The objects come, on a stream of their own."""

    request: int | None
    end_of_track: bool
    end: Location
    """How far the answer goes, as in FETCH."""

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        encode = draft.integers.encode
        request = b"" if self.request is None else encode(self.request)
        order = byte(ASCENDING) if draft.typed_replies else b""
        head = request + order + byte(self.end_of_track) + self.end.encode(draft)
        return head + encode_parameters((), draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> FetchOk:
        """Parse a body; of parameters and properties nothing is needed."""
        fields = MessageBody(body, draft.integers)
        request = None if draft.request_streams else fields.varint()
        if draft.typed_replies:
            fields.byte()
        return cls(request, bool(fields.byte()), Location.decode_fields(fields))
