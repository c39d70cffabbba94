"""Two recorders of a real relay, a verifier, an expirer with a collector, and readers, all at once.

The publishers send payloads of a pool that hours long past hold too. These expire and are collected
while the recorders put the same bytes again: so an object is thrown away and needed in one moment.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from casfs.archive import Archive
from casfs.collect import collect
from casfs.digest import digest_of
from casfs.errors import CasfsError
from casfs.mount.mountpoint import unmount
from casfs.roots import Roots, create
from casfs.timestamps import HOUR, NANOSECONDS, parse_time
from casfs.verify import verify
from tools.loopback.process import LoopbackError
from tools.loopback.publisher import Publisher, running_publisher
from tools.loopback.relay import Relay, running_relay
from tools.stressing.worker import make_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONG_AGO = parse_time("2026-01-01T00:00:00Z")
_POOL = 48
_PACE_SECONDS = 0.08
_PATIENCE = 60.0
_TRACK = "video0.m4s"


class Living(Struct, frozen=True, kw_only=True):
    """What came of it."""

    seconds: float
    groups: int
    """Sent by the publishers."""
    kept: int
    """Of them, found byte for byte in the end."""
    verified: int
    """Runs of a verification, each of them sound."""
    collected: int
    """Runs of expire and collect."""
    trashed: int
    """Objects that the collector took out of the store."""
    deleted: int
    """Objects that it then deleted."""
    read: int
    """Objects that were read back in the meantime."""
    mounted: int
    """Files of them read through a mount; 0 where nothing can be mounted."""
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, damaged or locked out."""
        return not self.faults and 0 < self.groups == self.kept


class _Station:
    """A broadcast on air, and what was sent of it."""

    def __init__(self, publisher: Publisher, name: str, pool: list[bytes], seed: int) -> None:
        self.name = name
        self.sent: dict[int, bytes] = {}
        self._publisher = publisher
        self._pool = pool
        self._chance = random.Random(seed)
        publisher.create_broadcast(name)
        publisher.create_track(name, _TRACK, max_age=3600)
        publisher.announce(name)

    def send(self) -> None:
        """Send a group: three of four times one that was there before."""
        payload = self._chance.choice(self._pool)
        if self._chance.random() < 0.25:
            payload += f"{self.name} {len(self.sent)}".encode()
        number = self._publisher.append_group(self.name, _TRACK, [payload])
        self.sent[number] = payload


class _Stress:
    """All that goes on at once, each in a thread; what is wrong gathers in ``faults``."""

    def __init__(self, archive: Archive, stations: list[_Station], pool: list[bytes]) -> None:
        self._archive = archive
        self._stations = stations
        self._pool = pool
        self._over = threading.Event()
        self.faults: dict[str, None] = {}
        self.verified = self.collected = self.read = self.mounted = 0
        self.trashed = self.deleted = 0

    def run(self, seconds: float, mountpoint: Path | None) -> None:
        """Let everything happen for so long."""
        work: list[Callable[[], None]] = [self._verify, self._collect, self._read]
        work += [station.send for station in self._stations]
        if mountpoint is not None:
            work.append(lambda: self._read_mounted(mountpoint))
        threads = [threading.Thread(target=self._repeat, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        self._over.wait(seconds)
        self._over.set()
        for thread in threads:
            thread.join()

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._over.wait(_PACE_SECONDS):
            try:
                work()
            except (CasfsError, LoopbackError, OSError, subprocess.SubprocessError) as error:
                self.fault(f"{type(error).__name__}: {error}")

    def fault(self, text: str) -> None:
        """Note what is wrong."""
        self.faults[text] = None

    def _verify(self) -> None:
        report = verify(self._archive)
        self.verified += 1
        if not report.sound:
            self.fault(
                f"verify: missing {report.missing[:3]}, damaged {report.damaged[:3]}, "
                f"manifests {report.manifest_errors[:3]}"
            )

    def _collect(self) -> None:
        """Record an hour long past, let it expire, and collect it with a second of grace."""
        hour = _LONG_AGO + self.collected * HOUR
        with self._archive.writer("past", clock=_clock(hour)) as writer:
            groups = [make_group(self.collected * _POOL + at) for at in range(_POOL)]
            writer.commit(
                [
                    replace(group, frames=(data,), received_start=hour, received_end=hour + 1)
                    for group, data in zip(groups, self._pool, strict=True)
                ]
            )
        with self._archive.writer("past", clock=_clock(hour + HOUR)) as writer:
            writer.seal_hours(0)
        _casfs(self._archive, "expire", "--older-than", "1h", "--broadcast", "past", "--yes")
        outcome = collect(self._archive, grace=NANOSECONDS, act=True)
        self.trashed += outcome.trashed.objects
        self.deleted += outcome.deleted.objects
        self.collected += 1

    def _read(self) -> None:
        """Read back what is shown of the newest groups: each must be what was sent."""
        with contextlib.closing(self._archive.reader()) as reader:
            for station in self._stations:
                track = reader.track(station.name, _TRACK)
                newest = None if track is None else reader.newest(track)
                if track is None or newest is None:
                    continue
                first = max(0, newest.sequence - 20)
                for sequence in range(first, newest.sequence + 1):
                    row = reader.find(track, newest.epoch, sequence)
                    if row is None:
                        continue
                    with open(self._archive.objects.path(row.hash), "rb") as file:
                        file.seek(row.offset)
                        self._compare(station, sequence, file.read(row.size))
                    self.read += 1

    def _read_mounted(self, mountpoint: Path) -> None:
        for station in self._stations:
            directory = mountpoint / "broadcasts" / station.name / _TRACK
            for path in sorted(directory.glob("*-*-*/??/e*"))[-20:]:
                self._compare(station, int(path.name.split("-")[1]), path.read_bytes())
                self.mounted += 1

    def _compare(self, station: _Station, sequence: int, found: bytes) -> None:
        # What was sent is noted a moment after it was.
        sent = station.sent.get(sequence)
        if sent is not None and found != sent:
            self.fault(f"{station.name} {sequence} is not what was sent")


def live(seconds: float, *, mount: bool = True, seed: int = 1) -> Living:
    """Let everything happen at once for so long; raises LoopbackError, OSError."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="casfs-stress-")))
        roots = Roots.of(str(directory / "cas"), str(directory / "manifests"))
        create(roots)
        archive = Archive(roots)
        relay = stack.enter_context(running_relay())
        chance = random.Random(seed)
        pool = [chance.randbytes(chance.randrange(1000, 60_000)) for _ in range(_POOL)]
        names = ("tv0", "tv1")
        stations = [
            _Station(
                stack.enter_context(running_publisher(relay.url, relay.fingerprint)),
                name,
                pool,
                seed + at,
            )
            for at, name in enumerate(names)
        ]
        recorders = [stack.enter_context(_recorder(archive, relay, name)) for name in names]
        mountpoint = None
        if mount and os.access("/dev/fuse", os.W_OK):
            mountpoint = stack.enter_context(_mounted(archive, directory / "mnt"))
        stress = _Stress(archive, stations, pool)
        stress.run(seconds, mountpoint)
        _wait_for_all(archive, stations)
        for name, recorder in zip(names, recorders, strict=True):
            recorder.send_signal(signal.SIGTERM)
            if recorder.wait(_PATIENCE):
                stress.fault(f"the recorder of {name} ended with {recorder.returncode}")
        report = verify(archive)
        if not report.sound:
            stress.fault(f"verify in the end: {report}")
        return Living(
            seconds=seconds,
            groups=sum(len(station.sent) for station in stations),
            kept=sum(_kept(archive, station) for station in stations),
            verified=stress.verified,
            collected=stress.collected,
            trashed=stress.trashed,
            deleted=stress.deleted,
            read=stress.read,
            mounted=stress.mounted,
            faults=tuple(stress.faults),
        )


def _kept(archive: Archive, station: _Station) -> int:
    """Return how many groups are shown and, byte for byte, what was sent."""
    with contextlib.closing(archive.reader()) as reader:
        track = reader.track(station.name, _TRACK)
        rows = [] if track is None else list(reader.groups(track, 0, 1 << 62))
    return sum(
        row.digest == digest_of(station.sent.get(row.sequence, b""))
        and archive.objects.check(row.hash) is None
        for row in rows
        if row.complete
    )


def _wait_for_all(archive: Archive, stations: list[_Station]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if all(_kept(archive, station) == len(station.sent) for station in stations):
            return
        time.sleep(0.3)


def _clock(now: int) -> Callable[[], int]:
    return lambda: now


def _environment(archive: Archive) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("CASFS_")}
    return {
        **own,
        "CASFS_CAS_ROOT": archive.roots.cas,
        "CASFS_MANIFEST_ROOT": archive.roots.manifests,
    }


def _command(*arguments: str) -> list[str]:
    casfs = shutil.which("casfs", path=os.path.dirname(sys.executable)) or "casfs"
    return [casfs, *arguments]


def _casfs(archive: Archive, *arguments: str) -> None:
    """Run a command that must do what it is asked to."""
    done = subprocess.run(
        _command(*arguments), env=_environment(archive), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise subprocess.SubprocessError(f"casfs {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def _running(archive: Archive, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        _command(*arguments),
        env=_environment(archive),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _recorder(
    archive: Archive, relay: Relay, name: str
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    pin = ("--tls-fingerprint", relay.fingerprint)
    return _running(archive, "archive", "--url", relay.url, "--name", name, "--track", _TRACK, *pin)


@contextlib.contextmanager
def _mounted(archive: Archive, mountpoint: Path) -> Iterator[Path]:
    mountpoint.mkdir()
    with _running(archive, "mount", str(mountpoint)) as process:
        deadline = time.monotonic() + _PATIENCE
        while not os.path.ismount(mountpoint) and time.monotonic() < deadline:
            time.sleep(0.1)
        try:
            yield mountpoint
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
            if os.path.ismount(mountpoint):
                unmount(str(mountpoint))
