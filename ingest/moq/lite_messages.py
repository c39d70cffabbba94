"""The control messages of moq-lite 04 and 05 (draft-lcurley-moq-lite), as a subscriber needs them.

06 has most of them too; what it changed is in `ingest.moq.lite_messages_06`.

``encode`` returns the message as it stands on a stream: its length, then its body. ``decode``
takes a body and raises `ProtocolError` when the body is too short or says what cannot be; bytes
behind the known fields are skipped, for a later revision may add fields (except in a GROUP
header, see there). The versions differ in which messages they use: `ingest.moq.lite_versions`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final

from msgspec import Struct

from casfs.errors import ProtocolError
from ingest.moq.reading import MessageBody
from ingest.moq.varint import encode_varint
from ingest.moq.writing import byte, message, octets, optional, text, varints


class BidiStream(IntEnum):
    """What a stream in both directions is about: its first integer."""

    ANNOUNCE = 1
    SUBSCRIBE = 2
    FETCH = 3
    PROBE = 4
    GOAWAY = 5
    TRACK = 6
    """Since 05."""


class UniStream(IntEnum):
    """What a stream in one direction is about: its first integer."""

    GROUP = 0
    SETUP = 1
    """Since 05."""


class Role(IntEnum):
    """What an endpoint does in a session (SETUP parameter 3)."""

    SUBSCRIBER = 2


class SetupParameter(Struct, frozen=True):
    """One parameter of SETUP, its value not interpreted."""

    identifier: int
    value: bytes


class Setup(Struct, frozen=True):
    """What an endpoint says of itself (05). Neither side waits for the other's."""

    parameters: tuple[SetupParameter, ...] = ()

    @classmethod
    def of_role(cls, role: Role) -> Setup:
        """Return a SETUP that tells ``role`` and nothing else."""
        return cls((SetupParameter(_SETUP_ROLE, encode_varint(role)),))

    def with_path(self, path: str) -> Setup:
        """Return it with the path that is asked for: on raw QUIC alone."""
        parameter = SetupParameter(_SETUP_PATH, path.encode())
        return Setup((parameter, *self.parameters))

    def encode(self) -> bytes:
        """Return the message."""
        fields = [encode_varint(len(self.parameters))]
        for parameter in self.parameters:
            fields += (encode_varint(parameter.identifier), octets(parameter.value))
        return message(*fields)

    @classmethod
    def decode(cls, body: bytes) -> Setup:
        """Parse a body."""
        fields = MessageBody(body)
        count = fields.count()
        return cls(tuple(SetupParameter(fields.varint(), fields.octets()) for _ in range(count)))


_SETUP_PATH: Final = 2
_SETUP_ROLE: Final = 3


class AnnounceRequest(Struct, frozen=True):
    """Ask for the broadcasts below a prefix."""

    prefix: str
    exclude_hop: int = 0
    """Leave out what came by way of this hop; 0: nothing."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(text(self.prefix), encode_varint(self.exclude_hop))

    @classmethod
    def decode(cls, body: bytes) -> AnnounceRequest:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.text(), fields.varint())


class AnnounceOk(Struct, frozen=True):
    """The first reply to an announce request (05)."""

    hop: int
    """The relay's own id."""
    active: int
    """How many broadcasts are there already; their announcements follow."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(encode_varint(self.hop), encode_varint(self.active))

    @classmethod
    def decode(cls, body: bytes) -> AnnounceOk:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.varint(), fields.varint())


class Announcement(Struct, frozen=True):
    """A broadcast below the prefix has come, has been replaced, or has gone."""

    active: bool
    suffix: bytes
    """What follows the prefix, as it was sent: neither its length nor its encoding is checked,
    for a bad name is its publisher's doing and must not cost us the relay's other names."""
    hops: tuple[int, ...] = ()
    """Ids of the relays between us and the publisher."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(
            encode_varint(int(self.active)),
            octets(self.suffix),
            varints(self.hops),
        )

    @classmethod
    def decode(cls, body: bytes) -> Announcement:
        """Parse a body."""
        fields = MessageBody(body)
        status = fields.byte()
        if status > 1:
            raise ProtocolError(f"an announcement has the unknown status {status}")
        suffix = fields.octets()
        hops = fields.varints()
        return cls(active=status == 1, suffix=suffix, hops=hops)


class TrackRequest(Struct, frozen=True):
    """Ask what a track is like, without subscribing (05)."""

    broadcast: str
    track: str

    def encode(self) -> bytes:
        """Return the message."""
        return message(text(self.broadcast), text(self.track))

    @classmethod
    def decode(cls, body: bytes) -> TrackRequest:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.text(), fields.text())


class TrackInfo(Struct, frozen=True):
    """What a track is like (05)."""

    priority: int
    ordered: int
    max_latency: int
    """How long the publisher keeps groups, milliseconds."""
    timescale: int
    """Units a second of the frame timestamps."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(
            byte(self.priority),
            byte(self.ordered),
            encode_varint(self.max_latency),
            encode_varint(self.timescale),
        )

    @classmethod
    def decode(cls, body: bytes) -> TrackInfo:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.byte(), fields.byte(), fields.varint(), fields.varint())


class Delivery(Struct, frozen=True):
    """How a subscription wants its groups; alone on the stream it is SUBSCRIBE_UPDATE."""

    priority: int
    """0 to 255, higher first."""
    ordered: int
    """1: older groups first. Relays of today ignore it and send the newest first."""
    max_latency: int
    """How old a group may be and still be sent, milliseconds; 0: the newest group alone."""
    start: int | None = None
    """The first group; None: the latest."""
    end: int | None = None
    """The last group, inclusive; None: open."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(self.encode_fields())

    def encode_fields(self) -> bytes:
        """Return the fields without a length, as the end of SUBSCRIBE and as SUBSCRIBE_OK of 04."""
        return b"".join(
            (
                byte(self.priority),
                byte(self.ordered),
                encode_varint(self.max_latency),
                optional(self.start),
                optional(self.end),
            )
        )

    @classmethod
    def decode(cls, body: bytes) -> Delivery:
        """Parse a body."""
        return cls.decode_fields(MessageBody(body))

    @classmethod
    def decode_fields(cls, fields: MessageBody) -> Delivery:
        """Parse the fields where they stand in another message."""
        return cls(
            fields.byte(),
            fields.byte(),
            fields.varint(),
            fields.optional(),
            fields.optional(),
        )


class Subscribe(Struct, frozen=True):
    """Ask for a track's groups, those that are kept and those to come."""

    subscription: int
    """Our number for it, unique in the session; each GROUP header repeats it."""
    broadcast: str
    track: str
    delivery: Delivery

    def encode(self) -> bytes:
        """Return the message."""
        return message(
            encode_varint(self.subscription),
            text(self.broadcast),
            text(self.track),
            self.delivery.encode_fields(),
        )

    @classmethod
    def decode(cls, body: bytes) -> Subscribe:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.varint(), fields.text(), fields.text(), Delivery.decode_fields(fields))


class SubscribeOk(Struct, frozen=True):
    """The relay delivers (04)."""

    delivery: Delivery

    def encode_body(self) -> bytes:
        """Return the body."""
        return self.delivery.encode_fields()

    @classmethod
    def decode(cls, body: bytes) -> SubscribeOk:
        """Parse a body."""
        return cls(Delivery.decode(body))


class SubscribeStart(Struct, frozen=True):
    """The relay delivers, beginning with this group (05)."""

    first: int

    def encode_body(self) -> bytes:
        """Return the body."""
        return encode_varint(self.first)

    @classmethod
    def decode(cls, body: bytes) -> SubscribeStart:
        """Parse a body."""
        return cls(MessageBody(body).varint())


class SubscribeEnd(Struct, frozen=True):
    """The track has an end (05)."""

    end: int
    """The number behind the last group."""

    def encode_body(self) -> bytes:
        """Return the body."""
        return encode_varint(self.end)

    @classmethod
    def decode(cls, body: bytes) -> SubscribeEnd:
        """Parse a body."""
        return cls(MessageBody(body).varint())


class SubscribeDrop(Struct, frozen=True):
    """Groups that will not be delivered."""

    first: int
    last: int
    """Inclusive."""
    code: int

    def encode_body(self) -> bytes:
        """Return the body."""
        return encode_varint(self.first) + encode_varint(self.last) + encode_varint(self.code)

    @classmethod
    def decode(cls, body: bytes) -> SubscribeDrop:
        """Parse a body."""
        fields = MessageBody(body)
        drop = cls(fields.varint(), fields.varint(), fields.varint())
        if drop.last < drop.first:
            raise ProtocolError(f"groups {drop.first} to {drop.last} dropped: not a range")
        return drop


SubscribeReply = SubscribeOk | SubscribeStart | SubscribeEnd | SubscribeDrop


def encode_reply(kind: int, reply: SubscribeReply) -> bytes:
    """Return a reply on a subscribe stream: its kind, its length, its body."""
    return encode_varint(kind) + message(reply.encode_body())


class Fetch(Struct, frozen=True):
    """Ask for one whole group; bare frames answer on the same stream (05)."""

    broadcast: str
    track: str
    priority: int
    sequence: int

    def encode(self) -> bytes:
        """Return the message."""
        return message(
            text(self.broadcast),
            text(self.track),
            byte(self.priority),
            encode_varint(self.sequence),
        )

    @classmethod
    def decode(cls, body: bytes) -> Fetch:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.text(), fields.text(), fields.byte(), fields.varint())


class GroupHeader(Struct, frozen=True):
    """What stands before the frames of a group."""

    first_frame: ClassVar[int] = 0
    """The number of the first frame that follows; 06 says it."""

    subscription: int
    sequence: int
    unknown: int = 0
    """Bytes behind the known fields. Here they are a violation: a field that we do not know may
    say that the frames are not what they seem (06 puts the number of the first frame there)."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(encode_varint(self.subscription), encode_varint(self.sequence))

    @classmethod
    def decode(cls, body: bytes) -> GroupHeader:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.varint(), fields.varint(), fields.unread)


class Datagram(Struct, frozen=True):
    """A group of one frame, small enough for one datagram (05)."""

    subscription: int
    sequence: int
    timestamp: int
    """Absolute, in units of the track's timescale."""
    payload: bytes

    def encode(self) -> bytes:
        """Return the datagram."""
        fields = (self.subscription, self.sequence, self.timestamp)
        return b"".join(map(encode_varint, fields)) + self.payload

    @classmethod
    def decode(cls, data: bytes) -> Datagram:
        """Parse a datagram."""
        fields = MessageBody(data)
        return cls(fields.varint(), fields.varint(), fields.varint(), fields.rest())


class Goaway(Struct, frozen=True):
    """The relay asks us to leave."""

    uri: str
    """Where to go; empty: the same place."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(text(self.uri))

    @classmethod
    def decode(cls, body: bytes) -> Goaway:
        """Parse a body."""
        return cls(MessageBody(body).text())
