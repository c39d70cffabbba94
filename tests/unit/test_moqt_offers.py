"""Tracks that a relay offers unasked: which are taken, which refused, and what becomes of them."""

from __future__ import annotations

import pytest

from casfs.errors import ProtocolError
from ingest.moq.events import (
    BroadcastAnnounced,
    BroadcastEnded,
    Event,
    GroupReceived,
    TrackAccepted,
    TrackEnded,
    TrackRefused,
)
from ingest.moq.interface import Extra, Limits
from ingest.moq.moqt_drafts import DRAFT_14, DRAFT_16, DRAFT_18, Draft
from ingest.moq.moqt_messages import Kind, PublishDone, RequestError, frame
from ingest.moq.moqt_namespaces import RequestNumber
from ingest.moq.moqt_parameters import Location
from ingest.moq.moqt_publishing import Publish, PublishOk
from tests.fakes.moqt_relay import MoqtRelay

SECOND = 10**9
PRIORITY = 255 - 55
each_draft = pytest.mark.parametrize(
    "draft", [DRAFT_14, DRAFT_16, DRAFT_18], ids=lambda d: d.protocol
)


def granted(draft: Draft, stream: int, request: int = 1) -> str:
    """Return the call by which an offer is taken."""
    kind = Kind.REQUEST_OK if draft.request_streams else Kind.PUBLISH_OK
    number = None if draft.request_streams else request
    return f"{stream} {frame(kind, PublishOk(number, PRIORITY).encode(draft), draft).hex()}"


def refused(draft: Draft, stream: int, code: int, request: int = 1) -> str:
    """Return the call by which an offer is refused."""
    kind = Kind.PUBLISH_ERROR if draft.typed_replies else Kind.REQUEST_ERROR
    number = None if draft.request_streams else request
    return f"{stream} {frame(kind, RequestError(number, code).encode(draft), draft).hex()}"


def refuse(relay: MoqtRelay, request: int, stream: int, code: int) -> list[Event]:
    """Refuse a request of ours."""
    draft = relay.draft
    error = RequestError(None if draft.request_streams else request, code).encode(draft)
    return relay.message(Kind.REQUEST_ERROR, error, stream if draft.request_streams else None)


def groups(events: list[Event]) -> list[tuple[int, int, tuple[bytes, ...]]]:
    return [
        (event.subscription, event.sequence, event.frames)
        for event in events
        if isinstance(event, GroupReceived)
    ]


def subscribed(relay: MoqtRelay, broadcast: str = "tv", track: str = "video") -> int:
    return relay.session.subscribe(broadcast, track, priority=55, max_latency=0)


@each_draft
def test_what_is_offered_of_a_broadcast_that_we_wait_for_announces_it_and_is_taken(
    draft: Draft,
) -> None:
    relay = MoqtRelay(draft)
    relay.session.announce("tv")
    relay.sent()
    stream, events = relay.offer("tv", "video", alias=7)
    assert events == [BroadcastAnnounced("tv", 1)]
    assert relay.sent() == []
    early = relay.subgroup(7, 5, [0], [b"one"], end_of_group=True)
    assert relay.uni(early, end=True) == []
    number = subscribed(relay)
    assert relay.sent() == [granted(draft, stream)]
    assert relay.session.waiting
    events = list(relay.session.settle(relay.now))
    assert events[0] == TrackAccepted(number, None)
    assert groups(events) == [(number, 5, (b"one",))]


@each_draft
def test_an_offer_waits_for_the_answer_to_our_own_request(draft: Draft) -> None:
    for accepted in (True, False):
        relay = MoqtRelay(draft)
        number = subscribed(relay)
        ours = 4 if draft.request_streams else relay.control
        relay.sent()
        stream, _ = relay.offer("tv", "video", alias=7)
        assert relay.sent() == []
        if accepted:
            relay.accept(0, ours, 9)
            code = 4 if draft.typed_replies else 0x19
            assert refused(draft, stream, code) in relay.sent()
            continue
        events = refuse(relay, 0, ours, 0x19)
        assert granted(draft, stream) in relay.sent()
        assert events == [TrackAccepted(number, None)]
        data = relay.subgroup(7, 1, [0], [b"one"], end_of_group=True)
        assert groups(relay.uni(data, end=True)) == [(number, 1, (b"one",))]


@each_draft
def test_what_nobody_wants_is_refused_at_once_or_when_nobody_has_wanted_it_for_long(
    draft: Draft,
) -> None:
    relay = MoqtRelay(draft)
    relay.session.announce("tv")
    relay.sent()
    code = 4 if draft.typed_replies else 0x20
    stream, events = relay.offer("radio", "audio", alias=7)
    assert events == []
    assert refused(draft, stream, code) in relay.sent()
    stream, _ = relay.offer("tv", "other", alias=8)
    relay.uni(relay.subgroup(8, 1, [0], [b"early"]))
    assert relay.session.statistics().early_bytes > 0
    assert relay.sent() == []
    relay.now += 31 * SECOND
    relay.session.settle(relay.now)
    sent = relay.sent()
    assert refused(draft, stream, code, 3) in sent
    assert any(call.startswith("stop ") for call in sent)
    assert relay.session.statistics().early_bytes == 0
    assert relay.session.statistics().offers == 0
    assert not relay.session.waiting


@each_draft
def test_what_is_delivered_already_is_refused_as_a_duplicate(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    relay.accepted("tv", "video", alias=7)
    relay.sent()
    stream, _ = relay.offer("tv", "video", alias=8)
    code = 4 if draft.typed_replies else 0x19
    assert refused(draft, stream, code) in relay.sent()


def test_offers_are_bounded() -> None:
    relay = MoqtRelay(DRAFT_18, Limits(offers=3, name_bytes=100))
    relay.session.announce("")
    for number in range(10):
        relay.offer("tv", f"{number}", alias=number)
    relay.offer("tv", "x" * 200, alias=99)
    assert relay.session.statistics().offers == 3
    assert sum(call.endswith(" 050003090000") for call in relay.sent()) == 8


@each_draft
def test_a_newer_subscription_takes_over_what_is_pushed_and_the_end_is_told(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    relay.session.announce("tv")
    stream, _ = relay.offer("tv", "video", alias=7)
    old = subscribed(relay)
    relay.session.settle(relay.now)
    first = relay.new_uni()
    objects = [b"one", b"two"]
    relay.data(first, relay.subgroup(7, 1, [0], objects))
    relay.sent()
    new = subscribed(relay)
    assert relay.sent() == []  # it cannot be asked for again
    assert list(relay.session.settle(relay.now)) == [TrackAccepted(new, None)]
    events = relay.uni(relay.subgroup(7, 2, [0], [b"more"], end_of_group=True), end=True)
    assert groups(events) == [(new, 2, (b"more",))]
    rest = draft.integers.encode(0) + draft.integers.encode(3) + b"two"
    events = relay.data(first, rest + bytes.fromhex("000003"), end=True)
    assert groups(events) == [(old, 1, (b"one", b"two"))]
    assert TrackEnded(old) in events
    relay.session.unsubscribe(old)
    number = None if draft.request_streams else 1
    done = PublishDone(number, 2, 2).encode(draft)
    events = relay.message(Kind.PUBLISH_DONE, done, stream)
    assert TrackEnded(new) in events
    assert BroadcastEnded("tv") in events


@each_draft
def test_what_is_pushed_can_be_given_up(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    relay.session.announce("tv")
    stream, _ = relay.offer("tv", "video", alias=7)
    number = subscribed(relay)
    relay.session.settle(relay.now)
    relay.sent()
    relay.session.unsubscribe(number)
    if draft.request_streams:
        assert relay.sent() == [f"reset {stream} 1", f"stop {stream} 1"]
    else:
        body = RequestNumber(1).encode(draft)
        assert relay.sent() == [f"{relay.control} {frame(Kind.UNSUBSCRIBE, body, draft).hex()}"]


@each_draft
def test_an_offer_that_is_withdrawn_is_none(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    relay.session.announce("tv")
    stream, _ = relay.offer("tv", "video", alias=7)
    number = None if draft.request_streams else 1
    events = relay.message(Kind.PUBLISH_DONE, PublishDone(number, 2, 0).encode(draft), stream)
    assert events == [BroadcastEnded("tv")]
    assert relay.session.statistics().offers == 0
    relay.sent()
    subscribed(relay)
    assert any(" 03" in call for call in relay.sent())  # asked for like any other


def test_a_relay_that_refuses_everything_is_asked_once_to_offer_its_tracks() -> None:
    relay = MoqtRelay(DRAFT_18)
    subscribed(relay)
    subscribed(relay, track="audio")
    relay.sent()
    assert refuse(relay, 0, 4, 0x10) == [TrackRefused(0, 0x10)]
    assert relay.sent() == []  # the other one is not refused
    refuse(relay, 2, 8, 0x10)
    (asked,) = relay.sent()
    assert asked == "12 510006040102747600"
    assert relay.session.ignored == {Extra.OFFERS}
    refuse(relay, 4, 12, 0x3)
    assert not relay.session.ignored
    subscribed(relay)
    relay.sent()
    refuse(relay, 6, 16, 0x10)
    assert relay.sent() == []  # it has said that it does not know that


@pytest.mark.parametrize("draft", [DRAFT_14, DRAFT_16], ids=lambda d: d.protocol)
def test_a_relay_cannot_take_our_own_numbers(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    subscribed(relay)
    relay._relay_request = 0
    with pytest.raises(ProtocolError):
        relay.offer("tv", "video", alias=7)


@pytest.mark.parametrize("draft", [DRAFT_14, DRAFT_16], ids=lambda d: d.protocol)
def test_the_highest_number_that_a_request_can_have_ends_nothing(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    relay.session.announce("tv")
    relay._relay_request = draft.integers.largest
    assert relay.offer("tv", "video", alias=7)[1] == [BroadcastAnnounced("tv", 1)]
    granted = RequestNumber(draft.integers.largest).encode(draft)
    assert f"{relay.control} {frame(Kind.MAX_REQUEST_ID, granted, draft).hex()}" in relay.sent()


def test_an_offer_whose_stream_ends_at_once_is_not_answered_elsewhere() -> None:
    relay = MoqtRelay(DRAFT_18)
    relay.sent()
    publish = Publish(1, (b"radio",), b"audio", 7).encode(DRAFT_18)
    message = frame(Kind.PUBLISH, publish, DRAFT_18)
    relay.session.stream_data(1, message, relay.now, end=True)
    assert relay.sent() == ["1  end"]


@each_draft
def test_the_beginning_of_a_group_is_asked_for_however_high_its_objects_are_numbered(
    draft: Draft,
) -> None:
    relay = MoqtRelay(draft)
    relay.session._control.can_fetch = True
    relay.accepted("tv", "video", alias=7, largest=Location(0, draft.integers.largest))
    relay.sent()
    relay.now += 60 * SECOND
    relay.session.settle(relay.now)
    assert len(relay.sent()) == 1


def test_who_asks_again_and_again_takes_no_more_room() -> None:
    relay = MoqtRelay(DRAFT_18)
    for _ in range(100):
        relay.session.announce("tv/")
    assert len(relay.session._control.names._asked) == 1
