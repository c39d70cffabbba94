"""What is published plays from the mount: across a gap, a publisher's restart and a new size.

Four broadcasts go through a real relay and real recorders: raw tracks of fMP4, and what moq-rs's
importers make of fMP4, FLV and MPEG-TS. Each lacks two seconds in the middle, and its publisher
begins again with larger pictures. ffmpeg says what was published and what plays.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import time
from functools import cache
from typing import TYPE_CHECKING

import pytest
from msgspec import Struct

from casfs.digest import digest_of
from casfs.index.samples import SUFFIX
from casfs.manifests.record import Record
from casfs.manifests.runs import kept_groups
from casfs.recordings.spool import DIRECTORY_SUFFIX
from casfs.timestamps import format_time
from tests.fakes.flat_media import (
    RATE,
    Encoding,
    Media,
    encode,
    frame_at,
    frames,
    packets,
    probe,
    write,
)
from tests.real.programs import Installation, eventually
from tests.real.test_mount_filesystem import _why_not
from tools.loopback.publisher import running_publisher
from tools.loopback.relay import running_relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tools.loopback.publisher import Publisher

pytestmark = [
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
    pytest.mark.skipif(_why_not() is not None, reason=f"cannot mount: {_why_not()}"),
]

OUTPUTS = {
    "raw": [],
    "FMP4": ["-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"],
    "FLV": ["-f", "flv"],
    "TS": ["-f", "mpegts"],
}
VIDEO = {"raw": "video0.m4s", "FMP4": "0.m4s", "FLV": "0.flv-v", "TS": "0.avc3"}
"""The tracks of the pictures; the importers' are named by them."""

SIZES = ("320x180", "480x270")
"""Of what the publisher sends before its restart and after it."""
LENGTHS = (6, 3)
"""Seconds of each."""
GAP = (2, 4)
"""Seconds of the first between which nothing is published."""

RAW = {1: "video0.m4s", 2: "audio0.m4s"}

CHUNKS = 4
"""Parts in which a second is published."""
HURRY = 5
"""Seconds that a chunk waits for a recorder at most."""


@cache
def container_of(source: str, run: int) -> bytes:
    """Return what is published of a run; a key frame a second, with B-frames."""
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size={SIZES[run]}:rate=25"]
    command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]
    command += ["-t", str(LENGTHS[run]), "-c:v", "libx264", "-preset", "veryfast", "-bf", "2"]
    command += ["-pix_fmt", "yuv420p", "-g", str(RATE), "-sc_threshold", "0", "-c:a", "aac"]
    if run == 0:
        for stream, rate in (("v", RATE), ("a", 48000 / 1024)):
            first, last = (round(second * rate) for second in GAP)
            command += [f"-bsf:{stream}", f"noise=amount=0:drop='gte(n,{first})*lt(n,{last})'"]
    command += ["-ac", "2", *OUTPUTS[source], "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True, timeout=200).stdout


@cache
def raw_media(run: int) -> Media:
    """Return fragments for each track in turn, a second each."""
    whole = encode(Encoding(seconds=LENGTHS[run], size=SIZES[run], b_frames=2))
    counts = dict.fromkeys(RAW, 0)
    kept = []
    for fragment in whole.fragments:
        number = track_number(fragment)
        if run or counts[number] not in range(*GAP):
            kept.append(fragment)
        counts[number] += 1
    return Media(whole.init, tuple(kept))


def track_number(fragment: bytes) -> int:
    at = fragment.index(b"tfhd") + 8
    return int.from_bytes(fragment[at : at + 4], "big")


def length_of(run: int) -> int:
    """Return how many seconds are published of a run."""
    return LENGTHS[run] - (0 if run else GAP[1] - GAP[0])


def time_of(run: int, number: int) -> float:
    """Return when a picture of a run is due, in seconds from the run's begin."""
    late = 0 if run or number < GAP[0] * RATE else GAP[1] - GAP[0]
    return number / RATE + late


class OnAir:
    """A broadcast that is being published, from its own source."""

    def __init__(self, source: str, publisher: Publisher) -> None:
        self.source = source
        self.name = f"demo/{source.lower()}"
        self._publisher = publisher

    def begin(self, run: int) -> None:
        """Begin a run; the first one, or after the end of the one before."""
        self._publisher.create_broadcast(self.name)
        self._chunks = length_of(run) * CHUNKS
        if self.source == "raw":
            for track in ("init.mp4", *RAW.values()):
                self._publisher.create_track(self.name, track)
            self._publisher.announce(self.name)
            self._publisher.append_group(self.name, "init.mp4", [raw_media(run).init])
            self._parts = raw_media(run).fragments
        else:
            self._publisher.announce(self.name)
            self._publisher.open_container(self.name, self.source)
            container = container_of(self.source, run)
            step = -(-len(container) // self._chunks)
            starts = range(0, len(container), step)
            self._parts = tuple(container[start : start + step] for start in starts)

    def send(self, chunk: int) -> None:
        """Publish one of the parts of a run."""
        bounds = (number * len(self._parts) // self._chunks for number in (chunk, chunk + 1))
        for part in self._parts[slice(*bounds)]:
            if self.source == "raw":
                self._publisher.append_group(self.name, RAW[track_number(part)], [part])
            else:
                self._publisher.write_container(self.name, part)

    def finish(self) -> None:
        """End the run's media."""
        if self.source != "raw":
            self._publisher.finish_container(self.name)

    def end(self) -> None:
        """End the broadcast."""
        self._publisher.end_broadcast(self.name)


class Studio:
    """Publishes all broadcasts, records them, and knows what of them was recorded."""

    def __init__(self, directory: Path) -> None:
        self.installation = Installation(directory)
        assert self.installation.run("init").code == 0
        self.began = time.time_ns()
        with (
            running_relay() as relay,
            running_publisher(relay.url, relay.fingerprint) as publisher,
        ):
            self._on_air = [OnAir(source, publisher) for source in OUTPUTS]
            self._begin(0)
            with self._recording(relay):
                self._send(0)
                self._begin(1)
                self._send(1)
        self.ended = time.time_ns()

    def groups(self, source: str, run: int) -> dict[int, bool]:
        """Return which groups of pictures were recorded of a run, and whether they are whole."""
        records = self.installation.records(Record, f"demo/{source.lower()}", VIDEO[source])
        kept = (item.record for record in records for item in kept_groups(record))
        found: dict[int, bool] = {}
        for group in kept:
            if group.epoch == run + 1:
                number = int(group.sequence)
                found[number] = found.get(number, False) or group.complete
        return found

    @contextlib.contextmanager
    def _recording(self, relay: object) -> Iterator[None]:
        """Record all of them within the block, from when they are subscribed to."""
        with contextlib.ExitStack() as stack:
            recorders = [
                stack.enter_context(
                    self.installation.recording(relay, item.name, "--log-format", "text")  # type: ignore[arg-type]
                )
                for item in self._on_air
            ]
            for recorder in recorders:
                recorder.says(": recording")
            yield
            for recorder in recorders:
                outcome = recorder.stop()
                assert outcome.code == 0, outcome.err

    def _begin(self, run: int) -> None:
        self._run = run
        for broadcast in self._on_air:
            broadcast.begin(run)

    def _send(self, run: int) -> None:
        """Publish a run no faster than recorders follow, but wait for none for ever."""
        for chunk in range(length_of(run) * CHUNKS):
            for broadcast in self._on_air:
                broadcast.send(chunk)
            deadline = time.monotonic() + HURRY
            while not self._have(chunk // CHUNKS - 2) and time.monotonic() < deadline:
                time.sleep(0.02)
        for broadcast in self._on_air:
            broadcast.finish()
        eventually(lambda: self._have(length_of(run) - 1), "the last group of each broadcast")
        for broadcast in self._on_air:
            broadcast.end()

    def _have(self, sequence: int) -> bool:
        return sequence < 0 or all(
            max(self.groups(item.source, self._run), default=-1) >= sequence
            for item in self._on_air
        )


class Shown(Struct, frozen=True):
    """A picture that a recording shows."""

    run: int
    number: int
    """Of the picture in its run."""
    time: float
    """Seconds from the recording's zero."""
    digest: str


class Film:
    """What ffmpeg finds in a recording, told apart by what was published."""

    def __init__(self, path: Path, source: str, directory: Path) -> None:
        self.path = path
        self.runs = [_pictures(source, run, directory) for run in range(len(LENGTHS))]
        place = {
            digest: (run, number)
            for run, pictures in enumerate(self.runs)
            for number, digest in enumerate(pictures)
        }
        decoded = frames(path, "v", after=["-autoscale", "0"])
        self.packets = packets(path, "v:0")
        times = sorted(float(packet.pts_time) for packet in self.packets)
        self.shown = [
            Shown(*place[digest], time, digest) for digest, time in zip(decoded, times, strict=True)
        ]

    def of(self, run: int) -> list[Shown]:
        """Return what is shown of a run."""
        return [item for item in self.shown if item.run == run]


def _pictures(source: str, run: int, directory: Path) -> list[str]:
    data = raw_media(run).stream if source == "raw" else container_of(source, run)
    return frames(write(directory / f"{source}{run}", data), "v")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def mountpoint(studio: Studio) -> Iterator[Path]:
    with studio.installation.mounted() as mounted:
        yield mounted


@pytest.fixture(scope="module")
def film_of(
    studio: Studio, mountpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Film]:
    directory = tmp_path_factory.mktemp("plain")
    return cache(lambda source: Film(clip(studio, mountpoint, source), source, directory))


def clip(studio: Studio, mountpoint: Path, source: str) -> Path:
    """Return the recording of everything that there is of a broadcast."""
    begin, end = (
        "".join(character for character in format_time(instant)[:19] if character not in "-:")
        for instant in (studio.began - 30 * 10**9, studio.ended + 60 * 10**9)
    )
    name = f"{begin}Z--{end}Z.mp4"
    return mountpoint / "recordings" / f"demo/{source.lower()}" / "clip" / name


@pytest.mark.parametrize("source", OUTPUTS)
def test_every_picture_that_was_recorded_is_shown_and_no_other(
    source: str, studio: Studio, film_of: Callable[[str], Film]
) -> None:
    film = film_of(source)
    report = probe(film.path)
    assert [stream.codec_name for stream in report.streams] == ["h264", "aac"]
    assert report.streams[0].nb_read_frames == str(len(film.shown))
    for run, pictures in enumerate(film.runs):
        groups = studio.groups(source, run)
        assert len(pictures) == length_of(run) * RATE
        shown = [item.number for item in film.of(run)]
        assert shown == sorted(set(shown))
        assert {number // RATE for number in shown} <= set(groups)
        whole = {number for number in range(len(pictures)) if groups.get(number // RATE)}
        # Importers hold back the last picture, which nothing tells to be whole.
        assert whole - set(shown) <= {len(pictures) - 1, len(pictures) - 2}


@pytest.mark.parametrize("source", OUTPUTS)
def test_it_is_shown_when_it_was_published(
    source: str, studio: Studio, film_of: Callable[[str], Film]
) -> None:
    film = film_of(source)
    for stream in ("v:0", "a:0"):
        read = film.packets if stream == "v:0" else packets(film.path, stream)
        times = [float(packet.dts_time) for packet in read]
        assert all(before < after for before, after in itertools.pairwise(times))
    begins = []
    for run in range(len(LENGTHS)):
        shown = film.of(run)
        begins.append(shown[0].time - time_of(run, shown[0].number))
        for item in shown:
            due = time_of(run, item.number)
            assert item.time - begins[run] == pytest.approx(due, abs=0.5 / RATE)
    # The second run is shown when it came, or when the first one is over.
    assert begins[1] >= film.of(0)[-1].time
    report = probe(film.path)
    assert float(report.format.duration) == pytest.approx(begins[1] + LENGTHS[1], abs=0.2)


@pytest.mark.parametrize("source", OUTPUTS)
def test_a_seek_lands_on_the_picture(source: str, film_of: Callable[[str], Film]) -> None:
    film = film_of(source)
    first, second = film.of(0), film.of(1)
    after_the_gap = next(
        after for before, after in itertools.pairwise(first) if after.time - before.time > 0.5
    )
    for begin, later in ((first[0], 0.68), (after_the_gap, 1.32), (second[0], 1.56)):
        asked = begin.time + later
        found = {item.digest: item.time for item in film.shown}[frame_at(film.path, asked)]
        assert abs(found - asked) <= 1 / RATE + 0.001


@pytest.mark.parametrize("source", OUTPUTS)
def test_ffmpeg_plays_the_playlist_of_each_epoch(
    source: str, mountpoint: Path, film_of: Callable[[str], Film], tmp_path: Path
) -> None:
    film = film_of(source)
    days = mountpoint / "hls" / f"demo/{source.lower()}"
    (playlist,) = days.glob("*/media.m3u8")
    seconds = len(film.shown) / RATE
    # Segments come out when nothing that belongs to them can still be on its way.
    eventually(lambda: playlist.read_text().count("#EXTINF") >= seconds - 2, "the last segments")
    played = []
    for number, listed in enumerate(sorted(playlist.parent.glob("epoch-*.m3u8"))):
        ended = tmp_path / f"{number}.m3u8"
        text = listed.read_text().replace("#EXT-X-ENDLIST\n", "") + "#EXT-X-ENDLIST\n"
        for name in ("seg/", "init-"):
            text = text.replace(name, f"{playlist.parent}/{name}")
        ended.write_text(text)
        played += frames(ended, "v", after=["-autoscale", "0"])
    shown = [item.digest for item in film.shown]
    assert played == shown[: len(played)]
    assert len(played) >= len(shown) - 2 * RATE


def test_it_is_the_same_after_the_index_was_lost(studio: Studio, tmp_path: Path) -> None:
    for name in ("cas", "manifests"):
        shutil.copytree(studio.installation.directory / name, tmp_path / name)
    copy = Installation(tmp_path)

    def everything() -> dict[str, tuple[int, str]]:
        with copy.mounted() as mounted:
            paths = (clip(studio, mounted, source) for source in OUTPUTS)
            return {
                path.parts[-3]: (path.stat().st_ino, digest_of(path.read_bytes())) for path in paths
            }

    before = everything()
    index = copy.archive().index_path
    for path in (index, index + SUFFIX):
        for ending in ("", "-wal", "-shm"):
            if os.path.exists(path + ending):
                os.unlink(path + ending)
    shutil.rmtree(index + DIRECTORY_SUFFIX)
    assert everything() == before
    assert len(before) == len(OUTPUTS)
