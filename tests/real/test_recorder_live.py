"""A recorder under load, on a terminal, and without anybody who reads what it says."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
from typing import TYPE_CHECKING

from tests.real.programs import CASFS, Installation, Station, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

TV = "demo/tv"
VIDEO = "video0.m4s"
GROUPS = 300
GROUP_BYTES = 1 << 20
MOST_MEMORY = 300 << 20


def peak_memory(pid: int) -> int:
    """Return the peak resident set size, bytes (VmHWM of proc(5))."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def test_memory_stays_bounded_however_much_comes(
    installation: Installation, relay: Relay, publisher: Publisher, tmp_path: Path
) -> None:
    payload = tmp_path / "payload"
    payload.write_bytes(os.urandom(GROUP_BYTES))
    station = Station(publisher, TV, VIDEO, max_age=60)
    with installation.recording(relay, TV, "--track", VIDEO) as recorder:
        station.send(VIDEO, b"first")
        installation.wait_for(TV, VIDEO, 1)
        before = peak_memory(recorder.process.pid)
        for number in range(GROUPS):
            publisher.append_group(TV, VIDEO, [b"%d" % number], files=[str(payload)])
        eventually(lambda: len(installation.recorded(TV, VIDEO)) == GROUPS + 1, "all groups")
        peak = peak_memory(recorder.process.pid)
        assert recorder.stop().code == 0
    print(f"peak memory {before >> 20} MiB idle, {peak >> 20} MiB")
    assert peak < MOST_MEMORY
    listed = installation.ls()[TV, VIDEO]
    assert listed.bytes > GROUPS * GROUP_BYTES
    installation.verify_is_sound()


def test_a_terminal_shows_each_track_as_it_comes(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    station = Station(publisher, TV, VIDEO, "audio0.m4s")
    leader, follower = pty.openpty()
    try:
        process = subprocess.Popen(
            [
                *(CASFS, "archive", "--url", relay.url, "--name", TV),
                *("--tls-fingerprint", relay.fingerprint),
            ],
            env=installation.environment | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=follower,
        )
        os.close(follower)
        seen = b""
        try:
            for number in range(3):
                station.send(VIDEO, b"%d" % number * 10_000)
            pattern = re.compile(rb"video0\.m4s +recording +3 ")
            while not pattern.search(_plain(seen)):
                piece = os.read(leader, 1 << 16)
                assert piece, _plain(seen)
                seen += piece
            assert f"{TV}: recording".encode() in _plain(seen)
            assert b"init.mp4" in seen
        finally:
            process.terminate()
            with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
                while True:
                    seen += os.read(leader, 1 << 16)
            code = process.wait()
    finally:
        os.close(leader)
    assert code == 0
    assert b"Traceback" not in seen
    assert re.search(rb"3 groups, .* of demo/tv are kept", _plain(seen))


def _plain(output: bytes) -> bytes:
    """Remove what steers a terminal."""
    return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", output)
