"""What is said in a MoQ transport session: SETUP, requests and their answers, namespaces.

Up to draft 16 on one control stream in both directions, since 17 on a control stream each way and
one stream for each request. What concerns subscriptions and fetches comes out as `Answer`; SETUP,
allowances and what the relay asks of us are dealt with here.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from casfs.errors import NegotiationError, ProtocolError
from ingest.moq.events import BroadcastAnnounced, BroadcastEnded, GoawayReceived
from ingest.moq.moqt_messages import (
    ClientSetup,
    FetchOk,
    Kind,
    PublishDone,
    RequestError,
    RequestOk,
    ServerSetup,
    SubscribeOk,
    frame,
)
from ingest.moq.moqt_names import UNASKED, Names
from ingest.moq.moqt_namespaces import (
    Goaway,
    Namespace,
    PublishNamespace,
    PublishNamespaceDone,
    RequestNumber,
    SubscribeNamespace,
)
from ingest.moq.moqt_parameters import Pair, SetupOption, number_of, octets_of
from ingest.moq.moqt_publishing import Publish, PublishOk
from ingest.moq.moqt_requests import Ask, MessageStream, Request, Requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.moq.interface import Limits, Locator, Streams
    from ingest.moq.moqt_drafts import Draft

CANCELLED: Final = 1
"""Of streams that we do not want or no longer want (section "Stream Reset Error Codes")."""
_REQUESTS_GRANTED: Final = 1000
_FETCHING_IMPLEMENTATIONS: Final = (b"moq-lite",)
"""Who serves FETCH in draft 14. Of others it is not known, and some may end the session at it."""


class Refusal(Enum):
    """Why a track is not taken that the relay offers."""

    UNINTERESTED = auto()
    DUPLICATE = auto()
    """It is delivered already."""
    TOO_MANY = auto()


_REFUSALS: Final = {Refusal.UNINTERESTED: 0x20, Refusal.DUPLICATE: 0x19, Refusal.TOO_MANY: 0x09}
"""Sections "REQUEST_ERROR" of 18 and 16 (which has no code for too many: INTERNAL_ERROR)."""
_REFUSALS_14: Final = {Refusal.UNINTERESTED: 4, Refusal.DUPLICATE: 4, Refusal.TOO_MANY: 0}
_INTERNAL_ERROR: Final = 0
NOT_SUPPORTED: Final = 3


class Over(Struct, frozen=True):
    """The stream of a request has ended."""

    code: int | None
    """Of its reset; None: it ended in good order."""


Message = (
    SubscribeOk
    | Publish
    | FetchOk
    | RequestError
    | PublishDone
    | Over
    | BroadcastAnnounced
    | BroadcastEnded
    | GoawayReceived
)


class Answer(NamedTuple):
    """Something that the relay has said."""

    request: Request | None
    """Ours that it answers, or an offer of the relay's; None where it answers none."""
    message: Message


class Control:
    """Our end of the conversation. Answers come in the order in which they were said."""

    def __init__(
        self,
        draft: Draft,
        streams: Streams,
        limits: Limits,
        where: Locator | None,
        stop: Callable[[int], None],
    ) -> None:
        """``stop`` turns a stream of the relay's away."""
        self._draft = draft
        self._transport = streams
        self._limits = limits
        self._where = where
        self._stop = stop
        self.requests = Requests(draft, streams, limits)
        self.names = Names(limits)
        self._streams: dict[int, MessageStream] = {}
        self._controls: set[int] = set()
        """The control stream, in whichever directions it comes."""
        self._granted = _REQUESTS_GRANTED
        self.can_fetch = not draft.typed_replies
        """Whether the relay is known to serve FETCH, or to refuse it in good order."""
        self.can_ask_for_offers = limits.offer_requests > 0
        self.offers_asked = False
        """Whether we have asked the relay to offer its tracks, ..."""
        self.offers_answered = False
        """... and it has said anything to that."""
        self.violations = 0

    def __contains__(self, stream: int) -> bool:
        return stream in self._streams

    def __len__(self) -> int:
        return len(self._streams)

    def clear(self) -> None:
        """Forget all that is open."""
        self._streams.clear()
        self.requests.clear()

    # What we say

    def start(self) -> None:
        """Send SETUP."""
        options: list[Pair] = []
        if self._where is not None:
            options.append(Pair(SetupOption.PATH, self._where.path.encode()))
            options.append(Pair(SetupOption.AUTHORITY, self._where.authority.encode()))
        if self._draft.request_streams:
            control, kind = self._transport.open_uni(), Kind.SETUP
        else:
            control, kind = self._transport.open_bidi(), Kind.CLIENT_SETUP
            options.append(Pair(SetupOption.MAX_REQUEST_ID, _REQUESTS_GRANTED))
            self.begin(control, control=True)
        self.requests.control = control
        body = ClientSetup(tuple(options)).encode(self._draft)
        self._transport.send(control, frame(kind, body, self._draft))

    def announce(self, prefix: str) -> None:
        """Ask for the namespaces below ``prefix``, now and as they change."""
        self.names.ask(prefix)
        request = self.requests.new(Ask.NAMESPACES)
        request.prefix = prefix
        message = SubscribeNamespace(request.number, self.names.namespace(prefix))
        kind = Kind.SUBSCRIBE_NAMESPACE
        if self._draft.request_streams:
            kind = Kind.SUBSCRIBE_NAMESPACE_18
        self.send(request, kind, message.encode(self._draft))

    def ask_for_offers(self, namespace: tuple[bytes, ...]) -> None:
        """Ask that the tracks of a namespace be offered, where the draft has that (since 17).

        Not while an answer stands, nor of a relay that does not know it.
        """
        prefix = b"/".join(namespace).decode(errors="replace")
        asked = [request.prefix for request in self.requests if request.ask is Ask.TRACKS]
        possible = self._draft.request_streams and self.can_ask_for_offers
        if not possible or prefix in asked or len(asked) >= self._limits.offer_requests:
            return
        request = self.requests.new(Ask.TRACKS)
        request.prefix = prefix
        self.offers_asked = True
        message = SubscribeNamespace(request.number, namespace)
        self.send(request, Kind.SUBSCRIBE_TRACKS, message.encode(self._draft))

    def send(self, request: Request, kind: int, body: bytes) -> None:
        """Send a request, as soon as it may be."""
        for stream in self.requests.send(request, kind, body):
            self._streams[stream.number] = stream

    def cancel(self, request: Request) -> None:
        """Take a request back."""
        sent = self.requests.done(request)
        if request.stream is not None:
            stream = self._stream_of(request)
            if stream is not None:
                self._dismiss(stream)
        elif sent and request.ask is not Ask.NAMESPACES:
            kind = Kind.UNSUBSCRIBE if request.ask is Ask.SUBSCRIBE else Kind.FETCH_CANCEL
            self._say(kind, RequestNumber(request.number).encode(self._draft))

    def grant(self, request: Request, priority: int) -> None:
        """Take a track that the relay offers; ``priority`` 0 to 255, lower first."""
        number = None if self._draft.request_streams else request.number
        kind = Kind.REQUEST_OK if self._draft.request_streams else Kind.PUBLISH_OK
        self._say(kind, PublishOk(number, priority).encode(self._draft), self._stream_of(request))

    def turn_down(self, request: Request, refusal: Refusal) -> None:
        """Refuse a track that the relay offers."""
        draft, own = self._draft, self._stream_of(request)
        self.requests.done(request)
        self.names.refused(request.number)
        code = (_REFUSALS_14 if draft.typed_replies else _REFUSALS)[refusal]
        if refusal is Refusal.TOO_MANY and not draft.request_streams:
            code = _INTERNAL_ERROR
        error = RequestError(None if draft.request_streams else request.number, code)
        kind = Kind.PUBLISH_ERROR if draft.typed_replies else Kind.REQUEST_ERROR
        if request.stream is None or own is not None:  # else the relay has ended it already
            self._say(kind, error.encode(draft), own)
        if own is not None:
            self._end_ours(own)

    def _stream_of(self, request: Request) -> MessageStream | None:
        return None if request.stream is None else self._streams.get(request.stream)

    def _say(self, kind: int, body: bytes, stream: MessageStream | None = None) -> None:
        number = self.requests.control if stream is None else stream.number
        if number is not None:
            self._transport.send(number, frame(kind, body, self._draft))

    # What the relay says

    def begin(self, number: int, *, control: bool) -> None:
        """Expect messages on a stream that belongs to no request of ours."""
        stream = MessageStream(number, self._limits, self._draft, None)
        stream.sending = not control
        self._streams[number] = stream
        if control:
            self._controls.add(number)

    def take(self, number: int, data: bytes, *, end: bool) -> list[Answer]:
        """Take bytes of a stream that is one of these.

        Raise `ProtocolError` when nothing can be trusted any more, `NegotiationError` when the
        relay speaks another draft.
        """
        stream = self._streams[number]
        stream.ended = end
        stream.reader.append(data)
        answers: list[Answer] = []
        try:
            while (message := stream.reader.sized_message()) is not None:
                self._read(stream, message.kind, message.body, answers)
        except ProtocolError:
            self.violations += 1
            if number in self._controls:
                raise
            self._dismiss(stream)
            self._over(stream, Over(0), answers)
        else:
            if end and self._streams.pop(number, None) is not None:
                self._end_ours(stream)
                self._over(stream, Over(None), answers)
        return answers

    def reset(self, number: int, code: int) -> list[Answer]:
        """Take the reset of one of these."""
        stream = self._streams.pop(number)
        self._end_ours(stream)
        answers: list[Answer] = []
        self._over(stream, Over(code), answers)
        return answers

    def stopped(self, number: int) -> None:
        """Take that the relay wants no more of what we send there."""
        stream = self._streams.get(number)
        if stream is not None:
            stream.sending = False

    def _read(self, stream: MessageStream, kind: int, body: bytes, answers: list[Answer]) -> None:
        """Read a message; one that is not known is skipped."""
        draft = self._draft
        if stream.request is not None and stream.request.ask is Ask.TRACKS:
            self.offers_answered = True
        request: int | None = None
        told: SubscribeOk | FetchOk | RequestError | PublishDone
        match kind:
            case Kind.SETUP | Kind.SERVER_SETUP:
                self._set_up(ServerSetup.decode(body, draft))
                return
            case Kind.MAX_REQUEST_ID:
                self._allow(RequestNumber.decode(body, draft).request)
                return
            case Kind.SUBSCRIBE_OK:
                told = SubscribeOk.decode(body, draft)
            case Kind.FETCH_OK:
                told = FetchOk.decode(body, draft)
            case Kind.REQUEST_ERROR | Kind.FETCH_ERROR | Kind.SUBSCRIBE_NAMESPACE_ERROR:
                told = RequestError.decode(body, draft)
            case Kind.PUBLISH_DONE:
                told = PublishDone.decode(body, draft)
            case Kind.GOAWAY:
                if stream.number in self._controls:  # elsewhere it is about one request
                    away = Goaway.decode(body, draft)
                    answers.append(Answer(None, GoawayReceived(away.uri, away.timeout)))
                return
            case Kind.PUBLISH:
                self._read_offer(stream, Publish.decode(body, draft), answers)
                return
            case _:
                self._read_namespace(stream, kind, body, answers)
                return
        request = told.request if stream.request is None else stream.request.number
        ours = self.requests.get(request)
        if ours is not None:
            answers.append(Answer(ours, told))

    def _read_offer(self, stream: MessageStream, publish: Publish, answers: list[Answer]) -> None:
        own = None if stream.number in self._controls else stream
        if own is not None and own.request is not None:
            raise ProtocolError("the relay offers a track on the stream of another request")
        request = self.requests.adopt(publish.request, None if own is None else own.number)
        if own is not None:
            own.request = request
        self._grant(publish.request)
        answers.append(Answer(request, publish))

    def _read_namespace(
        self, stream: MessageStream, kind: int, body: bytes, answers: list[Answer]
    ) -> None:
        draft, names, prefix = self._draft, self.names, ""
        asked = stream.request is not None and stream.request.ask is Ask.NAMESPACES
        if stream.request is not None:
            prefix = stream.request.prefix
        events: list[BroadcastAnnounced | BroadcastEnded] = []
        if kind == Kind.NAMESPACE and asked:
            suffix = Namespace.decode(body, draft).suffix
            events.extend(names.active(stream.number, prefix, suffix))
        elif kind == Kind.NAMESPACE_DONE and asked:
            suffix = Namespace.decode(body, draft).suffix
            events.extend(names.ended(stream.number, prefix, suffix))
        elif kind == Kind.PUBLISH_NAMESPACE:
            told = PublishNamespace.decode(body, draft)
            own = None if stream.number in self._controls else stream
            self._grant(told.request)
            ok = RequestOk(None if draft.request_streams else told.request)
            self._say(Kind.REQUEST_OK, ok.encode(draft), own)
            owner = UNASKED if own is None else own.number
            events.extend(names.published(owner, told.request, told.namespace))
        elif kind == Kind.PUBLISH_NAMESPACE_DONE:
            done = PublishNamespaceDone.decode(body, draft)
            events.extend(names.withdrawn(done.request, done.namespace))
        answers.extend(Answer(None, event) for event in events)

    def _set_up(self, setup: ServerSetup) -> None:
        if self._draft.typed_replies and setup.version != self._draft.version:
            raise NegotiationError(
                f"the relay chose the version {setup.version:#x}, which was not offered",
                advice="offer other protocols, or ask its operator which ones it speaks",
            )
        name = octets_of(setup.parameters, SetupOption.IMPLEMENTATION) or b""
        self.can_fetch = self.can_fetch or name.startswith(_FETCHING_IMPLEMENTATIONS)
        self._allow(number_of(setup.parameters, SetupOption.MAX_REQUEST_ID) or 0)

    def _allow(self, largest: int) -> None:
        for stream in self.requests.allow(largest):
            self._streams[stream.number] = stream

    def _grant(self, number: int) -> None:
        """Let the relay make more requests when it has used half of what it may."""
        if self._draft.request_streams or 2 * (self._granted - number) > _REQUESTS_GRANTED:
            return
        self._granted = min(number + _REQUESTS_GRANTED, self._draft.integers.largest)
        granted = RequestNumber(self._granted)
        self._say(Kind.MAX_REQUEST_ID, granted.encode(self._draft))

    # How streams end

    def _over(self, stream: MessageStream, over: Over, answers: list[Answer]) -> None:
        if stream.number in self._controls:
            raise ProtocolError("the relay ended its control stream")
        ended = self.names.closed(stream.number)
        answers.extend(Answer(None, event) for event in ended)
        request = stream.request
        if request is not None and self.requests.get(request.number) is not None:
            answers.append(Answer(request, over))

    def _dismiss(self, stream: MessageStream) -> None:
        """Use a stream no more, in either direction."""
        self._streams.pop(stream.number, None)
        if stream.ended:
            self._end_ours(stream)
            return
        if stream.sending:
            stream.sending = False
            self._transport.reset(stream.number, CANCELLED)
        self._stop(stream.number)

    def _end_ours(self, stream: MessageStream) -> None:
        if stream.sending:
            stream.sending = False
            self._transport.send(stream.number, b"", end=True)
