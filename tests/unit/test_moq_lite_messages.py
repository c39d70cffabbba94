"""moq-lite 04 and 05 messages against bytes captured between Rust clients and relays."""

from __future__ import annotations

from typing import Any

import pytest

from casfs.errors import ProtocolError
from ingest.moq.groups import FrameHeader
from ingest.moq.lite_frames import decode_zigzag, encode_zigzag, read_plain_frame, read_timed_frame
from ingest.moq.lite_messages import (
    Announcement,
    AnnounceOk,
    AnnounceRequest,
    BidiStream,
    Delivery,
    Fetch,
    Goaway,
    GroupHeader,
    Role,
    Setup,
    SetupParameter,
    Subscribe,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeReply,
    SubscribeStart,
    TrackInfo,
    TrackRequest,
    UniStream,
    encode_reply,
)
from ingest.moq.lite_versions import LITE_04, LITE_05, LiteVersion
from ingest.moq.reading import StreamReader
from ingest.moq.varint import encode_varint

HOP_1 = 0x007E44AFF02C63C
HOP_2 = 0x0173DD52F0E50DF
HOP_3 = 0x00442E51C4C95AF
CLIENT_HOP = 0x018306F31C60CDE

MESSAGES = [
    pytest.param(
        "01 0e 02 01 01 01 05 08 c0173dd52f0e50df",
        UniStream.SETUP,
        Setup((SetupParameter(1, b"\1"), SetupParameter(5, bytes.fromhex("c0173dd52f0e50df")))),
        id="05: the relay's setup",
    ),
    pytest.param("01 01 00", UniStream.SETUP, Setup(), id="05: the smallest setup"),
    pytest.param(
        "01 04 01 03 01 02",
        UniStream.SETUP,
        Setup.of_role(Role.SUBSCRIBER),
        id="05: a subscriber's setup",
    ),
    pytest.param(
        "01 09 00 c018306f31c60cde",
        BidiStream.ANNOUNCE,
        AnnounceRequest("", CLIENT_HOP),
        id="04, 05: announce request",
    ),
    pytest.param("09 c0173dd52f0e50df 01", None, AnnounceOk(HOP_2, 1), id="05: announce ok"),
    pytest.param(
        "1a 01 07 64656d6f2f7476 02 c007e44aff02c63c c0173dd52f0e50df",
        None,
        Announcement(active=True, suffix=b"demo/tv", hops=(HOP_1, HOP_2)),
        id="04: active",
    ),
    pytest.param(
        "0a 00 07 64656d6f2f7476 00",
        None,
        Announcement(active=False, suffix=b"demo/tv"),
        id="04: ended",
    ),
    pytest.param(
        "12 01 07 64656d6f2f7476 01 c00442e51c4c95af",
        None,
        Announcement(active=True, suffix=b"demo/tv", hops=(HOP_3,)),
        id="05: active",
    ),
    pytest.param(
        "08 7f 00 5388 800f4240", None, TrackInfo(127, 0, 5000, 1_000_000), id="05: track info"
    ),
    pytest.param(
        "02 1a 00 07 64656d6f2f7476 0a 766964656f302e6d3473 07 00 4bb8 04 09",
        BidiStream.SUBSCRIBE,
        Subscribe(0, "demo/tv", "video0.m4s", Delivery(7, 0, 3000, 3, 8)),
        id="05: a player's subscribe",
    ),
    pytest.param(
        "02 1c 00 07 64656d6f2f7476 0a 766964656f302e6d3473 0a 01 8000ea60 00 00",
        BidiStream.SUBSCRIBE,
        Subscribe(0, "demo/tv", "video0.m4s", Delivery(10, 1, 60_000)),
        id="05: an archiver's subscribe",
    ),
    pytest.param("06 08 00 4fa0 05 14", None, Delivery(8, 0, 4000, 4, 19), id="05: update"),
    pytest.param("02 00 01", None, GroupHeader(0, 1), id="group 1"),
    pytest.param("02 02 01", None, GroupHeader(2, 1), id="group 1 of subscription 2"),
    pytest.param(
        "03 15 07 64656d6f2f7476 0a 766964656f302e6d3473 00 05",
        BidiStream.FETCH,
        Fetch("demo/tv", "video0.m4s", 0, 5),
        id="05: fetch",
    ),
    pytest.param(
        "06 13 07 64656d6f2f7476 0a 766964656f302e6d3473",
        BidiStream.TRACK,
        TrackRequest("demo/tv", "video0.m4s"),
        id="05: track",
    ),
    pytest.param("05 01 00", BidiStream.GOAWAY, Goaway(""), id="goaway to the same place"),
]


@pytest.mark.parametrize(("captured", "stream", "message"), MESSAGES)
def test_a_message_is_written_and_read_as_captured(
    captured: str, stream: int | None, message: Any
) -> None:
    data = bytes.fromhex(captured)
    opening = b"" if stream is None else encode_varint(stream)
    assert opening + message.encode() == data

    reader = StreamReader(1000)
    reader.append(data)
    if stream is not None:
        assert reader.varint() == stream
    body = reader.message()
    assert body is not None
    assert type(message).decode(body) == message
    assert reader.unread == 0


REPLIES: list[tuple[LiteVersion, str, int, SubscribeReply]] = [
    (LITE_04, "00 05 0a 00 00 00 00", 0, SubscribeOk(Delivery(10, 0, 0))),
    (LITE_04, "01 03 05 06 07", 1, SubscribeDrop(5, 6, 7)),
    (LITE_05, "00 01 0b", 0, SubscribeStart(11)),
    (LITE_05, "01 01 06", 1, SubscribeEnd(6)),
    (LITE_05, "02 03 05 06 07", 2, SubscribeDrop(5, 6, 7)),
]


@pytest.mark.parametrize(("version", "captured", "kind", "reply"), REPLIES)
def test_a_reply_to_subscribe_is_read_as_captured(
    version: LiteVersion, captured: str, kind: int, reply: SubscribeReply
) -> None:
    data = bytes.fromhex(captured)
    assert encode_reply(kind, reply) == data
    reader = StreamReader(1000)
    reader.append(data)
    message = reader.typed_message()
    assert message is not None
    assert version.decode_subscribe_reply(message) == reply


def test_a_reply_of_unknown_kind_is_no_reply() -> None:
    reader = StreamReader(1000)
    reader.append(bytes.fromhex("09 02 ffff"))
    message = reader.typed_message()
    assert message is not None
    assert LITE_05.decode_subscribe_reply(message) is None


def test_frame_headers_are_read_as_captured() -> None:
    timed = bytes.fromhex("8004e200 80004e20 ca9e73")
    assert read_timed_frame(timed, 0, 0) == FrameHeader(20_000, 160_000, 8)
    plain = bytes.fromhex("80004e20 ca9e")
    assert read_plain_frame(plain, 0, 0) == FrameHeader(20_000, None, 4)


def test_an_empty_frame_has_a_header_alone() -> None:
    assert read_timed_frame(bytes.fromhex("0a00"), 0, 100) == FrameHeader(0, 105, 2)
    assert read_plain_frame(bytes.fromhex("00"), 0, 0) == FrameHeader(0, None, 1)


@pytest.mark.parametrize(
    ("signed", "unsigned"), [(0, 0), (-1, 1), (1, 2), (-2, 3), (160_000, 320_000)]
)
def test_zigzag_alternates_the_signs(signed: int, unsigned: int) -> None:
    assert encode_zigzag(signed) == unsigned
    assert decode_zigzag(unsigned) == signed


def test_a_timestamp_beyond_64_bits_is_a_violation() -> None:
    delta = encode_varint(encode_zigzag((1 << 61) - 1))
    with pytest.raises(ProtocolError, match="64 bits"):
        read_timed_frame(delta + b"\0", 0, (1 << 63) - 5)


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (Announcement, "02 00 00"),
        (SubscribeDrop, "06 05 00"),
        (Goaway, "02 fffe"),
        (Setup, "bfffffff"),
        (Announcement, "01 00 ffffffffffffffff"),
        (Announcement, "01 ffffffffffffffff"),
    ],
    ids=["status 2", "drop backwards", "not UTF-8", "huge count", "huge hops", "huge name"],
)
def test_a_body_that_cannot_be_is_a_violation(message: Any, body: str) -> None:
    with pytest.raises(ProtocolError):
        message.decode(bytes.fromhex(body))


def test_fields_that_we_do_not_know_are_skipped() -> None:
    assert AnnounceOk.decode(bytes.fromhex("01 02 ffff")) == AnnounceOk(1, 2)


def test_a_group_header_tells_that_it_has_more_than_we_know() -> None:
    assert GroupHeader.decode(bytes.fromhex("02 01 00")).unknown == 1
