"""The requests of a MoQ transport session: their numbers, and the streams that carry them.

Up to draft 16 requests share the control stream, and the relay says how many we may make
(MAX_REQUEST_ID); what is over that waits. Since 17 each has a stream of its own.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from casfs.errors import ProtocolError
from ingest.moq.moqt_messages import frame
from ingest.moq.reading import StreamReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.moq.interface import Limits, Streams
    from ingest.moq.moqt_drafts import Draft


class Ask(Enum):
    """What a request is for."""

    SUBSCRIBE = auto()
    FETCH = auto()
    """A whole group, for `MoqSession.fetch`."""
    HEAD = auto()
    """The beginning of the group in whose middle a subscription began."""
    NAMESPACES = auto()
    TRACKS = auto()
    """That the tracks of a namespace be offered (since 17)."""
    OFFER = auto()
    """The relay's own: it would deliver a track. Once we take it, a SUBSCRIBE."""


class Request:
    """One request of ours, or an offer of the relay's."""

    __slots__ = ("ask", "backlog", "group", "number", "prefix", "since", "stream", "subscription")

    def __init__(self, number: int, ask: Ask) -> None:
        self.number = number
        self.ask = ask
        self.subscription = -1
        """Whose; of SUBSCRIBE, FETCH and HEAD alone."""
        self.group = -1
        """FETCH and HEAD: which."""
        self.prefix = ""
        """NAMESPACES and TRACKS: what was asked for."""
        self.backlog = False
        """FETCH: it was not asked for from above, it is what came before a subscription."""
        self.since: int | None = None
        """FETCH: since when it is waited for, nanoseconds UTC."""
        self.stream: int | None = None
        """The stream of its own, once it has been sent."""


class MessageStream:
    """A stream that carries control messages to us."""

    __slots__ = ("ended", "number", "reader", "request", "sending")

    def __init__(self, number: int, limits: Limits, draft: Draft, request: Request | None) -> None:
        self.number = number
        self.reader = StreamReader(limits.message_bytes, draft.integers)
        self.request = request
        """Ours, to which it belongs; None: the control stream, or the relay's own request."""
        self.sending = request is not None
        """Our direction is open."""
        self.ended = False


class Requests:
    """Numbers requests, and sends them when they may be sent."""

    def __init__(self, draft: Draft, streams: Streams, limits: Limits) -> None:
        self._draft = draft
        self._transport = streams
        self._limits = limits
        self._requests: dict[int, Request] = {}
        self._next = 0
        self._allowed = 1 << 62 if draft.request_streams else 0
        """Requests may be numbered below this."""
        self._waiting: list[tuple[Request, bytes]] = []
        self.control: int | None = None
        """The stream on which requests go that have none of their own."""

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests.values()))

    def get(self, number: int | None) -> Request | None:
        """Return one of ours that is not done."""
        return None if number is None else self._requests.get(number)

    def new(self, ask: Ask) -> Request:
        """Return a request with the next number."""
        request = Request(self._next, ask)
        self._next += 2
        self._requests[request.number] = request
        return request

    def adopt(self, number: int, stream: int | None) -> Request:
        """Return the relay's offer of that number as a request; ``stream``: its own, if any.

        Raise `ProtocolError` for a number that no relay may use, or has used.
        """
        if not number & 1 or number in self._requests:
            raise ProtocolError(f"the relay's request has the number {number}")
        request = Request(number, Ask.OFFER)
        request.stream = stream
        self._requests[number] = request
        return request

    def send(self, request: Request, kind: int, body: bytes) -> list[MessageStream]:
        """Send it, or keep it until it may be sent; return the streams that this opened."""
        self._waiting.append((request, frame(kind, body, self._draft)))
        return self._flush()

    def allow(self, largest: int) -> list[MessageStream]:
        """Take the relay's MAX_REQUEST_ID; return the streams that this opened."""
        self._allowed = max(self._allowed, largest)
        return self._flush()

    def done(self, request: Request) -> bool:
        """Forget a request; return whether it had been sent."""
        self._requests.pop(request.number, None)
        waiting = len(self._waiting)
        self._waiting = [item for item in self._waiting if item[0] is not request]
        return len(self._waiting) == waiting

    def clear(self) -> None:
        """Forget all."""
        self._requests.clear()
        self._waiting.clear()

    def _flush(self) -> list[MessageStream]:
        opened: list[MessageStream] = []
        while self._waiting and self._waiting[0][0].number < self._allowed:
            request, message = self._waiting.pop(0)
            own = self._draft.request_streams or (
                request.ask is Ask.NAMESPACES and self._draft.namespace_streams
            )
            if own:
                request.stream = self._transport.open_bidi()
                opened.append(MessageStream(request.stream, self._limits, self._draft, request))
                self._transport.send(request.stream, message)
            elif self.control is not None:
                self._transport.send(self.control, message)
        return opened
