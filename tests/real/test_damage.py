"""One flipped bit: found, named, never shown as if it were whole."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec import Struct

from casfs.digest import digest_of
from casfs.errors import MountPointError
from casfs.mount.mountpoint import check_fuse
from tests.real.programs import Installation, Station, broadcast_directory, group_files

if TYPE_CHECKING:
    from pathlib import Path

    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

TV = "demo/tv"
VIDEO = "video0.m4s"
VICTIM = 3


class Group(Struct, frozen=True, forbid_unknown_fields=True):
    broadcast: str
    track: str
    epoch: int
    sequence: str
    n: int


class Damaged(Struct, frozen=True):
    hash: str
    reason: str
    path: str
    groups: list[Group]


class Missing(Struct, frozen=True):
    hash: str
    path: str
    groups: list[Group]


class ManifestError(Struct, frozen=True):
    journal: str
    segment: str
    offset: int
    end: int
    reason: str


class Report(Struct, frozen=True):
    """The keys that ``casfs verify --json`` promises."""

    sound: bool
    objects: int
    bytes: int
    damaged: list[Damaged]
    missing: list[Missing]
    unreferenced: int
    manifest_errors: list[ManifestError]


def verify(installation: Installation, code: int) -> Report:
    outcome = installation.run("verify", "--json")
    assert outcome.code == code, outcome.err
    if code:
        assert outcome.complaint
    return msgspec.json.decode(outcome.out, type=Report)


def flip_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(0o444)


@pytest.fixture
def station(installation: Installation, relay: Relay, publisher: Publisher) -> Station:
    """Return a broadcast of which everything is recorded; two tracks share one payload."""
    station = Station(publisher, TV, VIDEO, "copy.m4s")
    with installation.recording(relay, TV, "--track", VIDEO, "--track", "copy.m4s") as recorder:
        for number in range(8):
            station.send(VIDEO, b"%d" % number * 100_000)
            if number == 4:
                installation.wait_for(TV, VIDEO, 5)
        station.send("copy.m4s", b"%d" % VICTIM * 100_000)
        installation.wait_for(TV, VIDEO, 8)
        installation.wait_for(TV, "copy.m4s", 1)
        assert recorder.stop().code == 0
    return station


def object_of(installation: Installation, payload: bytes) -> Path:
    digest = digest_of(payload)
    return installation.cas / "objects" / "blake3" / digest[:2] / f"{digest}.bin"


def test_verify_names_the_damaged_object_and_every_group_that_needs_it(
    installation: Installation, station: Station
) -> None:
    before = verify(installation, 0)
    assert before.sound
    payloads = set(station.sent[VIDEO].values())
    assert (before.objects, before.bytes) == (len(payloads), sum(map(len, payloads)))
    flip_one_bit(object_of(installation, station.sent[VIDEO][VICTIM]))

    report = verify(installation, 3)
    assert not report.sound
    (damaged,) = report.damaged
    assert damaged.hash == digest_of(station.sent[VIDEO][VICTIM])
    assert {(group.track, group.epoch, group.sequence) for group in damaged.groups} == {
        (VIDEO, 1, str(VICTIM)),
        ("copy.m4s", 1, "0"),
    }
    assert (report.missing, report.manifest_errors) == ([], [])
    assert report.objects == before.objects

    said = installation.run("verify")
    assert said.code == 3
    assert damaged.hash.encode() in said.out
    assert f"{VIDEO} epoch 1 sequence {VICTIM}".encode() in said.out
    assert "1 finding" in said.complaint


def test_verify_names_an_object_that_is_gone_and_goes_on(
    installation: Installation, station: Station
) -> None:
    gone = object_of(installation, station.sent[VIDEO][VICTIM])
    gone.unlink()
    flip_one_bit(object_of(installation, station.sent[VIDEO][5]))
    report = verify(installation, 3)
    (missing,) = report.missing
    assert missing.hash == gone.stem
    assert {group.track for group in missing.groups} == {VIDEO, "copy.m4s"}
    (damaged,) = report.damaged
    assert damaged.hash == digest_of(station.sent[VIDEO][5])

    outcome = installation.run("cat", TV, VIDEO, "--sequence", str(VICTIM))
    assert (outcome.code, outcome.out) == (3, b"")
    assert gone.stem in outcome.complaint


def test_cat_writes_nothing_of_a_damaged_object(
    installation: Installation, station: Station
) -> None:
    damaged = object_of(installation, station.sent[VIDEO][VICTIM])
    flip_one_bit(damaged)
    outcome = installation.run("cat", TV, VIDEO)
    assert outcome.code == 3
    assert outcome.out == b"".join(station.sent[VIDEO][number] for number in range(VICTIM))
    assert damaged.stem in outcome.complaint
    outcome = installation.run("cat", damaged.stem)
    assert (outcome.code, outcome.out) == (3, b"")
    outcome = installation.run("cat", TV, VIDEO, "--sequence", f"{VICTIM + 1}-7")
    assert outcome.code == 0


def test_the_mount_gives_an_error_for_it_and_its_neighbours_read_fine(
    installation: Installation, station: Station
) -> None:
    try:
        check_fuse(allow_other=False)
    except MountPointError as error:
        pytest.skip(str(error))
    damaged = object_of(installation, station.sent[VIDEO][VICTIM])
    flip_one_bit(damaged)
    with installation.mounted() as mountpoint:
        files = group_files(broadcast_directory(mountpoint, TV) / VIDEO)
        assert len(files) == 8
        for number, path in enumerate(files):
            if number == VICTIM:
                with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
                    path.read_bytes()
                assert caught.value.errno == errno.EIO
            else:
                assert path.read_bytes() == station.sent[VIDEO][number]
        raw = mountpoint / "objects" / damaged.stem[:2] / damaged.name
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            raw.read_bytes()


def test_a_group_that_comes_again_heals_its_damaged_object(
    installation: Installation, station: Station, relay: Relay
) -> None:
    damaged = object_of(installation, station.sent[VIDEO][VICTIM])
    flip_one_bit(damaged)
    other = "demo/other"
    with installation.recording(relay, other, "--track", VIDEO) as recorder:
        again = Station(station.publisher, other, VIDEO)
        again.send(VIDEO, station.sent[VIDEO][VICTIM])
        installation.wait_for(other, VIDEO, 1)
        assert recorder.stop().code == 0
    assert verify(installation, 0).sound


def test_a_garbage_line_is_named_by_verify_and_keeps_nothing_else_from_being_used(
    installation: Installation, station: Station, relay: Relay
) -> None:
    (segment,) = (installation.manifests / "demo%2Ftv" / VIDEO).glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    middle = 3
    lost = int(msgspec.json.decode(lines[middle])["sequence"])
    start = sum(map(len, lines[:middle]))
    end = start + len(lines[middle])
    with segment.open("r+b") as file:
        file.seek(start)
        file.write(b"x" * (end - start - 1))

    report = verify(installation, 3)
    (error,) = report.manifest_errors
    assert (error.journal, error.segment) == (f"demo%2Ftv/{VIDEO}", segment.name)
    assert error.offset <= start
    assert error.end >= end
    assert (report.damaged, report.missing) == ([], [])
    said = installation.run("verify")
    assert f"{error.journal}/{segment.name}".encode() in said.out

    for index in installation.manifests.glob(".casfs/index.sqlite3*"):
        index.unlink()  # as it is, and with what only the manifests say
    assert installation.ls()[TV, VIDEO].groups == 7
    kept = [payload for number, payload in station.sent[VIDEO].items() if number != lost]
    assert installation.run("cat", TV, VIDEO).out == b"".join(kept)

    before = segment.read_bytes()
    with installation.recording(relay, TV, "--track", VIDEO) as recorder:
        station.send(VIDEO, b"after the damage")
        installation.wait_for(TV, VIDEO, 8)
        assert recorder.stop().code == 0
    assert segment.read_bytes() == before
    assert installation.run("cat", TV, VIDEO).out.endswith(b"after the damage")
    assert verify(installation, 3).manifest_errors == [error]
