"""MoQ transport: codecs read what they write, and no byte of a relay breaks a session."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.errors import NegotiationError, ProtocolError
from ingest.moq.events import FetchFailed, GroupReceived, TrackEnded, TrackRefused
from ingest.moq.integers import LEADING_ONES, MAX_LEADING_ONES
from ingest.moq.interface import Limits
from ingest.moq.moqt_drafts import DRAFT_14, DRAFT_16, DRAFT_18, Draft
from ingest.moq.moqt_messages import (
    ClientSetup,
    Fetch,
    FetchOk,
    FilterKind,
    Kind,
    PublishDone,
    RequestError,
    RequestOk,
    ServerSetup,
    Subscribe,
    SubscribeOk,
    frame,
)
from ingest.moq.moqt_namespaces import (
    Goaway,
    Namespace,
    PublishNamespace,
    PublishNamespaceDone,
    RequestNumber,
    SubscribeNamespace,
)
from ingest.moq.moqt_objects import read_datagram
from ingest.moq.moqt_parameters import Location, Pair
from ingest.moq.moqt_publishing import Publish
from ingest.moq.reading import StreamReader
from tests.fakes.moqt_relay import MoqtRelay

drafts = st.sampled_from([DRAFT_14, DRAFT_16, DRAFT_18])
integers = st.integers(0, (1 << 62) - 1) | st.integers(0, 300)
octets = st.binary(max_size=40)
namespaces = st.lists(octets, max_size=5).map(tuple)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
locations = st.builds(Location, integers, integers)
pairs = st.one_of(
    st.builds(Pair, integers.map(lambda key: key & ~1), integers),
    st.builds(Pair, integers.map(lambda key: key | 1), octets),
)


def sorted_pairs(draft: Draft) -> st.SearchStrategy[tuple[Pair, ...]]:
    lists = st.lists(pairs, max_size=5)
    if not draft.delta_keys:
        return lists.map(tuple)
    return lists.map(lambda found: tuple(sorted(found, key=lambda pair: pair.key)))


@st.composite
def messages(draw: st.DrawFn) -> tuple[Draft, Any]:
    """Return a draft and a message that it can carry."""
    draft = draw(drafts)
    reply = st.none() if draft.request_streams else integers
    many = sorted_pairs(draft)
    versions = integers if draft.typed_replies else st.none()
    retry = st.just(0) if draft.typed_replies else integers
    timeouts = integers if draft.request_streams else st.none()
    done = (
        st.builds(PublishNamespaceDone, namespaces, st.none())
        if draft.typed_replies
        else st.builds(PublishNamespaceDone, st.none(), integers)
    )
    started = (FilterKind.ABSOLUTE_START,)
    return draft, draw(
        st.one_of(
            st.builds(ClientSetup, many),
            st.builds(ServerSetup, versions, many),
            st.builds(
                Subscribe,
                integers,
                namespaces,
                octets,
                st.integers(0, 255),
                st.sampled_from(started),
                locations,
            ),
            st.builds(SubscribeOk, reply, integers, st.none() | locations, many),
            st.builds(Publish, integers, namespaces, octets, integers, st.none() | locations, many),
            st.builds(RequestOk, reply),
            st.builds(RequestError, reply, integers, texts, retry),
            st.builds(PublishDone, reply, integers, integers, texts),
            st.builds(
                Fetch, integers, namespaces, octets, st.integers(0, 255), locations, locations
            ),
            st.builds(FetchOk, reply, st.booleans(), locations),
            st.builds(SubscribeNamespace, integers, namespaces),
            st.builds(Namespace, namespaces),
            st.builds(PublishNamespace, integers, namespaces),
            done,
            st.builds(RequestNumber, integers),
            st.builds(Goaway, texts, timeouts),
        )
    )


@given(st.integers(0, MAX_LEADING_ONES) | integers, octets)
def test_an_integer_of_leading_ones_is_read_back(value: int, after: bytes) -> None:
    encoded = LEADING_ONES.encode(value)
    assert LEADING_ONES.read(encoded + after, 0) == (value, len(encoded))
    for length in range(len(encoded)):
        assert LEADING_ONES.read(encoded[:length], 0) is None


@given(messages())
def test_a_message_is_read_back_and_a_cut_one_is_a_message_or_a_violation(
    drawn: tuple[Draft, Any],
) -> None:
    draft, message = drawn
    body = message.encode(draft)
    reader = StreamReader(1 << 16, draft.integers)
    data = frame(Kind.SUBSCRIBE, body, draft)
    for length in (1, 2, len(data) - 1):
        reader = StreamReader(1 << 16, draft.integers)
        reader.append(data[:length])
        assert reader.sized_message() is None
    reader.append(data[length:])
    found = reader.sized_message()
    assert found is not None
    assert type(message).decode(found.body, draft) == message
    for length in range(len(body)):
        with contextlib.suppress(ProtocolError):
            type(message).decode(body[:length], draft)


@given(messages(), st.binary(max_size=60))
def test_a_body_of_garbage_is_a_message_or_a_violation(
    drawn: tuple[Draft, Any], body: bytes
) -> None:
    draft, message = drawn
    with contextlib.suppress(ProtocolError):
        type(message).decode(body, draft)
    with contextlib.suppress(ProtocolError):
        read_datagram(body, draft)


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[bytes], list[list[int]]]:
    """Return the objects of a group, and which of them go on which stream."""
    objects = draw(st.lists(st.binary(max_size=50), max_size=8))
    streams = draw(st.integers(1, 3))
    owners = [draw(st.integers(0, streams - 1)) for _ in objects]
    split = [[n for n, owner in enumerate(owners) if owner == s] for s in range(streams)]
    return objects, split


@settings(max_examples=50)
@given(drafts, groups(), st.data())
def test_a_group_is_put_together_however_its_streams_are_split_and_mixed(
    draft: Draft, group: tuple[list[bytes], list[list[int]]], data: st.DataObject
) -> None:
    objects, split = group
    relay = MoqtRelay(draft)
    subscription = relay.accepted("tv", "video", alias=7)
    last = max(range(len(split)), key=lambda s: split[s][-1:] or [-1])
    waiting = [
        (relay.new_uni(), relay.subgroup(7, 3, numbers, objects, end_of_group=number == last))
        for number, numbers in enumerate(split)
    ]
    events: list[Any] = []
    while waiting:
        number = data.draw(st.integers(0, len(waiting) - 1))
        stream, rest = waiting[number]
        length = data.draw(st.integers(min(1, len(rest)), len(rest)))
        events += relay.data(stream, rest[:length], end=length == len(rest))
        waiting[number] = (stream, rest[length:])
        if length == len(rest):
            del waiting[number]
    relay.now += 2 * 10**9
    events += relay.session.settle(relay.now)
    told = [event for event in events if isinstance(event, GroupReceived)]
    assert [(item.sequence, item.frames, item.complete) for item in told] == [
        (3, tuple(objects), True)
    ]
    assert told[0].subscription == subscription
    assert relay.session.buffered == 0


steps = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 3, 4, 5, 7, 8, 11, 12, 15]),
        st.binary(max_size=40)
        | st.tuples(
            st.sampled_from([*Kind, 0x10, 0x19, 0x59, 0x05, 0x31]), st.binary(max_size=30)
        ).map(lambda made: LEADING_ONES.encode(made[0]) + made[1])
        | st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=30)).map(
            lambda made: frame(made[0], made[1], DRAFT_18)
        ),
        st.sampled_from(["data", "data", "data", "end", "reset", "datagram", "settle"]),
    ),
    max_size=25,
)


@settings(max_examples=80)
@given(drafts, steps)
def test_garbage_is_survived(draft: Draft, script: list[tuple[int, bytes, str]]) -> None:
    limits = Limits(message_bytes=1000, early_bytes=2000, buffered_bytes=10_000, announcements=5)
    relay = MoqtRelay(draft, limits)
    relay.accepted("tv", "video", alias=7)
    session = relay.session
    session.announce("demo")
    session.subscribe("tv", "audio", priority=1, max_latency=1)
    over: set[int] = set()
    ended: list[tuple[type, int]] = []
    try:
        for stream, data, what in script:
            relay.now += 10**8
            if what == "datagram":
                session.datagram(data, relay.now)
            elif what == "settle":
                session.settle(relay.now)
            elif stream not in over:
                over |= {stream} if what in {"end", "reset"} else set()
                events = (
                    relay.reset_by_relay(stream, 3)
                    if what == "reset"
                    else relay.data(stream, data, end=what == "end")
                )
                ended += [
                    (type(event), event.subscription)
                    for event in events
                    if isinstance(event, TrackEnded | TrackRefused)
                ]
    except (ProtocolError, NegotiationError):
        pass
    assert len(ended) == len(set(ended))
    statistics = session.statistics()
    assert statistics.early_bytes <= limits.early_bytes + 1000
    assert session.buffered <= limits.buffered_bytes
    left = session.abandon("session lost", relay.now)
    assert all(not isinstance(event, FetchFailed) for event in left)
