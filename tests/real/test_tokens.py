"""Tokens open relays, are renewed while recording, and are seen by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.real.programs import Station, eventually
from tools.loopback.publisher import running_publisher
from tools.loopback.relay import running_relay

if TYPE_CHECKING:
    from pathlib import Path

    from tests.real.programs import Installation

TV, VIDEO = "demo/tv", "video0.m4s"
FIRST, SECOND, STUDIO = "fiRst-s3cret", "sec0nd-s3cret", "stud1o-s3cret"


def test_an_expired_token_is_renewed_from_its_file_and_never_shown(
    installation: Installation, tmp_path: Path
) -> None:
    opens, token = tmp_path / "opens", tmp_path / "token"
    opens.write_text(f"{FIRST}\n{STUDIO}\n")
    token.write_text(FIRST)
    with (
        running_relay(tokens=str(opens)) as relay,
        running_publisher(f"{relay.url}/?jwt={STUDIO}", relay.fingerprint) as publisher,
    ):
        station = Station(publisher, TV, VIDEO)
        with installation.running(
            *("-vv", "archive", "--url", relay.url, "--name", TV, "--track", VIDEO),
            *("--tls-fingerprint", relay.fingerprint, "--token-file", str(token)),
        ) as recorder:
            station.send(VIDEO, b"one")
            installation.wait_for(TV, VIDEO, 1)
            # What renews tokens writes the file; the relay ends sessions whose token is over.
            token.write_text(SECOND)
            opens.write_text(f"{SECOND}\n{STUDIO}\n")
            eventually(lambda: recorder.err.count("connected to") >= 2, "connected again")
            station.send(VIDEO, b"two")
            installation.wait_for(TV, VIDEO, 2)
            # The relay lets it in no more: that is said, and not taken for trouble of the network.
            opens.write_text(STUDIO)
            recorder.says("refused the session")
            outcome = recorder.stop()
            assert outcome.code == 0, outcome.err
    written = [path.read_bytes() for path in installation.manifests.rglob("*") if path.is_file()]
    for seen in (outcome.err.encode(), outcome.out, *written):
        assert b"s3cret" not in seen
    cat = installation.run("cat", TV, VIDEO)
    assert cat.out == b"onetwo"


def test_a_token_of_the_environment_opens_a_relay(
    installation: Installation, tmp_path: Path
) -> None:
    opens = tmp_path / "opens"
    opens.write_text(f"{FIRST}\n{STUDIO}\n")
    installation.environment["CASFS_TOKEN"] = FIRST
    with (
        running_relay(tokens=str(opens)) as relay,
        running_publisher(f"{relay.url}/?jwt={STUDIO}", relay.fingerprint) as publisher,
    ):
        Station(publisher, TV, VIDEO)
        outcome = installation.run(
            *("broadcasts", "--url", relay.url, "--tls-fingerprint", relay.fingerprint)
        )
        assert (outcome.code, outcome.out) == (0, b"demo/tv\n"), outcome.err
        del installation.environment["CASFS_TOKEN"]
        outcome = installation.run(
            *("broadcasts", "--url", relay.url, "--tls-fingerprint", relay.fingerprint)
        )
        assert outcome.code == 6
        assert "refused the session" in outcome.complaint
