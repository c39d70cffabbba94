"""The connection's timers, its end in every way, and how much a relay can make us hold."""

from __future__ import annotations

import random
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.stream import QuicStream

from casfs.errors import ConnectError, ConnectionLostError, RelayError
from ingest.moq.events import GroupReceived
from ingest.quic import _slide_receive_window
from ingest.session import SessionOptions, open_session
from ingest.tls import TlsOptions
from ingest.udp import Address, UdpEndpoint, resolve
from tests.fakes.relay import UNI_PREFIX, FakeRelay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from ingest.moq.events import Event
    from ingest.session import Session

_OPEN_GROUP = UNI_PREFIX + bytes.fromhex("00 02 00 07") + b"\0\x05first"


def _greet(relay: FakeRelay) -> None:
    relay.open(UNI_PREFIX + bytes.fromhex("01 01 00"), end=True)


@asynccontextmanager
async def _session(
    relay: FakeRelay, options: SessionOptions | None = None
) -> AsyncIterator[Session]:
    with trio.fail_after(10_000):
        async with open_session(
            "https://127.0.0.1:9/",
            tls=TlsOptions(insecure=True),
            options=options or SessionOptions(),
            connect=relay.connect,
        ) as session:
            yield session


async def _until_over(session: Session) -> tuple[list[Event], RelayError]:
    events: list[Event] = []
    try:
        while True:
            events += await session.next_events()
    except RelayError as error:
        return events, error


async def test_a_relay_that_never_answers_is_given_up_in_time(autojump_clock: MockClock) -> None:
    begun = trio.current_time()
    with pytest.raises(ConnectError, match="no answer"):
        async with _session(FakeRelay(silent=True), SessionOptions(connect_timeout=10)):
            pass
    assert trio.current_time() - begun == pytest.approx(10)


async def test_a_relay_that_says_nothing_behind_its_handshake_is_given_up_in_time(
    autojump_clock: MockClock,
) -> None:
    begun = trio.current_time()
    with pytest.raises(ConnectError, match="did not open a session"):
        async with _session(FakeRelay(http=False), SessionOptions(connect_timeout=10)):
            pass
    assert trio.current_time() - begun == pytest.approx(10)


async def test_where_nothing_listens_we_know_at_once(autojump_clock: MockClock) -> None:
    relay = FakeRelay()
    relay.refuses = True
    begun = trio.current_time()
    with pytest.raises(ConnectError, match="nothing listens"):
        async with _session(relay):
            pass
    assert trio.current_time() - begun < 1
    assert relay.closed


async def test_a_quiet_session_is_kept_alive(autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay, SessionOptions(idle_timeout=30, keep_alive=5)) as session:
        await trio.sleep(1000)
        assert session.failure is None
        assert session.statistics().round_trip is not None
        assert relay.datagrams_taken < 1000


async def test_a_relay_that_falls_silent_is_lost_and_its_open_group_told_first(
    autojump_clock: MockClock,
) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay, SessionOptions(idle_timeout=30)) as session:
        session.subscribe("demo/tv", "video", priority=1, max_latency=0)
        await trio.sleep(1)
        relay.open(_OPEN_GROUP)
        relay.flush()
        await trio.sleep(1)
        relay.silent = True
        begun = trio.current_time()
        events, error = await _until_over(session)
        assert trio.current_time() - begun < 60
    assert isinstance(error, ConnectionLostError)
    groups = [event for event in events if isinstance(event, GroupReceived)]
    assert [(g.frames, g.complete, g.reason) for g in groups] == [
        ((b"first",), False, "session lost")
    ]


async def test_a_standing_session_is_not_ended_by_a_moment_of_refusals(
    autojump_clock: MockClock,
) -> None:
    """ICMP is not authenticated: anybody can send us one."""
    relay = FakeRelay(on_request=_greet)
    async with _session(relay, SessionOptions(keep_alive=0.1)) as session:
        await trio.sleep(1)
        relay.refuses = True
        await trio.sleep(0.5)
        relay.refuses = False
        await trio.sleep(100)
        assert session.failure is None


async def test_a_standing_session_is_ended_by_lasting_refusals(autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay, SessionOptions(keep_alive=0.5)) as session:
        await trio.sleep(1)
        relay.refuses = True
        _, error = await _until_over(session)
    assert isinstance(error, ConnectionLostError)


async def test_abandoning_returns_the_open_groups_and_ends_the_session(
    autojump_clock: MockClock,
) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        session.subscribe("demo/tv", "video", priority=1, max_latency=0)
        await trio.sleep(1)
        relay.open(_OPEN_GROUP)
        relay.flush()
        await trio.sleep(1)
        (group,) = session.abandon("stopped")
        assert (group.frames, group.reason) == ((b"first",), "stopped")
        assert session.abandon("stopped") == ()
        events, error = await _until_over(session)
    assert not [event for event in events if isinstance(event, GroupReceived)]
    assert isinstance(error, ConnectionLostError)


@pytest.mark.parametrize("seed", range(20))
async def test_garbage_on_the_wire_does_no_harm(seed: int, autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    chance = random.Random(seed)
    async with _session(relay) as session:
        await trio.sleep(1)
        for _ in range(50):
            garbage = bytearray(chance.randbytes(chance.randrange(1, 1300)))
            if chance.random() < 0.5 and relay.quic is not None:
                garbage[0] = garbage[0] & 0x3F | 0x40
            relay.inbox.append(bytes(garbage))
        relay._readable.set()
        await trio.sleep(1)
        assert session.failure is None


# Credit


class _Credit:
    """A connection's receive side, without packets."""

    def __init__(self, window: int) -> None:
        self.open = True
        self.connection = QuicConnection(configuration=QuicConfiguration(max_data=window))
        self.limit = _slide_receive_window(self.connection, window, lambda: self.open)

    def arrive(self, number: int, *, in_order: int, highest: int, finished: bool = False) -> None:
        """Have a stream stand where it would stand after such frames."""
        stream = self.connection._streams.setdefault(number, QuicStream(stream_id=number))
        self.limit.used += highest - stream.receiver.highest_offset
        stream.receiver.highest_offset = highest
        stream.receiver._buffer_start = in_order
        stream.receiver.is_finished = finished

    def grant(self) -> int:
        """Return the credit after aioquic asked for more."""
        self.limit.value *= 2
        return self.limit.value


def test_credit_follows_what_was_passed_on() -> None:
    credit = _Credit(1000)
    credit.arrive(3, in_order=600, highest=600)
    assert credit.grant() == 1600
    credit.arrive(3, in_order=1500, highest=1500)
    assert credit.grant() == 2500


def test_credit_is_not_asked_for_in_crumbs() -> None:
    credit = _Credit(1000)
    credit.arrive(3, in_order=400, highest=400)
    assert credit.grant() == 1000


def test_holes_earn_no_credit() -> None:
    """Else one byte at the end of the window would double what we hold, again and again."""
    credit = _Credit(1000)
    for number in range(3, 43, 4):
        credit.arrive(number, in_order=0, highest=100)
    assert credit.grant() == 1000


def test_what_a_reset_leaves_unread_is_given_back() -> None:
    credit = _Credit(1000)
    credit.arrive(3, in_order=0, highest=1000, finished=True)
    assert credit.grant() == 2000


def test_no_credit_while_the_consumer_lags() -> None:
    credit = _Credit(1000)
    credit.arrive(3, in_order=1000, highest=1000)
    credit.open = False
    assert credit.grant() == 1000
    credit.open = True
    assert credit.grant() == 2000


# The socket


async def test_datagrams_keep_their_borders_in_batches() -> None:
    """Also where the kernel joins them (UDP_GRO), which it does for equal sizes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        endpoint = UdpEndpoint(Address(socket.AF_INET, peer.getsockname()))
        endpoint.send(b"hello")
        _, where = peer.recvfrom(100)
        sent = [bytes([n]) * 1200 for n in range(40)] + [b"last"]
        for datagram in sent:
            peer.sendto(datagram, where)
        received: list[bytes] = []
        while len(received) < len(sent):
            await endpoint.wait_readable()
            received += endpoint.receive(256)
        endpoint.close()
    assert received == sent


async def test_nothing_there_is_an_empty_batch_and_nobody_there_an_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        endpoint = UdpEndpoint(Address(socket.AF_INET, peer.getsockname()))
        assert endpoint.receive(256) == []
    endpoint.send(b"hello")
    await endpoint.wait_readable()
    with pytest.raises(ConnectionRefusedError):
        endpoint.receive(256)
    endpoint.close()


async def test_an_address_resolves_to_itself() -> None:
    assert await resolve("127.0.0.1", 443) == [Address(socket.AF_INET, ("127.0.0.1", 443))]
    (address,) = await resolve("::1", 443)
    assert address.family == socket.AF_INET6
