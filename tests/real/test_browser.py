"""A headless Chromium with hls.js plays a day across a gap and a restart, and seeks in it."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec import Struct

from tests.real.test_mount_filesystem import _why_not
from tests.real.test_recordings import HLS, Recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = Path(__file__).parents[2] / ".venv/browser/node_modules"

pytestmark = [
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
    pytest.mark.skipif(_why_not() is not None, reason=f"cannot mount: {_why_not()}"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium: tools/browser"),
    pytest.mark.skipif(not MODULES.is_dir(), reason="no hls.js: tools/browser installs it"),
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
function finish() {
  const quality = video.getVideoPlaybackQuality();
  window.finished = {
    ended: video.ended, time: video.currentTime, duration: video.duration, errors, troubles, sizes,
    buffered: Array.from({ length: video.buffered.length },
      (_, n) => [video.buffered.start(n), video.buffered.end(n)]),
    frames: quality.totalVideoFrames,
    levels: hls.levels.map((level) => level.codecs || level.attrs.CODECS),
  };
}
video.addEventListener("ended", finish);
setTimeout(finish, 40000);
window.seekTo = (time) => new Promise((resolve) => {
  video.requestVideoFrameCallback((_, frame) => resolve(frame.mediaTime));
  setTimeout(() => resolve(-1), 8000);
  video.currentTime = time;
  video.play();
});
hls.loadSource("PLAYLIST");
hls.attachMedia(video);
hls.on(Hls.Events.MANIFEST_PARSED, () => video.play());
</script>
"""


class Played(Struct, frozen=True):
    """What the page saw."""

    ended: bool
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
    """A static server of the mount, and two pages more."""

    def do_GET(self) -> None:
        extra = {
            "/page.html": ("text/html", PAGE.replace("PLAYLIST", f"/{HLS}/index.m3u8").encode()),
            "/hls.js": ("text/javascript", (MODULES / "hls.js/dist/hls.min.js").read_bytes()),
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

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(directory: Path) -> Iterator[str]:
    handler = functools.partial(Handler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_hls_js_plays_the_day_and_seeks(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    with recorded.archive.writer("demo/tv") as writer:
        writer.seal_hours(0)
    script = Path(__file__).with_name("play.mjs")
    # Node looks for modules beside the script.
    shutil.copy(script, tmp_path)
    os.symlink(MODULES, tmp_path / "node_modules")
    chromium = shutil.which("chromium")
    assert chromium is not None
    with recorded.installation.mounted() as mountpoint, served(mountpoint) as url:
        done = subprocess.run(
            ["node", tmp_path / "play.mjs", chromium, f"{url}/page.html", "7.5"],
            capture_output=True,
            check=False,
            timeout=90,
        )
    assert done.returncode == 0, done.stderr.decode()
    played = msgspec.json.decode(done.stdout, type=Played)
    assert not played.errors, played
    assert played.time == pytest.approx(played.duration, abs=0.1)
    # Two runs of five seconds and one of six, without the silence between them.
    assert played.duration == pytest.approx(16, abs=0.5)
    assert played.sizes == [180, 270, 180]
    # Four hundred, but for what a busy machine does not come to.
    assert played.frames > 200
    assert played.sought == pytest.approx(7.5, abs=0.08)
