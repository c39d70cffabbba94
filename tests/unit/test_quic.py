"""The connection's timers, and its end in every way."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from casfs.errors import ConnectError, ConnectionLostError, RelayError
from ingest.moq.events import GroupReceived
from ingest.session import SessionOptions, open_session
from ingest.tls import TlsOptions
from tests.fakes.relay import UNI_PREFIX, FakeRelay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from ingest.moq.events import Event
    from ingest.session import Session

pytestmark = pytest.mark.usefixtures("quic_backend")

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
