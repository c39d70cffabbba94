"""moq-lite 06: its messages as captured between Rust clients and relays, and what they do."""

from __future__ import annotations

from typing import Any

import pytest

from casfs.errors import ProtocolError
from ingest.moq.events import (
    AnnouncementsEnded,
    BroadcastAnnounced,
    BroadcastEnded,
    GroupReceived,
    TrackAccepted,
)
from ingest.moq.interface import Limits
from ingest.moq.lite_messages import (
    AnnounceOk,
    BidiStream,
    Role,
    Setup,
    SetupParameter,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeReply,
    SubscribeStart,
    TrackRequest,
    UniStream,
    encode_reply,
)
from ingest.moq.lite_messages_06 import (
    AnnounceEnd,
    AnnounceKind,
    Announcement,
    AnnounceRequest,
    AnnounceStart,
    AnnounceUpdate,
    Delivery,
    Fetch,
    GroupHeader,
    Route,
    Subscribe,
    TrackInfo,
    encode_announcement,
)
from ingest.moq.lite_versions import LITE_06
from ingest.moq.reading import StreamReader
from ingest.moq.varint import encode_varint
from tests.fakes.lite_relay import Relay, groups

HOP_1 = 0x0173DD52F0E50DF
HOP_2 = 0x019150DCE9034D3
HOP_3 = 0x00C0753B6DFBCD2

MESSAGES = [
    pytest.param("01 01 00", BidiStream.ANNOUNCE, AnnounceRequest(""), id="announce request"),
    pytest.param("09 c0173dd52f0e50df 01", None, AnnounceOk(HOP_1, 1), id="announce ok"),
    pytest.param("07 7f 5388 800f4240", None, TrackInfo(127, 5000, 1_000_000), id="track info"),
    pytest.param("05 64 5388 43e8", None, TrackInfo(100, 5000, 1000), id="info of the catalog"),
    pytest.param(
        "02 1b 00 07 64656d6f2f7476 0a 766964656f302e6d3473 07 4bb8 03 09 00 00",
        BidiStream.SUBSCRIBE,
        Subscribe(0, "demo/tv", "video0.m4s", Delivery(7, 3000, 3, 8)),
        id="subscribe",
    ),
    pytest.param("07 08 4fa0 04 14 00 00", None, Delivery(8, 4000, 4, 19), id="subscribe update"),
    pytest.param("03 02 01 00", None, GroupHeader(2, 1), id="group"),
    pytest.param(
        "03 17 07 64656d6f2f7476 0a 766964656f302e6d3473 00 05 00 00",
        BidiStream.FETCH,
        Fetch("demo/tv", "video0.m4s", 0, 5),
        id="fetch",
    ),
    pytest.param(
        "06 13 07 64656d6f2f7476 0a 766964656f302e6d3473",
        BidiStream.TRACK,
        TrackRequest("demo/tv", "video0.m4s"),
        id="track, as in 05",
    ),
    pytest.param(
        "01 0e 02 01 01 01 05 08 c0173dd52f0e50df",
        UniStream.SETUP,
        Setup((SetupParameter(1, b"\1"), SetupParameter(5, bytes.fromhex("c0173dd52f0e50df")))),
        id="setup, as in 05",
    ),
    pytest.param(
        "01 04 01 03 01 02", UniStream.SETUP, Setup.of_role(Role.SUBSCRIBER), id="a subscriber's"
    ),
]


@pytest.mark.parametrize(("captured", "stream", "message"), MESSAGES)
def test_a_message_is_written_and_read_as_captured(
    captured: str, stream: int | None, message: Any
) -> None:
    data = bytes.fromhex(captured)
    opening = b"" if stream is None else encode_varint(stream)
    assert opening + message.encode() == data

    reader = StreamReader(1000)
    reader.append(data[len(opening) :])
    body = reader.message()
    assert body is not None
    assert type(message).decode(body) == message
    assert reader.unread == 0


@pytest.mark.parametrize(
    ("captured", "kind", "announcement"),
    [
        (
            "00 13 07 64656d6f2f7476 01 c019150dce9034d3 01 01",
            AnnounceKind.START,
            AnnounceStart(b"demo/tv", Route((HOP_2,), 1, 1)),
        ),
        ("01 01 00", AnnounceKind.END, AnnounceEnd(0)),
        (
            "02 0c 02 01 c00c0753b6dfbcd2 01 01",
            AnnounceKind.UPDATE,
            AnnounceUpdate(2, Route((HOP_3,), 1, 1)),
        ),
    ],
    ids=["start", "end", "update"],
)
def test_an_announcement_is_written_and_read_as_captured(
    captured: str, kind: AnnounceKind, announcement: Announcement
) -> None:
    data = bytes.fromhex(captured)
    assert encode_announcement(announcement) == data
    reader = StreamReader(1000)
    reader.append(data)
    message = reader.typed_message()
    assert message is not None
    assert message.kind == kind
    assert type(announcement).decode(message.body) == announcement


def test_a_route_may_have_one_cost() -> None:
    start = AnnounceStart(b"tv", Route((), 7))
    assert encode_announcement(start) == bytes.fromhex("00 05 02 7476 00 07")
    assert AnnounceStart.decode(bytes.fromhex("02 7476 00 07")) == start


@pytest.mark.parametrize(
    ("captured", "reply"),
    [
        ("00 01 0b", SubscribeStart(11)),
        ("01 01 06", SubscribeEnd(6)),
        ("02 03 05 06 07", SubscribeDrop(5, 6, 7)),
    ],
)
def test_a_reply_to_subscribe_is_read_as_in_05(captured: str, reply: SubscribeReply) -> None:
    reader = StreamReader(1000)
    reader.append(bytes.fromhex(captured))
    message = reader.typed_message()
    assert message is not None
    assert LITE_06.decode_subscribe_reply(message) == reply


@pytest.mark.parametrize("body", ["01 ffffffffffffffff", "02 7476 bfffffff", "02 7476 01"])
def test_a_start_that_cannot_be_is_a_violation(body: str) -> None:
    with pytest.raises(ProtocolError):
        AnnounceStart.decode(bytes.fromhex(body))


# What we ask for


def test_we_say_first_that_we_only_subscribe() -> None:
    relay = Relay(LITE_06)
    relay.session.start()
    assert relay.sent() == ["2 010401030102 end"]


def test_an_announce_request_is_its_prefix_alone() -> None:
    relay = Relay(LITE_06)
    relay.session.announce("demo")
    assert relay.sent() == ["4 01050464656d6f"]


def test_we_subscribe_to_all_frames_of_all_groups_and_ask_for_the_properties() -> None:
    relay = Relay(LITE_06)
    assert relay.session.subscribe("demo/tv", "video0.m4s", priority=10, max_latency=60_000) == 0
    assert relay.sent() == [
        "4 021d000764656d6f2f74760a766964656f302e6d34730a8000ea6000000000",
        "8 06130764656d6f2f74760a766964656f302e6d3473",
    ]


# Announcements


def announcing(prefix: str = "", limits: Limits | None = None) -> Relay:
    relay = Relay(LITE_06, limits)
    relay.session.announce(prefix)
    assert relay.data(4, AnnounceOk(99, 0).encode()) == []
    return relay


def start(suffix: bytes, *hops: int) -> bytes:
    return encode_announcement(AnnounceStart(suffix, Route(hops, 1, 1)))


def end(number: int) -> bytes:
    return encode_announcement(AnnounceEnd(number))


def update(number: int, *hops: int, cost: int = 1) -> bytes:
    return encode_announcement(AnnounceUpdate(number, Route(hops, cost, 1)))


def test_a_captured_publisher_that_begins_anew_has_ended_before() -> None:
    relay = Relay(LITE_06)
    relay.session.announce("")
    begun = bytes.fromhex("09c011a300a15d1f6901 00130764656d6f2f747601c00c1af2fdf9d5610101")
    anew = bytes.fromhex("010100 00130764656d6f2f747601c00c1af2fdf9d5610101")
    assert relay.data(4, begun + anew) == [
        BroadcastAnnounced("demo/tv", 1),
        BroadcastEnded("demo/tv"),
        BroadcastAnnounced("demo/tv", 2),
    ]


def test_another_publisher_of_the_same_name_is_a_replacement() -> None:
    relay = announcing()
    assert relay.data(4, start(b"tv", 1) + update(0, 2) + end(0)) == [
        BroadcastAnnounced("tv", 1),
        BroadcastAnnounced("tv", 2),
        BroadcastEnded("tv"),
    ]


def test_another_way_to_the_same_publisher_means_nothing() -> None:
    relay = announcing()
    relay.data(4, start(b"tv", 1, 5))
    assert relay.data(4, update(0, 1, 6) + update(0, 1, 6, cost=9)) == []


@pytest.mark.parametrize("hops", [(), (0,)])
def test_an_unknown_publisher_may_be_another(hops: tuple[int, ...]) -> None:
    relay = announcing()
    relay.data(4, start(b"tv", *hops))
    assert relay.data(4, update(0, *hops)) == [BroadcastAnnounced("tv", 2)]


def test_numbers_count_what_has_come_on_their_own_stream() -> None:
    relay = announcing()
    relay.session.announce("demo")
    assert relay.data(8, AnnounceOk(99, 0).encode() + start(b"tv")) == [
        BroadcastAnnounced("demo/tv", 1)
    ]
    relay.data(4, start(b"a") + start(b"b") + end(0) + start(b"c"))
    assert relay.data(4, end(2) + end(1)) == [BroadcastEnded("c"), BroadcastEnded("b")]
    assert relay.data(8, end(0)) == [BroadcastEnded("demo/tv")]


def test_a_name_that_was_given_a_newer_number_ends_with_that() -> None:
    relay = announcing()
    events = relay.data(4, start(b"tv", 1) + start(b"tv", 2) + update(0, 3) + end(0) + end(1))
    assert events == [
        BroadcastAnnounced("tv", 1),
        BroadcastAnnounced("tv", 2),
        BroadcastEnded("tv"),
    ]


def test_what_has_ended_ends_no_more() -> None:
    relay = announcing()
    relay.data(4, start(b"tv") + end(0))
    assert relay.data(4, end(0) + update(0, 7)) == []


@pytest.mark.parametrize("message", [end(1), update(1, 5)])
def test_a_number_that_was_not_given_ends_the_stream_alone(message: bytes) -> None:
    relay = announcing()
    relay.session.subscribe("tv", "video", priority=0, max_latency=0)
    relay.data(4, start(b"tv"))
    relay.sent()
    assert relay.data(4, message) == [BroadcastEnded("tv"), AnnouncementsEnded("")]
    assert relay.sent() == ["4  end", "stop 4 0"]
    assert relay.data(12, TrackInfo(127, 5000, 1000).encode()) == [TrackAccepted(0, 1000)]


def test_an_announcement_of_unknown_kind_is_skipped_and_has_no_number() -> None:
    relay = announcing()
    assert relay.data(4, bytes.fromhex("03 02 ffff") + start(b"tv")) == [
        BroadcastAnnounced("tv", 1)
    ]
    assert relay.data(4, end(0)) == [BroadcastEnded("tv")]


@pytest.mark.parametrize("suffix", [b"x" * 11, b"\xff\xfe", b""])
def test_a_name_that_cannot_be_has_a_number_and_costs_no_other_name(suffix: bytes) -> None:
    relay = announcing(limits=Limits(name_bytes=10))
    assert relay.data(4, start(suffix) + start(b"tv")) == [BroadcastAnnounced("tv", 1)]
    assert relay.session.statistics().ignored_announcements == 1
    assert relay.data(4, end(0) + update(0, 5) + end(1))[-1] == BroadcastEnded("tv")


def test_beyond_the_limit_new_broadcasts_are_ignored_and_known_ones_go_on() -> None:
    relay = announcing(limits=Limits(announcements=2))
    events = relay.data(4, start(b"a") + start(b"b") + start(b"c") + end(2) + end(0) + start(b"d"))
    assert events == [
        BroadcastAnnounced("a", 1),
        BroadcastAnnounced("b", 1),
        BroadcastEnded("a"),
        BroadcastAnnounced("d", 1),
    ]
    assert relay.data(4, end(3) + end(1)) == [BroadcastEnded("d"), BroadcastEnded("b")]


@pytest.mark.parametrize("by_reset", [False, True])
def test_the_end_of_the_stream_is_the_end_of_what_it_announced(by_reset: bool) -> None:
    relay = announcing()
    relay.data(4, start(b"tv"))
    events = relay.reset_by_relay(4, 7) if by_reset else relay.data(4, end=True)
    assert events == [BroadcastEnded("tv"), AnnouncementsEnded("")]


# Tracks and groups


def subscribed() -> Relay:
    relay = Relay(LITE_06)
    relay.session.subscribe("demo/tv", "video0.m4s", priority=10, max_latency=60_000)
    relay.sent()
    return relay


def test_the_properties_have_no_order() -> None:
    relay = subscribed()
    assert relay.data(8, bytes.fromhex("07 7f 5388 800f4240"), end=True) == [
        TrackAccepted(0, 1_000_000)
    ]
    assert relay.data(4, encode_reply(0, SubscribeStart(0))) == []


def test_a_captured_group() -> None:
    relay = subscribed()
    relay.session.subscribe("demo/tv", "a", priority=0, max_latency=0)
    relay.session.subscribe("demo/tv", "b", priority=0, max_latency=0)
    payload = bytes.fromhex("ca9e") + bytes(20_000 - 2)
    _, events = relay.uni(bytes.fromhex("0003020100 8004e200 80004e20") + payload, end=True)
    (group,) = events
    assert isinstance(group, GroupReceived)
    assert (group.subscription, group.sequence, group.complete) == (2, 1, True)
    assert (group.frames, group.timestamps) == ((payload,), (160_000,))


def test_a_group_without_its_beginning_is_incomplete_and_empty() -> None:
    relay = subscribed()
    stream, events = relay.uni(bytes.fromhex("00 03 00 05 02 0a 03") + b"abc")
    assert groups(events) == [(5, (), "the group begins at frame 2")]
    assert relay.sent() == [f"stop {stream} 0"]
    assert relay.data(stream, b"more", end=True) == []


def test_a_group_header_with_more_than_we_know_is_incomplete() -> None:
    relay = subscribed()
    _, events = relay.uni(bytes.fromhex("00 04 00 05 00 00 0a 03") + b"abc")
    assert groups(events) == [(5, (), "the group's header is malformed")]


def test_a_group_header_of_05_stops_its_stream_alone() -> None:
    relay = subscribed()
    stream, events = relay.uni(bytes.fromhex("00 02 00 05 0a 03") + b"abc")
    assert events == []
    assert relay.sent() == [f"stop {stream} 0"]
    _, events = relay.group(0, 6, bytes.fromhex("0a 03") + b"abc", end=True)
    assert groups(events) == [(6, (b"abc",), "")]
