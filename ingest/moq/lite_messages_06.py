"""The messages of moq-lite 06 that are not those of 05 (`ingest.moq.lite_messages`).

They have the same names and the same rules of ``encode`` and ``decode``. What is new: an
announcement has a number, by which it is updated and ended; ``ordered`` is gone; subscriptions and
fetches may ask for a part of the frames of a group, and a group says with which frame it begins.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from msgspec import Struct

from ingest.moq.reading import MessageBody
from ingest.moq.varint import encode_varint
from ingest.moq.writing import byte, message, octets, optional, text, varints


class AnnounceRequest(Struct, frozen=True):
    """Ask for the broadcasts below a prefix."""

    prefix: str

    def encode(self) -> bytes:
        """Return the message."""
        return message(text(self.prefix))

    @classmethod
    def decode(cls, body: bytes) -> AnnounceRequest:
        """Parse a body."""
        return cls(MessageBody(body).text())


class AnnounceKind(IntEnum):
    """What an announcement says; stands before its length."""

    START = 0
    END = 1
    UPDATE = 2


class Route(Struct, frozen=True):
    """The way to a broadcast."""

    hops: tuple[int, ...] = ()
    """Ids of the relays between us and the publisher, the publisher's own first; 0 is nobody's."""
    cost: int = 0
    """The lower the better."""
    cold_cost: int | None = None
    """The cost while nobody has asked for the broadcast. Some relays leave it out."""

    def encode_fields(self) -> bytes:
        """Return the fields, as the end of an announcement."""
        cold = b"" if self.cold_cost is None else encode_varint(self.cold_cost)
        return varints(self.hops) + encode_varint(self.cost) + cold

    @classmethod
    def decode_fields(cls, fields: MessageBody) -> Route:
        """Parse the fields where they stand in another message."""
        return cls(fields.varints(), fields.varint(), fields.varint() if fields.unread else None)


class AnnounceStart(Struct, frozen=True):
    """A broadcast has come. Its number on this stream is how many have come before."""

    suffix: bytes
    """What follows the prefix, as it was sent (`ingest.moq.lite_messages.Announcement`)."""
    route: Route = Route()

    def encode_body(self) -> bytes:
        """Return the body."""
        return octets(self.suffix) + self.route.encode_fields()

    @classmethod
    def decode(cls, body: bytes) -> AnnounceStart:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.octets(), Route.decode_fields(fields))


class AnnounceEnd(Struct, frozen=True):
    """A broadcast has gone."""

    number: int

    def encode_body(self) -> bytes:
        """Return the body."""
        return encode_varint(self.number)

    @classmethod
    def decode(cls, body: bytes) -> AnnounceEnd:
        """Parse a body."""
        return cls(MessageBody(body).varint())


class AnnounceUpdate(Struct, frozen=True):
    """There is another way to a broadcast, or another publisher of it."""

    number: int
    route: Route = Route()

    def encode_body(self) -> bytes:
        """Return the body."""
        return encode_varint(self.number) + self.route.encode_fields()

    @classmethod
    def decode(cls, body: bytes) -> AnnounceUpdate:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.varint(), Route.decode_fields(fields))


Announcement = AnnounceStart | AnnounceEnd | AnnounceUpdate

_KINDS: Final = {
    AnnounceStart: AnnounceKind.START,
    AnnounceEnd: AnnounceKind.END,
    AnnounceUpdate: AnnounceKind.UPDATE,
}


def encode_announcement(announcement: Announcement) -> bytes:
    """Return an announcement: its kind, its length, its body."""
    kind = _KINDS[type(announcement)]
    return encode_varint(kind) + message(announcement.encode_body())


class TrackInfo(Struct, frozen=True):
    """What a track is like."""

    priority: int
    max_age: int
    """How long the publisher keeps groups, milliseconds."""
    timescale: int
    """Units a second of the frame timestamps."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(
            byte(self.priority), encode_varint(self.max_age), encode_varint(self.timescale)
        )

    @classmethod
    def decode(cls, body: bytes) -> TrackInfo:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.byte(), fields.varint(), fields.varint())


class Delivery(Struct, frozen=True):
    """How a subscription wants its groups; alone on the stream it is SUBSCRIBE_UPDATE."""

    priority: int
    """0 to 255, higher first."""
    max_age: int
    """How old a group may be and still be sent, milliseconds; 0: the newest group alone."""
    start: int = 0
    """No group before this one."""
    end: int | None = None
    """The last group, inclusive; None: open."""
    first_frame: int = 0
    """The first frame of the first group."""
    last_frame: int | None = None
    """The last frame of the last group, inclusive; None: all."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(self.encode_fields())

    def encode_fields(self) -> bytes:
        """Return the fields without a length, as the end of SUBSCRIBE."""
        return b"".join(
            (
                byte(self.priority),
                encode_varint(self.max_age),
                encode_varint(self.start),
                optional(self.end),
                encode_varint(self.first_frame),
                optional(self.last_frame),
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
            fields.varint(),
            fields.varint(),
            fields.optional(),
            fields.varint(),
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


class Fetch(Struct, frozen=True):
    """Ask for one group or some of its frames; bare frames answer on the same stream."""

    broadcast: str
    track: str
    priority: int
    sequence: int
    first_frame: int = 0
    last_frame: int | None = None
    """Inclusive; None: to the end."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(
            text(self.broadcast),
            text(self.track),
            byte(self.priority),
            encode_varint(self.sequence),
            encode_varint(self.first_frame),
            optional(self.last_frame),
        )

    @classmethod
    def decode(cls, body: bytes) -> Fetch:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(
            fields.text(),
            fields.text(),
            fields.byte(),
            fields.varint(),
            fields.varint(),
            fields.optional(),
        )


class GroupHeader(Struct, frozen=True):
    """What stands before the frames of a group."""

    subscription: int
    sequence: int
    first_frame: int = 0
    """The number of the first frame that follows."""
    unknown: int = 0
    """Bytes behind the known fields: a violation (`ingest.moq.lite_messages.GroupHeader`)."""

    def encode(self) -> bytes:
        """Return the message."""
        return message(*map(encode_varint, (self.subscription, self.sequence, self.first_frame)))

    @classmethod
    def decode(cls, body: bytes) -> GroupHeader:
        """Parse a body."""
        fields = MessageBody(body)
        return cls(fields.varint(), fields.varint(), fields.varint(), fields.unread)
