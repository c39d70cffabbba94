"""A relay in the hands of a test: feeds a moq-lite session and notes what that sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingest.moq import lite_messages, lite_messages_06
from ingest.moq.events import Event, GroupReceived
from ingest.moq.interface import Limits
from ingest.moq.lite import LiteSession
from ingest.moq.lite_versions import LITE_05, LITE_06, LiteVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

OPENED_AT = 1000


def group_header(version: LiteVersion, subscription: int, sequence: int) -> bytes:
    """Return the beginning of a group's stream, up to its first frame."""
    header: lite_messages.GroupHeader | lite_messages_06.GroupHeader
    if version is LITE_06:
        header = lite_messages_06.GroupHeader(subscription, sequence)
    else:
        header = lite_messages.GroupHeader(subscription, sequence)
    return b"\0" + header.encode()


class Relay:
    """A session and the transport below it: what it sent, and a hand to feed it."""

    def __init__(self, version: LiteVersion = LITE_05, limits: Limits | None = None) -> None:
        self.calls: list[str] = []
        self.now = OPENED_AT
        self._version = version
        self._next_uni = 2
        self._next_bidi = 4
        self._next_relay_uni = 3
        self._next_relay_bidi = 1
        self.session = LiteSession(version, self, limits or Limits())

    # The transport, as the session sees it

    def open_uni(self) -> int:
        self._next_uni += 4
        return self._next_uni - 4

    def open_bidi(self) -> int:
        self._next_bidi += 4
        return self._next_bidi - 4

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.calls.append(f"{stream} {data.hex()}{' end' if end else ''}")

    def reset(self, stream: int, code: int) -> None:
        self.calls.append(f"reset {stream} {code}")

    def stop(self, stream: int, code: int) -> None:
        self.calls.append(f"stop {stream} {code}")

    # The relay's hand

    def data(self, stream: int, data: bytes = b"", *, end: bool = False) -> list[Event]:
        return list(self.session.stream_data(stream, data, self.now, end=end))

    def reset_by_relay(self, stream: int, code: int) -> list[Event]:
        return list(self.session.stream_reset(stream, code, self.now))

    def uni(self, data: bytes, *, end: bool = False) -> tuple[int, list[Event]]:
        self._next_relay_uni += 4
        stream = self._next_relay_uni - 4
        return stream, self.data(stream, data, end=end)

    def bidi(self, data: bytes, *, end: bool = False) -> tuple[int, list[Event]]:
        self._next_relay_bidi += 4
        stream = self._next_relay_bidi - 4
        return stream, self.data(stream, data, end=end)

    def group(
        self, subscription: int, sequence: int, frames: bytes = b"", *, end: bool = False
    ) -> tuple[int, list[Event]]:
        return self.uni(group_header(self._version, subscription, sequence) + frames, end=end)

    def sent(self) -> list[str]:
        """Return what the session did to the transport since last asked."""
        calls, self.calls = self.calls, []
        return calls


def groups(events: Sequence[Event]) -> list[tuple[int, tuple[bytes, ...], str]]:
    """Return sequence, frames and reason of the groups among the events."""
    return [
        (event.sequence, event.frames, event.reason)
        for event in events
        if isinstance(event, GroupReceived)
    ]
