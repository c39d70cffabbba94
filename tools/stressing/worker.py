"""One process of a stress: it writes, reads or rebuilds until its time is over.

It runs as ``python -m tools.stressing.worker ROLE CAS MANIFESTS SECONDS [NAME]`` and prints what it
saw as one line of JSON.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.archive import Archive, Group
from casfs.errors import CasfsError
from casfs.follower import Follower
from casfs.index.index import IndexFault
from casfs.index.mirror import rebuild
from casfs.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = 4
_PACE_SECONDS = 0.05
_STEP_SECONDS = 0.3


class Seen(Struct, frozen=True):
    """What a worker saw."""

    role: str
    name: str
    done: int
    """Groups kept, requests answered, indexes built or deleted."""
    latencies: list[float] = []
    """Of each commit, seconds."""
    complaints: list[str] = []
    """Whatever it was told that should not be, without repetition."""


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.told[record.getMessage()] = None


def make_group(sequence: int) -> Group:
    """Return a small group, received now."""
    now = time.time_ns()
    data = f"group {sequence} ".encode() * 30
    return Group(
        track=("video0.m4s", "audio0.m4s")[sequence % 2],
        epoch=1,
        sequence=sequence,
        frames=(data,),
        received_start=now,
        received_end=now,
    )


def write(archive: Archive, name: str, until: float, *, indexed: bool) -> Seen:
    """Commit a batch twenty times a second, as a recorder does, with the index behind."""
    latencies: list[float] = []
    over = threading.Event()
    follower = Follower(archive)
    with archive.writer(name) as writer, contextlib.closing(follower):

        def follow() -> None:
            while not over.wait(_STEP_SECONDS):
                follower.step(writer.places)

        thread = threading.Thread(target=follow)
        if indexed:
            thread.start()
        try:
            while time.monotonic() < until:
                numbers = range(len(latencies) * _BATCH, (len(latencies) + 1) * _BATCH)
                begun = time.monotonic()
                writer.commit([make_group(number) for number in numbers])
                latencies.append(time.monotonic() - begun)
                time.sleep(_PACE_SECONDS)
        finally:
            over.set()
            if indexed:
                thread.join()
    return Seen("write", name, len(latencies) * _BATCH, latencies)


def read(archive: Archive, name: str, until: float) -> Seen:
    """List everything, again and again."""
    done = 0
    with contextlib.closing(archive.reader()) as reader:
        while time.monotonic() < until:
            for broadcast in reader.broadcasts():
                for track in reader.tracks(broadcast):
                    reader.newest(track)
                    done += sum(1 for _ in reader.groups(track, 0, 1 << 62)) > 0
    return Seen("read", name, done)


def again_and_again(role: str, seconds: float, until: float, work: Callable[[], object]) -> Seen:
    """Do ``work`` every so many seconds."""
    done, complaints = 0, dict[str, None]()
    while time.monotonic() + seconds < until:
        time.sleep(seconds)
        try:
            work()
            done += 1
        except (CasfsError, IndexFault) as error:
            complaints[str(error)] = None
    return Seen(role, "", done, complaints=list(complaints))


def delete_index(archive: Archive) -> None:
    """Delete the index, as an operator may."""
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(archive.index_path + ending)


def main(role: str, cas: str, manifests: str, seconds: str, name: str = "") -> int:
    """Play one role."""
    complaints = _Complaints()
    logging.getLogger().addHandler(complaints)
    archive = Archive(Roots.of(cas, manifests))
    until = time.monotonic() + float(seconds)
    match role:
        case "write":
            seen = write(archive, name, until, indexed=True)
        case "write-alone":
            seen = write(archive, name, until, indexed=False)
        case "read":
            seen = read(archive, name, until)
        case "rebuild":
            seen = again_and_again(role, 0.5, until, lambda: rebuild(
                archive.index_path, manifests, archive.store_id))  # fmt: skip
        case _:
            seen = again_and_again(role, 2, until, lambda: delete_index(archive))
    told = [*seen.complaints, *complaints.told]
    seen = msgspec.structs.replace(seen, complaints=told)
    sys.stdout.write(msgspec.json.encode(seen).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
