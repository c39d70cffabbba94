"""Input that lies or is broken: what plays, what is left out, and where that is said."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import time
from functools import cache, partial
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from casfs.digest import digest_of
from casfs.errors import StorageError
from casfs.index.reader import Reader
from casfs.index.samples import SampleIndex
from casfs.media.descriptions import Kind
from casfs.mount.hls import HlsDay, HlsSource, Playlist
from casfs.mount.tree import Directory
from casfs.recordings.opening import open_recordings
from casfs.recordings.reading import manifest_frames
from casfs.recordings.source import MOST_FOLLOWED, Recordings, RecordingSpan
from casfs.recordings.spool import DIRECTORY_SUFFIX, Spool
from casfs.timestamps import DAY, HOUR, parse_time
from tests.fakes.codec_frames import box_body, codec_frames, groups, legacy
from tests.fakes.flat_media import SECOND, Encoding, Media, encode, frames, write
from tests.fakes.store import Clock, group, make_archive
from tests.real.programs import Installation
from tests.real.test_mount_filesystem import _why_not

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from casfs.archive import Archive, Group
    from casfs.digest import Digest
    from casfs.recordings.following import Following
    from casfs.recordings.reading import ObjectSource

pytestmark = [
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
    pytest.mark.skipif(_why_not() is not None, reason=f"cannot mount: {_why_not()}"),
]

START = parse_time("2015-06-01T12:00:00Z")
DATE = "2015-06-01"

LIES: dict[str, dict[str, dict[str, object]]] = {
    "a-codec-that-nobody-knows": {"lie": {"codec": "xvc9.1"}},
    "the-codec-of-another-track": {"lie": {"codec": "opus"}},
    "another-codec-of-pictures": {"lie": {"codec": "hev1.1.6.L93.B0"}},
    "a-record-that-is-none": {"lie": {"codec": "avc1.64000d", "description": "00"}},
    "an-init-that-is-none": {
        "lie": {
            "codec": "avc1.64000d",
            "container": {"kind": "cmaf", "init": base64.b64encode(b"no init").decode()},
        }
    },
    "an-init-for-fragments-that-are-none": {
        "lie": {
            "codec": "avc1.64000d",
            "container": {"kind": "cmaf", "timescale": 90_000, "trackId": 7},
            "description": "good",
        }
    },
    "a-track-by-another-name": {"nobody": {"codec": "avc1.64000d"}},
}
"""What a catalog says of the track ``lie``, whose frames are H.264."""


@cache
def media() -> Media:
    return encode(Encoding(seconds=3, audio=""))


def catalog(lies: dict[str, dict[str, object]]) -> bytes:
    record = box_body(media(), b"avcC").hex()
    told = {
        name: members | ({"description": record} if members.get("description") == "good" else {})
        for name, members in lies.items()
    }
    good = {"codec": "avc1.64000d", "description": record, "codedWidth": 320, "codedHeight": 180}
    return json.dumps({"video": {"renditions": {"good": good, **told}}}).encode()


def committed(lies: dict[str, dict[str, object]], received: int, epoch: int = 1) -> list[Group]:
    """Return a catalog and the groups of a track of which it is right and of one of which not."""
    told = catalog(lies)
    first = group(0, track="catalog.json", epoch=epoch, received=received)
    made = [structs.replace(first, frames=(told,))]
    for number, cut in enumerate(groups(codec_frames(media(), Kind.VIDEO))):
        for track in ("good", "lie"):
            due = received + number * SECOND
            item = group(number, track=track, epoch=epoch, received=due, init=digest_of(told))
            made.append(structs.replace(item, frames=tuple(map(legacy, cut))))
    return made


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Mount an archive of each lie, one hour sealed and the next not."""
    directory = tmp_path_factory.mktemp("lies")
    archive = make_archive(directory)
    for name, lies in LIES.items():
        clock = Clock(START)
        with archive.writer(name, clock=clock) as writer:
            writer.commit(committed(lies, START + SECOND))
            clock.now = START + 2 * HOUR
            writer.seal_hours(0)
            writer.commit(committed(lies, clock.now, epoch=2))
    with Installation(directory).mounted() as mountpoint:
        yield mountpoint


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return frames(write(tmp_path_factory.mktemp("plain") / "plain.mp4", media().stream), "v")


def wait_for_note(mount: Path, name: str, begin: str, lack: str) -> None:
    """Wait until the mount says what a recording lacks; what it says it keeps for a second."""
    limit = time.monotonic() + 10
    while True:
        status = json.loads((mount / ".casfs/status.json").read_text())
        notes = status["recordings_lacking"]
        if any(note.startswith(f"{name} from {DATE}T{begin}Z") and lack in note for note in notes):
            return
        assert time.monotonic() < limit, notes
        time.sleep(0.1)


@pytest.mark.parametrize("name", LIES)
def test_a_catalog_that_lies_takes_the_track_it_lies_of_and_no_other(
    name: str, mount: Path, pictures: list[str]
) -> None:
    assert frames(mount / f"recordings/{name}/{DATE}/12.mp4", "v") == pictures
    wait_for_note(mount, name, "12:00:00", "lie: 3 groups left out")


def test_what_live_files_and_playlists_leave_out_is_said_too(mount: Path) -> None:
    name = "a-codec-that-nobody-knows"
    assert frames(mount / f"recordings/{name}/{DATE}/14.live.mp4", "v")
    wait_for_note(mount, name, "14:00:00", "lie: 3 groups left out")
    assert (mount / f"hls/{name}/{DATE}/media.m3u8").read_text().count("#EXTINF") > 1
    wait_for_note(mount, name, "00:00:00", "lie: 6 groups left out")


def test_what_a_recording_lacks_is_said_by_the_next_mount_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = make_archive(tmp_path)
    clock = Clock(START)
    with archive.writer("tv", clock=clock) as writer:
        writer.commit(committed(LIES["a-codec-that-nobody-knows"], START + SECOND))
        clock.now = START + HOUR
        writer.seal_hours(0)
    for _ in range(2):
        caplog.clear()
        with opened(archive) as (recordings, span):
            recordings.build(span)
            recordings.build(span)
            (note,) = recordings.notes
        assert "lie: 3 groups left out: the codec 'xvc9.1' is not known" in note
        (said,) = (one.getMessage() for one in caplog.records)
        assert "lie: 3 groups left out" in said


def test_what_a_follower_leaves_out_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = make_archive(tmp_path)
    made = committed(LIES["a-codec-that-nobody-knows"], START + SECOND)
    with archive.writer("tv", clock=Clock(START)) as writer:
        writer.commit(made[:3])
        with contextlib.closing(always_fresh(archive)) as reader, follow(archive, reader) as found:
            recordings, following = found
            following.refresh(ended=False)
            writer.commit(made[3:])
            following.refresh(ended=True)
            (note,) = recordings.notes
    assert "lie: 3 groups left out" in note
    assert len(caplog.records) == 1


def test_what_the_disk_refused_once_is_not_left_out_of_a_timeline(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    made = committed({}, START + SECOND)
    with archive.writer("tv", clock=Clock(START)) as writer:
        writer.commit(made)
    refusing = [True]

    class Refusing:
        """A store whose disk has a bad moment."""

        def open(self, digest: Digest) -> int:
            if refusing[0] and digest == digest_of(b"".join(made[1].frames)):
                raise StorageError("the disk is away")
            return archive.objects.open(digest)

    with (
        contextlib.closing(always_fresh(archive)) as reader,
        follow(archive, reader, Refusing()) as (_, following),
    ):
        with pytest.raises(StorageError):
            following.refresh(ended=False)
        refusing[0] = False
        segments = following.refresh(ended=True).segments
    shown = {member.group.digest for at in range(len(segments)) for member in segments.members(at)}
    assert shown == {digest_of(b"".join(item.frames)) for item in made if item.track == "good"}


def test_a_day_is_still_known_when_many_others_were_asked_for_since(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    with archive.writer("tv", clock=Clock(START)) as writer:
        writer.commit(committed({}, START + SECOND))
    with contextlib.closing(always_fresh(archive)) as reader, follow(archive, reader) as found:
        recordings, _ = found
        (broadcast,) = reader.broadcasts()
        day = HlsDay("/hls/tv/day", HlsSource(broadcast, START // DAY, reader, recordings))
        day.prepare()
        playlist, segments = day.child("media.m3u8"), day.child("seg")
        assert isinstance(playlist, Playlist)
        assert isinstance(segments, Directory)
        before = (playlist.render(), [entry.name for entry in segments.entries()])
        assert b".m4s" in before[0]
        for hour in range(MOST_FOLLOWED):
            recordings.following(broadcast, hour * HOUR, (hour + 1) * HOUR)
        assert (playlist.render(), [entry.name for entry in segments.entries()]) == before


@contextlib.contextmanager
def opened(archive: Archive) -> Iterator[tuple[Recordings, RecordingSpan]]:
    with (
        contextlib.closing(archive.reader()) as reader,
        contextlib.closing(open_recordings(archive)) as recordings,
    ):
        (broadcast,) = reader.broadcasts()
        yield (
            recordings,
            RecordingSpan(broadcast, START, START + HOUR, tuple(reader.seals(broadcast))),
        )


@contextlib.contextmanager
def follow(
    archive: Archive, reader: Reader, objects: ObjectSource | None = None
) -> Iterator[tuple[Recordings, Following]]:
    with contextlib.closing(
        Recordings(
            reader,
            archive.objects if objects is None else objects,
            SampleIndex.temporary(),
            Spool(archive.index_path + DIRECTORY_SUFFIX),
            frames_of=manifest_frames(archive),
            clock=lambda: START + 60 * SECOND,
        )
    ) as recordings:
        (broadcast,) = reader.broadcasts()
        following = recordings.following(broadcast, START, START + HOUR)
        following._clock = partial(next, itertools.count())
        yield recordings, following


def always_fresh(archive: Archive) -> Reader:
    """Return a reader that looks for what is new each time that it is asked."""
    return Reader(
        *(archive.roots.manifests, archive.index_path, archive.store_id),
        clock=partial(next, itertools.count()),
    )
