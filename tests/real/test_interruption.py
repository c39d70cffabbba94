"""Recorders that are killed, relays that go away, publishers that begin again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from casfs.manifests.record import (
    EpochRecord,
    GapRecord,
    GroupRecord,
    LostSessionRecord,
    StartRecord,
    StopRecord,
)
from tests.real.programs import Installation, Station, eventually
from tools.loopback.publisher import running_publisher
from tools.loopback.relay import running_relay

if TYPE_CHECKING:
    from tests.real.conftest import CertificateAuthority
    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

TV = "demo/tv"
VIDEO = "video0.m4s"
AUDIO = "audio0.m4s"


either_protocol = pytest.mark.parametrize("protocol", ["moq-lite-05", "moqt-18"])


def gaps(installation: Installation, track: str) -> list[tuple[str | None, str | None]]:
    return [(gap.first, gap.last) for gap in installation.records(GapRecord, TV, track)]


def assert_nothing_twice(installation: Installation, track: str) -> None:
    recorded = installation.recorded(TV, track)
    assert len(recorded) == len(set(recorded)), recorded


def assert_holds(
    installation: Installation, track: str, sent: dict[int, bytes], epoch: int = 1
) -> None:
    """Exactly these groups are there, and ``casfs cat`` gives their bytes in order."""
    recorded = {number for at, number in installation.recorded(TV, track) if at == epoch}
    assert recorded == sent.keys()
    outcome = installation.run("cat", TV, track, "--epoch", str(epoch))
    assert outcome.code == 0, outcome.err
    assert outcome.out == b"".join(payload for _, payload in sorted(sent.items()))


def test_a_killed_recorder_loses_no_acknowledged_group_and_its_successor_says_what_was_missed(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO, AUDIO)
    with installation.recording(relay, TV, "--track", VIDEO, "--track", AUDIO) as recorder:
        for number in range(30):  # in mid-stream: groups keep coming while it dies
            station.send(VIDEO, b"%d" % number * 20_000)
            station.send(AUDIO, b"%d" % number)
            if number == 20:
                installation.wait_for(TV, VIDEO, 5)
        recorder.kill()
    acknowledged = {
        track: {
            (record.epoch, record.sequence, record.hash, record.complete)
            for record in installation.records(GroupRecord, TV, track)
        }
        for track in (VIDEO, AUDIO)
    }
    assert len(acknowledged[VIDEO]) >= 5
    (lost,) = installation.records(StartRecord, TV)
    assert not installation.records(StopRecord, TV)
    installation.verify_is_sound()

    # Nobody was there for 30 to 34, and no relay has them any more.
    station.send(VIDEO, b"35", sequence=35)
    with installation.recording(relay, TV, "--track", VIDEO, "--track", AUDIO) as recorder:
        eventually(
            lambda: {number for _, number in installation.recorded(TV, VIDEO)} == {*range(30), 35},
            "everything that the relay still has",
        )
        assert recorder.stop().code == 0

    installation.verify_is_sound()
    for track in (VIDEO, AUDIO):
        assert_nothing_twice(installation, track)
        assert acknowledged[track] <= {
            (record.epoch, record.sequence, record.hash, record.complete)
            for record in installation.records(GroupRecord, TV, track)
        }
        assert_holds(installation, track, station.sent[track])
    (session,) = installation.records(LostSessionRecord, TV)
    assert session.lost == lost.recorder
    assert session.last >= lost.time
    assert len(installation.records(StopRecord, TV)) == 1
    assert gaps(installation, VIDEO) == [("30", "34")]
    assert gaps(installation, AUDIO) == []


def test_a_recorder_that_is_killed_again_and_again_takes_no_redelivery_for_something_new(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO)
    for number in range(40):
        station.send(VIDEO, b"%d" % number * 50_000)
    for attempt in range(4):  # each is killed somewhere in the backlog, which comes newest first
        station.send(VIDEO, b"more %d" % attempt)
        before = len(installation.recorded(TV, VIDEO))
        with installation.recording(relay, TV, "--track", VIDEO) as recorder:
            installation.wait_for(TV, VIDEO, before + 1)
            recorder.kill()
    station.send(VIDEO, b"what only a recorder that has started can get")
    with installation.recording(relay, TV, "--track", VIDEO) as recorder:
        installation.wait_for(TV, VIDEO, len(station.sent[VIDEO]))
        assert recorder.stop().code == 0
    assert_nothing_twice(installation, VIDEO)
    assert {epoch for epoch, _ in installation.recorded(TV, VIDEO)} == {1}
    assert_holds(installation, VIDEO, station.sent[VIDEO])
    assert len(installation.records(LostSessionRecord, TV)) == 4
    installation.verify_is_sound()


@pytest.mark.usefixtures("quic_of_recorders")
def test_a_relay_that_comes_back_is_found_again_and_what_was_missed_is_a_gap(
    installation: Installation, authority: CertificateAuthority
) -> None:
    issued = authority.issue("localhost", "127.0.0.1")
    with running_relay(certificate=issued.certificate, key=issued.key) as relay:
        port = relay.port
        with installation.recording(relay, TV, "--track", VIDEO) as recorder:
            with running_publisher(relay.url, relay.fingerprint) as publisher:
                station = Station(publisher, TV, VIDEO)
                for number in range(5):
                    station.send(VIDEO, b"before %d" % number)
                installation.wait_for(TV, VIDEO, 5)
            relay.kill()
            recorder.says("trying again until it works")
            with (
                running_relay(port=port, certificate=issued.certificate, key=issued.key) as again,
                running_publisher(again.url, again.fingerprint) as publisher,
            ):
                assert again.fingerprint == relay.fingerprint
                back = Station(publisher, TV, VIDEO)
                for number in (3, 4):
                    back.send(VIDEO, b"before %d" % number, sequence=number)
                for number in range(8, 12):
                    back.send(VIDEO, b"after %d" % number, sequence=number)
                installation.wait_for(TV, VIDEO, 9)
                outcome = recorder.stop()
                assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    assert_nothing_twice(installation, VIDEO)
    assert_holds(installation, VIDEO, station.sent[VIDEO] | back.sent[VIDEO])
    assert gaps(installation, VIDEO) == [("5", "7")]
    assert [gap.reason for gap in installation.records(GapRecord, TV, VIDEO)] == ["disconnected"]
    assert len(installation.records(StartRecord, TV)) == 1
    installation.verify_is_sound()


@either_protocol
def test_a_publisher_that_begins_again_with_other_bytes_opens_one_epoch(
    protocol: str, installation: Installation, relay: Relay
) -> None:
    with installation.recording(
        relay, TV, "--protocol", protocol, "--track", VIDEO, "--track", AUDIO
    ) as recorder:
        stations = []
        for run in (b"first", b"second"):
            with running_publisher(relay.url, relay.fingerprint) as publisher:
                station = Station(publisher, TV, VIDEO, AUDIO)
                stations.append(station)
                for number in range(6):
                    station.send(VIDEO, b"%s video %d" % (run, number))
                    station.send(AUDIO, b"%s audio %d" % (run, number))
                for track in (VIDEO, AUDIO):
                    installation.wait_for(TV, track, 6 * len(stations))
                publisher.end_broadcast(TV)
        outcome = recorder.stop()
        assert outcome.code == 0, outcome.err
    for epoch, station in enumerate(stations, start=1):
        for track in (VIDEO, AUDIO):
            assert_holds(installation, track, station.sent[track], epoch)
    for track in (VIDEO, AUDIO):
        assert_nothing_twice(installation, track)
    assert [record.epoch for record in installation.records(EpochRecord, TV)] == [2]
    installation.verify_is_sound()


def test_a_publisher_that_goes_on_with_the_sequences_but_not_with_media_time_opens_one_epoch(
    installation: Installation, relay: Relay
) -> None:
    stations = []
    with installation.recording(relay, TV, "--track", VIDEO, "--track", AUDIO) as recorder:
        for first, second in ((0, 3600), (6, 0)):
            with running_publisher(relay.url, relay.fingerprint) as publisher:
                station = Station(publisher, TV, VIDEO, AUDIO)
                stations.append(station)
                for number in range(first, first + 6):
                    times = [(second + number) * 1_000_000]
                    for track in (VIDEO, AUDIO):
                        payload = b"%d %s" % (number, track.encode())
                        station.send(track, payload, sequence=number, timestamps=times)
                for track in (VIDEO, AUDIO):
                    installation.wait_for(TV, track, 6 * len(stations))
                publisher.end_broadcast(TV)
        outcome = recorder.stop()
        assert outcome.code == 0, outcome.err
    for epoch, station in enumerate(stations, start=1):
        for track in (VIDEO, AUDIO):
            assert_holds(installation, track, station.sent[track], epoch)
    (began,) = installation.records(EpochRecord, TV)
    assert (began.epoch, began.reason) == (2, "media time went back")


def test_a_killed_publisher_leaves_what_had_come_and_its_successor_is_recorded(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO)
    with installation.recording(relay, TV, "--track", VIDEO) as recorder:
        for number in range(4):
            station.send(VIDEO, b"%d" % number * 20_000)
        installation.wait_for(TV, VIDEO, 4)
        open_one = publisher.open_group(TV, VIDEO, [b"begun, and never "])
        time.sleep(1)  # for the bytes of the open group, which show nowhere before the end
        publisher.kill()
        with running_publisher(relay.url, relay.fingerprint) as successor:
            after = Station(successor, TV, VIDEO)
            for number in range(10, 13):
                after.send(VIDEO, b"after %d" % number, sequence=number)
            installation.wait_for(TV, VIDEO, 8)
            outcome = recorder.stop()
            assert outcome.code == 0, outcome.err
    assert_nothing_twice(installation, VIDEO)
    cut = {open_one: b"begun, and never "}
    assert_holds(installation, VIDEO, station.sent[VIDEO] | cut | after.sent[VIDEO])
    records = installation.records(GroupRecord, TV, VIDEO)
    assert [int(record.sequence) for record in records if not record.complete] == [open_one]
    installation.verify_is_sound()


@either_protocol
def test_a_publisher_that_begins_again_with_the_same_bytes_adds_nothing(
    protocol: str, installation: Installation, relay: Relay
) -> None:
    sent: dict[int, bytes] = {}
    with installation.recording(relay, TV, "--protocol", protocol, "--track", VIDEO) as recorder:
        for length in (5, 7):
            with running_publisher(relay.url, relay.fingerprint) as publisher:
                station = Station(publisher, TV, VIDEO)
                for number in range(length):
                    station.send(VIDEO, b"video %d" % number)
                installation.wait_for(TV, VIDEO, length)
                sent |= station.sent[VIDEO]
                publisher.end_broadcast(TV)
        assert recorder.stop().code == 0
    assert installation.records(EpochRecord, TV) == []
    assert sorted(installation.recorded(TV, VIDEO)) == [(1, number) for number in range(7)]
    assert_holds(installation, VIDEO, sent)


@either_protocol
def test_groups_out_of_order_and_skipped_ones_are_kept_as_they_come_and_are_no_loss(
    protocol: str, installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO)
    with installation.recording(relay, TV, "--protocol", protocol, "--track", VIDEO) as recorder:
        for count, number in enumerate((10, 5, 20, 7, 6, 1000), start=1):
            station.send(VIDEO, b"group %d" % number, sequence=number)
            installation.wait_for(TV, VIDEO, count)
        station.send(VIDEO, sequence=1001)  # no frame at all
        installation.wait_for(TV, VIDEO, 7)
        assert recorder.stop().code == 0
    assert [number for _, number in installation.recorded(TV, VIDEO)] == [
        *(10, 5, 20, 7, 6, 1000, 1001)
    ]
    assert_holds(installation, VIDEO, station.sent[VIDEO])
    assert gaps(installation, VIDEO) == []
    assert installation.records(EpochRecord, TV) == []


@either_protocol
def test_an_aborted_group_is_kept_as_far_as_it_came(
    protocol: str, installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO)
    with installation.recording(relay, TV, "--protocol", protocol, "--track", VIDEO) as recorder:
        station.send(VIDEO, b"whole")
        installation.wait_for(TV, VIDEO, 1)
        number = publisher.open_group(TV, VIDEO, [b"begun", b"continued"])
        time.sleep(1)  # whether a relay passes on what precedes an abort is its own affair
        publisher.abort_group(TV, VIDEO, number, code=7)
        station.send(VIDEO, b"next")
        installation.wait_for(TV, VIDEO, 3)
        assert recorder.stop().code == 0
    records = {
        int(record.sequence): record for record in installation.records(GroupRecord, TV, VIDEO)
    }
    assert [records[sequence].complete for sequence in (0, 1, 2)] == [True, False, True]
    cut = records[1]
    assert cut.reason is not None
    assert cut.reason.startswith("reset")
    outcome = installation.run("cat", TV, VIDEO, "--sequence", "1")
    assert outcome.code == 0
    assert b"beguncontinued".startswith(outcome.out)
    assert outcome.out
    with installation.mounted() as mountpoint:
        (path,) = mountpoint.glob(f"broadcasts/{TV}/{VIDEO}/*/*/*.partial")
        assert f"-{1:020d}-" in path.name
        assert path.read_bytes() == outcome.out


def test_a_group_that_is_open_when_the_recorder_ends_is_kept_and_later_superseded(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO)
    station.send(VIDEO, b"whole")
    number = publisher.open_group(TV, VIDEO, [b"begun, "])
    with installation.recording(relay, TV, "--track", VIDEO) as recorder:
        installation.wait_for(TV, VIDEO, 1)
        time.sleep(1)  # for the bytes of the open group, which show nowhere before the end
        assert recorder.stop().code == 0
    assert installation.ls()[TV, VIDEO].groups == 2
    assert_holds(installation, VIDEO, {0: b"whole", number: b"begun, "})

    publisher.write_frames(TV, VIDEO, number, [b"done"])
    publisher.finish_group(TV, VIDEO, number)
    with installation.recording(relay, TV, "--track", VIDEO) as recorder:
        installation.wait_for(TV, VIDEO, 3)
        assert recorder.stop().code == 0
    assert installation.ls()[TV, VIDEO].groups == 2
    assert_holds(installation, VIDEO, {0: b"whole", number: b"begun, done"})
    kept = [
        (record.sequence, record.complete)
        for record in installation.records(GroupRecord, TV, VIDEO)
    ]
    assert sorted(kept) == [("0", True), ("1", False), ("1", True)]
    with installation.mounted() as mountpoint:
        files = list(mountpoint.glob(f"broadcasts/{TV}/{VIDEO}/*/*/e*"))
        assert len(files) == 2
        assert not any(path.name.endswith(".partial") for path in files)
