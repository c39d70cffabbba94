"""``casfs broadcasts`` with the real relay."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from tools.loopback.publisher import running_publisher
from tools.loopback.relay import running_relay

if TYPE_CHECKING:
    from tests.real.programs import Installation
    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

PROTOCOLS = ["moq-lite-05", "moq-lite-06", "moq-lite-04", "moqt-18", "moqt-16", "moqt-14"]


def arguments(relay: Relay, *more: str) -> tuple[str, ...]:
    return ("broadcasts", "--url", relay.url, "--tls-fingerprint", relay.fingerprint, *more)


def put_on_air(publisher: Publisher, *names: str) -> None:
    for name in names:
        publisher.create_broadcast(name)
        publisher.announce(name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_relay_announces_is_listed(
    protocol: str, installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    put_on_air(publisher, "demo/tv", "other", "demo/radio", "demo/дом")
    outcome = installation.run(*arguments(relay, "--protocol", protocol))
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.decode().splitlines() == ["demo/radio", "demo/tv", "demo/дом", "other"]

    outcome = installation.run(
        *arguments(relay, "--protocol", protocol, "--prefix", "demo", "--json")
    )
    values = [msgspec.json.decode(line) for line in outcome.out.splitlines()]
    assert [value["broadcast"] for value in values] == ["demo/radio", "demo/tv", "demo/дом"]
    assert {value["event"] for value in values} == {"announced"}


def test_a_relay_without_broadcasts_has_an_empty_list(
    installation: Installation, relay: Relay
) -> None:
    outcome = installation.run(*arguments(relay))
    assert (outcome.code, outcome.out, outcome.err) == (0, b"", "")


@pytest.mark.parametrize(
    ("protocol", "number"),
    [
        *((protocol, signal.SIGTERM) for protocol in PROTOCOLS),
        (next(iter(PROTOCOLS)), signal.SIGINT),
    ],
)
def test_what_comes_and_goes_is_followed_until_a_signal(
    protocol: str,
    number: signal.Signals,
    installation: Installation,
    relay: Relay,
    publisher: Publisher,
) -> None:
    put_on_air(publisher, "tv")
    with installation.running(*arguments(relay, "--follow", "--protocol", protocol)) as program:
        lines = program.process.stdout
        assert lines is not None
        assert lines.readline() == b"+ tv\n"
        put_on_air(publisher, "radio")
        assert lines.readline() == b"+ radio\n"
        publisher.end_broadcast("tv")
        assert lines.readline() == b"- tv\n"
        put_on_air(publisher, "tv")
        assert lines.readline() == b"+ tv\n"
        outcome = program.stop(number)
    assert (outcome.code, outcome.out, outcome.err) == (0, b"", "")


def test_a_relay_that_comes_back_is_followed_further(installation: Installation) -> None:
    with running_relay() as relay:
        program_arguments = ("--url", relay.url, "--tls-insecure", "--follow")
        with installation.running("broadcasts", *program_arguments) as program:
            with running_publisher(relay.url, relay.fingerprint) as publisher:
                put_on_air(publisher, "kept", "lost")
                lines = program.process.stdout
                assert lines is not None
                assert {lines.readline(), lines.readline()} == {b"+ kept\n", b"+ lost\n"}
                relay.kill()
                program.says("trying again")
            with (
                running_relay(port=relay.port) as again,
                running_publisher(again.url, again.fingerprint) as publisher,
            ):
                put_on_air(publisher, "kept")
                there = {b"kept", b"lost"}
                # We may find the relay before the publisher does: then "kept" goes and comes.
                while there != {b"kept"}:
                    sign, name = lines.readline().split()
                    there = there | {name} if sign == b"+" else there - {name}
                outcome = program.stop()
    assert outcome.code == 0
    assert outcome.out == b""


def test_who_is_refused_gets_no_list(installation: Installation, relay: Relay) -> None:
    outcome = installation.run(
        *("broadcasts", "--url", f"{relay.url}/forbidden?jwt=secret", "--tls-insecure")
    )
    assert outcome.code == 6
    assert "refused" in outcome.complaint
    assert "secret" not in outcome.err


def test_a_certificate_that_is_not_trusted_ends_it(
    installation: Installation, relay: Relay
) -> None:
    for more in ([], ["--follow"]):
        outcome = installation.run("broadcasts", "--url", relay.url, *more)
        assert outcome.code == 6
        assert "certificate" in outcome.complaint


def test_a_reader_that_has_seen_enough_ends_it(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    put_on_air(publisher, "tv")
    with installation.running(*arguments(relay, "--follow")) as program:
        lines = program.process.stdout
        assert lines is not None
        assert lines.readline() == b"+ tv\n"
        lines.close()
        put_on_air(publisher, "radio")
        program.process.wait(30)
        assert program.process.returncode == 0
        assert program.err == ""
