"""The messages of MoQ transport that concern namespaces and the session; see `moqt_messages`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ingest.moq.moqt_parameters import decode_namespace, encode_namespace, encode_parameters
from ingest.moq.reading import MessageBody

if TYPE_CHECKING:
    from ingest.moq.moqt_drafts import Draft

_NAMESPACES: Final = 1
"""SUBSCRIBE_NAMESPACE of 16 alone: tell namespaces, do not push tracks."""


class SubscribeNamespace(Struct, frozen=True):
    """Ask for the namespaces below a prefix, now and as they change."""

    request: int
    prefix: tuple[bytes, ...]

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        encode = draft.integers.encode
        options = b""
        if draft.namespace_streams and not draft.request_streams:
            options = encode(_NAMESPACES)
        head = encode(self.request) + encode_namespace(self.prefix, draft)
        return head + options + encode_parameters((), draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> SubscribeNamespace:
        """Parse a body as far as we need it."""
        fields = MessageBody(body, draft.integers)
        return cls(fields.varint(), decode_namespace(fields))


class Namespace(Struct, frozen=True):
    """A namespace is there, or is there no more: NAMESPACE and NAMESPACE_DONE (since 16)."""

    suffix: tuple[bytes, ...]
    """Behind the prefix that was asked for."""

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        return encode_namespace(self.suffix, draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> Namespace:
        """Parse a body."""
        return cls(decode_namespace(MessageBody(body, draft.integers)))


class PublishNamespace(Struct, frozen=True):
    """The relay has a namespace: how draft 14 answers, and what relays tell unasked."""

    request: int
    namespace: tuple[bytes, ...]

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        head = draft.integers.encode(self.request) + encode_namespace(self.namespace, draft)
        return head + encode_parameters((), draft)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> PublishNamespace:
        """Parse a body; of its parameters nothing is needed."""
        fields = MessageBody(body, draft.integers)
        return cls(fields.varint(), decode_namespace(fields))


class PublishNamespaceDone(Struct, frozen=True):
    """The namespace is there no more (up to 16; since 17 its stream ends instead)."""

    namespace: tuple[bytes, ...] | None
    """14 names it, ..."""
    request: int | None
    """... 16 names the request that told of it."""

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        if draft.typed_replies:
            return encode_namespace(self.namespace or (), draft)
        return draft.integers.encode(self.request or 0)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> PublishNamespaceDone:
        """Parse a body."""
        fields = MessageBody(body, draft.integers)
        if draft.typed_replies:
            return cls(decode_namespace(fields), None)
        return cls(None, fields.varint())


class RequestNumber(Struct, frozen=True):
    """A message that is one request's number: UNSUBSCRIBE, FETCH_CANCEL, MAX_REQUEST_ID.

    Also the beginning of PUBLISH, of which we need no more to turn it down.
    """

    request: int

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        return draft.integers.encode(self.request)

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> RequestNumber:
        """Parse the first field of a body."""
        return cls(MessageBody(body, draft.integers).varint())


class Goaway(Struct, frozen=True):
    """The relay asks us to leave."""

    uri: str
    timeout: int | None = None
    """Milliseconds until it ends the session (since 17)."""

    def encode(self, draft: Draft) -> bytes:
        """Return the body."""
        encode = draft.integers.encode
        uri = self.uri.encode()
        timeout = encode(self.timeout or 0) if draft.request_streams else b""
        return encode(len(uri)) + uri + timeout

    @classmethod
    def decode(cls, body: bytes, draft: Draft) -> Goaway:
        """Parse a body; a request that alone is meant (18) is not read."""
        fields = MessageBody(body, draft.integers)
        uri = fields.text()
        return cls(uri, fields.varint() if draft.request_streams and fields.unread else None)
