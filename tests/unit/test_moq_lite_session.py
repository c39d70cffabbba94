"""A moq-lite session does what its relay makes it do, and no stream can do more than end itself."""

from __future__ import annotations

import pytest

from ingest.moq.events import (
    AnnouncementsEnded,
    BroadcastAnnounced,
    BroadcastEnded,
    GoawayReceived,
    GroupReceived,
    GroupsDropped,
    TrackAccepted,
    TrackEnded,
    TrackRefused,
)
from ingest.moq.interface import Limits
from ingest.moq.lite_messages import (
    Announcement,
    AnnounceOk,
    Delivery,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeStart,
    TrackInfo,
    encode_reply,
)
from ingest.moq.lite_versions import LITE_04, LITE_05, LiteVersion
from ingest.moq.subscriptions import PATIENCE
from tests.fakes.lite_relay import OPENED_AT, Relay, groups

FRAME_05 = bytes.fromhex("0a 03") + b"abc"
FRAME_04 = bytes.fromhex("03") + b"abc"
INFO = TrackInfo(127, 0, 5000, 1_000_000).encode()
START = encode_reply(0, SubscribeStart(0))
OK = encode_reply(0, SubscribeOk(Delivery(10, 0, 0)))


def subscribed(
    version: LiteVersion = LITE_05, limits: Limits | None = None
) -> tuple[Relay, int, int, int]:
    """Return a relay, a subscription, its stream and its TRACK stream (05)."""
    relay = Relay(version, limits)
    subscription = relay.session.subscribe("demo/tv", "video0.m4s", priority=10, max_latency=60_000)
    relay.sent()
    return relay, subscription, 4, 8


# What we ask for


def test_05_says_first_that_we_only_subscribe() -> None:
    relay = Relay(LITE_05)
    relay.session.start()
    assert relay.sent() == ["2 010401030102 end"]


def test_04_says_nothing_first() -> None:
    relay = Relay(LITE_04)
    relay.session.start()
    assert relay.sent() == []


def test_05_subscribes_and_asks_for_the_properties_beside() -> None:
    relay = Relay(LITE_05)
    assert relay.session.subscribe("demo/tv", "video0.m4s", priority=10, max_latency=60_000) == 0
    assert relay.sent() == [
        "4 021c000764656d6f2f74760a766964656f302e6d34730a018000ea600100",
        "8 06130764656d6f2f74760a766964656f302e6d3473",
    ]


def test_04_subscribes_alone_and_numbers_rise() -> None:
    relay = Relay(LITE_04)
    assert relay.session.subscribe("demo/tv", "video0.m4s", priority=10, max_latency=60_000) == 0
    assert relay.session.subscribe("demo/tv", "video0.m4s", priority=10, max_latency=60_000) == 1
    assert relay.sent() == [
        "4 021c000764656d6f2f74760a766964656f302e6d34730a018000ea600100",
        "8 021c010764656d6f2f74760a766964656f302e6d34730a018000ea600100",
    ]


@pytest.mark.parametrize("version", [LITE_04, LITE_05])
def test_an_announce_request_names_its_prefix(version: LiteVersion) -> None:
    relay = Relay(version)
    relay.session.announce("demo")
    assert relay.sent() == ["4 01060464656d6f00"]


# Announcements


def announcing(version: LiteVersion, prefix: str = "", limits: Limits | None = None) -> Relay:
    relay = Relay(version, limits)
    relay.session.announce(prefix)
    if version is LITE_05:
        assert relay.data(4, AnnounceOk(99, 0).encode()) == []
    return relay


def test_captured_announcements_of_05() -> None:
    relay = Relay(LITE_05)
    relay.session.announce("")
    ok = bytes.fromhex("09c0173dd52f0e50df01")
    active = bytes.fromhex("12010764656d6f2f747601c00442e51c4c95af")
    assert relay.data(4, ok + active) == [BroadcastAnnounced("demo/tv", 1)]


def test_captured_announcements_of_04() -> None:
    relay = Relay(LITE_04)
    relay.session.announce("")
    active = bytes.fromhex("1a010764656d6f2f747602c007e44aff02c63cc0173dd52f0e50df")
    ended = bytes.fromhex("0a000764656d6f2f747600")
    assert relay.data(4, active + ended) == [
        BroadcastAnnounced("demo/tv", 1),
        BroadcastEnded("demo/tv"),
    ]


@pytest.mark.parametrize("version", [LITE_04, LITE_05])
def test_each_announcement_of_a_path_raises_its_generation(version: LiteVersion) -> None:
    relay = announcing(version)
    active = Announcement(active=True, suffix=b"tv").encode()
    ended = Announcement(active=False, suffix=b"tv").encode()
    assert relay.data(4, active + active + ended + active) == [
        BroadcastAnnounced("tv", 1),
        BroadcastAnnounced("tv", 2),
        BroadcastEnded("tv"),
        BroadcastAnnounced("tv", 3),
    ]


def test_the_end_of_an_unknown_path_means_nothing() -> None:
    relay = announcing(LITE_05)
    assert relay.data(4, Announcement(active=False, suffix=b"tv").encode()) == []


@pytest.mark.parametrize(
    ("prefix", "suffix", "path"),
    [
        ("", b"demo/tv", "demo/tv"),
        ("demo", b"tv", "demo/tv"),
        ("demo/", b"tv", "demo/tv"),
        ("demo", b"/tv", "demo/tv"),
        ("demo/tv", b"", "demo/tv"),
        ("", "дом/тв".encode(), "дом/тв"),
    ],
)
def test_prefix_and_suffix_are_the_path(prefix: str, suffix: bytes, path: str) -> None:
    relay = announcing(LITE_05, prefix)
    event = Announcement(active=True, suffix=suffix)
    assert relay.data(4, event.encode()) == [BroadcastAnnounced(path, 1)]


@pytest.mark.parametrize("suffix", [b"x" * 11, b"\xff\xfe", b""])
def test_a_name_that_cannot_be_costs_no_other_name(suffix: bytes) -> None:
    relay = announcing(LITE_05, limits=Limits(name_bytes=10))
    bad = Announcement(active=True, suffix=suffix).encode()
    good = Announcement(active=True, suffix=b"tv").encode()
    assert relay.data(4, bad + good) == [BroadcastAnnounced("tv", 1)]
    assert relay.session.statistics().ignored_announcements == 1


def test_the_limit_of_names_counts_the_prefix() -> None:
    relay = announcing(LITE_05, "12345678", limits=Limits(name_bytes=10))
    assert relay.data(4, Announcement(active=True, suffix=b"tv").encode()) == []


def test_beyond_the_limit_new_broadcasts_are_ignored_and_known_ones_go_on() -> None:
    relay = announcing(LITE_05, limits=Limits(announcements=2))
    names = [Announcement(active=True, suffix=name).encode() for name in (b"a", b"b", b"c", b"a")]
    assert relay.data(4, b"".join(names)) == [
        BroadcastAnnounced("a", 1),
        BroadcastAnnounced("b", 1),
        BroadcastAnnounced("a", 2),
    ]
    assert relay.session.statistics().broadcasts == 2
    ended = Announcement(active=False, suffix=b"b").encode()
    assert relay.data(4, ended + names[2]) == [BroadcastEnded("b"), BroadcastAnnounced("c", 1)]


def test_generations_rise_although_ended_names_are_forgotten() -> None:
    relay = announcing(LITE_04, limits=Limits(announcements=10))
    active = Announcement(active=True, suffix=b"tv").encode()
    ended = Announcement(active=False, suffix=b"tv").encode()
    relay.data(4, active + active + ended)
    for number in range(5000):
        name = str(number).encode()
        relay.data(4, Announcement(active=True, suffix=name).encode())
        relay.data(4, Announcement(active=False, suffix=name).encode())
    (event,) = relay.data(4, active)
    assert isinstance(event, BroadcastAnnounced)
    assert event.generation >= 3


@pytest.mark.parametrize("by_reset", [False, True])
def test_the_end_of_the_stream_is_the_end_of_what_it_announced(by_reset: bool) -> None:
    relay = announcing(LITE_05)
    relay.sent()
    relay.data(4, Announcement(active=True, suffix=b"tv").encode())
    events = relay.reset_by_relay(4, 7) if by_reset else relay.data(4, end=True)
    assert events == [BroadcastEnded("tv"), AnnouncementsEnded("")]
    assert relay.sent() == ["4  end"]


def test_a_broadcast_below_two_prefixes_is_told_once() -> None:
    relay = Relay(LITE_04)
    relay.session.announce("")
    relay.session.announce("demo")
    assert relay.data(4, Announcement(active=True, suffix=b"demo/tv").encode()) == [
        BroadcastAnnounced("demo/tv", 1)
    ]
    assert relay.data(8, Announcement(active=True, suffix=b"tv").encode()) == []
    assert relay.data(8, Announcement(active=False, suffix=b"tv").encode()) == []


def test_a_malformed_announcement_ends_its_stream_alone() -> None:
    relay = announcing(LITE_05)
    relay.session.subscribe("tv", "video", priority=0, max_latency=0)
    relay.data(4, Announcement(active=True, suffix=b"tv").encode())
    relay.sent()
    assert relay.data(4, bytes.fromhex("03 09 00 00")) == [
        BroadcastEnded("tv"),
        AnnouncementsEnded(""),
    ]
    assert relay.sent() == ["4  end", "stop 4 0"]
    assert relay.data(4, b"whatever follows") == []
    assert relay.data(12, INFO) == [TrackAccepted(0, 1_000_000)]


def test_a_message_over_the_limit_ends_its_stream_before_it_comes() -> None:
    relay = announcing(LITE_05, limits=Limits(message_bytes=100))
    relay.sent()
    assert relay.data(4, bytes.fromhex("4065")) == [AnnouncementsEnded("")]
    assert relay.sent() == ["4  end", "stop 4 0"]


# Accepted and refused


def test_05_accepts_with_the_timescale() -> None:
    relay, subscription, stream, track = subscribed()
    assert relay.data(track, bytes.fromhex("087f005388800f4240"), end=True) == [
        TrackAccepted(subscription, 1_000_000)
    ]
    assert relay.sent() == [f"{track}  end"]
    assert relay.data(stream, START) == []


def test_05_is_not_accepted_before_the_timescale_is_known() -> None:
    relay, subscription, stream, track = subscribed()
    assert relay.data(stream, START) == []
    assert relay.data(track, INFO) == [TrackAccepted(subscription, 1_000_000)]


def test_05_delivers_groups_before_it_accepts() -> None:
    relay, subscription, _, track = subscribed()
    _, events = relay.group(subscription, 5, FRAME_05, end=True)
    assert groups(events) == [(5, (b"abc",), "")]
    assert relay.data(track, INFO) == [TrackAccepted(subscription, 1_000_000)]


def test_a_timescale_of_zero_is_none() -> None:
    relay, subscription, _, track = subscribed()
    info = TrackInfo(127, 0, 5000, 0).encode()
    assert relay.data(track, info) == [TrackAccepted(subscription, None)]


def test_04_accepts_with_the_answer() -> None:
    relay, subscription, stream, _ = subscribed(LITE_04)
    assert relay.data(stream, OK) == [TrackAccepted(subscription, None)]
    assert relay.data(stream, OK) == []


def test_a_refused_track_is_told_once() -> None:
    relay, subscription, stream, track = subscribed()
    assert relay.reset_by_relay(track, 51) == [TrackRefused(subscription, 51)]
    assert relay.reset_by_relay(stream, 51) == []
    assert relay.sent() == [f"{track}  end", f"{stream}  end"]


def test_a_refused_subscription_is_told_once() -> None:
    relay, subscription, stream, track = subscribed()
    assert relay.reset_by_relay(stream, 51) == [TrackRefused(subscription, 51)]
    assert relay.reset_by_relay(track, 51) == []


def test_a_refused_subscription_is_not_accepted_afterwards() -> None:
    relay, subscription, stream, track = subscribed()
    assert relay.reset_by_relay(stream, 51) == [TrackRefused(subscription, 51)]
    assert relay.data(track, INFO, end=True) == []


def test_an_answer_after_refused_properties_accepts_without_timescale() -> None:
    relay, subscription, stream, track = subscribed()
    assert relay.reset_by_relay(track, 51) == [TrackRefused(subscription, 51)]
    assert relay.data(stream, START) == [TrackAccepted(subscription, None)]


def test_refused_properties_after_the_answer_are_no_refusal() -> None:
    relay, subscription, stream, track = subscribed()
    relay.data(stream, START)
    assert relay.reset_by_relay(track, 51) == [TrackAccepted(subscription, None)]


def test_refused_properties_after_a_group_are_no_refusal() -> None:
    relay, subscription, stream, track = subscribed()
    relay.group(subscription, 5, FRAME_05)
    assert relay.reset_by_relay(track, 51) == []
    assert relay.data(stream, START) == [TrackAccepted(subscription, None)]


def test_a_reset_after_a_group_is_no_refusal() -> None:
    relay, subscription, stream, _ = subscribed(LITE_04)
    relay.group(subscription, 5, FRAME_04, end=True)
    assert relay.reset_by_relay(stream, 0) == [TrackEnded(subscription)]


@pytest.mark.parametrize("answer", [b"", b"\x01\x00", b"\xff"])
def test_no_properties_are_no_refusal(answer: bytes) -> None:
    relay, subscription, stream, track = subscribed()
    assert relay.data(track, answer, end=True) == []
    assert relay.data(stream, START) == [TrackAccepted(subscription, None)]


# Groups


def test_a_captured_group_of_05() -> None:
    relay, _, _, _ = subscribed()
    relay.session.subscribe("demo/tv", "a", priority=0, max_latency=0)
    relay.session.subscribe("demo/tv", "b", priority=0, max_latency=0)
    header = bytes.fromhex("00020201 8004e200 80004e20")
    payload = bytes.fromhex("ca9e73") + bytes(20_000 - 3)
    relay.now = 500
    stream, events = relay.uni(header + payload[:1000])
    assert events == []
    relay.now = 900
    assert relay.data(stream, payload[1000:], end=True) == [
        GroupReceived(
            subscription=2,
            sequence=1,
            frames=(payload,),
            timestamps=(160_000,),
            complete=True,
            reason="",
            received_start=500,
            received_end=900,
        )
    ]


def test_a_captured_group_of_04() -> None:
    relay, _, _, _ = subscribed(LITE_04)
    payload = bytes.fromhex("ca9e") + bytes(20_000 - 2)
    _, events = relay.uni(bytes.fromhex("00020001 80004e20") + payload, end=True)
    (group,) = events
    assert isinstance(group, GroupReceived)
    assert (group.frames, group.timestamps) == ((payload,), None)


def test_captured_empty_groups_and_empty_frames() -> None:
    relay, _, _, _ = subscribed()
    _, events = relay.uni(bytes.fromhex("00020001"), end=True)
    assert groups(events) == [(1, (), "")]
    _, events = relay.uni(bytes.fromhex("000200020a00"), end=True)
    assert groups(events) == [(2, (b"",), "")]


def test_the_group_began_with_the_first_byte_of_its_stream() -> None:
    relay, _, _, _ = subscribed()
    relay.now = 1
    stream, _ = relay.uni(b"\0")
    relay.now = 2
    (group,) = relay.data(stream, bytes.fromhex("020001") + FRAME_05, end=True)
    assert isinstance(group, GroupReceived)
    assert (group.received_start, group.received_end) == (1, 2)


def test_a_reset_group_is_told_with_what_came() -> None:
    relay, _, _, _ = subscribed()
    stream, _ = relay.group(0, 5, FRAME_05 + FRAME_05[:-1])
    (group,) = relay.reset_by_relay(stream, 64)
    assert isinstance(group, GroupReceived)
    assert group.frames == (b"abc", b"ab")
    assert (group.complete, group.reason, group.lacking) == (False, "reset 64", 1)
    assert relay.session.buffered == 0


def test_groups_may_come_in_any_order_and_interleaved() -> None:
    relay, _, _, _ = subscribed()
    first, _ = relay.group(0, 9, FRAME_05)
    second, _ = relay.group(0, 3, FRAME_05)
    assert groups(relay.data(second, end=True)) == [(3, (b"abc",), "")]
    assert groups(relay.data(first, FRAME_05, end=True)) == [(9, (b"abc", b"abc"), "")]


def test_a_group_of_an_unknown_subscription_is_stopped_and_ignored() -> None:
    relay, _, _, _ = subscribed()
    stream, events = relay.group(17, 0, FRAME_05)
    assert events == []
    assert relay.sent() == [f"stop {stream} 0"]
    assert relay.data(stream, FRAME_05) == []
    assert relay.session.statistics().stopped_streams == 1
    assert relay.reset_by_relay(stream, 0) == []
    assert relay.session.statistics().stopped_streams == 0


def test_a_group_header_with_more_than_we_know_is_incomplete() -> None:
    relay, _, _, _ = subscribed()
    stream, events = relay.uni(bytes.fromhex("00 03 00 05 00") + FRAME_05)
    assert groups(events) == [(5, (), "the group's header is malformed")]
    assert relay.sent() == [f"stop {stream} 0"]
    assert relay.data(stream, FRAME_05, end=True) == []


@pytest.mark.parametrize("header", ["00 01 00", "00 00", "00 bfffffff", "00 02 40 40"])
def test_a_group_header_that_cannot_be_read_stops_its_stream_alone(header: str) -> None:
    relay, _, _, _ = subscribed()
    stream, events = relay.uni(bytes.fromhex(header))
    assert events == []
    assert relay.sent() == [f"stop {stream} 0"]
    assert relay.session.statistics().violations == 1
    _, events = relay.group(0, 6, FRAME_05, end=True)
    assert groups(events) == [(6, (b"abc",), "")]


def test_a_frame_over_the_limit_stops_its_group_alone() -> None:
    relay, _, _, _ = subscribed(limits=Limits(frame_bytes=3))
    stream, events = relay.group(0, 5, FRAME_05 + bytes.fromhex("00 04 00"))
    assert groups(events) == [(5, (b"abc",), "a frame of 4 bytes is over the limit of 3")]
    assert relay.sent() == [f"stop {stream} 0"]
    assert relay.data(stream, b"rest", end=True) == []
    _, events = relay.group(0, 6, FRAME_05, end=True)
    assert groups(events) == [(6, (b"abc",), "")]


def test_buffered_is_the_payload_that_is_held() -> None:
    relay, _, _, _ = subscribed()
    stream, _ = relay.group(0, 5, FRAME_05 + FRAME_05[:-1])
    assert relay.session.buffered == 5
    relay.data(stream, b"c", end=True)
    assert relay.session.buffered == 0


def test_long_open_groups_are_told_and_stay_open() -> None:
    relay, _, _, _ = subscribed()
    stream, _ = relay.group(0, 5, FRAME_05)
    assert relay.session.open_groups(OPENED_AT, OPENED_AT) == []
    assert groups(relay.session.open_groups(OPENED_AT + 1, OPENED_AT + 1)) == [
        (5, (b"abc",), "still open")
    ]
    assert relay.session.open_groups(OPENED_AT + 1, OPENED_AT + 1) == []
    assert groups(relay.data(stream, FRAME_05, end=True)) == [(5, (b"abc", b"abc"), "")]


def test_an_abandoned_session_tells_its_groups_and_hears_no_more() -> None:
    relay, _, stream, _ = subscribed()
    group, _ = relay.group(0, 5, FRAME_05)
    assert groups(relay.session.abandon("session lost", 2)) == [(5, (b"abc",), "session lost")]
    assert relay.session.buffered == 0
    assert relay.data(group, FRAME_05, end=True) == []
    assert relay.reset_by_relay(stream, 1) == []
    assert relay.group(0, 6, FRAME_05, end=True)[1] == []
    assert relay.sent() == []


# How subscriptions end


def test_a_drop_is_told() -> None:
    relay, _, stream, _ = subscribed()
    drop = encode_reply(2, SubscribeDrop(3, 5, 7))
    assert relay.data(stream, START + drop) == [GroupsDropped(0, 3, 5, 7)]


def test_a_drop_is_told_in_04() -> None:
    relay, _, stream, _ = subscribed(LITE_04)
    drop = encode_reply(1, SubscribeDrop(3, 5, 7))
    assert relay.data(stream, OK + drop) == [TrackAccepted(0, None), GroupsDropped(0, 3, 5, 7)]


def answered(version: LiteVersion = LITE_05) -> tuple[Relay, int]:
    relay, _, stream, track = subscribed(version)
    if version is LITE_05:
        relay.data(track, INFO, end=True)
        relay.data(stream, START)
    else:
        relay.data(stream, OK)
    relay.sent()
    return relay, stream


@pytest.mark.parametrize("version", [LITE_04, LITE_05])
@pytest.mark.parametrize("by_reset", [False, True])
def test_the_end_of_the_stream_ends_the_track(version: LiteVersion, by_reset: bool) -> None:
    relay, stream = answered(version)
    events = relay.reset_by_relay(stream, 1) if by_reset else relay.data(stream, end=True)
    assert events == [TrackEnded(0)]
    assert relay.sent() == [f"{stream}  end"]


@pytest.mark.parametrize("by_reset", [False, True])
def test_the_track_ends_after_its_open_groups(by_reset: bool) -> None:
    relay, stream = answered()
    group, _ = relay.group(0, 5, FRAME_05)
    assert relay.data(stream, encode_reply(1, SubscribeEnd(6)), end=True) == []
    events = relay.reset_by_relay(group, 1) if by_reset else relay.data(group, end=True)
    assert groups(events) == [(5, (b"abc",), "reset 1" if by_reset else "")]
    assert events[1:] == [TrackEnded(0)]


def test_the_track_ends_after_the_last_group_that_was_promised() -> None:
    relay, stream = answered()
    assert relay.data(stream, encode_reply(1, SubscribeEnd(6)), end=True) == []
    _, events = relay.group(0, 5, FRAME_05, end=True)
    assert groups(events) == [(5, (b"abc",), "")]
    assert events[1:] == [TrackEnded(0)]


def test_a_dropped_last_group_is_not_waited_for() -> None:
    relay, stream = answered()
    replies = encode_reply(2, SubscribeDrop(5, 5, 0)) + encode_reply(1, SubscribeEnd(6))
    assert relay.data(stream, replies, end=True) == [GroupsDropped(0, 5, 5, 0), TrackEnded(0)]


def test_the_track_ends_after_its_properties() -> None:
    relay, _, stream, track = subscribed()
    assert relay.data(stream, START, end=True) == []
    assert relay.data(track, INFO, end=True) == [TrackAccepted(0, 1_000_000), TrackEnded(0)]


def test_a_group_that_stalls_does_not_hold_the_end_back_for_ever() -> None:
    relay, stream = answered()
    relay.group(0, 5, FRAME_05)
    other, _ = relay.group(0, 6)
    relay.data(stream, end=True)
    relay.now += PATIENCE - 1
    assert relay.data(other, FRAME_05) == []
    relay.now += 1
    assert relay.data(other, FRAME_05) == [TrackEnded(0)]
    assert relay.data(other, FRAME_05) == []


def test_a_clock_that_steps_back_does_not_hold_the_end_back() -> None:
    relay, stream = answered()
    group, _ = relay.group(0, 5, FRAME_05)
    assert relay.data(stream, end=True) == []
    relay.now = OPENED_AT - 1
    assert relay.data(group, FRAME_05) == [TrackEnded(0)]


def test_a_group_that_the_network_held_up_is_delivered_after_the_end() -> None:
    relay, stream = answered()
    assert relay.data(stream, end=True) == [TrackEnded(0)]
    _, events = relay.group(0, 5, FRAME_05, end=True)
    assert groups(events) == [(5, (b"abc",), "")]
    assert len(events) == 1


def test_a_malformed_answer_ends_the_subscription_alone() -> None:
    relay, stream = answered()
    assert relay.data(stream, bytes.fromhex("01 00")) == [TrackEnded(0)]
    assert relay.sent() == [f"{stream}  end", f"stop {stream} 0"]
    assert relay.data(stream, b"whatever follows", end=True) == []


def test_an_unknown_answer_is_skipped() -> None:
    relay, _, stream, track = subscribed()
    relay.data(track, INFO)
    assert relay.data(stream, bytes.fromhex("4063 02 ffff") + START) == []
    assert relay.data(stream, end=True) == [TrackEnded(0)]


def test_unsubscribing_closes_both_streams_and_stops_the_groups() -> None:
    relay, subscription, stream, track = subscribed()
    group, _ = relay.group(0, 5, FRAME_05)
    relay.session.unsubscribe(subscription)
    assert relay.sent() == [
        f"{stream}  end",
        f"stop {stream} 0",
        f"{track}  end",
        f"stop {track} 0",
        f"stop {group} 0",
    ]
    assert relay.session.buffered == 0
    assert relay.data(stream, START, end=True) == []
    assert relay.reset_by_relay(track, 0) == []
    assert relay.data(group, FRAME_05) == []
    assert relay.reset_by_relay(group, 0) == []
    relay.session.unsubscribe(subscription)
    assert relay.sent() == []


def test_nothing_is_sent_on_a_stream_that_the_relay_stopped() -> None:
    relay, _, stream, _ = subscribed()
    assert relay.session.stream_stopped(stream, 0, relay.now) == []
    relay.reset_by_relay(stream, 51)
    assert relay.sent() == []


# What else a relay opens


def test_the_relays_setup_is_read_and_changes_nothing() -> None:
    relay = Relay(LITE_05)
    _, events = relay.uni(bytes.fromhex("010e0201010105 08c0173dd52f0e50df"), end=True)
    assert events == []
    assert relay.sent() == []
    assert relay.session.statistics().open_streams == 0


def test_a_malformed_setup_stops_its_stream_alone() -> None:
    relay = Relay(LITE_05)
    stream, events = relay.uni(bytes.fromhex("01 01 05"))
    assert events == []
    assert relay.sent() == [f"stop {stream} 0"]


@pytest.mark.parametrize(
    ("version", "opening"), [(LITE_04, "010100"), (LITE_05, "02"), (LITE_05, "7fff")]
)
def test_an_unknown_stream_in_one_direction_is_stopped(version: LiteVersion, opening: str) -> None:
    relay = Relay(version)
    stream, events = relay.uni(bytes.fromhex(opening))
    assert events == []
    assert relay.sent() == [f"stop {stream} 0"]


@pytest.mark.parametrize("opening", ["01 09 00 c00d350c2e7dc989", "04"])
def test_the_relays_announce_and_probe_are_left_without_an_answer(opening: str) -> None:
    relay = Relay()
    stream, events = relay.bidi(bytes.fromhex(opening))
    assert events == []
    assert relay.data(stream, b"\xff" * 100_000) == []
    assert relay.sent() == []
    assert relay.data(stream, end=True) == []
    assert relay.sent() == [f"{stream}  end"]
    assert relay.session.statistics().open_streams == 0


@pytest.mark.parametrize("opening", ["02", "03", "06", "3f"])
def test_any_other_request_of_the_relay_is_turned_away(opening: str) -> None:
    relay = Relay()
    stream, events = relay.bidi(bytes.fromhex(opening))
    assert events == []
    assert relay.sent() == [f"reset {stream} 0", f"stop {stream} 0"]
    assert relay.data(stream, b"more", end=True) == []
    assert relay.session.statistics().stopped_streams == 0


def test_goaway_is_told_and_the_session_goes_on() -> None:
    relay, _, _, _ = subscribed()
    stream, events = relay.bidi(bytes.fromhex("05 06 05") + b"https")
    assert events == [GoawayReceived("https")]
    assert relay.sent() == []
    _, events = relay.group(0, 5, FRAME_05, end=True)
    assert groups(events) == [(5, (b"abc",), "")]
    assert relay.data(stream, b"anything", end=True) == []
    assert relay.sent() == [f"{stream}  end"]


def test_a_stream_that_ends_before_it_says_what_it_is_means_nothing() -> None:
    relay = Relay()
    assert relay.uni(b"", end=True)[1] == []
    stream, events = relay.bidi(b"\x40", end=True)
    assert events == []
    assert relay.sent() == [f"{stream}  end"]
    assert relay.session.statistics().open_streams == 0
