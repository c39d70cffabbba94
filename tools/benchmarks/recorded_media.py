"""Archives of recorded television: real video and sound of ffmpeg, as long as is asked for.

A minute is encoded once, as fragmented MP4 with a ``moof`` a frame, and repeated: each group gets
the decode times of its place, so that no two are alike, and was received when it was due. What the
samples are is derived once from each group of that minute, and filed for the others as a recorder
files it behind each commit.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from itertools import accumulate, count, islice
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from casfs.archive import Archive, Group
from casfs.digest import digest_of
from casfs.index.mirror import rebuild
from casfs.index.payload_names import PayloadName
from casfs.index.samples import SampleIndex
from casfs.media.boxes import walk
from casfs.media.fragments import samples_of_fragments
from casfs.media.movie import read_movie
from casfs.media.samples import GroupSamples
from casfs.objects.local import object_path
from casfs.timestamps import HOUR, NANOSECONDS, parse_time
from tools.benchmarks.material import new_archive, roots_below
from tools.benchmarks.measuring import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from casfs.digest import Digest
    from casfs.media.movie import Movie
    from casfs.roots import Roots

BEGIN = parse_time("2026-01-01T00:00:00Z")
"""When the first group was received."""

DAY_SECONDS = 86_400
HOUR_SECONDS = 3600
FRAME_RATE = 25
GROUP_SECONDS = 2
TRACKS = ("video0.m4s", "audio0.m4s")
"""In the order of their numbers in the init segment, from 1."""

_SAMPLE_RATE = 48_000
_LOOP_SECONDS = 64
"""A whole number of groups, and of frames of AAC (1024 samples)."""

_BATCH_GROUPS = 240
_TIME = struct.Struct(">Q")


class Broadcast(Struct, frozen=True):
    """What is made."""

    name: str
    seconds: int
    video_bits: int
    """A second; the sound has 48,000."""


class _Fragment(Struct, frozen=True):
    """One ``moof`` + ``mdat``."""

    track: int
    """Its number in the init segment."""
    time: int
    """Decode time of its first sample, in ticks."""
    place: int
    """Where that stands in the bytes: a ``tfdt`` of version 1."""
    data: bytes


class _Loop(Struct, frozen=True):
    """A group of the minute that is repeated."""

    track: str
    due: float
    """Seconds from the begin of the minute."""
    payload: bytes
    times: tuple[tuple[int, int], ...]
    """Place and decode time of each fragment."""
    timescale: int
    samples: GroupSamples

    def again(self, turn: int) -> tuple[bytes, GroupSamples]:
        """Return the group as it is after the minute was shown so many times."""
        later = turn * _LOOP_SECONDS * self.timescale
        payload = bytearray(self.payload)
        for place, time in self.times:
            _TIME.pack_into(payload, place, time + later)
        tables = [
            structs.replace(table, decode_time=table.decode_time + later)
            for table in self.samples.tables
        ]
        return bytes(payload), structs.replace(self.samples, tables=tuple(tables))


def recorded(directory: Path, broadcast: Broadcast) -> Roots:
    """Return the roots of a new archive in ``directory`` that holds the broadcast, hours sealed.

    Raises BenchError if ffmpeg fails.
    """
    new_archive(directory)
    archive = Archive(roots_below(directory), sync_strategy="syncfs")
    init, fragments = _cut(_encode(broadcast.video_bits))
    loop = list(_groups_of(fragments, read_movie(init)))
    now = BEGIN
    with (
        contextlib.closing(SampleIndex.open(archive.index_path)) as samples,
        archive.writer(broadcast.name, clock=lambda: now) as writer,
    ):
        writer.commit([_group("init.mp4", 0, init, BEGIN, None)])
        needed = digest_of(init)
        groups = _repeated(loop, broadcast.seconds, needed)
        while batch := list(islice(groups, _BATCH_GROUPS)):
            done = writer.commit([group for group, _ in batch])
            records = [committed.record for committed in done]
            samples.put(
                (PayloadName(record.hash, 0, record.size, group.track, needed), found)
                for record, (group, found) in zip(records, batch, strict=True)
            )
            now = max(now, batch[-1][0].received_end)
            writer.seal_hours(0)
        now = BEGIN + DAY_SECONDS * NANOSECONDS + HOUR
        writer.seal_hours(0)
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    os.sync()
    return archive.roots


def objects_in_order(roots: Roots, name: str) -> list[str]:
    """Return the objects of a broadcast's media as a recording has them, from the CAS root."""
    archive = Archive(roots)
    with contextlib.closing(archive.reader()) as reader:
        tracks = [track for item in TRACKS if (track := reader.track(name, item)) is not None]
        rows = [row for track in tracks for row in reader.groups(track, 0, 1 << 62)]
    rows.sort(key=lambda row: row.received_start)
    return [object_path(row.hash) for row in rows]


def _repeated(
    loop: Sequence[_Loop], seconds: int, needed: Digest
) -> Iterator[tuple[Group, GroupSamples]]:
    """Yield the groups of the whole broadcast as they came, with their samples."""
    numbers = dict.fromkeys(TRACKS, 0)
    for turn in count():
        for item in loop:
            due = turn * _LOOP_SECONDS + item.due
            if due >= seconds:
                return
            payload, samples = item.again(turn)
            received = BEGIN + int(due * NANOSECONDS)
            yield _group(item.track, numbers[item.track], payload, received, needed), samples
            numbers[item.track] += 1


def _group(track: str, sequence: int, payload: bytes, received: int, init: Digest | None) -> Group:
    return Group(
        track=track,
        epoch=1,
        sequence=sequence,
        frames=(payload,),
        received_start=received,
        received_end=received + GROUP_SECONDS * NANOSECONDS,
        init=init,
        protocol="moq-lite-04",
    )


def _groups_of(fragments: Sequence[_Fragment], movie: Movie) -> Iterator[_Loop]:
    """Yield the groups of the minute as they are due: of each track one for each two seconds."""
    groups: dict[tuple[int, int], list[_Fragment]] = {}
    for fragment in fragments:
        track = movie.track(fragment.track)
        assert track is not None
        number = fragment.time // (GROUP_SECONDS * track.timescale)
        if number * GROUP_SECONDS < _LOOP_SECONDS:
            groups.setdefault((number, fragment.track), []).append(fragment)
    for (_, kind), own in sorted(groups.items()):
        track = movie.track(kind)
        assert track is not None
        payload = b"".join(fragment.data for fragment in own)
        begins = accumulate((len(fragment.data) for fragment in own), initial=0)
        yield _Loop(
            track=TRACKS[kind - 1],
            due=own[0].time / track.timescale,
            payload=payload,
            times=tuple(
                (begin + fragment.place, fragment.time)
                for begin, fragment in zip(begins, own, strict=False)
            ),
            timescale=track.timescale,
            samples=samples_of_fragments(payload, movie),
        )


def _cut(stream: bytes) -> tuple[bytes, list[_Fragment]]:
    """Return the init segment and the fragments of what ffmpeg wrote."""
    init, moof = b"", b""
    fragments: list[_Fragment] = []
    for box in walk(stream, outermost=True):
        data = stream[box.start : box.end]
        if box.kind in (b"ftyp", b"moov"):
            init += data
        elif box.kind == b"moof":
            moof = data
        elif box.kind == b"mdat":
            place = moof.index(b"tfdt") + 8
            track = int.from_bytes(moof[(at := moof.index(b"tfhd") + 8) : at + 4], "big")
            (time,) = _TIME.unpack_from(moof, place)
            fragments.append(_Fragment(track, time, place, moof + data))
    return init, fragments


def _encode(video_bits: int) -> bytes:
    """Return a minute and a little more as fragmented MP4, a fragment a frame."""
    picture = f"testsrc2=size=320x180:rate={FRAME_RATE},noise=alls=24:allf=t"
    done = subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-f", "lavfi", "-i", picture),
            *("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate={_SAMPLE_RATE}"),
            *("-t", str(_LOOP_SECONDS + GROUP_SECONDS), "-c:v", "libx264", "-preset", "ultrafast"),
            *("-pix_fmt", "yuv420p", "-bf", "2", "-b_strategy", "0", "-sc_threshold", "0"),
            *("-g", str(GROUP_SECONDS * FRAME_RATE), "-b:v", str(video_bits), "-maxrate"),
            *(str(video_bits), "-bufsize", str(video_bits), "-c:a", "aac", "-b:a", "48000"),
            *("-f", "mp4", "-movflags", "frag_every_frame+empty_moov+default_base_moof", "pipe:1"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"ffmpeg ended with {done.returncode}: {done.stderr[-500:].decode()}")
    return done.stdout
