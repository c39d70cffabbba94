"""Whatever a relay does with QUIC itself, memory stays bounded and the error is one of ours."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from casfs.errors import (
    ConfigError,
    ConnectionLostError,
    NegotiationError,
    ProtocolError,
    RelayError,
)
from ingest.backends.choice import new_connection
from ingest.backends.interface import ConnectionSettings, Datagrams
from ingest.moq.events import GroupReceived
from ingest.moq.interface import Limits
from ingest.session import SessionOptions, open_session
from ingest.tls import TlsOptions
from tests.fakes.relay import UNI_PREFIX, FakeRelay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from ingest.backends.choice import BackendName
    from ingest.session import Session

pytestmark = pytest.mark.usefixtures("quic_backend")

_WINDOW = 200_000
_ENDLESS_FRAME = UNI_PREFIX + bytes.fromhex("00 02 00 07") + bytes.fromhex("00 c000010000000000")
"""The head of a frame of a terabyte, in group 7 of subscription 0."""


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
            options=options or SessionOptions(window=_WINDOW),
            connect=relay.connect,
        ) as session:
            session.subscribe("demo/tv", "video", priority=1, max_latency=0)
            await trio.sleep(1)
            yield session


async def _error(session: Session) -> RelayError:
    try:
        while True:
            await session.next_events()
    except RelayError as error:
        return error


async def _groups(session: Session, count: int) -> list[GroupReceived]:
    found: list[GroupReceived] = []
    while len(found) < count:
        found += [e for e in await session.next_events() if isinstance(e, GroupReceived)]
    return found


async def test_streams_with_a_hole_at_their_start_earn_no_credit(
    autojump_clock: MockClock,
) -> None:
    """Nothing of them can be passed on, so all of it would have to be held."""
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        assert relay.quic is not None
        for _ in range(60):
            stream = relay.open(UNI_PREFIX + bytes(_WINDOW // 20))
            relay.quic._streams[stream].sender._pending.subtract(0, 1)
            relay.flush()
            await trio.sleep(1)
        assert relay.quic._remote_max_data <= 2 * _WINDOW
        assert session.statistics().bytes_received <= 2 * _WINDOW
        assert session.failure is None


async def test_a_stream_without_end_is_passed_on_as_it_comes_and_cut_at_its_limit(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(frame_bytes=1 << 50, group_bytes=1 << 50, buffered_bytes=1_000_000)
    relay = FakeRelay(on_request=_greet)
    async with _session(relay, SessionOptions(window=_WINDOW, limits=limits)) as session:
        stream = relay.open(_ENDLESS_FRAME)
        while stream not in relay.stops:
            relay.write(stream, bytes(20_000))
            relay.flush()
            await trio.sleep(1)
            assert session.statistics().buffered_bytes <= limits.buffered_bytes
        (group,) = await _groups(session, 1)
        assert not group.complete
        assert session.failure is None


async def test_a_length_that_lies_reserves_nothing(autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        relay.open(_ENDLESS_FRAME + b"little", end=True)
        relay.flush()
        (group,) = await _groups(session, 1)
        assert not group.complete
        assert session.failure is None


async def test_streams_that_never_end_are_few(autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        for _ in range(3000):
            relay.open(UNI_PREFIX[:1])
        relay.flush()
        await trio.sleep(10)
        assert relay.quic is not None
        blocked = sum(stream.is_blocked for stream in relay.quic._streams.values())
        assert blocked > 2800
        assert session.failure is None


async def test_thousands_of_streams_that_end_all_arrive(autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        for sequence in range(2000):
            number = (0x4000 | sequence).to_bytes(2, "big")
            relay.open(UNI_PREFIX + b"\0\x03\0" + number + b"\0\x01x", end=True)
        relay.flush()
        groups = await _groups(session, 2000)
    assert sorted(group.sequence for group in groups) == list(range(2000))
    assert all(group.frames == (b"x",) for group in groups)


async def test_a_slow_drip_is_a_group_like_any_other(autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    data = UNI_PREFIX + bytes.fromhex("00 02 00 07") + b"\0\x40\x64" + bytes(100)
    async with _session(relay) as session:
        stream = relay.open(data[:1])
        for byte in data[1:]:
            relay.write(stream, bytes([byte]))
            relay.flush()
            await trio.sleep(3)
        relay.write(stream, b"", end=True)
        relay.flush()
        (group,) = await _groups(session, 1)
    assert group.complete
    assert group.frames == (bytes(100),)


@pytest.mark.parametrize(
    ("code", "frame_type", "words"),
    [(7, None, "going home"), (0x0A, 0x08, "going home"), (0x01, 0, "going home")],
)
async def test_a_relay_that_closes_is_lost_and_its_reason_told(
    code: int, frame_type: int | None, words: str, autojump_clock: MockClock
) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        assert relay.quic is not None
        relay.quic.close(error_code=code, frame_type=frame_type, reason_phrase=words)
        relay.flush()
        error = await _error(session)
    assert isinstance(error, ConnectionLostError)
    assert words in str(error)


async def test_what_comes_behind_a_farewell_changes_nothing(autojump_clock: MockClock) -> None:
    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        assert relay.quic is not None
        relay.open(UNI_PREFIX + bytes(5000))
        relay.quic.send_ping(1)
        late = [datagram for datagram, _ in relay.quic.datagrams_to_send(trio.current_time())]
        relay.quic.close(error_code=7, reason_phrase="going home")
        relay.flush()
        relay.inbox += [*late, b"\x40" + bytes(100), bytes(1200)] * 3
        relay._readable.set()
        error = await _error(session)
    assert isinstance(error, ConnectionLostError)
    assert "going home" in str(error)


async def test_a_server_that_speaks_nothing_that_we_offer_is_told_apart(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(NegotiationError, match="speaks nothing that we offer"):
        async with _session(FakeRelay(alpn="hq")):
            pass


async def test_a_packet_on_which_the_library_fails_ends_the_session_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_arguments: object) -> None:
        raise PanicException("index out of bounds")

    relay = FakeRelay(on_request=_greet)
    async with _session(relay) as session:
        for name in ("receive_datagram", "receive_gro_buffer"):
            monkeypatch.setattr(session._quic.connection._quic, name, panic, raising=False)  # type: ignore[attr-defined]
        relay.open(UNI_PREFIX)
        relay.flush()
        error = await _error(session)
    assert isinstance(error, ProtocolError)


def test_a_library_that_is_not_there_is_a_wrong_setting(quic_backend: str) -> None:
    settings = ConnectionSettings(
        host="relay.test", alpn=("h3",), tls=TlsOptions(insecure=True), idle_timeout=30, window=1000
    )
    absent: BackendName = "qh3" if quic_backend == "aioquic" else "aioquic"
    with pytest.raises(ConfigError, match=f"{absent} is not installed"):
        new_connection(absent, settings)
    assert quic_backend in type(new_connection("auto", settings)).__module__


def test_joined_datagrams_come_apart_again() -> None:
    assert Datagrams(b"aaabbbc", 3).split() == [b"aaa", b"bbb", b"c"]
    assert Datagrams(b"aaa", 3).split() == [b"aaa"]
