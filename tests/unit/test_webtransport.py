"""A WebTransport session with a relay that is made of memory, under a clock that jumps."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from casfs.errors import NegotiationError, ProtocolError, RefusedError, RelayError
from ingest.moq.events import BroadcastAnnounced, GroupReceived
from ingest.session import SessionOptions, open_session
from ingest.tls import TlsOptions
from ingest.webtransport import from_http3, to_http3
from tests.fakes.relay import BIDI_PREFIX, UNI_PREFIX, FakeRelay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from ingest.session import Session

pytestmark = pytest.mark.usefixtures("quic_backend")

_URL = "https://relay.test/live?jwt=secret"
_SETUP = bytes.fromhex("01 01 00")
_GROUP = bytes.fromhex("00 02 00 07")
"""Of subscription 0, sequence 7."""


def _frame(payload: bytes) -> bytes:
    return b"\0" + (len(payload) | 0x80000000).to_bytes(4, "big") + payload


def _greet(relay: FakeRelay) -> None:
    relay.open(UNI_PREFIX + _SETUP, end=True)


@asynccontextmanager
async def _session(
    relay: FakeRelay, options: SessionOptions | None = None
) -> AsyncIterator[Session]:
    with trio.fail_after(1000):  # keep-alive would have the clock jump for ever
        async with open_session(
            _URL,
            tls=TlsOptions(insecure=True),
            options=options or SessionOptions(),
            clock=lambda: 1,
            connect=relay.connect,
        ) as session:
            yield session


async def _failure(relay: FakeRelay) -> RelayError:
    with pytest.raises(RelayError) as caught:
        async with _session(relay):
            pass
    return caught.value


@pytest.fixture(autouse=True)
def names_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_host: str, _port: int) -> list[object]:
        await trio.lowlevel.checkpoint()
        return [None]

    monkeypatch.setattr("ingest.session.resolve", resolve)


async def _groups(session: Session, count: int) -> list[GroupReceived]:
    found: list[GroupReceived] = []
    while len(found) < count:
        found += [e for e in await session.next_events() if isinstance(e, GroupReceived)]
    return found


async def test_the_request_offers_the_protocols_under_both_names(
    autojump_clock: MockClock,
) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        assert session.protocol == "moq-lite-05"
        assert session.origin == "https://relay.test:443"
    assert relay.request[b":method"] == b"CONNECT"
    assert relay.request[b":protocol"] == b"webtransport"
    assert relay.request[b":authority"] == b"relay.test"
    assert relay.request[b":path"] == b"/live?jwt=secret"
    offer = b'"moq-lite-05", "moq-lite-06", "moq-lite-04", "moqt-18", "moqt-16", "moq-00"'
    assert relay.request[b"wt-available-protocols"] == offer
    assert relay.request[b"sec-webtransport-protocol"] == offer


async def test_the_choice_is_read_under_the_old_name_too(autojump_clock: MockClock) -> None:
    relay = FakeRelay(headers=((b"sec-webtransport-protocol", b'"moq-lite-04"'),))
    async with _session(relay) as session:
        assert session.protocol == "moq-lite-04"


async def test_answers_come_on_streams_that_we_opened(autojump_clock: MockClock) -> None:
    """They carry no prefix. H3Connection would take them for frames and end the connection."""
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        session.announce("")
        await trio.sleep(1)
        (asked,) = [s for s, data in relay.received.items() if data.startswith(BIDI_PREFIX)]
        relay.write(asked, bytes.fromhex("02 05 01 0a 01 07") + b"demo/tv" + b"\0")
        relay.flush()
        (announced,) = await session.next_events()
    assert announced == BroadcastAnnounced(path="demo/tv", generation=1)


@pytest.mark.parametrize("cut", range(1, 12))
async def test_a_stream_may_come_in_any_pieces(cut: int, autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    data = UNI_PREFIX + _GROUP + _frame(b"picture")
    async with _session(relay) as session:
        session.subscribe("demo/tv", "video", priority=1, max_latency=0)
        await trio.sleep(1)
        stream = relay.open(data[:cut])
        relay.flush()
        await trio.sleep(1)
        relay.write(stream, data[cut:], end=True)
        relay.flush()
        (group,) = await _groups(session, 1)
    assert group.frames == (b"picture",)
    assert group.complete


async def test_streams_that_overtake_the_response_are_kept(autojump_clock: MockClock) -> None:
    relay = FakeRelay(before_answer=_greet)
    async with _session(relay) as session:
        session.subscribe("demo/tv", "video", priority=1, max_latency=0)
        await trio.sleep(1)
        relay.open(UNI_PREFIX + _GROUP, end=True)
        relay.flush()
        assert (await _groups(session, 1))[0].sequence == 7


async def test_streams_of_unknown_kinds_and_foreign_sessions_are_turned_away(
    autojump_clock: MockClock,
) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        session.subscribe("demo/tv", "video", priority=1, max_latency=0)
        await trio.sleep(1)
        greased = relay.open(bytes.fromhex("4021") + bytes(1000))
        foreign = relay.open(bytes.fromhex("405404") + bytes(1000))
        unmarked = relay.open(b"\0" + bytes(1000), uni=False)
        relay.flush()
        await trio.sleep(1)
        assert {greased, foreign, unmarked} <= set(relay.stops)
        assert unmarked in relay.resets
        relay.open(UNI_PREFIX + _GROUP, end=True)
        relay.flush()
        assert (await _groups(session, 1))[0].complete


async def test_a_reset_reaches_the_group_with_the_code_of_moq(autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        session.subscribe("demo/tv", "video", priority=1, max_latency=0)
        await trio.sleep(1)
        stream = relay.open(UNI_PREFIX + _GROUP + _frame(b"first"))
        relay.flush()
        await trio.sleep(1)
        assert relay.quic is not None
        relay.quic.reset_stream(stream, to_http3(64))
        relay.flush()
        (group,) = await _groups(session, 1)
    assert (group.frames, group.complete, group.reason) == ((b"first",), False, "reset 64")


def _refuse(relay: FakeRelay) -> None:
    relay.send_capsule(bytes.fromhex("6843 10 00000002") + b"unauthorized", end=True)


async def test_a_refusal_behind_a_200_is_a_refusal(autojump_clock: MockClock) -> None:
    failure = await _failure(FakeRelay(on_request=_refuse))
    assert isinstance(failure, RefusedError)
    assert "unauthorized" in str(failure)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_by_status_is_a_refusal(status: int, autojump_clock: MockClock) -> None:
    failure = await _failure(FakeRelay(status=status, headers=()))
    assert isinstance(failure, RefusedError)
    assert str(status) in str(failure)


async def test_no_message_holds_the_path_or_the_token(autojump_clock: MockClock) -> None:
    for relay in (FakeRelay(on_request=_refuse), FakeRelay(status=500), FakeRelay(silent=True)):
        failure = await _failure(relay)
        assert "secret" not in str(failure)
        assert "live" not in str(failure)


async def test_a_relay_that_chooses_nothing_is_a_failed_negotiation(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(NegotiationError):
        async with _session(FakeRelay(headers=()), SessionOptions(protocols=("moq-lite-05",))):
            pass


async def test_a_relay_that_chooses_nothing_is_taken_for_one_of_draft_14(
    autojump_clock: MockClock,
) -> None:
    async with _session(FakeRelay(headers=())) as session:
        assert session.protocol == "moqt-14"


async def test_a_server_without_webtransport_is_a_failed_negotiation(
    autojump_clock: MockClock,
) -> None:
    relay = FakeRelay(webtransport=False)
    assert isinstance(await _failure(relay), NegotiationError)
    assert relay.request == {}


async def test_a_capsule_without_end_is_a_protocol_error(autojump_clock: MockClock) -> None:
    relay = FakeRelay(
        on_request=lambda relay: relay.send_capsule(bytes.fromhex("6843 80100000") + bytes(9000))
    )
    assert isinstance(await _failure(relay), ProtocolError)


async def test_headers_without_end_are_a_protocol_error(autojump_clock: MockClock) -> None:
    def flood(relay: FakeRelay) -> None:
        assert relay.session is not None
        relay.write(relay.session, bytes.fromhex("01 80100000") + bytes(1 << 19))

    assert isinstance(await _failure(FakeRelay(before_answer=flood)), ProtocolError)


async def test_closing_tells_the_relay_with_capsule_and_connection_close(
    autojump_clock: MockClock,
) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay):
        pass
    assert relay.closed
    assert relay.received[0] == bytes.fromhex("6843 04 00000000")
    assert relay.quic is not None
    await trio.sleep(5)
    relay.quic.handle_timer(trio.current_time())
    relay.flush()
    assert relay.termination is not None
    assert relay.termination.error_code == 0x100


async def test_closing_works_under_cancellation(autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    with trio.move_on_after(1):
        async with _session(relay):
            await trio.sleep_forever()
    assert relay.closed
    assert relay.received[0] == bytes.fromhex("6843 04 00000000")


async def test_an_error_in_the_body_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    error = RuntimeError("of the recorder")
    with pytest.raises(RuntimeError) as caught:
        async with _session(FakeRelay(on_request=_greet)):
            raise error
    assert caught.value is error


async def test_what_nobody_takes_stops_the_relay(autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    options = SessionOptions(queued_bytes=200_000, window=100_000)
    async with _session(relay, options) as session:
        session.subscribe("demo/tv", "video", priority=1, max_latency=0)
        await trio.sleep(1)
        for sequence in range(60):
            group = bytes([0, 2, 0, sequence]) + _frame(bytes(50_000))
            relay.open(UNI_PREFIX + group, end=True)
            relay.flush()
            await trio.sleep(1)
        held = session.statistics()
        assert 200_000 <= held.queued_bytes + held.buffered_bytes <= 400_000
        received = held.bytes_received
        await trio.sleep(10)
        assert session.statistics().bytes_received - received < 10_000
        groups = await _groups(session, 60)
    assert sorted(group.sequence for group in groups) == list(range(60))


async def test_a_consumer_that_lags_for_long_keeps_its_session(
    autojump_clock: MockClock,
) -> None:
    """The socket is read no more than it takes to know that the relay is there."""
    relay = FakeRelay(on_request=_greet)
    options = SessionOptions(queued_bytes=100_000, window=100_000, idle_timeout=30)
    async with _session(relay, options) as session:
        session.subscribe("demo/tv", "video", priority=1, max_latency=0)
        await trio.sleep(1)
        for sequence in range(6):
            group = bytes([0, 2, 0, sequence]) + _frame(bytes(50_000))
            relay.open(UNI_PREFIX + group, end=True)
        relay.flush()
        await trio.sleep(300)
        assert session.failure is None
        groups = await _groups(session, 6)
    assert sorted(group.sequence for group in groups) == list(range(6))


@given(st.integers(0, (1 << 32) - 1))
def test_error_codes_survive_the_way_there_and_back(code: int) -> None:
    assert from_http3(to_http3(code)) == code


@pytest.mark.parametrize(
    ("http3", "code"),
    [(91141958510811, 0), (91141958510812, 1), (91141958510814, 3), (91141958510863, 51)],
)
def test_error_codes_as_captured(http3: int, code: int) -> None:
    assert (from_http3(http3), to_http3(code)) == (code, http3)


@given(st.integers(0, (1 << 62) - 1))
def test_no_other_code_is_taken_for_one_of_webtransport(http3: int) -> None:
    code = from_http3(http3)
    assert code is None or to_http3(code) == http3
