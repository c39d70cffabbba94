"""MoQ transport 14, 16 and 18 against bytes captured between Rust and Python peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from casfs.errors import ProtocolError
from ingest.moq.integers import LEADING_ONES, QUIC_INTEGERS
from ingest.moq.interface import Limits
from ingest.moq.moqt_drafts import DRAFT_14, DRAFT_16, DRAFT_18
from ingest.moq.moqt_messages import (
    ClientSetup,
    Fetch,
    FetchOk,
    FilterKind,
    Kind,
    PublishDone,
    RequestError,
    ServerSetup,
    Subscribe,
    SubscribeOk,
    frame,
)
from ingest.moq.moqt_namespaces import (
    Goaway,
    Namespace,
    PublishNamespace,
    RequestNumber,
    SubscribeNamespace,
)
from ingest.moq.moqt_objects import (
    END_OF_TRACK,
    ObjectCutter,
    fetch_reader,
    is_subgroup,
    read_datagram,
    read_subgroup_header,
    subgroup_reader,
)
from ingest.moq.moqt_parameters import Location, Pair, SetupOption
from ingest.moq.reading import StreamReader

if TYPE_CHECKING:
    from ingest.moq.moqt_drafts import Draft

TV = (b"demo", b"tv")
VIDEO = b"video0.m4s"
NS = "02 04 64656d6f 02 7476"
NAME = "0a 766964656f302e6d3473"
LARGEST = FilterKind.LARGEST_OBJECT


@pytest.mark.parametrize(
    ("value", "leading_ones", "quic"),
    [
        (64, "40", "4040"),
        (1000, "83e8", "43e8"),
        (40000, "c09c40", "80009c40"),
        (1_000_000, "cf4240", "800f4240"),
        (0x2F00, "af00", "6f00"),
        (0xFF00000E, "f0ff00000e", "c0000000ff00000e"),
        ((1 << 49) - 1, "fdffffffffffff", None),
        (1 << 49, "fe02000000000000", None),
        ((1 << 56) - 1, "feffffffffffffff", None),
        (1 << 56, "ff0100000000000000", None),
        ((1 << 64) - 1, "ffffffffffffffffff", None),
    ],
)
def test_integers_are_written_in_two_ways(value: int, leading_ones: str, quic: str | None) -> None:
    assert LEADING_ONES.encode(value).hex() == leading_ones
    assert LEADING_ONES.read(bytes.fromhex(leading_ones), 0) == (value, len(leading_ones) // 2)
    if quic is not None:
        assert QUIC_INTEGERS.encode(value).hex() == quic


def test_a_longer_form_than_needed_is_read() -> None:
    assert LEADING_ONES.read(bytes.fromhex("8005"), 0) == (5, 2)
    assert LEADING_ONES.read(bytes.fromhex("ff0000000000000005"), 0) == (5, 9)


def setup(draft: Draft) -> ClientSetup:
    return ClientSetup(() if draft is DRAFT_18 else (Pair(SetupOption.MAX_REQUEST_ID, 1000),))


MESSAGES: list[tuple[Draft, int, str, Any]] = [
    (DRAFT_14, Kind.CLIENT_SETUP, "20 000d 01 c0000000ff00000e 01 02 43e8", setup(DRAFT_14)),
    (DRAFT_16, Kind.CLIENT_SETUP, "20 0004 01 02 43e8", setup(DRAFT_16)),
    (DRAFT_18, Kind.SETUP, "af00 0000", setup(DRAFT_18)),
    (
        DRAFT_14,
        Kind.SUBSCRIBE,
        f"03 001a 06 {NS} {NAME} 80 01 01 02 00",
        Subscribe(6, TV, VIDEO, 128, LARGEST, None),
    ),
    (
        DRAFT_16,
        Kind.SUBSCRIBE,
        f"03 0020 06 {NS} {NAME} 04 10 01 10 4080 01 01 02 01 01",
        Subscribe(6, TV, VIDEO, 128, LARGEST, None),
    ),
    (
        DRAFT_18,
        Kind.SUBSCRIBE,
        f"03 001f 06 {NS} {NAME} 04 10 01 10 80 01 01 02 01 01",
        Subscribe(6, TV, VIDEO, 128, LARGEST, None),
    ),
    (
        DRAFT_18,
        Kind.SUBSCRIBE,
        f"03 0021 02 {NS} {NAME} 04 10 01 10 cd 01 03 03 00 00 01 01",
        Subscribe(2, TV, VIDEO, 205),
    ),
    (
        DRAFT_18,
        Kind.FETCH,
        f"16 001f 04 01 {NS} {NAME} 01 00 01 00 02 20 cd 02 01",
        Fetch(4, TV, VIDEO, 205, Location(1, 0), Location(1, 0)),
    ),
    (
        DRAFT_16,
        Kind.FETCH,
        f"16 0020 04 01 {NS} {NAME} 01 00 01 00 02 20 40cd 02 01",
        Fetch(4, TV, VIDEO, 205, Location(1, 0), Location(1, 0)),
    ),
    (
        DRAFT_14,
        Kind.FETCH,
        f"16 001d 04 cd 01 01 {NS} {NAME} 00 00 00 00 00",
        Fetch(4, TV, VIDEO, 205, Location(0, 0), Location(0, 0)),
    ),
    (
        DRAFT_14,
        Kind.SUBSCRIBE_NAMESPACE,
        "11 0008 00 01 04 64656d6f 00",
        SubscribeNamespace(0, (b"demo",)),
    ),
    (
        DRAFT_16,
        Kind.SUBSCRIBE_NAMESPACE,
        "11 0009 00 01 04 64656d6f 01 00",
        SubscribeNamespace(0, (b"demo",)),
    ),
    (
        DRAFT_18,
        Kind.SUBSCRIBE_NAMESPACE_18,
        "50 0008 00 01 04 64656d6f 00",
        SubscribeNamespace(0, (b"demo",)),
    ),
    (DRAFT_14, Kind.SUBSCRIBE_OK, "04 0006 02 02 00 02 00 00", SubscribeOk(2, 2)),
    (DRAFT_14, Kind.PUBLISH_NAMESPACE, f"06 000b 03 {NS} 00", PublishNamespace(3, TV)),
    (DRAFT_18, Kind.PUBLISH_NAMESPACE, f"06 000b 03 {NS} 00", PublishNamespace(3, TV)),
    (DRAFT_16, Kind.NAMESPACE, f"08 0009 {NS}", Namespace(TV)),
    (DRAFT_18, Kind.NAMESPACE, "08 0004 01 02 7476", Namespace((b"tv",))),
    (DRAFT_16, Kind.UNSUBSCRIBE, "0a 0001 02", RequestNumber(2)),
    (DRAFT_14, Kind.GOAWAY, "10 0004 03 612f62", Goaway("a/b")),
    (DRAFT_18, Kind.GOAWAY, "10 0006 03 612f62 87d0", Goaway("a/b", 2000)),
    (
        DRAFT_14,
        Kind.PUBLISH_DONE,
        "0b 000f 06 02 05 0b 747261636b20656e646564",
        PublishDone(6, 2, 5, "track ended"),
    ),
    (
        DRAFT_18,
        Kind.PUBLISH_DONE,
        "0b 000e 02 05 0b 747261636b20656e646564",
        PublishDone(None, 2, 5, "track ended"),
    ),
    (DRAFT_18, Kind.REQUEST_ERROR, "05 000c 10 00 09 6e6f7420666f756e64", None),
    (
        DRAFT_14,
        Kind.FETCH_ERROR,
        "19 000c 06 04 09 6e6f7420666f756e64",
        RequestError(6, 4, "not found"),
    ),
    (
        DRAFT_16,
        Kind.REQUEST_ERROR,
        "05 000d 06 10 00 09 6e6f7420666f756e64",
        RequestError(6, 0x10, "not found"),
    ),
    (DRAFT_18, Kind.FETCH_OK, "18 0004 00 02 00 00", FetchOk(None, False, Location(2, 0))),
    (DRAFT_16, Kind.FETCH_OK, "18 0005 04 00 02 00 00", FetchOk(4, False, Location(2, 0))),
]


@pytest.mark.parametrize(
    ("draft", "kind", "captured", "message"),
    [row for row in MESSAGES if row[3] is not None],
    ids=lambda value: value.protocol if hasattr(value, "protocol") else None,
)
def test_a_captured_message_is_read_and_written(
    draft: Draft, kind: int, captured: str, message: Any
) -> None:
    data = bytes.fromhex(captured)
    reader = StreamReader(1 << 16, draft.integers)
    reader.append(data)
    found = reader.sized_message()
    assert found is not None
    assert (found.kind, reader.unread) == (kind, 0)
    assert type(message).decode(found.body, draft) == message
    if not isinstance(message, SubscribeOk):  # which says more than we keep
        assert frame(kind, message.encode(draft), draft) == data


@pytest.mark.parametrize(
    ("draft", "body", "answer"),
    [
        (DRAFT_14, "02 02 00 02 01 02 01 00", SubscribeOk(2, 2, Location(2, 1))),
        (DRAFT_16, "02 00 01 08 00", SubscribeOk(2, 0)),
        (DRAFT_16, "02 02 01 09 02 02 01", SubscribeOk(2, 2, Location(2, 1))),
        (
            DRAFT_18,
            "00 00 08 cf4240 06 8080 14 02",
            SubscribeOk(None, 0, None, (Pair(8, 1_000_000), Pair(0xE, 128), Pair(0x22, 2))),
        ),
        (
            DRAFT_18,
            "02 01 09 02 01 08 cf4240",
            SubscribeOk(None, 2, Location(2, 1), (Pair(8, 1_000_000),)),
        ),
    ],
)
def test_the_answer_to_a_subscription_is_read(draft: Draft, body: str, answer: SubscribeOk) -> None:
    assert SubscribeOk.decode(bytes.fromhex(body), draft) == answer


@pytest.mark.parametrize(
    ("draft", "body", "version", "name"),
    [
        (
            DRAFT_14,
            (
                "c0000000ff00000e 04 02 c0000000ffffffff 80040b5c 01 80040b5a 01"
                "07 0b 6d6f712d6c6974652d7273"
            ),
            0xFF00000E,
            b"moq-lite-rs",
        ),
        (
            DRAFT_16,
            "04 02 c0000000ffffffff 05 0b 6d6f712d6c6974652d7273 80040b53 01 02 01",
            None,
            b"moq-lite-rs",
        ),
        (
            DRAFT_18,
            "07 0b 6d6f712d6c6974652d7273 c40b4d fe131ae10d42298d 06 01 02 01",
            None,
            b"moq-lite-rs",
        ),
    ],
)
def test_the_relays_setup_is_read(
    draft: Draft, body: str, version: int | None, name: bytes
) -> None:
    read = ServerSetup.decode(bytes.fromhex(body), draft)
    assert read.version == version
    assert Pair(SetupOption.IMPLEMENTATION, name) in read.parameters


@pytest.mark.parametrize(
    ("draft", "header", "first"),
    [
        (DRAFT_14, "19 06 01 80", "00 05 1080027100 04"),
        (DRAFT_16, "19 06 01 80", "00 05 1080027100 04"),
        (DRAFT_18, "59 06 01 80", "00 04 10c27100 04"),
    ],
)
def test_a_captured_subgroup_is_read(draft: Draft, header: str, first: str) -> None:
    data = bytes.fromhex(header)
    assert is_subgroup(data[0], draft)
    for length in range(len(data)):
        assert read_subgroup_header(data[:length], draft) is None
    subgroup = read_subgroup_header(data, draft)
    assert subgroup is not None
    assert (subgroup.alias, subgroup.group, subgroup.size) == (6, 1, 4)
    assert (subgroup.properties, subgroup.end_of_group) == (True, True)
    cutter = ObjectCutter(subgroup_reader(subgroup, draft), Limits())
    (cut,) = cutter.append(bytes.fromhex(first) + b"tele")
    assert (cut.header.number, cut.header.timestamp, cut.payload) == (0, 160_000, b"tele")
    cutter.finish()


def test_the_end_of_a_track_is_a_status_in_a_group_of_its_own() -> None:
    data = bytes.fromhex("18 06 04 80 00 00 04")
    subgroup = read_subgroup_header(data, DRAFT_18)
    assert subgroup is not None
    cutter = ObjectCutter(subgroup_reader(subgroup, DRAFT_18), Limits())
    (cut,) = cutter.append(data[subgroup.size :])
    assert (cut.header.group, cut.header.status, cut.payload) == (4, END_OF_TRACK, b"")


@pytest.mark.parametrize(
    ("draft", "objects"),
    [
        (DRAFT_14, "01 00 00 00 00 04 74656c65  01 00 01 00 00 01 78"),
        (DRAFT_16, "1c 01 00 00 04 74656c65  00 01 78"),
        (DRAFT_18, "1c 01 00 00 04 74656c65  00 01 78"),
    ],
)
def test_captured_objects_of_a_fetch_are_read(draft: Draft, objects: str) -> None:
    cutter = ObjectCutter(fetch_reader(draft), Limits())
    first, second = cutter.append(bytes.fromhex(objects))
    assert (first.header.group, first.header.number, first.payload) == (1, 0, b"tele")
    assert (second.header.group, second.header.number, second.payload) == (1, 1, b"x")


def test_groups_and_objects_of_a_fetch_are_differences_since_17_and_absolute_before() -> None:
    second_group = "1c 05 00 00 01 61   0c 02 03 01 62"
    for draft, place in ((DRAFT_16, (2, 3)), (DRAFT_18, (8, 3))):
        cutter = ObjectCutter(fetch_reader(draft), Limits())
        _, second = cutter.append(bytes.fromhex(second_group))
        assert (second.header.group, second.header.number) == place


def test_the_first_object_of_a_fetch_must_say_where_it_is() -> None:
    with pytest.raises(ProtocolError):
        ObjectCutter(fetch_reader(DRAFT_18), Limits()).append(bytes.fromhex("00 01 61"))


@pytest.mark.parametrize(
    ("draft", "kinds"),
    [
        (DRAFT_14, {*range(0x10, 0x16), *range(0x18, 0x1E)}),
        (DRAFT_16, {k + b for b in (0x10, 0x30) for k in (*range(6), *range(8, 14))}),
        (DRAFT_18, {k + b for b in (0x10, 0x30, 0x50, 0x70) for k in (*range(6), *range(8, 14))}),
    ],
)
def test_a_draft_knows_its_kinds_of_subgroup_streams(draft: Draft, kinds: set[int]) -> None:
    assert {kind for kind in range(0x200) if is_subgroup(kind, draft)} == kinds


def test_a_datagram_is_an_object() -> None:
    found = read_datagram(bytes.fromhex("00 06 01 02 80") + b"payload", DRAFT_18)
    assert (found.alias, found.group, found.number, found.payload) == (6, 1, 2, b"payload")
    found = read_datagram(bytes.fromhex("0f 06 01 04 10 c27100") + b"x", DRAFT_18)
    assert (found.number, found.end_of_group, found.payload) == (0, True, b"x")
    with pytest.raises(ProtocolError):
        read_datagram(bytes.fromhex("08 06 01 02"), DRAFT_14)
