"""Reading control messages: from a stream that comes in pieces, and from a body that is whole.

`StreamReader` answers None while bytes are missing; `MessageBody` has all bytes that will ever
come, so a missing one is a violation. Neither allocates by a length that the relay declares.
"""

from __future__ import annotations

from typing import NamedTuple

from casfs.errors import ProtocolError
from ingest.moq.integers import QUIC_INTEGERS, Integers


class TypedMessage(NamedTuple):
    """A message whose kind stands before its length."""

    kind: int
    body: bytes


class StreamReader:
    """The unread bytes of one stream, cut into integers and messages.

    Each method takes what it returns, or takes nothing and returns None until more has come.
    Holds at most the last piece and one unfinished message.
    """

    __slots__ = ("_buffer", "_limit", "_offset", "_read")

    def __init__(self, limit: int, integers: Integers = QUIC_INTEGERS) -> None:
        """``limit``: the longest message body that is accepted, bytes."""
        self._limit = limit
        self._read = integers.read
        self._buffer: bytes | bytearray = b""
        self._offset = 0

    @property
    def unread(self) -> int:
        """How many bytes are held that no call has taken."""
        return len(self._buffer) - self._offset

    def append(self, data: bytes) -> None:
        """Add what came next."""
        if self._offset == len(self._buffer):
            # Mostly a piece begins where a message begins: then nothing is copied.
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            del self._buffer[: self._offset]
            self._buffer += data
        else:
            self._buffer = bytearray(memoryview(self._buffer)[self._offset :])
            self._buffer += data
        self._offset = 0

    def varint(self) -> int | None:
        """Take an integer."""
        found = self._read(self._buffer, self._offset)
        if found is None:
            return None
        value, self._offset = found
        return value

    def message(self) -> bytes | None:
        """Take the body of a message that stands behind its length.

        Raise `ProtocolError` as soon as a length over the limit is declared.
        """
        found = self._read(self._buffer, self._offset)
        if found is None:
            return None
        length, start = found
        if length > self._limit:
            raise ProtocolError(
                f"a control message of {length} bytes is over the limit of {self._limit}"
            )
        end = start + length
        if end > len(self._buffer):
            return None
        self._offset = end
        return bytes(self._buffer[start:end])

    def typed_message(self) -> TypedMessage | None:
        """Take a message that stands behind its kind and its length."""
        start = self._offset
        kind = self.varint()
        if kind is None:
            return None
        body = self.message()
        if body is None:
            self._offset = start
            return None
        return TypedMessage(kind, body)

    def sized_message(self) -> TypedMessage | None:
        """Take a message that stands behind its kind and two bytes of length (MoQ transport).

        Raise `ProtocolError` as soon as a length over the limit is declared.
        """
        found = self._read(self._buffer, self._offset)
        if found is None:
            return None
        kind, start = found
        body = start + 2
        if body > len(self._buffer):
            return None
        length = int.from_bytes(self._buffer[start:body], "big")
        if length > self._limit:
            raise ProtocolError(
                f"a control message of {length} bytes is over the limit of {self._limit}"
            )
        end = body + length
        if end > len(self._buffer):
            return None
        self._offset = end
        return TypedMessage(kind, bytes(self._buffer[body:end]))

    def varints(self, count: int) -> tuple[int, ...] | None:
        """Take several integers."""
        start = self._offset
        values = []
        for _ in range(count):
            value = self.varint()
            if value is None:
                self._offset = start
                return None
            values.append(value)
        return tuple(values)

    def rest(self) -> bytes:
        """Take all that is unread."""
        data = bytes(self._buffer[self._offset :])
        self._buffer = b""
        self._offset = 0
        return data


class MessageBody:
    """A cursor over the whole body of one message; a field that is not there is a violation."""

    __slots__ = ("_body", "_offset", "_read")

    def __init__(self, body: bytes, integers: Integers = QUIC_INTEGERS) -> None:
        self._body = body
        self._offset = 0
        self._read = integers.read

    @property
    def unread(self) -> int:
        """How many bytes are left."""
        return len(self._body) - self._offset

    def varint(self) -> int:
        """Take an integer; raise `ProtocolError` when the body ends in it."""
        found = self._read(self._body, self._offset)
        if found is None:
            raise ProtocolError("a control message is shorter than its fields")
        value, self._offset = found
        return value

    def byte(self) -> int:
        """Take one byte as an integer; raise `ProtocolError` when there is none."""
        return self._take(1)[0]

    def octets(self) -> bytes:
        """Take bytes that stand behind their length; raise `ProtocolError` when they are cut."""
        return self._take(self.varint())

    def text(self) -> str:
        """Take UTF-8 text that stands behind its length; raise `ProtocolError` when it is not."""
        try:
            return self.octets().decode()
        except UnicodeDecodeError as error:
            raise ProtocolError("a name in a control message is not UTF-8") from error

    def rest(self) -> bytes:
        """Take all that is left."""
        return self._take(self.unread)

    def count(self) -> int:
        """Take how many entries follow; raise `ProtocolError` when they cannot fit.

        Each entry has at least one byte.
        """
        count = self.varint()
        if count > self.unread:
            raise ProtocolError("a control message is shorter than its fields")
        return count

    def varints(self) -> tuple[int, ...]:
        """Take integers that stand behind their number; raise `ProtocolError` when one lacks."""
        return tuple(self.varint() for _ in range(self.count()))

    def optional(self) -> int | None:
        """Take an integer that may be missing (`ingest.moq.writing.optional`)."""
        value = self.varint()
        return value - 1 if value else None

    def _take(self, length: int) -> bytes:
        end = self._offset + length
        if end > len(self._body):
            raise ProtocolError("a control message is shorter than its fields")
        data = self._body[self._offset : end]
        self._offset = end
        return data
