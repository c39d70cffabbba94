"""Real media in real time: ffmpeg's picture and sound, published as live television is.

    python -m tools.loopback.media --url URL --fingerprint SHA256 --name BROADCAST [--input FILE]

publishes a test picture with the running time in it and a tone, or FILE over and over, as H.264
and AAC in fragmented MP4, one frame of a group for each frame of the media:

========== =====================================================================
track      what its groups are
========== =====================================================================
init.mp4   ``ftyp`` + ``moov`` with both tracks; published anew every few seconds
video0.m4s one GOP: each frame a ``moof`` + ``mdat``, the first one a sync sample
audio0.m4s about a second: each frame a ``moof`` + ``mdat``
========== =====================================================================

``init.mp4`` followed by groups of either track, or of both, is a playable file. The track
``catalog.json`` is the publisher library's own; it does not let anybody else fill in its ``video``
and ``audio``, so what they would say stands in the section ``renditions`` of that catalog.

It prints one JSON line (the broadcast and its tracks) once it is on air, and ends on SIGTERM, on
SIGINT, or when its stdin closes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from tools.loopback.fragments import Fragment, FragmentReader, Init
from tools.loopback.process import LoopbackError
from tools.loopback.publisher import running_publisher

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tools.loopback.publisher import Publisher

INIT_TRACK = "init.mp4"
MEDIA_TRACKS = {"video": "video0.m4s", "audio": "audio0.m4s"}

FRAME_RATE = 25
GROUP_SECONDS = 1
"""How long a GOP is, and an audio group at least."""
INIT_SECONDS = 5
"""How often the init is published anew, for those who came late."""

_PIECE = 1 << 16


class OnAir(msgspec.Struct, frozen=True):
    """What the process says once the broadcast is announced."""

    broadcast: str
    tracks: tuple[str, ...]


# ffmpeg


def ffmpeg_command(
    file: str | None = None,
    *,
    with_audio: bool = True,
    live: bool = True,
) -> list[str]:
    """Return the command that writes fragmented MP4 to its stdout, a fragment for each frame.

    ``file`` None makes a test picture and a tone; otherwise FILE, at most 720 lines high, again
    and again. ``seconds`` None goes on until it is ended; ``live`` false is as fast as it can.
    """
    pace = ["-re"] if live else []
    if file is None:
        source = [*pace, "-f", "lavfi", "-i", f"testsrc2=size=640x360:rate={FRAME_RATE}"]
        source += [*pace, "-f", "lavfi", "-i", "sine=frequency=440:beep_factor=4:sample_rate=48000"]
        streams = ["-map", "0:v", "-map", "1:a"]
    else:
        source = [*pace, "-stream_loop", "-1", "-i", f"file:{file}"]
        streams = ["-map", "0:v:0", *(["-map", "0:a:0"] if with_audio else [])]
        streams += ["-vf", f"scale=-2:'trunc(min(720,ih)/2)*2',fps={FRAME_RATE}"]
    gop = str(FRAME_RATE * GROUP_SECONDS)
    video = ["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency"]
    video += ["-pix_fmt", "yuv420p", "-g", gop, "-keyint_min", gop, "-sc_threshold", "0"]
    audio = ["-c:a", "aac", "-b:a", "96k", "-ar", "48000", "-ac", "2"]
    flags = "empty_moov+default_base_moof+frag_every_frame+separate_moof+skip_trailer"
    output = ["-f", "mp4", "-movflags", flags, "pipe:1"]
    quiet = ["-nostdin", "-hide_banner", "-loglevel", "error"]
    return ["ffmpeg", *quiet, *source, *streams, *video, *audio, *output]


def has_audio(file: str) -> bool:
    """Whether the video file ``file`` has sound.

    Raises:
        LoopbackError: there is no such file, or no video in it.
    """
    show = ["-show_entries", "stream=codec_type", "-of", "default=noprint_wrappers=1:nokey=1"]
    probe = subprocess.run(
        ["ffprobe", "-v", "error", *show, f"file:{file}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    kinds = probe.stdout.split()
    if "video" not in kinds:
        raise LoopbackError(f"no video in {file}: {probe.stderr.strip() or 'ffprobe finds none'}")
    return "audio" in kinds


@contextlib.contextmanager
def running_ffmpeg(command: Sequence[str]) -> Iterator[int]:
    """Run ``command`` for the time of the context and give the descriptor of its stdout.

    It is gone afterwards, whatever happened.

    Raises:
        LoopbackError: it could not be started, or its output ended with a failure.
    """
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except FileNotFoundError:
        raise LoopbackError("ffmpeg is not installed; run tools/setup") from None
    assert process.stdout is not None
    ended_by_itself = False
    try:
        yield process.stdout.fileno()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
            ended_by_itself = True
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    if ended_by_itself and process.returncode:
        raise LoopbackError(f"ffmpeg ended with code {process.returncode}")


def read_media(stdout: int, also: Sequence[int] = ()) -> Iterator[Init | Fragment]:
    """Yield the init and the fragments that come from ``stdout``, each as soon as it is whole.

    It ends with the stream, or when one of the descriptors ``also`` has something to read.
    """
    reader = FragmentReader()
    while True:
        readable, _, _ = select.select([stdout, *also], [], [])
        if readable != [stdout]:
            return
        piece = os.read(stdout, _PIECE)
        if not piece:
            return
        yield from reader.feed(piece)


# Publishing


class _OpenGroup(msgspec.Struct):
    """The group that a track is writing."""

    sequence: int
    start: int
    """Decode time of its first frame."""


class Broadcaster:
    """Publishes media as one broadcast, group by group, as it is made."""

    def __init__(self, publisher: Publisher, broadcast: str) -> None:
        self._publisher = publisher
        self._broadcast = broadcast
        self._open: dict[str, _OpenGroup] = {}
        self._init = b""
        self._init_time = 0
        self.tracks: tuple[str, ...] = ()

    def begin(self, init: Init) -> None:
        """Make the tracks that ``init`` describes and announce the broadcast."""
        publisher, broadcast = self._publisher, self._broadcast
        self._init = init.payload
        self.tracks = (INIT_TRACK, *(MEDIA_TRACKS[track.kind] for track in init.tracks))
        publisher.create_broadcast(broadcast)
        for name in self.tracks:
            publisher.create_track(broadcast, name)
        publisher.append_group(broadcast, INIT_TRACK, [init.payload])
        renditions = {MEDIA_TRACKS[track.kind]: track.rendition() for track in init.tracks}
        publisher.set_catalog_section(broadcast, "renditions", renditions)
        publisher.announce(broadcast)

    def write(self, fragment: Fragment) -> None:
        """Send one frame, in a new group where one begins."""
        track = MEDIA_TRACKS[fragment.track.kind]
        group = self._open.get(track)
        if group is None or self._begins_group(fragment, group):
            self._finish(track)
            sequence = self._publisher.open_group(
                self._broadcast,
                track,
                [fragment.payload],
                timestamps=[fragment.presentation_time],
            )
            self._open[track] = _OpenGroup(sequence, fragment.decode_time)
            self._repeat_init(fragment)
        else:
            self._publisher.write_frames(
                self._broadcast,
                track,
                group.sequence,
                [fragment.payload],
                timestamps=[fragment.presentation_time],
            )

    def end(self) -> None:
        """Finish what is open and end the broadcast."""
        for track in self.tracks:
            self._finish(track)
            self._publisher.finish_track(self._broadcast, track)
        if self.tracks:
            self._publisher.end_broadcast(self._broadcast)

    @staticmethod
    def _begins_group(fragment: Fragment, group: _OpenGroup) -> bool:
        if fragment.track.kind == "video":
            return fragment.sync
        return fragment.decode_time - group.start >= GROUP_SECONDS * fragment.track.timescale

    def _finish(self, track: str) -> None:
        group = self._open.pop(track, None)
        if group is not None:
            self._publisher.finish_group(self._broadcast, track, group.sequence)

    def _repeat_init(self, fragment: Fragment) -> None:
        if fragment.presentation_time - self._init_time >= INIT_SECONDS * 1_000_000:
            self._init_time = fragment.presentation_time
            self._publisher.append_group(self._broadcast, INIT_TRACK, [self._init])


def broadcast_media(publisher: Publisher, broadcast: str, media: Iterator[Init | Fragment]) -> None:
    """Publish ``media`` until it ends; says on stdout when it is on air."""
    broadcaster = Broadcaster(publisher, broadcast)
    try:
        for item in media:
            if isinstance(item, Init):
                broadcaster.begin(item)
                on_air = OnAir(broadcast, broadcaster.tracks)
                sys.stdout.write(msgspec.json.encode(on_air).decode() + "\n")
                sys.stdout.flush()
            else:
                broadcaster.write(item)
    finally:
        broadcaster.end()


def main() -> int:
    """Publish media until told to end."""
    parser = argparse.ArgumentParser(prog="python -m tools.loopback.media", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--url", required=True, help="the relay, https://host:port")
    parser.add_argument("--fingerprint", required=True, help="SHA-256 of its certificate, hex")
    parser.add_argument("--name", required=True, metavar="BROADCAST", help="such as demo/tv")
    parser.add_argument("--input", metavar="FILE", help="a video file instead of a test picture")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        with_audio = arguments.input is None or has_audio(arguments.input)
        command = ffmpeg_command(arguments.input, with_audio=with_audio)
        with (
            running_publisher(arguments.url, arguments.fingerprint) as publisher,
            running_ffmpeg(command) as stdout,
        ):
            media = read_media(stdout, also=[sys.stdin.fileno()])
            broadcast_media(publisher, arguments.name, media)
    except LoopbackError as error:
        print(f"media: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
