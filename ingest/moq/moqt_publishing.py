"""The messages by which a relay offers a track that nobody has asked for; see `moqt_messages`.

draft-ietf-moq-transport, sections "PUBLISH" and "PUBLISH_OK". Since 17 the answer is REQUEST_OK,
with the same parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ingest.moq.moqt_messages import ASCENDING, FilterKind
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
    octets_of,
)
from ingest.moq.reading import MessageBody
from ingest.moq.writing import byte

if TYPE_CHECKING:
    from ingest.moq.moqt_drafts import Draft


class Publish(Struct, frozen=True):
    """The relay would deliver a track."""

    request: int
    """The relay's own number: an odd one."""
    namespace: tuple[bytes, ...]
    track: bytes
    alias: int
    """What the track is called on streams and in datagrams."""
    largest: Location | None = None
    """The newest object that exists; None if there is none yet."""
    properties: tuple[Pair, ...] = ()
    """Of the track (in 14 the message's parameters)."""

    def encode(self, draft: Draft) -> bytes:
        """Return the body: nothing is sent before it is granted."""
        encode = draft.integers.encode
        head = (
            encode(self.request)
            + encode_namespace(self.namespace, draft)
            + encode(len(self.track))
            + self.track
            + encode(self.alias)
        )
        largest = b"" if self.largest is None else self.largest.encode(draft)
        if draft.typed_replies:
            fixed = byte(ASCENDING) + byte(self.largest is not None) + largest + byte(0)
            return head + fixed + encode_counted_pairs(self.properties, draft)
        parameters = [Pair(Parameter.FORWARD, 0)]
        if largest:
            parameters.append(Pair(Parameter.LARGEST_OBJECT, largest))
        return head + encode_parameters(parameters, draft) + encode_pairs(self.properties, draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> Publish:
        """Parse a body; whether objects are under way already is not read."""
        fields = MessageBody(body, draft.integers)
        request, namespace, track = fields.varint(), decode_namespace(fields), fields.octets()
        alias = fields.varint()
        largest: Location | None = None
        if draft.typed_replies:
            fields.byte()
            if fields.byte():
                largest = Location.decode_fields(fields)
            fields.byte()
            properties = decode_counted_pairs(fields, draft)
            return cls(request, namespace, track, alias, largest, properties)
        octets = octets_of(decode_parameters(fields, draft), Parameter.LARGEST_OBJECT)
        if octets is not None:
            largest = Location.decode_fields(MessageBody(octets, draft.integers))
        return cls(request, namespace, track, alias, largest, decode_pairs(fields, draft))


class PublishOk(Struct, frozen=True):
    """We take the track: all of it that is sent from now on, at once."""

    request: int | None
    priority: int
    """0 to 255, lower first."""

    def encode(self, draft: Draft) -> bytes:
        """Return the body; filter and order are those of `Subscribe`."""
        encode = draft.integers.encode
        wanted = encode(FilterKind.ABSOLUTE_START) + Location(0, 0).encode(draft)
        request = b"" if self.request is None else encode(self.request)
        if draft.typed_replies:
            head = request + byte(1) + byte(self.priority) + byte(ASCENDING)
            return head + wanted + encode(0)
        parameters = (
            Pair(Parameter.FORWARD, 1),
            Pair(Parameter.SUBSCRIBER_PRIORITY, self.priority),
            Pair(Parameter.SUBSCRIPTION_FILTER, wanted),
            Pair(Parameter.GROUP_ORDER, ASCENDING),
        )
        return request + encode_parameters(parameters, draft)
