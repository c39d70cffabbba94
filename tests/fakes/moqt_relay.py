"""A relay in the hands of a test: feeds a session of MoQ transport and notes what that sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingest.moq.interface import Limits
from ingest.moq.moqt import MoqtSession
from ingest.moq.moqt_messages import Kind, ServerSetup, SubscribeOk, frame
from ingest.moq.moqt_parameters import Location, Pair, SetupOption
from ingest.moq.moqt_publishing import Publish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.moq.events import Event
    from ingest.moq.moqt_drafts import Draft

NOW = 10**18


class MoqtRelay:
    """A session and the transport below it, SETUP done."""

    def __init__(self, draft: Draft, limits: Limits | None = None) -> None:
        self.draft = draft
        self.calls: list[str] = []
        self.now = NOW
        self._next_uni = 2
        self._next_bidi = 4
        self._relay_uni = 3
        self._relay_bidi = 1
        self._relay_request = 1
        self._ended: set[int] = set()
        self.session = MoqtSession(draft, self, limits or Limits())
        self.session.start()
        self.control = self._next_bidi - 4
        """Where the relay's control messages come."""
        options = (Pair(SetupOption.MAX_REQUEST_ID, 10_000),)
        if draft.request_streams:
            self.control = self.new_uni()
            self.message(Kind.SETUP, ServerSetup(None, ()).encode(draft))
        else:
            setup = ServerSetup(draft.version if draft.typed_replies else None, options)
            self.message(Kind.SERVER_SETUP, setup.encode(draft))
        self.calls.clear()

    # The transport, as the session sees it

    def open_uni(self) -> int:
        self._next_uni += 4
        return self._next_uni - 4

    def open_bidi(self) -> int:
        self._next_bidi += 4
        return self._next_bidi - 4

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        assert stream not in self._ended
        assert data or end
        if end:
            self._ended.add(stream)
        self.calls.append(f"{stream} {data.hex()}{' end' if end else ''}")

    def reset(self, stream: int, code: int) -> None:
        assert stream not in self._ended
        self._ended.add(stream)
        self.calls.append(f"reset {stream} {code}")

    def stop(self, stream: int, code: int) -> None:
        self.calls.append(f"stop {stream} {code}")

    # The relay's hand

    def reset_by_relay(self, stream: int, code: int) -> list[Event]:
        return list(self.session.stream_reset(stream, code, self.now))

    def data(self, stream: int, data: bytes = b"", *, end: bool = False) -> list[Event]:
        return list(self.session.stream_data(stream, data, self.now, end=end))

    def new_uni(self) -> int:
        self._relay_uni += 4
        return self._relay_uni - 4

    def uni(self, data: bytes, *, end: bool = False) -> list[Event]:
        return self.data(self.new_uni(), data, end=end)

    def message(self, kind: int, body: bytes, stream: int | None = None) -> list[Event]:
        """Say something: on the control stream, or on another."""
        number = self.control if stream is None else stream
        return self.data(number, frame(kind, body, self.draft))

    def reply(self, request: int, stream: int, kind: int, body: bytes) -> list[Event]:
        """Answer the request of that number, which since 17 was asked on that stream."""
        number = b"" if self.draft.request_streams else self.draft.integers.encode(request)
        return self.message(kind, number + body, stream if self.draft.request_streams else None)

    def accepted(
        self, broadcast: str, track: str, alias: int, largest: Location | None = None
    ) -> int:
        """Have a session subscribe, and accept that as its first request."""
        stream = self._next_bidi
        number = self.session.subscribe(broadcast, track, priority=55, max_latency=0)
        self.accept(number, stream, alias, largest)
        return number

    def accept(
        self, request: int, stream: int, alias: int, largest: Location | None = None
    ) -> list[Event]:
        """Accept a subscription."""
        number = None if self.draft.request_streams else request
        answer = SubscribeOk(number, alias, largest).encode(self.draft)
        target = stream if self.draft.request_streams else None
        return self.message(Kind.SUBSCRIBE_OK, answer, target)

    def offer(
        self, broadcast: str, track: str, alias: int, largest: Location | None = None
    ) -> tuple[int, list[Event]]:
        """Offer a track (PUBLISH); return the stream that the request is on, and the events."""
        stream = self.control
        if self.draft.request_streams:
            stream, self._relay_bidi = self._relay_bidi, self._relay_bidi + 4
        namespace = tuple(broadcast.encode().split(b"/"))
        publish = Publish(self._relay_request, namespace, track.encode(), alias, largest)
        self._relay_request += 2
        return stream, self.message(Kind.PUBLISH, publish.encode(self.draft), stream)

    def subgroup(
        self,
        alias: int,
        group: int,
        numbers: Sequence[int],
        objects: Sequence[bytes],
        *,
        end_of_group: bool = False,
    ) -> bytes:
        """Return a subgroup stream: these objects by their numbers."""
        encode = self.draft.integers.encode
        data = encode(0x18 if end_of_group else 0x10) + encode(alias) + encode(group) + b"\x80"
        before = -1
        for number in numbers:
            data += encode(number - before - 1) + encode(len(objects[number]))
            data += objects[number] or encode(0)
            before = number
        return data

    def sent(self) -> list[str]:
        """Return what the session did to the transport since last asked."""
        calls, self.calls = self.calls, []
        return calls
