"""A disk that is full while a recorder runs: said, waited for, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from casfs.manifests.record import GapRecord, GroupRecord
from tests.real.programs import Installation, Station, eventually
from tools.loopback.publisher import Publisher, running_publisher
from tools.loopback.relay import Relay, running_relay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TV = "demo/tv"
VIDEO = "video0.m4s"


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "only root can mount a small disk"
    if shutil.which("mount") is None:
        return "there is no mount command"
    return None


pytestmark = pytest.mark.skipif(_why_not() is not None, reason=str(_why_not()))


class SmallDisk:
    """A disk of a few megabytes, mounted at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, leaving: int) -> None:
        """Take all space but ``leaving`` bytes."""
        free = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
        filler = self.path / "lost+found"  # a name that no root minds
        filler.write_bytes(bytes(free - leaving))

    def free(self) -> None:
        """Give it back."""
        (self.path / "lost+found").unlink()


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[SmallDisk]:
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with running_relay() as running:
        yield running


@pytest.fixture
def publisher(relay: Relay) -> Iterator[Publisher]:
    with running_publisher(relay.url, relay.fingerprint) as running:
        yield running


@pytest.fixture
def bare(tmp_path: Path) -> Installation:
    """Return an archive that is not made yet."""
    return Installation(tmp_path)


def assert_everything_is_there(installation: Installation, station: Station) -> None:
    installation.verify_is_sound()
    recorded = installation.recorded(TV, VIDEO)
    assert sorted(recorded) == [(1, number) for number in station.sent[VIDEO]]
    assert all(record.complete for record in installation.records(GroupRecord, TV, VIDEO))
    assert installation.records(GapRecord, TV, VIDEO) == []
    assert installation.run("cat", TV, VIDEO).out == station.payload(VIDEO)


def test_a_full_object_disk_is_waited_for(
    bare: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO)
    with small_disk(bare.cas, "16m") as disk:
        assert bare.run("init").code == 0
        with bare.recording(relay, TV, "--track", VIDEO) as recorder:
            station.send(VIDEO, b"fits")
            bare.wait_for(TV, VIDEO, 1)
            disk.fill(leaving=1 << 20)
            for number in range(20):
                station.send(VIDEO, os.urandom(300_000) + b"%d" % number)
            recorder.says("disk full")
            assert recorder.process.poll() is None
            disk.free()
            bare.wait_for(TV, VIDEO, 21)
            outcome = recorder.stop()
            assert outcome.code == 0, outcome.err
        assert "Traceback" not in outcome.err
        assert not list(bare.cas.glob(".casfs/tmp/*/*"))
        assert_everything_is_there(bare, station)


def test_a_full_manifest_disk_is_waited_for(
    bare: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO)
    with small_disk(bare.manifests, "4m") as disk:
        assert bare.run("init").code == 0
        with bare.recording(relay, TV, "--track", VIDEO) as recorder:
            station.send(VIDEO, b"fits")
            bare.wait_for(TV, VIDEO, 1)
            disk.fill(leaving=16 << 10)
            for number in range(60):
                station.send(VIDEO, b"group %d" % number)
            recorder.says("disk full")
            disk.free()
            bare.wait_for(TV, VIDEO, 61)
            outcome = recorder.stop()
            assert outcome.code == 0, outcome.err
        assert "Traceback" not in outcome.err
        assert_everything_is_there(bare, station)
        listed = bare.ls()[TV, VIDEO]
        assert listed.groups == 61


def test_a_recorder_that_is_stopped_while_the_disk_is_full_says_so_and_the_next_one_goes_on(
    bare: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO)
    with small_disk(bare.cas, "16m") as disk:
        assert bare.run("init").code == 0
        with bare.recording(relay, TV, "--track", VIDEO) as recorder:
            station.send(VIDEO, b"fits")
            bare.wait_for(TV, VIDEO, 1)
            disk.fill(leaving=1 << 20)
            for number in range(10):
                station.send(VIDEO, os.urandom(300_000) + b"%d" % number)
            recorder.says("disk full")
            outcome = recorder.stop()
        assert outcome.code == 7
        assert "disk full" in outcome.complaint
        bare.verify_is_sound()
        disk.free()
        with bare.recording(relay, TV, "--track", VIDEO) as recorder:
            eventually(
                lambda: len(bare.recorded(TV, VIDEO)) == 11, "all that the relay still holds"
            )
            assert recorder.stop().code == 0
        assert_everything_is_there(bare, station)
