"""Recordings and HLS through a real mount: ffmpeg plays them as what was published."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import subprocess
import time
from functools import cache, partial
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from casfs.archive import Archive
from casfs.digest import digest_of
from casfs.index.reader import Reader
from casfs.index.samples import SUFFIX, SampleIndex
from casfs.recordings.opening import open_recordings
from casfs.recordings.source import Recordings, RecordingSpan
from casfs.recordings.spool import DIRECTORY_SUFFIX, Spool
from casfs.timestamps import HOUR, format_time, parse_time
from tests.fakes.flat_media import (
    RATE,
    SECOND,
    Encoding,
    Media,
    encode,
    frame_at,
    frames,
    packets,
    probe,
    write,
)
from tests.fakes.store import Clock, flip_bit, group, make_archive
from tests.real.programs import Installation
from tests.real.test_mount_filesystem import _why_not

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from casfs.archive import Group
    from casfs.digest import Digest
    from casfs.media.layout import Extent, Literal

pytestmark = [
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
    pytest.mark.skipif(_why_not() is not None, reason=f"cannot mount: {_why_not()}"),
]

START = parse_time("2015-06-01T12:00:00Z")
DAY = "recordings/demo/tv/2015-06-01"
HLS = "hls/demo/tv/2015-06-01"
TRACKS = {1: "video0.m4s", 2: "audio0.m4s"}

FIRST = Encoding(seconds=6, b_frames=2)
SECOND_RUN = Encoding(seconds=5, b_frames=2, size="480x270")
GAP = range(4, 6)
"""Fragments of the first run that were missed: its third second."""


@cache
def media(encoding: Encoding) -> Media:
    return encode(encoding)


def groups_of(source: Media, *, received: int, epoch: int, skip: range = range(0)) -> list[Group]:
    """Return the groups that a recorder would commit, an init first, one a fragment."""
    numbers = dict.fromkeys(TRACKS.values(), 0)
    made = [group(0, source.init, track="init.mp4", epoch=epoch, received=received)]
    for number, fragment in enumerate(source.fragments):
        at = fragment.index(b"tfhd") + 8
        name = TRACKS[int.from_bytes(fragment[at : at + 4], "big")]
        due = received + numbers[name] * SECOND
        if number not in skip:
            made.append(
                group(
                    numbers[name],
                    fragment,
                    track=name,
                    epoch=epoch,
                    received=due,
                    init=digest_of(source.init),
                )
            )
        numbers[name] += 1
    return made


class Recorded:
    """An archive of a sealed hour and of one that was never sealed, and its mount."""

    def __init__(self, directory: Path) -> None:
        self.archive: Archive = make_archive(directory)
        self.groups = [
            *groups_of(media(FIRST), received=START + 10 * SECOND, epoch=1, skip=GAP),
            *groups_of(media(SECOND_RUN), received=START + 60 * SECOND, epoch=2),
        ]
        clock = Clock(START)
        with self.archive.writer("demo/tv", clock=clock) as writer:
            writer.commit(self.groups)
            clock.now = START + 2 * HOUR
            writer.seal_hours(0)
            writer.commit(groups_of(media(FIRST), received=clock.now, epoch=3))
        self.installation = Installation(directory)
        first, second = (
            frames(write(directory / f"plain{number}.mp4", media(encoding).stream), "v")
            for number, encoding in enumerate((FIRST, SECOND_RUN))
        )
        self.first = first[: 2 * RATE] + first[3 * RATE :]
        self.second = second


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def mount(recorded: Recorded) -> Iterator[Path]:
    with recorded.installation.mounted() as mountpoint:
        yield mountpoint


def times_rise(path: Path) -> bool:
    return all(
        float(before.dts_time) < float(after.dts_time)
        for stream in ("v:0", "a:0")
        for before, after in itertools.pairwise(packets(path, stream))
    )


def test_a_day_lists_what_it_holds(mount: Path) -> None:
    assert os.listdir(mount / DAY) == ["12.mp4", "14.live.mp4"]
    assert os.listdir(mount / "recordings/demo/tv") == ["clip", "2015-06-01"]
    assert os.listdir(mount / "recordings/demo/tv/clip") == []
    assert not (mount / DAY / "12-2.mp4").exists()
    assert not (mount / DAY / "12.live.mp4").exists()
    assert not (mount / DAY / "13.mp4").exists()


def test_an_hour_plays_on_one_timeline(mount: Path, recorded: Recorded) -> None:
    hour = mount / DAY / "12.mp4"
    report = probe(hour)
    count = len(recorded.first) + len(recorded.second)
    assert report.streams[0].nb_read_frames == str(count)
    assert float(report.format.duration) == pytest.approx(65, abs=0.2)
    assert times_rise(hour)
    # The sound leads by a few milliseconds, and with it what was received first.
    lead = float(report.streams[0].start_time) - 10
    assert 0 <= lead < 0.2
    assert frame_at(hour, 10 + lead + 1.2) == recorded.first[30]
    assert frame_at(hour, 10 + lead + 4.0) == recorded.first[75]
    after = recorded.second
    assert frame_at(hour, 60 + lead + 2.0) in after[46:55]


def test_its_bytes_are_those_of_the_objects(mount: Path, recorded: Recorded) -> None:
    whole = (mount / DAY / "12.mp4").read_bytes()
    assert len(whole) == (mount / DAY / "12.mp4").stat().st_size
    payloads = [b"".join(item.frames) for item in recorded.groups if item.track != "init.mp4"]
    head = whole.index(b"mdat") + 12
    assert sorted(payloads) == sorted(cut_at(whole[head:], payloads))


def cut_at(body: bytes, payloads: list[bytes]) -> Iterator[bytes]:
    """Cut ``body`` into payloads, each of which it must begin with."""
    while body:
        found = next(payload for payload in payloads if body.startswith(payload))
        yield found
        body = body[len(found) :]


def test_a_clip_begins_between_key_frames(mount: Path, recorded: Recorded) -> None:
    clip = mount / "recordings/demo/tv/clip/20150601T120011Z--20150601T120102Z.mp4"
    report = probe(clip)
    assert float(report.format.duration) == pytest.approx(51, abs=0.1)
    shown = frames(clip, "v")
    assert shown[0] in recorded.first[:30]
    # From 11 s of the first run to 2 s of the second, each begun 80 ms late behind its sound.
    assert len(shown) == pytest.approx(len(recorded.first) - 23 + 48, abs=2)
    assert os.listdir(clip.parent) == []
    empty, before = "20150601T120011Z--20150601T120011Z", "20150101T000000Z--20150101T010000Z"
    for name in (f"{empty}.mp4", f"{before}.mp4"):
        assert not (clip.parent / name).exists()


def test_the_epochs_playlists_play_as_files(mount: Path, recorded: Recorded) -> None:
    assert len(frames(mount / HLS / "epoch-1.m3u8", "v")) == len(recorded.first)
    assert frames(mount / HLS / "epoch-2.m3u8", "v") == recorded.second
    report = probe(mount / HLS / "epoch-2.m3u8")
    assert [stream.codec_name for stream in report.streams] == ["h264", "aac"]


def test_sound_and_picture_behind_a_gap_are_in_one_segment(mount: Path, tmp_path: Path) -> None:
    for number, name in enumerate(sorted(os.listdir(mount / HLS / "seg"))[:4]):
        segment = (mount / HLS / "init-1.mp4").read_bytes() + (
            mount / HLS / "seg" / name
        ).read_bytes()
        path = write(tmp_path / f"{number}.mp4", segment)
        times = [
            float(packet.dts_time) for packet in (*packets(path, "v:0"), *packets(path, "a:0"))
        ]
        assert max(times) - min(times) < 2.2, name


def test_the_days_playlist_tells_of_gap_and_restart(mount: Path) -> None:
    text = (mount / HLS / "media.m3u8").read_text()
    assert text.count("#EXT-X-DISCONTINUITY\n") == 3
    assert text.count("#EXT-X-MAP") == 3
    assert "#EXT-X-PROGRAM-DATE-TIME:2015-06-01T12:01:00" in text
    named = [line for line in text.splitlines() if not line.startswith("#")]
    assert named == [f"seg/{name}" for name in os.listdir(mount / HLS / "seg")]
    index = (mount / HLS / "index.m3u8").read_text()
    assert 'CODECS="avc1.64000c,mp4a.40.2,avc1.640015"' in index
    assert "RESOLUTION=480x270" in index


def test_the_live_recording_is_init_and_segments(mount: Path) -> None:
    live = mount / DAY / "14.live.mp4"
    plain = media(FIRST)
    assert len(frames(live, "v")) == FIRST.seconds * RATE
    assert live.read_bytes().count(b"moov") == 1
    payloads = [fragment for fragment in plain.fragments if fragment in live.read_bytes()]
    assert payloads == list(plain.fragments)
    assert times_rise(live)


class Copy:
    """A copy of the archive, to be harmed."""

    def __init__(self, recorded: Recorded, directory: Path) -> None:
        shutil.copytree(recorded.archive.roots.cas, directory / "cas")
        shutil.copytree(recorded.archive.roots.manifests, directory / "manifests")
        self.installation = Installation(directory)
        self.archive = self.installation.archive()
        self.objects = [
            digest_of(b"".join(item.frames))
            for item in recorded.groups
            if item.track == "video0.m4s" and item.epoch == 2
        ]

    def forget_everything_derived(self) -> None:
        index = self.archive.index_path
        for path in (index, index + SUFFIX):
            for ending in ("", "-wal", "-shm"):
                if os.path.exists(path + ending):
                    os.unlink(path + ending)
        shutil.rmtree(index + DIRECTORY_SUFFIX, ignore_errors=True)


def test_all_of_it_is_the_same_after_the_index_was_lost(recorded: Recorded, tmp_path: Path) -> None:
    copy = Copy(recorded, tmp_path)

    def everything() -> dict[str, tuple[int, int, str]]:
        with copy.installation.mounted() as mountpoint:
            return {
                str(path.relative_to(mountpoint)): (
                    path.stat().st_ino,
                    path.stat().st_size,
                    digest_of(path.read_bytes()),
                )
                for top in ("recordings", "hls")
                for path in sorted((mountpoint / top).rglob("*"))
                if path.is_file()
            }

    before = everything()
    copy.forget_everything_derived()
    assert everything() == before
    assert len(before) > 20
    status = json.loads(copy.installation.run("index", "status", "--json").out)
    assert status["samples"]["payloads"] > 20


def test_damage_is_an_error_where_it_is_and_nowhere_else(
    recorded: Recorded, mount: Path, tmp_path: Path
) -> None:
    whole = (mount / DAY / "12.mp4").read_bytes()
    damaged = Copy(recorded, tmp_path)
    victim = damaged.objects[2]
    with open(damaged.archive.objects.path(victim), "rb") as file:
        payload = file.read()
    flip_bit(damaged.archive.objects.path(victim), 3000)
    with damaged.installation.mounted() as mountpoint:
        at = whole.index(payload)
        with (mountpoint / DAY / "12.mp4").open("rb", buffering=0) as file:
            assert os.pread(file.fileno(), 65536, 0) == whole[:65536]
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                os.pread(file.fileno(), 4096, at + 2 * 4096)
            rest = at + len(payload) + 4096
            assert os.pread(file.fileno(), 4096, rest) == whole[rest : rest + 4096]
        status = json.loads((mountpoint / ".casfs/status.json").read_text())
        assert [item["hash"] for item in status["damaged"]] == [victim]


def test_what_vanished_before_it_was_known_is_a_gap(recorded: Recorded, tmp_path: Path) -> None:
    damaged = Copy(recorded, tmp_path)
    damaged.forget_everything_derived()
    os.unlink(damaged.archive.objects.path(damaged.objects[2]))
    with damaged.installation.mounted() as mountpoint:
        shown = frames(mountpoint / DAY / "12.mp4", "v")
        assert len(shown) == len(recorded.first) + len(recorded.second) - RATE
        status = json.loads((mountpoint / ".casfs/status.json").read_text())
        (note,) = status["recordings_lacking"]
        assert "video0.m4s: 1 groups left out" in note


def test_what_cannot_be_played_is_said_and_the_rest_plays(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    clock = Clock(START)
    with archive.writer("demo/tv", clock=clock) as writer:
        writer.commit([group(0, b"\0\0\0\x10free no media", track="odd", received=START)])
        clock.now = START + HOUR
        writer.seal_hours(0)
        source = media(FIRST)
        fragments = groups_of(source, received=clock.now, epoch=1)
        cut = b"".join(fragments[3].frames)[:-500]
        writer.commit([*fragments[:3], group(9, cut, track="video0.m4s", received=clock.now)])
        clock.now = START + 2 * HOUR
        writer.seal_hours(0)
    with Installation(tmp_path).mounted() as mountpoint:
        assert not (mountpoint / DAY / "12.mp4").exists()
        assert os.listdir(mountpoint / DAY) == ["13.mp4", "2015-06-01.mp4"]
        assert len(frames(mountpoint / DAY / "13.mp4", "v")) >= RATE
        day = probe(mountpoint / DAY / "2015-06-01.mp4")
        assert float(day.streams[0].start_time) == pytest.approx(13 * 3600, abs=0.2)
        status = json.loads((mountpoint / ".casfs/status.json").read_text())
        assert "odd: 1 groups left out" in status["recordings_lacking"][0]


def test_a_live_recording_grows_for_whoever_follows_it(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    # Within an hour, and now: what comes late by the clock of the mount is left out.
    now = time.time_ns()
    received = min(now, -(-now // HOUR) * HOUR - SECOND)
    fragments = [
        structs.replace(item, received_start=received + number, received_end=received + number)
        for number, item in enumerate(groups_of(media(FIRST), received=received, epoch=1))
    ]
    day, hour = format_time(received).split("T")
    with archive.writer("demo/tv") as writer:
        writer.commit(fragments[:7])
        with Installation(tmp_path).mounted() as mountpoint:
            live = mountpoint / f"recordings/demo/tv/{day}/{hour[:2]}.live.mp4"
            follower = subprocess.Popen(
                ["tail", "-c", "+1", "-s", "0.1", "-f", live], stdout=subprocess.PIPE
            )
            assert follower.stdout is not None
            try:
                writer.commit(fragments[7:])
                # What the last picture group ends is shown; what may still grow is not.
                whole = [b"".join(item.frames) for item in fragments[1:11]]
                read = b""
                while not all(payload in read for payload in whole):
                    more = os.read(follower.stdout.fileno(), 1 << 16)
                    assert more
                    read += more
            finally:
                follower.kill()
                follower.wait()
                follower.stdout.close()
            assert live.read_bytes().startswith(read)


def test_what_comes_while_a_timeline_is_looked_at_is_not_late(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    clock = Clock(START)
    fragments = groups_of(media(FIRST), received=START, epoch=1)
    with (
        archive.writer("demo/tv", clock=clock) as writer,
        contextlib.closing(always_fresh(archive)) as reader,
        contextlib.closing(SampleIndex.temporary()) as samples,
    ):
        first = [item for item in fragments[:5] if (item.track, item.sequence) != ("video0.m4s", 1)]
        writer.commit(first)
        clock.now = START + 2 * SECOND

        class SlowToRead:
            """An object store whose first read lasts until everything else has come."""

            def open(self, digest: Digest) -> int:
                if clock.now < START + 20 * SECOND:
                    clock.now = START + 20 * SECOND
                    writer.commit([item for item in fragments if item not in first])
                return archive.objects.open(digest)

        recordings = Recordings(
            *(reader, SlowToRead(), samples, Spool(str(tmp_path / "spool"))),
            clock=lambda: clock.now,
        )
        (broadcast,) = reader.broadcasts()
        following = recordings.following(broadcast, START, START + HOUR)
        following.refresh(ended=False)
        timeline = following.refresh(ended=True)
    segments = timeline.segments
    kept = {
        member.group.digest
        for number in range(len(segments))
        for member in segments.members(number)
    }
    assert kept == {digest_of(b"".join(item.frames)) for item in fragments[1:]}


def always_fresh(archive: Archive) -> Reader:
    """Return a reader that looks for what is new each time that it is asked."""
    return Reader(
        *(archive.roots.manifests, archive.index_path, archive.store_id),
        clock=partial(next, itertools.count()),
    )


def test_a_sealed_hour_is_made_of_what_stood_when_it_was_sealed(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    clock = Clock(START)
    whole = groups_of(media(FIRST), received=START, epoch=1)
    with archive.writer("demo/tv", clock=clock) as writer:
        writer.commit([*whole[:-1], structs.replace(whole[-1], complete=False, reason="reset")])
        clock.now = START + 2 * HOUR
        writer.seal_hours(0)
        before = pieces(archive)
        writer.commit([whole[-1]])
        # Nothing is known of the recording where there is another index.
        assert pieces(Archive(archive.roots, index_path=str(tmp_path / "index"))) == before


def test_a_sealed_hour_is_played_with_the_init_that_there_was(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    clock = Clock(START)
    nameless = [
        structs.replace(item, init=None)
        for item in groups_of(media(FIRST), received=START, epoch=1)
    ]
    with archive.writer("demo/tv", clock=clock) as writer:
        writer.commit(nameless)
        clock.now = START + HOUR
        writer.seal_hours(0)
        before = pieces(archive)
        other = groups_of(media(SECOND_RUN), received=clock.now, epoch=1)[0]
        writer.commit([structs.replace(other, sequence=1)])
        assert pieces(Archive(archive.roots, index_path=str(tmp_path / "index"))) == before


def pieces(archive: Archive) -> Sequence[Literal | Extent]:
    """Return what the hour's file is made of."""
    with (
        contextlib.closing(archive.reader()) as reader,
        contextlib.closing(open_recordings(archive)) as recordings,
    ):
        (broadcast,) = reader.broadcasts()
        (seal,) = reader.seals(broadcast)
        span = RecordingSpan(broadcast, START, START + HOUR, (seal,))
        return list(recordings.layout(span, 0).pieces())
