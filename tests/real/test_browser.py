"""A headless Chromium with hls.js plays a day across a gap and a restart, and seeks in it."""

from __future__ import annotations

import functools
import http.server
import itertools
import queue
import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import Struct

from tests.real.test_mount_filesystem import _why_not
from tests.real.test_recordings import HLS, Recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

HLS_JS = Path(__file__).parents[2] / ".venv/browser/node_modules/hls.js/dist/hls.min.js"
SOUGHT = 7.5
"""Seconds from the begin of the day's playlist."""
PATIENCE = 90
"""Seconds in which the page has told what it saw."""

pytestmark = [
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
    pytest.mark.skipif(_why_not() is not None, reason=f"cannot mount: {_why_not()}"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium: tools/browser"),
    pytest.mark.skipif(not HLS_JS.exists(), reason="no hls.js: tools/browser installs it"),
]

PAGE = """<!doctype html>
<video id="video" muted></video>
<script src="/hls.js"></script>
<script>
const video = document.getElementById("video");
const errors = [], troubles = [], sizes = [];
const hls = new Hls({ maxBufferLength: 30 });
hls.on(Hls.Events.ERROR, (_, data) => {
  (data.fatal ? errors : troubles).push(`${data.details} ${data.error || ""}`);
});
video.addEventListener("resize", () => sizes.push(video.videoHeight));
const ended = new Promise((resolve) => {
  // hls.js nudges the last frame and may leave it at that.
  const isOver = () => video.ended || video.currentTime > video.duration - 0.1;
  setInterval(() => { if (isOver()) resolve(); }, 100);
  setTimeout(resolve, 40000);
});
const shownAt = (time) => new Promise((resolve) => {
  video.requestVideoFrameCallback((_, frame) => resolve(frame.mediaTime));
  setTimeout(() => resolve(-1), 8000);
  video.currentTime = time;
});
ended.then(async () => {
  const played = {
    time: video.currentTime, duration: video.duration,
    sizes: [...sizes], frames: video.getVideoPlaybackQuality().totalVideoFrames,
    buffered: Array.from({ length: video.buffered.length },
      (_, n) => [video.buffered.start(n), video.buffered.end(n)]),
    levels: hls.levels.map((level) => level.codecs || level.attrs.CODECS),
  };
  video.pause();
  const sought = await shownAt(SOUGHT);
  const body = JSON.stringify({ ...played, sought, errors, troubles });
  fetch("/finished", { method: "POST", body });
});
// Faster than life, so that nobody waits.
video.defaultPlaybackRate = video.playbackRate = 4;
hls.loadSource("PLAYLIST");
hls.attachMedia(video);
hls.on(Hls.Events.MANIFEST_PARSED, () => video.play());
</script>
"""


class Played(Struct, frozen=True):
    """What the page saw."""

    time: float
    duration: float
    errors: list[str]
    troubles: list[str]
    buffered: list[tuple[float, float]]
    sizes: list[int]
    frames: int
    levels: list[str]
    sought: float


class Handler(http.server.SimpleHTTPRequestHandler):
    """A static server of the mount, two pages more, and a place to tell what was seen."""

    def __init__(self, told: queue.Queue[bytes], *arguments: Any, directory: str) -> None:
        self._told = told
        super().__init__(*arguments, directory=directory)

    def do_GET(self) -> None:
        page = PAGE.replace("PLAYLIST", f"/{HLS}/index.m3u8").replace("SOUGHT", str(SOUGHT))
        extra = {
            "/page.html": ("text/html", page.encode()),
            "/hls.js": ("text/javascript", HLS_JS.read_bytes()),
        }.get(self.path)
        if extra is None:
            super().do_GET()
            return
        kind, content = extra
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self._told.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(directory: Path, told: queue.Queue[bytes]) -> Iterator[str]:
    handler = functools.partial(Handler, told, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def shown(url: str, profile: Path) -> Iterator[None]:
    """Show a page in a headless Chromium, which has ended after the block."""
    chromium = shutil.which("chromium")
    assert chromium is not None
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", "--autoplay-policy=no-user-gesture-required"]
    command += [f"--user-data-dir={profile}", url]
    with (profile.parent / "chromium.log").open("wb") as log:
        browser = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        browser.terminate()
        browser.wait()


def test_hls_js_plays_the_day_and_seeks(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    with recorded.archive.writer("demo/tv") as writer:
        writer.seal_hours(0)
    told: queue.Queue[bytes] = queue.Queue()
    with (
        recorded.installation.mounted() as mountpoint,
        served(mountpoint, told) as url,
        shown(f"{url}/page.html", tmp_path / "profile"),
    ):
        played = msgspec.json.decode(told.get(timeout=PATIENCE), type=Played)
    assert not played.errors, played
    assert played.time == pytest.approx(played.duration, abs=0.1)
    # Two runs of five seconds and one of six, without the silence between them.
    assert played.duration == pytest.approx(16, abs=0.5)
    assert played.sizes == [180, 270, 180]
    # Pictures begin a little behind their sound; nothing else is missing.
    holes = [after[0] - before[1] for before, after in itertools.pairwise(played.buffered)]
    assert all(hole < 0.2 for hole in holes), played
    # Four hundred, but for what a busy machine does not come to.
    assert played.frames > 100
    assert played.sought == pytest.approx(SOUGHT, abs=0.08)
