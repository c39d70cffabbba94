"""One audio frame a group, from a real publisher: runs on disk, and each group as it was sent."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from casfs.manifests.record import GroupRecord, RunRecord
from tests.real.programs import Installation, Station

if TYPE_CHECKING:
    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

AUDIO, VIDEO = "audio0.m4s", "video0.m4s"
RATE = 47
COUNT = 200


def test_one_audio_frame_a_group_is_kept_in_runs_and_comes_out_group_by_group(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    dice = random.Random(11)
    station = Station(publisher, "demo/radio", AUDIO, VIDEO)
    with installation.recording(relay, station.name) as recorder:
        station.send(VIDEO, dice.randbytes(50_000))
        installation.wait_for(station.name, VIDEO, 1)
        begun = time.monotonic()
        for number in range(COUNT):
            # The publisher's own pace: what counts is that it is far above ten a second.
            time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
            station.send(AUDIO, dice.randbytes(400))
            if number % RATE == 0:
                station.send(VIDEO, dice.randbytes(50_000))
        # What is on its way when a recorder is stopped does not count.
        installation.wait_for(station.name, AUDIO, COUNT)
        installation.wait_for(station.name, VIDEO, len(station.sent[VIDEO]))
        outcome = recorder.stop()
        assert outcome.code == 0, outcome.err
    found = installation.recorded(station.name, AUDIO)
    assert sorted(found) == [(1, number) for number in sorted(station.sent[AUDIO])]
    runs = installation.records(RunRecord, station.name, AUDIO)
    in_runs = sum(len(run.sequences) for run in runs)
    assert in_runs > COUNT // 2
    assert in_runs > 15 * len(runs)
    assert installation.records(RunRecord, station.name, VIDEO) == []
    assert len(installation.records(GroupRecord, station.name, VIDEO)) == len(station.sent[VIDEO])

    installation.verify_is_sound()
    listed = installation.ls()[station.name, AUDIO]
    assert (listed.groups, listed.bytes) == (COUNT, COUNT * 400)
    archive = installation.archive()
    reader = archive.reader()
    try:
        track = reader.track(station.name, AUDIO)
        assert track is not None
        for row in reader.groups(track, 0, 1 << 62):
            with open(archive.objects.path(row.hash), "rb") as file:
                data = file.read()[row.offset : row.offset + row.size]
            assert data == station.sent[AUDIO][row.sequence]
    finally:
        reader.close()
    for sequence in (0, COUNT // 2, COUNT - 1):
        shown = installation.run("cat", station.name, AUDIO, "--sequence", str(sequence)).out
        assert shown == station.sent[AUDIO][sequence]
    assert installation.run("cat", station.name, AUDIO).out == station.payload(AUDIO)
