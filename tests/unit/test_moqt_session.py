"""A session of MoQ transport, step by step: what overtakes, what is missing, what ends."""

from __future__ import annotations

import pytest

from casfs.errors import NegotiationError, ProtocolError
from ingest.moq.events import (
    AnnouncementsEnded,
    BroadcastAnnounced,
    BroadcastEnded,
    Event,
    FetchFailed,
    GoawayReceived,
    GroupReceived,
    TrackAccepted,
    TrackEnded,
    TrackRefused,
)
from ingest.moq.interface import Extra, Limits, Locator
from ingest.moq.moqt import MoqtSession
from ingest.moq.moqt_drafts import DRAFT_14, DRAFT_16, DRAFT_18, Draft
from ingest.moq.moqt_messages import FetchOk, Kind, PublishDone, RequestError, ServerSetup, frame
from ingest.moq.moqt_namespaces import (
    Goaway,
    Namespace,
    PublishNamespace,
    PublishNamespaceDone,
)
from ingest.moq.moqt_parameters import Location
from tests.fakes.moqt_relay import MoqtRelay

SECOND = 10**9
each_draft = pytest.mark.parametrize(
    "draft", [DRAFT_14, DRAFT_16, DRAFT_18], ids=lambda d: d.protocol
)
with_fetch = pytest.mark.parametrize("draft", [DRAFT_16, DRAFT_18], ids=lambda d: d.protocol)


def groups(events: list[Event]) -> list[tuple[int, tuple[bytes, ...], str]]:
    return [
        (event.sequence, event.frames, event.reason)
        for event in events
        if isinstance(event, GroupReceived)
    ]


def settled(relay: MoqtRelay, seconds: float = 2) -> list[Event]:
    relay.now += int(seconds * SECOND)
    return list(relay.session.settle(relay.now))


@each_draft
def test_what_overtakes_the_answer_is_kept_for_it(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    number = relay.session.subscribe("demo/tv", "video", priority=1, max_latency=0)
    stream = 4 if draft.request_streams else relay.control
    data = relay.subgroup(7, 5, [0, 1], [b"one", b"two"], end_of_group=True)
    assert relay.uni(data, end=True) == []
    assert relay.session.statistics().early_bytes > 0
    events = relay.accept(number, stream, 7)
    assert events[0] == TrackAccepted(number, None)
    assert groups(events) == [(5, (b"one", b"two"), "")]
    assert relay.session.statistics().early_bytes == 0


def test_what_overtakes_is_bounded_and_what_nobody_waits_for_is_stopped() -> None:
    relay = MoqtRelay(DRAFT_18, Limits(early_bytes=3000))
    relay.uni(relay.subgroup(7, 0, [0], [b"x" * 100]))
    assert relay.sent()[-1].startswith("stop ")
    relay.session.subscribe("demo/tv", "video", priority=1, max_latency=0)
    for group in range(100):
        relay.uni(relay.subgroup(7, group, [0], [b"x" * 100]))
    assert relay.session.statistics().early_bytes <= 3000
    assert sum(call.startswith("stop ") for call in relay.sent()) > 90


@each_draft
def test_the_phantom_group_at_the_end_of_a_track_is_none(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    relay.accepted("tv", "video", alias=6)
    assert relay.uni(bytes.fromhex("18060480000004"), end=True) == []
    assert settled(relay) == []
    assert groups(relay.uni(bytes.fromhex("18060580"), end=True)) == [(5, (), "")]


@each_draft
def test_an_end_in_band_completes_a_group_before_its_stream_ends(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    relay.accepted("tv", "video", alias=7)
    data = relay.subgroup(7, 1, [0], [b"one"]) + bytes.fromhex("000003")
    assert groups(relay.uni(data)) == [(1, (b"one",), "")]


def test_without_a_mark_a_group_is_complete_when_nothing_more_comes() -> None:
    relay = MoqtRelay(DRAFT_18)
    relay.accepted("tv", "video", alias=7)
    assert relay.uni(relay.subgroup(7, 1, [0, 1], [b"one", b"two"]), end=True) == []
    assert relay.session.waiting
    assert settled(relay, 0.5) == []
    assert groups(settled(relay)) == [(1, (b"one", b"two"), "")]
    assert not relay.session.waiting


def test_a_hole_ends_what_is_told() -> None:
    relay = MoqtRelay(DRAFT_18)
    relay.accepted("tv", "video", alias=7)
    relay.uni(relay.subgroup(7, 1, [0, 2], [b"a", b"b", b"c"], end_of_group=True), end=True)
    assert groups(settled(relay)) == [(1, (b"a",), "object 1 did not come")]


def test_a_gap_that_the_publisher_tells_is_no_hole() -> None:
    relay = MoqtRelay(DRAFT_18)
    relay.accepted("tv", "video", alias=7)
    objects = "00 00 01 61  01 02 3e01 01 63"  # object 0; object 2, and one before it never was
    data = bytes.fromhex("19 07 01 80") + bytes.fromhex(objects)
    assert groups(relay.uni(data, end=True)) == [(1, (b"a", b"c"), "")]


def test_a_reset_leaves_the_objects_that_came_and_the_beginning_of_the_next() -> None:
    relay = MoqtRelay(DRAFT_18)
    relay.accepted("tv", "video", alias=7)
    stream = relay.new_uni()
    relay.data(stream, relay.subgroup(7, 1, [0, 1], [b"one", b"second"])[:-4])
    assert relay.reset_by_relay(stream, 4) == []
    (event,) = settled(relay)
    assert isinstance(event, GroupReceived)
    assert (event.frames, event.reason, event.lacking) == ((b"one", b"se"), "reset 4", 4)


def test_what_a_reset_cut_may_go_on_elsewhere() -> None:
    relay = MoqtRelay(DRAFT_18)
    relay.accepted("tv", "video", alias=7)
    objects = [b"one", b"two", b"three"]
    stream = relay.new_uni()
    relay.data(stream, relay.subgroup(7, 1, [0], objects))
    relay.reset_by_relay(stream, 4)
    rest = relay.subgroup(7, 1, [1, 2], objects, end_of_group=True)
    assert groups(relay.uni(rest, end=True)) == [(1, tuple(objects), "")]


@with_fetch
def test_a_group_in_whose_middle_the_subscription_began_gets_its_beginning_by_fetch(
    draft: Draft,
) -> None:
    relay = MoqtRelay(draft)
    relay.accepted("tv", "catalog", alias=7, largest=Location(3, 1))
    objects = [b"zero", b"one", b"two"]
    relay.sent()
    assert relay.uni(relay.subgroup(7, 3, [2], objects, end_of_group=True), end=True) == []
    assert any("1600" in call for call in relay.sent())
    encode = draft.integers.encode
    first = encode(0x1C) + encode(3) + encode(0) + b"\x80" + encode(4) + b"zero"
    fetched = b"\x05" + encode(2) + first + encode(0) + encode(3) + b"one"
    assert groups(relay.uni(fetched, end=True)) == [(3, tuple(objects), "")]


@with_fetch
def test_a_catalog_that_stands_still_is_fetched_and_stays_open(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    relay.accepted("tv", "catalog", alias=7, largest=Location(3, 0))
    relay.sent()
    settled(relay)
    assert any("1600" in call for call in relay.sent())
    encode = draft.integers.encode
    data = (
        b"\x05" + encode(2) + encode(0x1C) + encode(3) + encode(0) + b"\x80" + encode(4) + b"json"
    )
    assert relay.uni(data, end=True) == []
    assert groups(settled(relay)) == [(3, (b"json",), "still open")]
    assert not relay.session.waiting
    delta = relay.subgroup(7, 3, [1], [b"json", b"delta"])
    assert relay.uni(delta, end=True) == []
    assert groups(settled(relay)) == [(3, (b"json", b"delta"), "")]


def test_a_marked_stream_without_objects_is_no_proof_that_the_newest_group_is_empty() -> None:
    relay = MoqtRelay(DRAFT_18)
    relay.accepted("tv", "video", alias=7, largest=Location(3, 1))
    assert relay.uni(bytes.fromhex("18070380"), end=True) == []
    assert groups(relay.uni(bytes.fromhex("18070480"), end=True)) == [(4, (), "")]


@with_fetch
@pytest.mark.parametrize("answer_first", [True, False])
def test_a_fetched_group_is_marked_and_complete_if_the_relay_says_so(
    draft: Draft, answer_first: bool
) -> None:
    relay = MoqtRelay(draft)
    stream = 4
    number = relay.accepted("tv", "video", alias=7)
    assert relay.session.fetch(number, 9)
    assert not relay.session.fetch(number, 9)
    assert not relay.session.fetch(99, 9)
    encode = draft.integers.encode
    ours = None if draft.request_streams else 2
    answer = FetchOk(ours, False, Location(9, 0)).encode(draft)
    where = stream + 4 if draft.request_streams else None
    data = b"\x05" + encode(2) + encode(0x1C) + encode(9) + encode(0) + b"\x80" + encode(2) + b"ab"
    events: list[Event] = []
    if answer_first:
        events += relay.message(Kind.FETCH_OK, answer, where)
    events += relay.uni(data, end=True)
    if not answer_first:
        events += relay.message(Kind.FETCH_OK, answer, where)
    (event,) = events
    assert isinstance(event, GroupReceived)
    assert (event.sequence, event.frames, event.complete, event.fetched) == (
        9,
        (b"ab",),
        True,
        True,
    )
    assert relay.session.fetch(number, 9)


@with_fetch
def test_a_fetch_that_is_refused_or_not_answered_fails_once(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    number = relay.accepted("tv", "video", alias=7)
    assert relay.session.fetch(number, 9)
    ours = None if draft.request_streams else 2
    error = RequestError(ours, 16, "gone").encode(draft)
    where = 8 if draft.request_streams else None
    assert relay.message(Kind.REQUEST_ERROR, error, where) == [FetchFailed(number, 9, 16)]
    assert relay.session.fetch(number, 10)
    assert settled(relay) == []
    assert settled(relay, 11) == [FetchFailed(number, 10, 0)]
    assert settled(relay, 11) == []


def test_a_relay_that_says_nothing_to_a_fetch_is_known() -> None:
    relay = MoqtRelay(DRAFT_16)
    number = relay.accepted("tv", "video", alias=7)
    assert not relay.session.ignored
    assert relay.session.fetch(number, 9)
    assert relay.session.ignored == {Extra.FETCH}
    relay.message(Kind.REQUEST_ERROR, RequestError(2, 3, "not supported").encode(DRAFT_16))
    assert not relay.session.ignored


def test_where_fetching_is_off_nothing_is_fetched() -> None:
    relay = MoqtRelay(DRAFT_16, Limits(fetches=0))
    number = relay.accepted("tv", "catalog", alias=7, largest=Location(3, 0))
    relay.sent()
    settled(relay)
    assert not relay.session.fetch(number, 3)
    assert relay.sent() == []


def test_draft_14_fetches_only_from_relays_that_are_known_to_serve_it() -> None:
    relay = MoqtRelay(DRAFT_14)
    number = relay.accepted("tv", "video", alias=7)
    assert not relay.session.fetch(number, 1)


@each_draft
def test_the_end_of_a_track_waits_for_as_many_streams_as_it_had(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    number = relay.accepted("tv", "video", alias=7)
    ours = None if draft.request_streams else 0
    done = PublishDone(ours, 2, 2, "track ended").encode(draft)
    where = 4 if draft.request_streams else None
    assert relay.message(Kind.PUBLISH_DONE, done, where) == []
    first = relay.uni(relay.subgroup(7, 0, [0], [b"a"], end_of_group=True), end=True)
    assert groups(first) == [(0, (b"a",), "")]
    assert TrackEnded(number) not in first
    last = relay.uni(relay.subgroup(7, 1, [0], [b"b"], end_of_group=True), end=True)
    assert groups(last) == [(1, (b"b",), "")]
    assert last[-1] == TrackEnded(number)


@each_draft
def test_a_refusal_is_told_with_its_code(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    number = relay.session.subscribe("tv", "absent", priority=1, max_latency=0)
    ours = None if draft.request_streams else 0
    error = RequestError(ours, 16, "no such track").encode(draft)
    where = 4 if draft.request_streams else None
    assert relay.message(Kind.REQUEST_ERROR, error, where) == [TrackRefused(number, 16)]


@with_fetch
def test_namespaces_come_and_go(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    stream = 4 if draft.request_streams else 8
    relay.session.announce("demo")
    body = Namespace((b"tv",)).encode(draft)
    assert relay.message(Kind.NAMESPACE, body, stream) == [BroadcastAnnounced("demo/tv", 1)]
    assert relay.message(Kind.NAMESPACE_DONE, body, stream) == [BroadcastEnded("demo/tv")]
    assert relay.message(Kind.NAMESPACE, body, stream) == [BroadcastAnnounced("demo/tv", 2)]
    assert relay.reset_by_relay(stream, 1) == [
        BroadcastEnded("demo/tv"),
        AnnouncementsEnded("demo"),
    ]


def test_draft_14_tells_namespaces_by_requests_of_the_relay_before_or_after_we_ask() -> None:
    relay = MoqtRelay(DRAFT_14)
    for request, name in ((1, b"tv"), (3, b"radio")):
        body = PublishNamespace(request, (b"demo", name)).encode(DRAFT_14)
        relay.message(Kind.PUBLISH_NAMESPACE, body)
    body = PublishNamespace(5, (b"other",)).encode(DRAFT_14)
    relay.message(Kind.PUBLISH_NAMESPACE, body)
    assert relay.sent() == [f"4 0700010{number}" for number in (1, 3, 5)]
    relay.session.announce("demo")
    assert relay.session.waiting
    assert settled(relay) == [BroadcastAnnounced("demo/tv", 1), BroadcastAnnounced("demo/radio", 1)]
    done = PublishNamespaceDone((b"demo", b"tv"), None).encode(DRAFT_14)
    assert relay.message(Kind.PUBLISH_NAMESPACE_DONE, done) == [BroadcastEnded("demo/tv")]


def test_a_relay_without_discovery_still_delivers_by_name() -> None:
    relay = MoqtRelay(DRAFT_14)
    relay.session.announce("demo")
    error = RequestError(0, 3, "not supported").encode(DRAFT_14)
    assert relay.message(Kind.SUBSCRIBE_NAMESPACE_ERROR, error) == []
    number = relay.session.subscribe("demo/tv", "video", priority=1, max_latency=0)
    assert relay.accept(2, relay.control, 7) == [TrackAccepted(number, None)]


def test_a_namespace_that_no_path_can_name_is_asked_for_as_it_came() -> None:
    relay = MoqtRelay(DRAFT_18)
    relay.session.announce("")
    relay.message(Kind.NAMESPACE, Namespace((b"a/b", b"c")).encode(DRAFT_18), 4)
    relay.sent()
    relay.session.subscribe("a/b/c", "video", priority=1, max_latency=0)
    assert "0203612f620163" in relay.sent()[0]


@each_draft
def test_a_farewell_is_told_with_where_to_go(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    body = Goaway("https://other", 5000 if draft.request_streams else None).encode(draft)
    timeout = 5000 if draft.request_streams else None
    assert relay.message(Kind.GOAWAY, body) == [GoawayReceived("https://other", timeout)]


def test_requests_wait_until_the_relay_allows_them() -> None:
    relay = MoqtRelay(DRAFT_16)
    fresh = MoqtSession(DRAFT_16, relay, Limits())
    fresh.start()
    relay.sent()
    fresh.subscribe("tv", "video", priority=1, max_latency=0)
    assert relay.sent() == []
    fresh.stream_data(
        8, frame(Kind.SERVER_SETUP, ServerSetup().encode(DRAFT_16), DRAFT_16), 0, end=False
    )
    assert relay.sent() == []
    fresh.stream_data(8, bytes.fromhex("15000102"), 0, end=False)
    assert len(relay.sent()) == 1


def test_on_raw_quic_setup_says_where() -> None:
    relay = MoqtRelay(DRAFT_18)
    session = MoqtSession(DRAFT_18, relay, Limits(), Locator("host:1", "/path?jwt=1"))
    session.start()
    (sent,) = relay.sent()
    assert b"/path?jwt=1".hex() in sent
    assert b"host:1".hex() in sent


def test_the_end_or_garbage_on_the_control_stream_ends_the_session() -> None:
    for data, end in ((b"", True), (bytes.fromhex("0400020202"), False)):
        relay = MoqtRelay(DRAFT_14)
        with pytest.raises(ProtocolError):
            relay.data(relay.control, data, end=end)


def test_another_version_than_ours_ends_the_negotiation() -> None:
    relay = MoqtRelay(DRAFT_14)
    body = ServerSetup(0xFF00000D).encode(DRAFT_14)
    with pytest.raises(NegotiationError):
        relay.message(Kind.SERVER_SETUP, body)


def test_a_track_offered_unasked_is_turned_down() -> None:
    relay = MoqtRelay(DRAFT_18)
    relay.message(Kind.PUBLISH, bytes.fromhex("01 00 00 05 00"), 1)
    assert relay.sent() == ["1 050003200000", "1  end"]


@each_draft
def test_an_object_in_a_datagram_is_a_group(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    number = relay.accepted("tv", "video", alias=7)
    told = list(relay.session.datagram(bytes.fromhex("06070580") + b"word", relay.now))
    assert groups(told) == [(5, (b"word",), "")]
    assert told[0].subscription == number  # type: ignore[union-attr]


@each_draft
def test_what_was_given_up_is_forgotten(draft: Draft) -> None:
    relay = MoqtRelay(draft)
    number = relay.accepted("tv", "video", alias=7)
    stream = relay.new_uni()
    relay.data(stream, relay.subgroup(7, 1, [0], [b"one"]))
    relay.sent()
    relay.session.unsubscribe(number)
    assert any(call == f"stop {stream} 1" for call in relay.sent())
    assert relay.session.buffered == 0
    assert relay.data(stream, b"more", end=True) == []
    assert relay.session.statistics().requests == 0
