"""The casfs command in processes of its own, and what a test knows of what was published.

Whatever is started here has ended, and whatever is mounted is unmounted, behind its context.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct

from casfs.archive import Archive
from casfs.manifests.chain import JournalReader
from casfs.manifests.layout import BROADCAST_JOURNAL
from casfs.manifests.record import Line, Record
from casfs.manifests.runs import kept_groups
from casfs.mount.filenames import components_of
from casfs.mount.mountpoint import mounts_at, unmount
from casfs.names import encode_name
from casfs.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

R = TypeVar("R", bound=Record)

CASFS = shutil.which("casfs", path=os.path.dirname(sys.executable)) or "casfs"
PATIENCE = 45.0
"""Seconds in which what must happen has happened, on however slow a machine."""


def eventually(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Wait until ``condition`` holds; fail, naming ``what``, if it does not come to that."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"after {timeout:g} s: not {what}"
        time.sleep(0.03)


class Outcome(Struct, frozen=True):
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def complaint(self) -> str:
        """The one line that says why; fails if there is none, more than one, or a traceback."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("casfs: error: ")]
        assert len(lines) == 1, self.err
        assert self.err.rstrip("\n").endswith(lines[0]), self.err
        return lines[0]


class Listed(Struct, frozen=True):
    """A line of ``casfs ls --json``."""

    broadcast: str
    track: str
    groups: int
    bytes: int
    first: str | None
    last: str | None


class Program:
    """A casfs command that runs; its stderr goes to a file."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [CASFS, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )

    @property
    def err(self) -> str:
        """What it has said on stderr so far."""
        return self._log.read_text()

    def says(self, text: str) -> None:
        """Wait until it has said ``text`` on stderr."""
        eventually(
            lambda: text in self.err or self.process.poll() is not None,
            f"said {text!r}: {self.err}",
        )
        assert text in self.err, self.err

    def wait(self, timeout: float = PATIENCE) -> Outcome:
        """Wait for its end."""
        out, _ = self.process.communicate(timeout=timeout)
        return Outcome(self.process.returncode, out, self.err)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Outcome:
        """Ask it to end, and wait."""
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Make sure that it is gone."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Installation:
    """An archive below a directory, and the command line to use it with."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cas = directory / "cas"
        self.manifests = directory / "manifests"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CASFS_")},
            "CASFS_CAS_ROOT": str(self.cas),
            "CASFS_MANIFEST_ROOT": str(self.manifests),
            "XDG_CONFIG_HOME": str(directory / "no-config"),
            "COLUMNS": "200",
        }
        self.quic = "auto"
        """The QUIC library that recorders use."""
        self._started = 0

    def run(self, *arguments: str, timeout: float = PATIENCE) -> Outcome:
        """Run a command to its end."""
        with self.running(*arguments) as program:
            return program.wait(timeout)

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[Program]:
        """Run a command for the time of the context; it is gone afterwards."""
        self._started += 1
        log = self.directory / f"stderr-{self._started}"
        program = Program(arguments, self.environment, log)
        try:
            yield program
        finally:
            program.end()

    @contextlib.contextmanager
    def recording(self, relay: Relay, broadcast: str, *arguments: str) -> Iterator[Program]:
        """Record a broadcast for the time of the context."""
        with self.running(
            *("archive", "--url", relay.url, "--name", broadcast),
            *("--tls-fingerprint", relay.fingerprint, "--quic", self.quic, *arguments),
        ) as program:
            yield program

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mount the archive for the time of the context."""
        mountpoint = self.directory / "mnt"
        mountpoint.mkdir(exist_ok=True)
        try:
            with self.running("mount", str(mountpoint)) as program:
                program.says("mounted at")
                yield mountpoint
                outcome = program.stop()
                assert outcome.code == 0, outcome.err
        finally:
            if mounts_at(os.path.realpath(mountpoint)):
                unmount(os.path.realpath(mountpoint))

    def archive(self) -> Archive:
        """Open the archive in this process."""
        return Archive(Roots.of(str(self.cas), str(self.manifests)))

    def ls(self) -> dict[tuple[str, str], Listed]:
        """Return what ``casfs ls --json`` says, by broadcast and track."""
        outcome = self.run("ls", "--json")
        assert outcome.code == 0, outcome.err
        lines = [msgspec.json.decode(line, type=Listed) for line in outcome.out.splitlines()]
        return {(line.broadcast, line.track): line for line in lines}

    def verify_is_sound(self) -> None:
        outcome = self.run("verify")
        assert outcome.code == 0, (outcome.out, outcome.err)

    # What the manifests say

    def records(self, kind: type[R], broadcast: str, track: str | None = None) -> list[R]:
        """Return the records of a kind in a journal, read without any index."""
        name = BROADCAST_JOURNAL if track is None else encode_name(track)
        directory = self.manifests / encode_name(broadcast) / name
        return [
            item.record
            for item in JournalReader(str(directory))
            if isinstance(item, Line) and isinstance(item.record, kind)
        ]

    def recorded(self, broadcast: str, track: str) -> list[tuple[int, int]]:
        """Return epoch and sequence of each group record, in the order of commits."""
        return [
            (kept.record.epoch, int(kept.record.sequence))
            for record in self.records(Record, broadcast, track)
            for kept in kept_groups(record)
        ]

    def wait_for(self, broadcast: str, track: str, groups: int) -> None:
        """Wait until that many groups of a track are acknowledged."""
        eventually(
            lambda: len(self.recorded(broadcast, track)) >= groups,
            f"{groups} groups of {broadcast} {track}",
        )


class Station:
    """A broadcast on air, and every byte of it by track and sequence."""

    def __init__(self, publisher: Publisher, name: str, *tracks: str, max_age: int = 3600) -> None:
        self.name = name
        self.sent: dict[str, dict[int, bytes]] = {track: {} for track in tracks}
        self.publisher = publisher
        publisher.create_broadcast(name)
        for track in tracks:
            publisher.create_track(name, track, max_age=max_age)
        publisher.announce(name)

    def send(
        self,
        track: str,
        *frames: bytes,
        sequence: int | None = None,
        timestamps: Sequence[int] = (),
    ) -> int:
        """Send a whole group and return its sequence."""
        number = self.publisher.append_group(
            self.name, track, frames, sequence=sequence, timestamps=timestamps
        )
        self.sent[track][number] = b"".join(frames)
        return number

    def payload(self, track: str) -> bytes:
        """Everything sent on a track, in the order of its sequences."""
        return b"".join(payload for _, payload in sorted(self.sent[track].items()))


def broadcast_directory(mountpoint: Path, broadcast: str) -> Path:
    """Where a broadcast stands in a mount: parts that look like an hour or a date are encoded."""
    return mountpoint.joinpath("broadcasts", *components_of(broadcast))


def group_files(directory: Path) -> list[Path]:
    """Return the group files of a track in a mount, by epoch and sequence."""
    return sorted(
        (path for path in directory.glob("*-*-*/??/e*") if path.is_file()),
        key=lambda path: path.name[:27],
    )
