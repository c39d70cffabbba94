"""What a test or a tool starts with tools.loopback is gone afterwards, whatever happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tools.loopback.process import LoopbackError
from tools.loopback.publisher import Publisher, running_publisher
from tools.loopback.relay import Relay, running_relay


def _alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while _alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def test_relay_and_publisher_are_gone_behind_their_contexts() -> None:
    with running_relay() as relay, running_publisher(relay.url, relay.fingerprint) as publisher:
        pids = [relay.pid, publisher.process.pid]
        assert all(map(_alive, pids))
    assert not any(map(_alive, pids))


def test_they_are_gone_when_the_body_fails_or_has_frozen_them() -> None:
    def body() -> None:
        with running_relay() as relay:
            pids.append(relay.pid)
            relay.process.pause()
            raise ZeroDivisionError

    pids: list[int] = []
    with pytest.raises(ZeroDivisionError):
        body()
    assert not any(map(_alive, pids))


def test_a_relay_ends_when_the_one_that_started_it_is_killed() -> None:
    code = (
        "import sys, time\n"
        "from tools.loopback.relay import running_relay\n"
        "with running_relay() as relay:\n"
        "    print(relay.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert _alive(pid)
        owner.kill()
    _wait_until_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_relay_ends_cleanly_by_signal(number: signal.Signals) -> None:
    with running_relay() as relay:
        os.kill(relay.pid, number)
        with pytest.raises(LoopbackError, match="ended with code 0"):
            relay.process.receive(20)


def test_what_cannot_be_done_is_said_and_the_publisher_goes_on(
    relay: Relay, publisher: Publisher
) -> None:
    with pytest.raises(LoopbackError, match="CreateTrack"):
        publisher.create_track("absent", "video0.m4s")
    publisher.create_broadcast("demo/tv")
    with pytest.raises(LoopbackError, match="duplicate"):
        publisher.create_track("demo/tv", "catalog.json")
    publisher.create_track("demo/tv", "video0.m4s")
    assert publisher.append_group("demo/tv", "video0.m4s", [b"frame"]) == 0


def test_the_catalog_can_be_extended_and_read_back(relay: Relay, publisher: Publisher) -> None:
    publisher.create_broadcast("demo/tv")
    publisher.set_catalog_section("demo/tv", "casfs", {"tracks": ["video0.m4s"]})
    _, (frame,) = publisher.catalog("demo/tv")
    assert b'"casfs":{"tracks":["video0.m4s"]}' in frame
