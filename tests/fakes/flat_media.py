"""Real media of ffmpeg for tests of flat recordings: made, cut into groups, put together, judged.

Everything that judges is another program (ffmpeg, ffprobe): none of the code under test decides
what is right.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.digest import Digest, digest_of
from casfs.media.fragments import samples_of_fragments
from casfs.media.layout import Literal
from casfs.media.movie import read_movie
from casfs.media.recording import Recording, flat_recording
from casfs.media.timeline import RecordedGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from casfs.media.descriptions import SampleDescription
    from casfs.media.samples import GroupSamples

RATE = 25
GOP = 25
"""Frames; a second."""
START = 1_790_000_000 * 10**9
"""An instant to record at."""
SECOND = 10**9


class Encoding(Struct, frozen=True):
    """What ffmpeg is asked for."""

    flags: str = "frag_keyframe+empty_moov+default_base_moof+separate_moof"
    seconds: int = 6
    size: str = "320x180"
    b_frames: int = 0
    audio: str = "aac"
    """Codec of the sound; empty for none."""
    offset: int = 0
    """Number of the first frame, so that two encodings show other pictures."""


class Media(Struct, frozen=True):
    """A stream of fragmented MP4, cut where a publisher would."""

    init: bytes
    fragments: tuple[bytes, ...]
    """``moof`` + ``mdat``, each."""

    @property
    def stream(self) -> bytes:
        return self.init + b"".join(self.fragments)


def encode(encoding: Encoding) -> Media:
    """Encode a test picture, a GOP a second, and a tone."""
    picture = f"testsrc2=size={encoding.size}:rate={RATE},trim=start_frame={encoding.offset}"
    source = ["-f", "lavfi", "-i", f"{picture},setpts=PTS-STARTPTS"]
    codecs = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"]
    codecs += ["-g", str(GOP), "-keyint_min", str(GOP), "-sc_threshold", "0"]
    codecs += ["-bf", str(encoding.b_frames), "-b_strategy", "0"]
    if encoding.audio:
        source += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]
        codecs += ["-c:a", encoding.audio, "-ac", "2"]
    length = ["-t", str(encoding.seconds)]
    output = ["-f", "mp4", "-movflags", encoding.flags, "pipe:1"]
    return cut(_run("ffmpeg", *source, *length, *codecs, *output))


def cut(stream: bytes) -> Media:
    """Cut a stream with a plain reader of its own."""
    init, fragments, position = b"", list[bytes](), 0
    moof = b""
    while position < len(stream):
        size = int.from_bytes(stream[position : position + 4], "big")
        kind, whole = stream[position + 4 : position + 8], stream[position : position + size]
        if kind in (b"ftyp", b"moov"):
            init += whole
        elif kind == b"moof":
            moof = whole
        elif kind == b"mdat":
            fragments.append(moof + whole)
        position += size
    return Media(init, tuple(fragments))


class Archive:
    """Objects by digest, and the groups that refer to them."""

    def __init__(self) -> None:
        self.objects: dict[Digest, bytes] = {}
        self.groups: list[RecordedGroup] = []
        self.descriptions: dict[Digest, SampleDescription] = {}

    def add(
        self, payload: bytes, samples: GroupSamples, *, track: str, epoch: int, received: int
    ) -> None:
        """Store a group. It lies somewhere within its object, as a group of a run does."""
        assert samples.tables, samples.reason
        stored = b"another group" + payload + b"and one more"
        digest = digest_of(stored)
        self.objects[digest] = stored
        self.descriptions |= {item.digest: item for item in samples.descriptions}
        self.groups.append(
            RecordedGroup(
                track=track,
                epoch=epoch,
                received=received,
                digest=digest,
                offset=len(b"another group"),
                size=len(payload),
                tables=samples.tables,
            )
        )

    def add_fragments(
        self, media: Media, *, received: int, epoch: int = 1, skip: Sequence[int] = ()
    ) -> None:
        """Store each fragment of ``media`` as a group that came when it was due."""
        movie = read_movie(media.init)
        first: float | None = None
        for number, payload in enumerate(media.fragments):
            samples = samples_of_fragments(payload, movie)
            assert not samples.reason
            table = samples.tables[0]
            time = table.presentation_time / table.timescale
            first = time if first is None else first
            if number not in skip:
                due = received + int((time - first) * SECOND)
                self.add(payload, samples, track="media", epoch=epoch, received=due)

    def record(self, path: Path, *, start: int = START, end: int | None = None) -> Recording:
        """Write the flat file of all groups, in pieces as a reader would fetch them."""
        recording = flat_recording(self.groups, self.descriptions, start=start, end=end)
        path.write_bytes(b"".join(self.read(recording, piece=100_003)))
        assert path.stat().st_size == recording.layout.size
        return recording

    def read(self, recording: Recording, *, piece: int) -> Iterator[bytes]:
        layout = recording.layout
        for position in range(0, layout.size, piece):
            data = bytearray()
            for part in layout.pieces(position, piece):
                if isinstance(part, Literal):
                    data += part.data
                else:
                    stored = self.objects[part.digest]
                    data += stored[part.offset : part.offset + part.length]
            layout.overlay(data, position)
            yield bytes(data)


# Judging


class Packet(Struct, frozen=True):
    """A packet as ffprobe reads it from a file."""

    stream_index: int
    pts_time: str
    dts_time: str
    flags: str
    size: str


class _Packets(Struct, frozen=True):
    packets: list[Packet]


class Stream(Struct, frozen=True):
    """A stream as ffprobe sees it."""

    codec_type: str
    codec_name: str
    start_time: str = "0"
    duration: str = "0"
    nb_read_frames: str = "0"


class Format(Struct, frozen=True):
    """The file as ffprobe sees it."""

    duration: str
    start_time: str


class Report(Struct, frozen=True):
    """ffprobe's answer."""

    streams: list[Stream]
    format: Format


def probe(path: Path) -> Report:
    """Decode all frames of ``path``, without a complaint, and count them."""
    out = _run("ffprobe", "-count_frames", "-show_streams", "-show_format", "-of", "json", path)
    return msgspec.json.decode(out, type=Report)


def packets(path: Path, stream: str) -> list[Packet]:
    """Return the packets of a stream, such as ``v:0``, in file order of the demuxer."""
    out = _run("ffprobe", "-select_streams", stream, "-show_packets", "-of", "json", path)
    return msgspec.json.decode(out, type=_Packets).packets


def frames(
    path: Path, kind: str, *, before: Sequence[str] = (), after: Sequence[str] = (), count: int = 0
) -> list[str]:
    """Decode ``path`` and return the MD5 of each frame of kind ``v`` or ``a``.

    ``before`` are options for the input, ``after`` for the output; ``count`` frames are decoded,
    0 for all.
    """
    limit = [f"-frames:{kind}", str(count)] if count else []
    passthrough = ["-fps_mode", "passthrough"] if kind == "v" else []
    output = ["-map", f"0:{kind}", *limit, *passthrough, *after, "-f", "framemd5", "pipe:1"]
    out = _run("ffmpeg", *before, "-i", path, *output).decode()
    return [line.split(",")[-1].strip() for line in out.splitlines() if not line.startswith("#")]


def frame_at(path: Path, seconds: float) -> str:
    """Seek to a time from the file's zero and return the MD5 of the first frame shown."""
    # Without it, ffmpeg would count from where the first stream starts.
    seek = ["-seek_timestamp", "1", "-ss", f"{seconds:.6f}"]
    return frames(path, "v", before=seek, count=1)[0]


def write(path: Path, data: bytes) -> Path:
    """Write a file for a program to read."""
    path.write_bytes(data)
    return path


def _run(program: str, *arguments: str | Path) -> bytes:
    done = subprocess.run(
        [program, "-v", "error", *map(str, arguments)],
        capture_output=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b"", done.stderr.decode()
    return done.stdout
