"""A whole session: independent of how its bytes are split, equal to a model, and never broken."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
)
from msgspec import Struct

from ingest.moq.events import Event, GroupReceived, TrackEnded, TrackRefused
from ingest.moq.interface import Limits
from ingest.moq.lite import CANCELLED, LiteSession
from ingest.moq.lite_frames import encode_zigzag
from ingest.moq.lite_messages import (
    Announcement,
    AnnounceOk,
    Delivery,
    Goaway,
    Setup,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeReply,
    SubscribeStart,
    TrackInfo,
    encode_reply,
)
from ingest.moq.lite_messages_06 import (
    AnnounceEnd,
    AnnounceStart,
    AnnounceUpdate,
    Route,
    encode_announcement,
)
from ingest.moq.lite_messages_06 import TrackInfo as TrackInfo06
from ingest.moq.lite_versions import LITE_04, LITE_05, LITE_06, LiteVersion
from ingest.moq.varint import encode_varint
from tests.fakes.lite_relay import group_header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOW = 10**18
ANNOUNCE = 4
FIRST_SUBSCRIBE = 8

versions = st.sampled_from([LITE_04, LITE_05, LITE_06])


class Transport:
    """Streams that only check that they are used as the transport allows."""

    def __init__(self) -> None:
        self.uni = 2
        self.bidi = 4
        self.ended: set[int] = set()
        self.stopped: set[int] = set()

    def open_uni(self) -> int:
        self.uni += 4
        return self.uni - 4

    def open_bidi(self) -> int:
        self.bidi += 4
        return self.bidi - 4

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        assert stream not in self.ended
        assert data or end
        if end:
            self.ended.add(stream)

    def reset(self, stream: int, code: int) -> None:
        assert code == CANCELLED
        assert stream not in self.ended
        self.ended.add(stream)

    def stop(self, stream: int, code: int) -> None:
        assert code == CANCELLED
        assert stream not in self.stopped
        self.stopped.add(stream)


def frames_of(version: LiteVersion, frames: Sequence[tuple[int, bytes]]) -> bytes:
    """Encode frames of (timestamp difference, payload)."""
    encoded = bytearray()
    for delta, payload in frames:
        if version.framing.timed:
            encoded += encode_varint(encode_zigzag(delta))
        encoded += encode_varint(len(payload)) + payload
    return bytes(encoded)


def start_session(version: LiteVersion, limits: Limits) -> LiteSession:
    """Return a session that has announced and has two subscriptions, numbers 0 and 1."""
    session = LiteSession(version, Transport(), limits)
    session.start()
    session.announce("demo")
    session.subscribe("demo/tv", "video", priority=1, max_latency=1)
    session.subscribe("demo/tv", "audio", priority=1, max_latency=1)
    return session


# What a relay does, as a script


class Sent(Struct, frozen=True):
    """Bytes on one stream, or its reset."""

    stream: int
    data: bytes
    end: bool = False
    reset: int | None = None


@st.composite
def frames(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    return draw(st.lists(st.tuples(st.integers(-1000, 1000), st.binary(max_size=30)), max_size=5))


def numbered_announcements(suffixes: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return announcements of 06, some with numbers that were not given."""
    numbers = st.integers(0, 4)
    routes = st.builds(Route, st.lists(st.integers(0, 2), max_size=2).map(tuple))
    return st.one_of(
        st.builds(AnnounceStart, suffixes, routes),
        st.builds(AnnounceStart, suffixes, routes),
        st.builds(AnnounceEnd, numbers),
        st.builds(AnnounceUpdate, numbers, routes),
    ).map(encode_announcement)


@st.composite
def stream_contents(draw: st.DrawFn, version: LiteVersion, kind: str) -> bytes:
    """Draw what a well-behaved relay sends on a stream of that kind."""
    if kind == "announce":
        head = AnnounceOk(1, 0).encode() if version.announce_ok else b""
        suffixes = st.sampled_from([b"tv", b"radio", b"x" * 50, b"\xff"])
        one = (
            numbered_announcements(suffixes)
            if version is LITE_06
            else st.builds(Announcement, st.booleans(), suffixes).map(Announcement.encode)
        )
        return head + b"".join(draw(st.lists(one, max_size=6)))
    if kind == "subscribe":
        replies: list[tuple[int, SubscribeReply]] = (
            [(0, SubscribeStart(3)), (1, SubscribeEnd(9)), (2, SubscribeDrop(1, 2, 3))]
            if version is not LITE_04
            else [(0, SubscribeOk(Delivery(0, 0, 0))), (1, SubscribeDrop(1, 2, 3))]
        )
        chosen = draw(st.lists(st.sampled_from(replies), max_size=4))
        return b"".join(encode_reply(*reply) for reply in chosen)
    if kind == "track":
        info = TrackInfo(1, 0, 5000, 1000)
        return TrackInfo06(1, 5000, 1000).encode() if version is LITE_06 else info.encode()
    if kind == "bidi":
        return draw(st.sampled_from([b"\5" + Goaway("elsewhere").encode(), b"\1\1\0", b"\4"]))
    group = group_header(version, draw(st.integers(0, 2)), draw(st.integers(0, 9)))
    group += frames_of(version, draw(frames()))
    return draw(st.sampled_from([group, group, group, b"\1" + Setup().encode(), b"\x3f"]))


@st.composite
def scripts(draw: st.DrawFn, version: LiteVersion) -> list[Sent]:
    """Draw a few streams of every kind, interleaved; some damaged, some cut, some reset."""
    kinds = {ANNOUNCE: "announce"}
    answers = ["subscribe", "track"] if version.track_requests else ["subscribe"]
    kinds.update({8 + 4 * index: kind for index, kind in enumerate(answers * 2)})
    kinds.update({3 + 4 * index: "uni" for index in range(draw(st.integers(0, 4)))})
    kinds.update({1 + 4 * index: "bidi" for index in range(draw(st.integers(0, 1)))})
    pieces: list[list[Sent]] = []
    for stream, kind in kinds.items():
        content = draw(stream_contents(version, kind))
        damage = draw(st.sampled_from(["none", "none", "none", "cut", "garbage"]))
        if damage == "cut":
            content = content[: draw(st.integers(0, len(content)))]
        elif damage == "garbage":
            at = draw(st.integers(0, len(content)))
            content = content[:at] + draw(st.binary(max_size=20)) + content[at:]
        half = draw(st.integers(0, len(content)))
        outcome = draw(st.sampled_from(["open", "end", "end", "reset"]))
        told = [Sent(stream, content[:half]), Sent(stream, content[half:], end=outcome == "end")]
        if outcome == "reset":
            told.append(Sent(stream, b"", reset=draw(st.integers(0, 70))))
        pieces.append(told)
    script = []
    while pieces:
        stream_pieces = draw(st.sampled_from(pieces))
        script.append(stream_pieces.pop(0))
        if not stream_pieces:
            pieces.remove(stream_pieces)
    return script


def play(
    session: LiteSession, script: list[Sent], split: Callable[[bytes], list[bytes]]
) -> list[Event]:
    """Feed a script, each of its pieces in the parts that ``split`` makes of it."""
    events: list[Event] = []
    for sent in script:
        if sent.reset is not None:
            events += session.stream_reset(sent.stream, sent.reset, NOW)
            continue
        parts = split(sent.data)
        for index, part in enumerate(parts):
            end = sent.end and index == len(parts) - 1
            events += session.stream_data(sent.stream, part, NOW, end=end)
    events += session.abandon("session lost", NOW)
    assert session.buffered == 0
    return events


@given(versions, st.data())
def test_what_a_session_tells_does_not_depend_on_the_split(
    version: LiteVersion, data: st.DataObject
) -> None:
    limits = Limits(frame_bytes=25, group_bytes=60, group_frames=4, name_bytes=20)
    script = data.draw(scripts(version))

    def anywhere(piece: bytes) -> list[bytes]:
        cuts = sorted(data.draw(st.sets(st.integers(0, len(piece)), max_size=4)))
        bounds = [0, *cuts, len(piece)]
        return [piece[start:end] for start, end in pairwise(bounds)]

    def each_byte(piece: bytes) -> list[bytes]:
        return [piece[at : at + 1] for at in range(len(piece))] + [b""]

    expected = play(start_session(version, limits), script, lambda piece: [piece])
    assert play(start_session(version, limits), script, anywhere) == expected
    assert play(start_session(version, limits), script, each_byte) == expected


@given(
    versions,
    st.lists(
        st.tuples(
            st.sampled_from([1, 3, 4, 5, 7, 8, 11, 12, 16, 20, 99]),
            st.binary(max_size=60),
            st.sampled_from(["data", "data", "data", "end", "reset", "stopped"]),
        ),
        max_size=40,
    ),
)
def test_garbage_on_any_stream_never_breaks_the_session(
    version: LiteVersion, received: list[tuple[int, bytes, str]]
) -> None:
    session = start_session(version, Limits(message_bytes=100, buffered_bytes=5000))
    fed = 0
    over: set[int] = set()
    for stream, data, what in received:
        if stream in over:
            continue
        if what == "reset":
            session.stream_reset(stream, 1, NOW)
        elif what == "stopped":
            session.stream_stopped(stream, 1, NOW)
        else:
            fed += len(data)
            session.stream_data(stream, data, NOW, end=what == "end")
        if what in {"reset", "end"}:
            over.add(stream)
        assert session.buffered <= min(fed, 5000)
    statistics = session.statistics()
    still_open = len(received) + 5
    assert statistics.open_streams + statistics.open_groups <= still_open


@given(versions, st.data())
def test_each_subscription_ends_at_most_once(version: LiteVersion, data: st.DataObject) -> None:
    script = data.draw(scripts(version))
    events = play(start_session(version, Limits()), script, lambda piece: [piece])
    for subscription in (0, 1):
        for kind in (TrackEnded, TrackRefused):
            told = [
                event
                for event in events
                if isinstance(event, kind) and event.subscription == subscription
            ]
            assert len(told) <= 1


# Groups against a model


class Model:
    """A group as its publisher knows it."""

    def __init__(self, version: LiteVersion, stream: int, subscription: int, sequence: int) -> None:
        self.stream = stream
        self.subscription = subscription
        self.sequence = sequence
        self.frames: list[tuple[int, bytes]] = []
        self.unsent = group_header(version, subscription, sequence)
        self.sent = 0
        self.over = False


class Delivered(RuleBasedStateMachine):
    """Groups come in pieces, in any order, and each arrives as it was published."""

    groups: Bundle[Model] = Bundle("groups")
    version = LITE_05

    def __init__(self) -> None:
        super().__init__()
        self.transport = Transport()
        self.session = LiteSession(self.version, self.transport, Limits())
        self.subscribed: list[int] = []
        self.gone: set[int] = set()
        self.models: list[Model] = []

    @rule()
    def subscribe(self) -> None:
        number = self.session.subscribe("demo/tv", "video", priority=1, max_latency=1)
        assert number not in self.subscribed
        self.subscribed.append(number)

    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        if self.subscribed:
            number = data.draw(st.sampled_from(self.subscribed))
            self.session.unsubscribe(number)
            self.gone.add(number)

    @rule(target=groups, sequence=st.integers(0, 5), data=st.data())
    def open_group(self, sequence: int, data: st.DataObject) -> Model | MultipleResults[Model]:
        if not self.subscribed:
            return multiple()
        subscription = data.draw(st.sampled_from(self.subscribed))
        model = Model(self.version, 3 + 4 * len(self.models), subscription, sequence)
        self.models.append(model)
        return model

    @rule(group=groups, delta=st.integers(-9, 9), payload=st.binary(max_size=100))
    def publish(self, group: Model, delta: int, payload: bytes) -> None:
        if not group.over:
            group.frames.append((delta, payload))
            group.unsent += frames_of(self.version, [(delta, payload)])

    @rule(group=groups, length=st.integers(1, 80))
    def deliver(self, group: Model, length: int) -> None:
        if not group.over:
            part, group.unsent = group.unsent[:length], group.unsent[length:]
            assert self.feed(group, part, end=False) == []

    @rule(group=groups)
    def finish(self, group: Model) -> None:
        if group.over:
            return
        group.over = True
        events = self.feed(group, group.unsent, end=True)
        if group.subscription in self.gone:
            assert events == []
            return
        (received,) = events
        assert isinstance(received, GroupReceived)
        assert received.complete
        assert (received.subscription, received.sequence) == (group.subscription, group.sequence)
        assert received.frames == tuple(payload for _, payload in group.frames)
        self.check_timestamps(group, received)

    @rule(group=groups)
    def reset(self, group: Model) -> None:
        if group.over:
            return
        group.over = True
        events = list(self.session.stream_reset(group.stream, 9, NOW))
        if not events:
            return
        (received,) = events
        assert isinstance(received, GroupReceived)
        assert not received.complete
        published = b"".join(payload for _, payload in group.frames)
        assert published.startswith(b"".join(received.frames))
        sizes = [len(payload) for _, payload in group.frames[: len(received.frames)]]
        if sizes:
            sizes[-1] -= received.lacking
        assert [len(frame) for frame in received.frames] == sizes
        self.check_timestamps(group, received)

    def check_timestamps(self, group: Model, received: GroupReceived) -> None:
        if not self.version.framing.timed:
            assert received.timestamps is None
            return
        times, time = [], 0
        for delta, _ in group.frames[: len(received.frames)]:
            time += delta
            times.append(time)
        assert received.timestamps == tuple(times)

    def feed(self, group: Model, data: bytes, *, end: bool) -> list[Event]:
        group.sent += len(data)
        return list(self.session.stream_data(group.stream, data, NOW, end=end))

    @invariant()
    def no_more_is_held_than_was_sent(self) -> None:
        sent = sum(
            model.sent
            for model in self.models
            if not model.over and model.subscription not in self.gone
        )
        assert self.session.buffered <= sent

    @invariant()
    def an_open_group_is_a_prefix_of_what_was_published(self) -> None:
        for received in self.session.open_groups(NOW + 1, NOW + 1):
            published = [
                b"".join(payload for _, payload in model.frames)
                for model in self.models
                if not model.over
                and (model.subscription, model.sequence)
                == (received.subscription, received.sequence)
            ]
            came = b"".join(received.frames)
            assert any(one.startswith(came) for one in published)


class DeliveredWithoutTimestamps(Delivered):
    """The same in 04."""

    version = LITE_04


class DeliveredIn06(Delivered):
    """The same in 06."""

    version = LITE_06


TestDelivered = Delivered.TestCase
TestDelivered.settings = settings(max_examples=60, stateful_step_count=40)
TestDeliveredWithoutTimestamps = DeliveredWithoutTimestamps.TestCase
TestDeliveredWithoutTimestamps.settings = settings(max_examples=60, stateful_step_count=40)
TestDeliveredIn06 = DeliveredIn06.TestCase
TestDeliveredIn06.settings = settings(max_examples=60, stateful_step_count=40)
