"""MoQ transport and raw QUIC, the whole way: what was published is what ``casfs cat`` gives."""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.real.programs import Station
from tools.loopback.independent import Unavailable, independent_publisher
from tools.loopback.publisher import running_publisher

if TYPE_CHECKING:
    from pathlib import Path

    from tests.real.conftest import CertificateAuthority
    from tests.real.programs import Installation
    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

TRACKS = ("init.mp4", "video0.m4s")
WAYS = [
    ("moqt-18", "webtransport"),
    ("moqt-16", "webtransport"),
    ("moqt-14", "webtransport"),
    ("moq-lite-05", "quic"),
]


@pytest.mark.parametrize(("protocol", "transport"), WAYS)
def test_several_broadcasts_come_out_byte_for_byte_also_across_a_restart_of_the_publisher(
    protocol: str,
    transport: str,
    installation: Installation,
    relay: Relay,
    publisher: Publisher,
) -> None:
    dice = random.Random(3)
    ways = ("--protocol", protocol, "--transport", transport)
    with ExitStack() as stack:
        stations = [Station(publisher, name, *TRACKS) for name in ("demo/tv", "demo/tv/second")]
        for station in stations:
            # Before anybody listens: what the relay still has is recorded too.
            station.send("init.mp4", b"init of " + station.name.encode())
            station.send("video0.m4s", dice.randbytes(70_000), b"", dice.randbytes(300))
        recorders = [
            stack.enter_context(installation.recording(relay, station.name, *ways))
            for station in stations
        ]
        for station in stations:
            for track in TRACKS:
                installation.wait_for(station.name, track, 1)
            for _ in range(3):
                station.send("video0.m4s", *(dice.randbytes(20_000) for _ in range(4)))
            station.send("video0.m4s", b"")
            station.send("video0.m4s")
            for track in TRACKS:
                installation.wait_for(station.name, track, len(station.sent[track]))
            for track in TRACKS:
                outcome = installation.run("cat", station.name, track)
                assert (outcome.code, outcome.out) == (0, station.payload(track))

        publisher.end_broadcast("demo/tv")
        again = stack.enter_context(running_publisher(relay.url, relay.fingerprint))
        restarted = Station(again, "demo/tv", *TRACKS)
        before = stations[0]
        restarted.send("video0.m4s", b"not what the first group was")
        count = len(before.sent["video0.m4s"]) + 1
        installation.wait_for("demo/tv", "video0.m4s", count)
        for recorder in recorders:
            outcome = recorder.stop()
            assert outcome.code == 0, outcome.err
    outcome = installation.run("cat", "demo/tv", "video0.m4s")
    assert outcome.out == before.payload("video0.m4s") + restarted.payload("video0.m4s")
    installation.verify_is_sound()


@pytest.mark.parametrize(
    ("protocol", "transport", "push"),
    [
        ("moqt-18", "webtransport", False),
        ("moqt-16", "webtransport", True),
        ("moqt-14", "quic", True),
        ("moqt-14", "webtransport", False),
    ],
)
def test_an_independent_publisher_is_recorded_also_where_it_insists_on_pushing(
    protocol: str,
    transport: str,
    push: bool,
    installation: Installation,
    authority: CertificateAuthority,
    tmp_path: Path,
) -> None:
    certificate = authority.issue("localhost", "127.0.0.1")
    try:
        with independent_publisher(
            "demo/tv", "video0.m4s", certificate.certificate, certificate.key, push=push
        ) as server:
            arguments = (
                *("archive", "--url", server.url, "--name", "demo/tv", "--track", "video0.m4s"),
                *("--tls-ca", authority.certificate),
                *("--protocol", protocol, "--transport", transport),
            )
            with installation.running(*arguments) as recorder:
                installation.wait_for("demo/tv", "video0.m4s", 3)
                outcome = recorder.stop()
                assert outcome.code == 0, outcome.err
    except Unavailable as reason:
        pytest.skip(str(reason))
    payload = installation.run("cat", "demo/tv", "video0.m4s").out
    size = server.object_size * server.group_objects
    assert len(payload) >= 3 * size
    for number in range(3 * server.group_objects):
        group, place = divmod(number, server.group_objects)
        first = number * server.object_size
        assert payload[first:].startswith(b"%d.%d|" % (group, place))
