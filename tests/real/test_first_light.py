"""The whole way: a real relay, the real command, a real mount, and every byte compared."""

from __future__ import annotations

import os
import random
import re
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from casfs.errors import MountPointError
from casfs.mount.mountpoint import check_fuse
from tests.real.programs import (
    Installation,
    Station,
    broadcast_directory,
    eventually,
    group_files,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay


def _why_not() -> str | None:
    try:
        check_fuse(allow_other=False)
    except MountPointError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(_why_not() is not None, reason=f"cannot mount: {_why_not()}")

BROADCASTS = ("demo/tv", "demo/tv/second", "news/24/7")
TRACKS = ("init.mp4", "video0.m4s", "audio0.m4s")
NAME = re.compile(
    r"e0001-(?P<sequence>\d{20})-\d{6}\.\d{3}Z(?P<extension>\.m4s|\.mp4|\.json|\.bin)"
)


def program_of(station: Station, dice: random.Random) -> None:
    """Send some groups of every shape on all tracks."""
    station.send("init.mp4", b"init of " + station.name.encode())
    for number in range(8):
        frames = [dice.randbytes(dice.choice((1, 1000, 60_000))) for _ in range(6)]
        station.send("video0.m4s", *frames, b"", b"%d" % number)
        station.send("audio0.m4s", dice.randbytes(300), dice.randbytes(300))
    station.send("video0.m4s", dice.randbytes(3 << 20))
    station.send("video0.m4s", b"")
    station.send("video0.m4s")


def in_mount(mountpoint: Path, station: Station, track: str) -> dict[int, bytes]:
    """Read every group file of a track, by the sequence in its name."""
    found = {}
    for path in group_files(broadcast_directory(mountpoint, station.name) / track):
        match = NAME.fullmatch(path.name)
        assert match is not None, path
        assert path.suffix == os.path.splitext(track)[1]
        found[int(match["sequence"])] = path.read_bytes()
    return found


def shows_all(mountpoint: Path, station: Station, track: str) -> bool:
    return in_mount(mountpoint, station, track).keys() == station.sent[track].keys()


@pytest.mark.usefixtures("quic_of_recorders")
def test_every_group_of_several_broadcasts_recorded_at_once_comes_out_byte_for_byte(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    dice = random.Random(7)
    stations = [Station(publisher, name, *TRACKS) for name in BROADCASTS]
    with ExitStack() as stack:
        mountpoint = stack.enter_context(installation.mounted())
        recorders = [
            stack.enter_context(installation.recording(relay, station.name)) for station in stations
        ]
        for station in stations:
            program_of(station, dice)
        for station in stations:
            for track in TRACKS:
                installation.wait_for(station.name, track, len(station.sent[track]))
        for recorder in recorders:
            outcome = recorder.stop()
            assert outcome.code == 0, outcome.err

        for station in stations:
            for track in TRACKS:
                eventually(
                    partial(shows_all, mountpoint, station, track),
                    f"{station.name} {track} in the mount",
                )
                assert in_mount(mountpoint, station, track) == station.sent[track]

        directory = broadcast_directory(mountpoint, "demo/tv") / "video0.m4s"
        newest = group_files(directory)[-1]
        assert (directory / "latest.m4s").resolve() == newest.resolve()
        assert (directory / "latest.m4s").read_bytes() == newest.read_bytes()

        large = group_files(directory)[8]
        payload = stations[0].sent["video0.m4s"][8]
        attributes = {name: os.getxattr(large, name).decode() for name in os.listxattr(large)}
        assert attributes["user.casfs.blake3"] == digest_of(payload)
        assert attributes["user.casfs.epoch"] == "1"
        assert attributes["user.casfs.sequence"] == "8"
        assert attributes["user.casfs.broadcast"] == "demo/tv"
        assert attributes["user.casfs.track"] == "video0.m4s"

        wanted = {
            digest_of(payload)
            for station in stations
            for groups in station.sent.values()
            for payload in groups.values()
        }
        objects = {
            path.name.removesuffix(".bin"): path
            for path in (mountpoint / "objects").glob("??/*.bin")
        }
        assert wanted <= objects.keys()  # beside them: what the publisher library adds itself
        for digest, path in objects.items():
            assert digest_of(path.read_bytes()) == digest
            assert path.parent.name == digest[:2]

    installation.verify_is_sound()
    listed = installation.ls()
    for station in stations:
        for track, groups in station.sent.items():
            line = listed[station.name, track]
            assert (line.groups, line.bytes) == (len(groups), len(station.payload(track)))
            assert line.first is not None
            assert line.last is not None
            assert line.first <= line.last
            outcome = installation.run("cat", station.name, track)
            assert (outcome.code, outcome.err) == (0, "")
            assert outcome.out == station.payload(track)


def test_a_new_group_shows_in_the_mount_soon_after_its_acknowledgement_without_a_remount(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, "live/tv", "video0.m4s")
    station.send("video0.m4s", b"first")
    with installation.recording(relay, "live/tv", "--track", "video0.m4s") as recorder:
        installation.wait_for("live/tv", "video0.m4s", 1)
        with installation.mounted() as mountpoint:
            eventually(lambda: in_mount(mountpoint, station, "video0.m4s"), "in the mount")
            device = os.stat(mountpoint).st_dev
            directory = broadcast_directory(mountpoint, "live/tv") / "video0.m4s"
            inodes = {path.name: path.stat().st_ino for path in group_files(directory)}
            for count in range(2, 5):
                station.send("video0.m4s", b"group %d" % count)
                installation.wait_for("live/tv", "video0.m4s", count)
                # Promised is a second; what is asserted leaves room for a machine that is busy.
                eventually(
                    partial(shows_all, mountpoint, station, "video0.m4s"),
                    f"group {count} in the mount",
                )
                latest = (directory / "latest.m4s").read_bytes()
                assert latest == b"group %d" % count
            assert in_mount(mountpoint, station, "video0.m4s") == station.sent["video0.m4s"]
            assert os.stat(mountpoint).st_dev == device
            now = {path.name: path.stat().st_ino for path in group_files(directory)}
            assert inodes.items() <= now.items()
        assert recorder.stop().code == 0


def test_what_the_catalog_says_is_recorded_as_the_publisher_wrote_it(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, "demo/tv", "video0.m4s")
    publisher.set_catalog_section("demo/tv", "casfs", {"tracks": ["video0.m4s"]})
    with installation.recording(relay, "demo/tv") as recorder:
        installation.wait_for("demo/tv", "catalog.json", 1)
        station.send("video0.m4s", b"picture")
        installation.wait_for("demo/tv", "video0.m4s", 1)
        sequence, frames = publisher.catalog("demo/tv")
        assert recorder.stop().code == 0
    outcome = installation.run("cat", "demo/tv", "catalog.json", "--sequence", str(sequence))
    assert outcome.code == 0, outcome.err
    assert outcome.out == b"".join(frames)
    with_init = installation.run("cat", "demo/tv", "video0.m4s", "--init")
    assert with_init.out == outcome.out + b"picture"
