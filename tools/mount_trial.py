"""tools/mount-trial: hard use of a real mount while groups are committed beneath it.

fio reads and checks at random places, stress-ng lists, stats and opens, a walker reads every file
that appears and compares it with its digest, files are opened and closed thousands of times; the
mount is killed in between and mounted again. It ends with 0 if nobody met an error, a wrong byte or
a descriptor that was left open.

fio and stress-ng are Debian packages of these names; without them their part is left out, aloud.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from casfs.archive import Archive, Group
from casfs.digest import digest_of
from casfs.mount.mountpoint import mounts_at, unmount
from casfs.roots import Roots, create
from casfs.timestamps import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TRACK = "0.m4s"
_BROADCAST = "trial/tv"
_GROUP_BYTES = 200_000
_LARGE_BYTES = 20 << 20
_LARGE_EVERY = 50
_COMMIT_PAUSE = 0.05
_READY_SECONDS = 30.0


class Trial:
    """An archive below ``directory`` that is written to, and a mount of it."""

    def __init__(self, directory: Path) -> None:
        self.roots = Roots.of(str(directory / "cas"), str(directory / "manifests"))
        create(self.roots)
        self.mountpoint = (directory / "mnt").resolve()
        self.mountpoint.mkdir()
        self.faults: list[str] = []
        self.committed = 0
        self.read = 0
        self._done = threading.Event()

    @contextlib.contextmanager
    def ingest(self) -> Iterator[None]:
        """Commit groups within the block, one large one among many."""
        writer = threading.Thread(target=self._write)
        writer.start()
        try:
            yield
        finally:
            self._done.set()
            writer.join()

    @contextlib.contextmanager
    def mounted(self) -> Iterator[subprocess.Popen[bytes]]:
        """Mount within the block; whatever happens, nothing is mounted behind it."""
        casfs = str(Path(sys.executable).with_name("casfs"))
        where = ("--cas-root", self.roots.cas, "--manifest-root", self.roots.manifests)
        with subprocess.Popen([casfs, *where, "mount", str(self.mountpoint)]) as process:
            try:
                self._wait_until_mounted(process)
                yield process
            finally:
                process.terminate()
        if mounts_at(str(self.mountpoint)) and process.returncode == 0:
            self.faults.append("a mount that ended well was left behind")

    def walk(self) -> None:
        """Read every group file once and compare it with the digest that it tells."""
        for directory, _, names in os.walk(self.mountpoint / "broadcasts"):
            if len(names) != len(set(names)):
                self.faults.append(f"{directory} lists a name twice")
            for name in names:
                path = os.path.join(directory, name)
                if not os.path.islink(path):
                    told = os.getxattr(path, "user.casfs.blake3").decode()
                    if digest_of(Path(path).read_bytes()) != told:
                        self.faults.append(f"{path} is not what its digest says")
                    self.read += 1

    def open_and_close(self, process: subprocess.Popen[bytes], times: int) -> None:
        """Open files over and over: the mount may not gather descriptors."""
        _say(f"opening and closing {times} files")
        descriptors = Path(f"/proc/{process.pid}/fd")
        paths = sorted((self.mountpoint / "broadcasts").rglob("e*.m4s"))
        committed, before = self.committed, len(list(descriptors.iterdir()))
        for _, path in zip(range(times), itertools.cycle(paths), strict=False):
            with path.open("rb") as file:
                file.read(1)
        # Each object stays open for the next reader, once, also those that came meanwhile.
        most = before + len(paths) + self.committed - committed
        deadline = time.monotonic() + _READY_SECONDS
        while (now := len(list(descriptors.iterdir()))) > most and time.monotonic() < deadline:
            time.sleep(0.05)
        _say(f"{now} descriptors open in the mount")
        if now > most:
            self.faults.append(f"{now} descriptors are open, {before} were before")

    def run(self, command: Sequence[str], seconds: float) -> None:
        """Run a program on the mount; its failure is a fault."""
        if shutil.which(command[0]) is None:
            _say(f"{command[0]} is not installed: left out")
            return
        _say(f"running {command[0]}")
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds + 120
        )
        if done.returncode != 0:
            self.faults.append(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")

    def _write(self) -> None:
        with Archive(self.roots).writer(_BROADCAST) as writer:
            while not self._done.wait(_COMMIT_PAUSE):
                large = self.committed % _LARGE_EVERY == _LARGE_EVERY - 1
                size = _LARGE_BYTES if large else _GROUP_BYTES
                now = time.time_ns()
                group = Group(
                    track=_TRACK,
                    epoch=1,
                    sequence=self.committed,
                    frames=(os.urandom(size),),
                    received_start=now - NANOSECONDS,
                    received_end=now,
                )
                writer.commit([group])
                self.committed += 1

    def _wait_until_mounted(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not os.path.isdir(self.mountpoint / ".casfs"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("mount-trial: the mount did not come about")
            time.sleep(0.05)


def main() -> int:
    """Run the trial and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="tools/mount-trial",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each program (60)")
    parser.add_argument("--kills", type=int, default=3, help="how often the mount is killed (3)")
    parser.add_argument("--opens", type=int, default=10_000, help="of files (10000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mount-trial-") as name:
        trial = Trial(Path(name))
        try:
            faults = _try(trial, arguments.seconds, arguments.kills, arguments.opens)
        finally:
            while mounts_at(str(trial.mountpoint)):
                unmount(str(trial.mountpoint))
    _say(f"{trial.committed} groups committed, {trial.read} files read and compared")
    for fault in faults:
        _say(f"FAULT: {fault}")
    return 1 if faults else 0


def _try(trial: Trial, seconds: float, kills: int, opens: int) -> list[str]:
    with trial.ingest():
        with trial.mounted() as process:
            while trial.committed <= _LARGE_EVERY:
                time.sleep(0.1)
            trial.walk()
            for command in _programs(trial.mountpoint, seconds):
                trial.run(command, seconds)
            trial.walk()
            trial.open_and_close(process, opens)
        for _ in range(kills):
            with trial.mounted() as process:
                walker = threading.Thread(target=_walk_until_killed, args=(trial,))
                walker.start()
                time.sleep(1.0)
                process.kill()
                walker.join()
        with trial.mounted():
            trial.walk()
    return trial.faults


def _walk_until_killed(trial: Trial) -> None:
    with contextlib.suppress(OSError):  # ENOTCONN once the mount is dead
        trial.walk()


def _programs(mountpoint: Path, seconds: float) -> Iterator[list[str]]:
    files = sorted((mountpoint / "broadcasts").rglob("e*.m4s"))
    chosen = ":".join(str(path) for path in files[:: max(1, len(files) // 20)])
    yield [
        *("fio", "--readonly", "--name=trial", "--rw=randread", "--bs=4k-256k", "--ioengine=psync"),
        *("--numjobs=4", "--time_based", f"--runtime={seconds:g}", f"--filename={chosen}"),
    ]
    yield [
        *("stress-ng", "--fstat", "2", "--fstat-dir", str(files[0].parent)),
        *("--timeout", f"{seconds:g}s"),
    ]


def _say(text: str) -> None:
    print(f"mount-trial: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
