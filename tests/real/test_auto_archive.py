"""A supervisor, its workers and a real relay: what is listed is archived, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import urllib.request
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.manifests.record import StopRecord
from casfs.recorders import is_recorded, read_reports, read_supervisor_report
from tests.real.programs import CASFS, Installation, Program, Station, eventually
from tools.loopback.directory import StreamDirectory, running_directory
from tools.supervision.scenario import Options, live_through

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

VIDEO = "video0.m4s"


@pytest.fixture
def directory() -> Iterator[StreamDirectory]:
    with running_directory() as running:
        yield running


@contextlib.contextmanager
def supervising(installation: Installation, relay: Relay, *arguments: str) -> Iterator[Program]:
    with installation.running(
        *("auto-archive", "--poll-interval=1s", "--time-sync-wait=0", "--min-free=1M"),
        *("--tls-fingerprint", relay.fingerprint, *arguments),
    ) as program:
        yield program


def recorded(installation: Installation) -> set[str]:
    """Return the broadcasts that are being recorded."""
    roots = installation.archive().roots
    return {
        report.broadcast
        for directory, report in read_reports(roots).items()
        if is_recorded(roots, directory)
    }


def entry(relay: Relay, name: str) -> dict[str, str]:
    return {"relay_url": relay.url, "broadcast_name": name, "track_name": VIDEO}


def test_every_byte_is_kept_whatever_dies_and_whatever_the_directory_says(tmp_path: Path) -> None:
    outcome = live_through(tmp_path, Options(broadcasts=3, seconds=12, bitrate=200_000))
    assert outcome.amiss == []
    assert outcome.excused == 0
    assert outcome.groups > 20
    assert outcome.supervisors_killed == 1
    assert outcome.held["worker: resident MB"] < 70


def test_a_reload_takes_up_what_is_new_and_touches_no_recording(
    installation: Installation,
    relay: Relay,
    publisher: Publisher,
    directory: StreamDirectory,
    tmp_path: Path,
) -> None:
    for name in ("one", "two"):
        Station(publisher, name, VIDEO).send(VIDEO, name.encode())
    directory.entries = [entry(relay, "one"), entry(relay, "two")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tmp_path / "c.toml"
    text = f'[auto-archive]\ndirectory = ["{directory.url}"]\ninclude = ["one"]\n'
    file.write_text(f'{text}metrics = "127.0.0.1:{port}"\n')
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(tmp_path / "notify"))
    listening.settimeout(30)
    installation.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    with (
        listening,
        supervising(installation, relay, f"--config={file}", "--log-format=json") as supervisor,
    ):
        assert b"READY=1" in listening.recv(4096)
        installation.wait_for("one", VIDEO, 1)
        eventually(lambda: recorded(installation) == {"one"}, "recorded: one alone")
        roots = installation.archive().roots
        (before,) = read_reports(roots).values()

        file.write_text("[auto-archive]\nmax-workers = 'many'\n")
        supervisor.process.send_signal(signal.SIGHUP)
        supervisor.says("the settings stay as they were")
        file.write_text(text.replace("one", "two") + 'metrics = "127.0.0.1:1"\n')
        supervisor.process.send_signal(signal.SIGHUP)
        supervisor.says("metrics: what the settings say now holds after a new start")
        installation.wait_for("two", VIDEO, 1)
        eventually(lambda: recorded(installation) == {"one", "two"}, "recorded: both")
        assert {report.pid for report in read_reports(roots).values()} >= {before.pid}

        eventually(
            lambda: 'casfs_recorder_groups_total{broadcast="one"} 1.0' in metrics(port), "metrics"
        )
        status = installation.run("status", "--json")
        told = msgspec.json.decode(status.out)
        assert [item["broadcast"] for item in told["recorders"]] == ["one", "two"]
        assert told["supervisor"]["running"]
        outcome = supervisor.stop()
        assert outcome.code == 0, outcome.err
    lines = [msgspec.json.decode(line) for line in outcome.err.splitlines()]
    assert {line.get("broadcast") for line in lines} == {None, "one", "two"}
    states = [line["state"] for line in lines if "state" in line]
    assert states[0]["broadcast"] in ("one", "two")
    for name in ("one", "two"):
        assert len(installation.records(StopRecord, name)) == 1
    assert not read_reports(roots)
    assert read_supervisor_report(roots) is None


def metrics(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read(), "utf-8")
    except OSError:
        return ""


def test_what_a_relay_announces_and_what_is_pinned_is_recorded(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    Station(publisher, "first", VIDEO).send(VIDEO, b"first")
    with supervising(
        installation,
        relay,
        *("--announced-by", relay.url, "--relay-url", relay.url, "--broadcast", "pinned"),
    ) as supervisor:
        installation.wait_for("first", VIDEO, 1)
        Station(publisher, "later", VIDEO).send(VIDEO, b"later")
        Station(publisher, "pinned", VIDEO).send(VIDEO, b"pinned")
        for name in ("later", "pinned"):
            installation.wait_for(name, VIDEO, 1)
        outcome = supervisor.stop(signal.SIGINT)
        assert outcome.code == 0, outcome.err
    installation.verify_is_sound()


def test_a_second_recorder_waits_for_the_first_and_ends_with_whoever_started_it(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, "demo", VIDEO)
    station.send(VIDEO, b"0")
    with installation.recording(relay, "demo") as first:
        installation.wait_for("demo", VIDEO, 1)
        command = [CASFS, "archive", "--name=demo"]
        command += ["--tls-fingerprint", relay.fingerprint]
        command += ["--wait-for-lock=1m", "--stop-with-stdin"]
        with subprocess.Popen(
            command,
            env={**installation.environment, "CASFS_URL": relay.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as second:
            assert second.stdin is not None
            try:
                assert first.stop().code == 0
                station.send(VIDEO, b"1")
                installation.wait_for("demo", VIDEO, 2)
                second.stdin.close()
                assert second.wait(30) == 0
            finally:
                second.kill()
    stops = [record.reason for record in installation.records(StopRecord, "demo")]
    assert stops == ["SIGTERM", "standard input was closed"]


def test_nothing_to_record_is_a_wrong_use(installation: Installation) -> None:
    outcome = installation.run("auto-archive")
    assert outcome.code == 2
    assert "nothing says what to record" in outcome.complaint
    outcome = installation.run("auto-archive", "--directory", "https://x/", "--metrics=0.0.0.0:80")
    assert outcome.code == 2
    assert os.listdir(installation.manifests) == [".casfs"]
