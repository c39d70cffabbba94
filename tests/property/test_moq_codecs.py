"""Codecs: what is written is read back, and a prefix of it is never taken for something else."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.errors import ProtocolError
from ingest.moq import lite_messages_06
from ingest.moq.lite_frames import decode_zigzag, encode_zigzag, read_plain_frame, read_timed_frame
from ingest.moq.lite_messages import (
    Announcement,
    AnnounceOk,
    AnnounceRequest,
    Delivery,
    Fetch,
    Goaway,
    GroupHeader,
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
    encode_reply,
)
from ingest.moq.lite_messages_06 import Route, encode_announcement
from ingest.moq.lite_versions import LITE_04, LITE_05, LITE_06, LiteVersion
from ingest.moq.negotiation import chosen
from ingest.moq.reading import StreamReader, TypedMessage
from ingest.moq.varint import MAX_VARINT, encode_varint, read_varint

varints = st.integers(0, MAX_VARINT) | st.integers(0, 300)
octets = st.integers(0, 255)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
groups = st.none() | st.integers(0, MAX_VARINT - 1)
deliveries = st.builds(Delivery, octets, octets, varints, groups, groups)
drops = st.tuples(varints, varints, varints).map(
    lambda fields: SubscribeDrop(min(fields[:2]), max(fields[:2]), fields[2])
)
parameters = st.builds(SetupParameter, varints, st.binary(max_size=80))

deliveries_06 = st.builds(
    lite_messages_06.Delivery, octets, varints, varints, groups, varints, groups
)
hops = st.lists(varints, max_size=9).map(tuple)
routes = st.builds(Route, hops, varints, st.none() | varints)


def announcements(
    routes: st.SearchStrategy[Route],
) -> st.SearchStrategy[lite_messages_06.Announcement]:
    return st.one_of(
        st.builds(lite_messages_06.AnnounceStart, st.binary(max_size=80), routes),
        st.builds(lite_messages_06.AnnounceEnd, varints),
        st.builds(lite_messages_06.AnnounceUpdate, varints, routes),
    )


messages: st.SearchStrategy[Any] = st.one_of(
    st.builds(Setup, st.lists(parameters, max_size=5).map(tuple)),
    st.builds(AnnounceRequest, names, varints),
    st.builds(AnnounceOk, varints, varints),
    st.builds(
        Announcement,
        active=st.booleans(),
        suffix=st.binary(max_size=80),
        hops=hops,
    ),
    st.builds(TrackRequest, names, names),
    st.builds(TrackInfo, octets, octets, varints, varints),
    deliveries,
    st.builds(Subscribe, varints, names, names, deliveries),
    st.builds(Fetch, names, names, octets, varints),
    st.builds(GroupHeader, varints, varints),
    st.builds(Goaway, names),
    st.builds(lite_messages_06.AnnounceRequest, names),
    st.builds(lite_messages_06.TrackInfo, octets, varints, varints),
    deliveries_06,
    st.builds(lite_messages_06.Subscribe, varints, names, names, deliveries_06),
    st.builds(lite_messages_06.Fetch, names, names, octets, varints, varints, groups),
    st.builds(lite_messages_06.GroupHeader, varints, varints, varints),
)

replies_04 = st.one_of(
    st.builds(SubscribeOk, deliveries).map(lambda reply: (0, reply)),
    drops.map(lambda reply: (1, reply)),
)
replies_05 = st.one_of(
    st.builds(SubscribeStart, varints).map(lambda reply: (0, reply)),
    st.builds(SubscribeEnd, varints).map(lambda reply: (1, reply)),
    drops.map(lambda reply: (2, reply)),
)
replies = st.one_of(
    replies_04.map(lambda reply: (LITE_04, *reply)),
    replies_05.map(lambda reply: (LITE_05, *reply)),
    replies_05.map(lambda reply: (LITE_06, *reply)),
)


@given(varints, st.binary(max_size=4), st.binary(max_size=4))
def test_a_varint_is_read_back_wherever_it_stands(value: int, before: bytes, after: bytes) -> None:
    encoded = encode_varint(value)
    data = before + encoded + after
    assert read_varint(data, len(before)) == (value, len(before) + len(encoded))
    for length in range(len(encoded)):
        assert read_varint(before + encoded[:length], len(before)) is None


@given(st.integers(-(1 << 61), (1 << 61) - 1))
def test_zigzag_is_read_back_and_fits_a_varint(value: int) -> None:
    assert decode_zigzag(encode_zigzag(value)) == value
    assert 0 <= encode_zigzag(value) <= MAX_VARINT


@given(messages)
def test_a_message_is_read_back(message: Any) -> None:
    reader = StreamReader(1 << 16)
    reader.append(message.encode())
    body = reader.message()
    assert body is not None
    assert type(message).decode(body) == message
    assert reader.unread == 0


@given(messages)
def test_a_message_that_is_not_whole_needs_more(message: Any) -> None:
    encoded = message.encode()
    for length in range(len(encoded)):
        reader = StreamReader(1 << 16)
        reader.append(encoded[:length])
        assert reader.message() is None
        reader.append(encoded[length:])
        body = reader.message()
        assert body is not None
        assert type(message).decode(body) == message


@given(messages)
def test_a_body_that_is_cut_is_a_violation(message: Any) -> None:
    reader = StreamReader(1 << 16)
    reader.append(message.encode())
    body = reader.message()
    assert body is not None
    for length in range(len(body)):
        with pytest.raises(ProtocolError):
            type(message).decode(body[:length])


@given(replies)
def test_a_reply_is_read_back_and_a_cut_one_needs_more(
    reply: tuple[LiteVersion, int, SubscribeReply],
) -> None:
    version, kind, value = reply
    encoded = encode_reply(kind, value)
    for length in range(len(encoded)):
        reader = StreamReader(1 << 16)
        reader.append(encoded[:length])
        assert reader.typed_message() is None
        reader.append(encoded[length:])
        message = reader.typed_message()
        assert message is not None
        assert version.decode_subscribe_reply(message) == value


@given(announcements(routes))
def test_an_announcement_of_06_is_read_back_and_a_cut_one_needs_more(
    announcement: lite_messages_06.Announcement,
) -> None:
    encoded = encode_announcement(announcement)
    for length in range(len(encoded)):
        reader = StreamReader(1 << 16)
        reader.append(encoded[:length])
        assert reader.typed_message() is None
        reader.append(encoded[length:])
        message = reader.typed_message()
        assert message is not None
        assert type(announcement).decode(message.body) == announcement


@given(announcements(st.builds(Route, hops, varints)))
def test_the_body_of_an_announcement_of_06_that_is_cut_is_a_violation(
    announcement: lite_messages_06.Announcement,
) -> None:
    body = announcement.encode_body()
    for length in range(len(body)):
        with pytest.raises(ProtocolError):
            type(announcement).decode(body[:length])


@given(messages | announcements(routes), st.binary(max_size=60))
def test_a_body_of_garbage_is_a_message_or_a_violation(message: Any, body: bytes) -> None:
    try:
        decoded = type(message).decode(body)
    except ProtocolError:
        return
    assert isinstance(decoded, type(message))


@given(st.sampled_from([LITE_04, LITE_05, LITE_06]), st.integers(0, 4), st.binary(max_size=60))
def test_a_reply_of_garbage_is_a_reply_or_a_violation(
    version: LiteVersion, kind: int, body: bytes
) -> None:
    try:
        reply = version.decode_subscribe_reply(TypedMessage(kind, body))
    except ProtocolError:
        return
    assert (reply is None) == (kind not in version.subscribe_replies)


@given(st.lists(st.tuples(varints, st.binary(max_size=40)), max_size=8), st.data())
def test_a_stream_is_cut_the_same_however_it_comes(
    written: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(
        encode_varint(kind) + encode_varint(len(body)) + body for kind, body in written
    )
    reader = StreamReader(40)
    found: list[tuple[int, bytes]] = []
    while stream:
        length = data.draw(st.integers(1, len(stream)))
        reader.append(stream[:length])
        stream = stream[length:]
        while (message := reader.typed_message()) is not None:
            found.append((message.kind, message.body))
    assert found == written
    assert reader.rest() == b""


@given(st.integers(101, MAX_VARINT))
def test_a_length_over_the_limit_is_a_violation_and_allocates_nothing(length: int) -> None:
    reader = StreamReader(100)
    reader.append(encode_varint(length))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="over the limit"):
            reader.message()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000


@given(st.integers(-(1 << 60), 1 << 60), st.integers(-(1 << 60), 1 << 60), varints)
def test_a_timed_frame_header_is_read_back_and_a_cut_one_needs_more(
    previous: int, timestamp: int, size: int
) -> None:
    encoded = encode_varint(encode_zigzag(timestamp - previous)) + encode_varint(size)
    assert read_timed_frame(encoded, 0, previous) == (size, timestamp, len(encoded))
    for length in range(len(encoded)):
        assert read_timed_frame(encoded[:length], 0, previous) is None


@given(varints)
def test_a_plain_frame_header_is_read_back_and_a_cut_one_needs_more(size: int) -> None:
    encoded = encode_varint(size)
    assert read_plain_frame(encoded, 0, 0) == (size, None, len(encoded))
    for length in range(len(encoded)):
        assert read_plain_frame(encoded[:length], 0, 0) is None


@given(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20),
    st.sampled_from(["", ";q=1", " ; a"]),
)
def test_any_protocol_name_is_read_from_its_header(name: str, behind: str) -> None:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    header = f'"{escaped}"{behind}'.encode()
    assert chosen([(b"wt-protocol", header)], [name]) == name
