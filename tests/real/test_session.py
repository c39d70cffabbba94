"""Sessions with the real relay: what the publisher sent is what comes out, to the byte."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest
import trio

from casfs.errors import ConnectError, ConnectionLostError, RefusedError, RelayError
from ingest.backends.interface import Datagrams
from ingest.moq.events import (
    BroadcastAnnounced,
    BroadcastEnded,
    GroupReceived,
    TrackAccepted,
    TrackEnded,
    TrackRefused,
)
from ingest.session import SessionOptions, open_session
from ingest.tls import TlsOptions
from ingest.udp import UdpEndpoint
from tools.loopback.publisher import running_publisher
from tools.loopback.relay import running_relay

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ingest.moq.events import Event
    from ingest.session import Session
    from ingest.udp import Address
    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

pytestmark = pytest.mark.usefixtures("quic_backend")

_TV = "demo/tv"
_VIDEO = "video0.m4s"
_AUDIO = "audio0.m4s"
_PROTOCOLS = ["moq-lite-05", "moq-lite-06", "moq-lite-04", "moqt-18", "moqt-16", "moqt-14"]
_PATIENCE = 60

# What the protocols ask of a QUIC library is the same: one of each family is enough for the slower.
every_protocol = pytest.mark.parametrize(
    ("quic_backend", "protocol"),
    [
        *(("qh3", protocol) for protocol in _PROTOCOLS),
        *(("aioquic", protocol) for protocol in ("moq-lite-05", "moqt-18")),
    ],
    indirect=["quic_backend"],
)


def _options(protocol: str = _PROTOCOLS[0]) -> SessionOptions:
    return SessionOptions(protocols=(protocol,))


def _publish(publisher: Publisher, *tracks: str, broadcast: str = _TV) -> None:
    publisher.create_broadcast(broadcast)
    for track in tracks:
        publisher.create_track(broadcast, track)
    publisher.announce(broadcast)


def _subscribe(session: Session, track: str = _VIDEO, broadcast: str = _TV) -> int:
    return session.subscribe(broadcast, track, priority=50, max_latency=60_000)


async def _until(session: Session, kind: type[Event], count: int = 1) -> list[Event]:
    """Return all events up to the one that makes ``count`` of ``kind``."""
    events: list[Event] = []
    with trio.fail_after(_PATIENCE):
        while sum(isinstance(event, kind) for event in events) < count:
            events += await session.next_events()
    return events


async def _groups(session: Session, count: int) -> dict[tuple[int, int], GroupReceived]:
    events = await _until(session, GroupReceived, count)
    groups = [event for event in events if isinstance(event, GroupReceived)]
    return {(group.subscription, group.sequence): group for group in groups}


async def _until_buffered(session: Session, payload: bytes) -> None:
    """Return when as much of the open groups has come."""
    with trio.fail_after(_PATIENCE):
        # Bytes of an open group are no event that one could wait for.
        while session.statistics().buffered_bytes < len(payload):  # noqa: ASYNC110 - see above
            await trio.sleep(0.01)


async def _until_over(session: Session) -> tuple[list[Event], RelayError]:
    events: list[Event] = []
    with trio.fail_after(_PATIENCE):
        try:
            while True:
                events += await session.next_events()
        except RelayError as error:
            return events, error


@every_protocol
async def test_every_group_arrives_byte_for_byte(
    protocol: str, relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    chance = random.Random(5)
    sent: list[Sequence[bytes]] = [
        [],
        [b""],
        [b"one"],
        [b"", b"two", b""],
        [chance.randbytes(size) for size in (1, 63, 64, 16383, 16384, 70_000)],
        [chance.randbytes(5_000_000), chance.randbytes(1_000_000)],
        [bytes([n]) for n in range(256)],
    ]
    async with open_session(relay.url, tls=tls, options=_options(protocol)) as session:
        assert session.protocol == protocol
        _publish(publisher, _VIDEO)
        session.announce("")
        await _until(session, BroadcastAnnounced)
        subscription = _subscribe(session)
        for sequence, frames in enumerate(sent):
            assert publisher.append_group(_TV, _VIDEO, frames) == sequence
        groups = await _groups(session, len(sent))
    for sequence, frames in enumerate(sent):
        group = groups[subscription, sequence]
        assert group.frames == tuple(frames)
        assert group.complete
        assert group.received_start <= group.received_end


@every_protocol
async def test_several_tracks_of_several_broadcasts_do_not_mix(
    protocol: str, relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    broadcasts = ["demo/tv", "demo/radio", "other"]
    tracks = [_VIDEO, _AUDIO]
    for broadcast in broadcasts:
        _publish(publisher, *tracks, broadcast=broadcast)
    async with open_session(relay.url, tls=tls, options=_options(protocol)) as session:
        names = {
            _subscribe(session, track, broadcast): (broadcast, track)
            for broadcast in broadcasts
            for track in tracks
        }
        for number in range(5):
            for broadcast, track in names.values():
                publisher.append_group(broadcast, track, [f"{broadcast} {track} {number}".encode()])
        groups = await _groups(session, 5 * len(names))
    for (subscription, sequence), group in groups.items():
        broadcast, track = names[subscription]
        assert group.frames == (f"{broadcast} {track} {sequence}".encode(),)
    assert len(groups) == 5 * len(names)


async def test_timestamps_arrive_in_the_tracks_timescale(
    relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    _publish(publisher, _VIDEO)
    publisher.append_group(_TV, _VIDEO, [b"a", b"b", b"c"], timestamps=[0, 40_000, 20_000])
    async with open_session(relay.url, tls=tls, options=_options()) as session:
        _subscribe(session)
        events = await _until(session, GroupReceived)
        while not any(isinstance(event, TrackAccepted) for event in events):
            events += await _until(session, TrackAccepted)
    (group,) = [event for event in events if isinstance(event, GroupReceived)]
    (accepted,) = [event for event in events if isinstance(event, TrackAccepted)]
    assert group.timestamps == (0, 40_000, 20_000)
    assert accepted.timescale == 1_000_000


@every_protocol
async def test_an_aborted_group_comes_as_far_as_it_came(
    protocol: str, relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    _publish(publisher, _VIDEO)
    async with open_session(relay.url, tls=tls, options=_options(protocol)) as session:
        _subscribe(session)
        sequence = publisher.open_group(_TV, _VIDEO, [b"first", b"second"])
        await _until_buffered(session, b"firstsecond")
        # The newest group of a track is not reset by this relay until there is a newer one.
        publisher.append_group(_TV, _VIDEO, [b"next"])
        publisher.abort_group(_TV, _VIDEO, sequence, 7)
        group = (await _groups(session, 2))[0, sequence]
    assert (group.frames, group.complete) == ((b"first", b"second"), False)
    assert group.reason.startswith("reset")


async def test_a_group_that_stays_open_can_be_looked_at(
    relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    _publish(publisher, _VIDEO)
    async with open_session(relay.url, tls=tls, options=_options()) as session:
        _subscribe(session)
        sequence = publisher.open_group(_TV, _VIDEO, [b"first"])
        await _until_buffered(session, b"first")
        later = 1 << 62
        (group,) = session.open_groups(later)
        assert (group.frames, group.complete) == ((b"first",), False)
        assert session.open_groups(later) == []
        publisher.write_frames(_TV, _VIDEO, sequence, [b"second"])
        publisher.finish_group(_TV, _VIDEO, sequence)
        (group,) = (await _groups(session, 1)).values()
    assert (group.frames, group.complete) == ((b"first", b"second"), True)


@every_protocol
async def test_a_track_that_does_not_exist_is_refused_and_no_more(
    protocol: str, relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    _publish(publisher, _VIDEO)
    async with open_session(relay.url, tls=tls, options=_options(protocol)) as session:
        absent = _subscribe(session, "absent.m4s")
        (refused,) = [e for e in await _until(session, TrackRefused) if isinstance(e, TrackRefused)]
        assert refused.subscription == absent
        _subscribe(session)
        publisher.append_group(_TV, _VIDEO, [b"there"])
        await _groups(session, 1)


@every_protocol
async def test_the_end_of_track_and_broadcast_is_told(
    protocol: str, relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    _publish(publisher, _VIDEO)
    async with open_session(relay.url, tls=tls, options=_options(protocol)) as session:
        session.announce("demo")
        await _until(session, BroadcastAnnounced)
        _subscribe(session)
        publisher.append_group(_TV, _VIDEO, [b"last"])
        await _groups(session, 1)
        publisher.finish_track(_TV, _VIDEO)
        await _until(session, TrackEnded)
        publisher.end_broadcast(_TV)
        ended = await _until(session, BroadcastEnded)
    assert BroadcastEnded(_TV) in ended


@every_protocol
async def test_a_publisher_that_begins_anew_has_ended_and_is_announced_again(
    protocol: str, relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    _publish(publisher, _VIDEO)
    async with open_session(relay.url, tls=tls, options=_options(protocol)) as session:
        session.announce("")
        events = await _until(session, BroadcastAnnounced)
        publisher.end_broadcast(_TV)
        events += await _until(session, BroadcastEnded)
        _publish(publisher, _VIDEO)
        events += await _until(session, BroadcastAnnounced)
        _subscribe(session)
        publisher.append_group(_TV, _VIDEO, [b"anew"])
        (group,) = (await _groups(session, 1)).values()
    assert events == [
        BroadcastAnnounced(_TV, 1),
        BroadcastEnded(_TV),
        BroadcastAnnounced(_TV, 2),
    ]
    assert group.frames == (b"anew",)


# With 04 the relay does not tell it.
@pytest.mark.parametrize("protocol", ["moq-lite-05", "moq-lite-06"])
async def test_another_publisher_of_the_same_broadcast_is_another_generation(
    protocol: str, relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    _publish(publisher, _VIDEO)
    async with open_session(relay.url, tls=tls, options=_options(protocol)) as session:
        session.announce("demo")
        events = await _until(session, BroadcastAnnounced)
        with running_publisher(relay.url, relay.fingerprint) as other:
            _publish(other, _VIDEO)
            # The relay prefers one of the two, whichever: at the latest now it is the other.
            publisher.end_broadcast(_TV)
            events += await _until(session, BroadcastAnnounced)
            _subscribe(session)
            other.append_group(_TV, _VIDEO, [b"from the other"])
            (group,) = (await _groups(session, 1)).values()
    assert [event for event in events if isinstance(event, BroadcastAnnounced)] == [
        BroadcastAnnounced(_TV, 1),
        BroadcastAnnounced(_TV, 2),
    ]
    assert group.frames == (b"from the other",)


@pytest.mark.parametrize("quic_backend", ["qh3"], indirect=True)
async def test_what_the_relay_still_has_is_fetched_byte_for_byte(
    relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    _publish(publisher, _VIDEO)
    chance = random.Random(7)
    sent = [(chance.randbytes(30_000), b"", chance.randbytes(7)) for _ in range(4)]
    for frames in sent:
        publisher.append_group(_TV, _VIDEO, frames)
    for protocol in ("moq-lite-05", "moq-lite-06", "moqt-18", "moqt-16", "moqt-14"):
        async with open_session(relay.url, tls=tls, options=_options(protocol)) as session:
            # Of a latency of nothing comes the newest group alone; the others are a gap.
            subscription = session.subscribe(_TV, _VIDEO, priority=50, max_latency=0)
            await _until(session, TrackAccepted)
            assert session.fetch(subscription, 1), protocol
            events = await _until(session, GroupReceived)
            while not any(isinstance(event, GroupReceived) and event.fetched for event in events):
                events += await _until(session, GroupReceived)
        (fetched,) = [e for e in events if isinstance(e, GroupReceived) and e.fetched]
        assert (fetched.sequence, fetched.frames, fetched.complete) == (1, sent[1], True), protocol


async def test_of_all_that_we_offer_the_relay_takes_the_first(
    relay: Relay, tls: TlsOptions
) -> None:
    async with open_session(relay.url, tls=tls, options=SessionOptions()) as session:
        assert session.protocol == "moq-lite-05"


async def test_a_refused_session_says_so_and_keeps_the_token_secret(
    relay: Relay, tls: TlsOptions
) -> None:
    with pytest.raises(RefusedError) as caught:
        async with open_session(
            f"{relay.url}/forbidden?jwt=secret", tls=tls, options=SessionOptions()
        ):
            pass
    assert "secret" not in str(caught.value)
    assert "forbidden" not in str(caught.value)


async def test_where_no_relay_listens_we_are_told_so_and_not_that_none_answered() -> None:
    with running_relay() as relay:
        url = relay.url
    with trio.fail_after(_PATIENCE), pytest.raises(ConnectError, match="nothing listens"):
        async with open_session(url, tls=TlsOptions(insecure=True), options=SessionOptions()):
            pass


async def test_over_ipv6() -> None:
    with running_relay(host="::1") as relay:
        async with open_session(
            relay.url, tls=TlsOptions(insecure=True), options=SessionOptions()
        ) as session:
            assert session.origin == f"https://[::1]:{relay.port}"


async def test_a_relay_killed_in_mid_stream_leaves_what_had_come(
    relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    _publish(publisher, _VIDEO)
    async with open_session(relay.url, tls=tls, options=_options()) as session:
        _subscribe(session)
        publisher.append_group(_TV, _VIDEO, [b"whole"])
        await _groups(session, 1)
        publisher.open_group(_TV, _VIDEO, [b"first"])
        await _until_buffered(session, b"first")
        relay.kill()
        events, error = await _until_over(session)
        with pytest.raises(ConnectionLostError):
            session.announce("")
    (group,) = [event for event in events if isinstance(event, GroupReceived)]
    assert (group.frames, group.complete, group.reason) == ((b"first",), False, "session lost")
    assert isinstance(error, ConnectionLostError)
    assert relay.url in str(error)


async def test_leaving_a_session_leaves_no_task_and_no_socket(
    relay: Relay, tls: TlsOptions
) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    tasks = trio.lowlevel.current_statistics().tasks_living
    before = descriptors()
    for _ in range(3):
        async with open_session(relay.url, tls=tls, options=SessionOptions()) as session:
            session.announce("")
            await trio.sleep(0.05)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert descriptors() == before


async def test_a_consumer_that_lags_stops_the_relay_and_loses_nothing(
    relay: Relay, publisher: Publisher, tls: TlsOptions, tmp_path: Path
) -> None:
    _publish(publisher, _VIDEO)
    payload = tmp_path / "payload"
    payload.write_bytes(os.urandom(1_000_000))
    options = SessionOptions(queued_bytes=4_000_000, window=2_000_000)
    async with open_session(relay.url, tls=tls, options=options) as session:
        _subscribe(session)
        await _until(session, TrackAccepted)
        highest = 0
        for _ in range(40):
            publisher.append_group(_TV, _VIDEO, files=[str(payload)])
            await trio.sleep(0.05)
            held = session.statistics()
            highest = max(highest, held.queued_bytes + held.buffered_bytes)
        assert 4_000_000 <= highest <= 8_000_000
        groups = await _groups(session, 40)
    expected = (payload.read_bytes(),)
    assert all(group.frames == expected for group in groups.values())


class _LossyEndpoint(UdpEndpoint):
    """Loses one received datagram in twenty, always the same ones."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._chance = random.Random(1)

    def receive(self, limit: int) -> list[Datagrams]:
        return [
            Datagrams(datagram, len(datagram))
            for batch in super().receive(limit)
            for datagram in batch.split()
            if self._chance.random() >= 0.05
        ]


async def test_a_link_that_loses_packets_loses_no_byte(
    relay: Relay, publisher: Publisher, tls: TlsOptions
) -> None:
    _publish(publisher, _VIDEO)
    chance = random.Random(2)
    sent = [(chance.randbytes(200_000),) for _ in range(10)]
    async with open_session(
        relay.url, tls=tls, options=SessionOptions(), connect=_LossyEndpoint
    ) as session:
        _subscribe(session)
        for frames in sent:
            publisher.append_group(_TV, _VIDEO, frames)
        groups = await _groups(session, len(sent))
    assert [groups[0, sequence].frames for sequence in range(len(sent))] == sent
