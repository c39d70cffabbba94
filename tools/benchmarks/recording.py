"""Whole recorders, each for a process of its own: what comes becomes durable and indexed."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import msgspec
import trio
from msgspec import Struct

from casfs.archive import Archive
from casfs.follower import Follower
from casfs.manifests.chain import JournalReader
from casfs.manifests.record import GroupRecord, Line
from casfs.manifests.runs import kept_groups
from casfs.names import encode_name
from casfs.objects.local import object_path
from casfs.timestamps import NANOSECONDS, parse_time
from ingest.backends.choice import available_backends
from ingest.recorder import Recorder, RecordOptions
from ingest.session import Session, SessionOptions, open_session
from ingest.state import RecorderState
from ingest.tls import TlsOptions
from tools.benchmarks.material import roots_below
from tools.benchmarks.receiving import cpu_seconds, load_backend
from tools.benchmarks.source import BROADCAST, HELD_TRACK, mark_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from ingest.backends.choice import BackendChoice

_PATIENCE = 300.0
_LATE_NS = NANOSECONDS
_POLL = 0.02


class LiveReport(Struct, frozen=True):
    """What became of groups that were sent live."""

    groups: int
    late: int
    """Received over a second after they were sent, and the recorder had begun."""
    lost: int
    """Sequences that are missing between the first and the last, or incomplete."""


class SoakReport(Struct, frozen=True):
    """How much memory a recorder held at a time, bytes."""

    groups: int
    early_bytes: int
    """The most in its second quarter."""
    late_bytes: int
    """The most in its last."""


class Recording:
    """A recorder that runs."""

    def __init__(self, recorder: Recorder, state: RecorderState) -> None:
        self.recorder = recorder
        self.state = state
        self.session: Session | None = None

    def held_open(self) -> int:
        """Return the payload bytes of the groups that are arriving."""
        return 0 if self.session is None else self.session.statistics().buffered_bytes


def record(directory: str, url: str, fingerprint: str, groups: int, backend: str) -> float:
    """Record so many groups and return the CPU seconds until they are durable and indexed."""

    async def until_kept(recording: Recording) -> None:
        with trio.fail_after(_PATIENCE):
            while recording.state.groups < groups:  # noqa: ASYNC110 - the state is no event
                await trio.sleep(_POLL)

    return _record(directory, url, fingerprint, [HELD_TRACK], until_kept, backend)


def hold_open(directory: str, url: str, fingerprint: str, size: int) -> float:
    """Record until the groups that are open hold ``size`` bytes, then stop and keep them so."""

    async def until_held(recording: Recording) -> None:
        with trio.fail_after(_PATIENCE):
            while recording.held_open() < size:  # noqa: ASYNC110 - as above
                await trio.sleep(_POLL)

    return _record(directory, url, fingerprint, [HELD_TRACK], until_held)


def record_live(
    directory: str,
    url: str,
    fingerprint: str,
    tracks: int,
    seconds: float,
    backend: str,
    report: str,
) -> float:
    """Record live tracks for a while, write a `LiveReport`, and return the CPU seconds."""
    names = [f"track{number}" for number in range(tracks)]

    async def wait(_recording: Recording) -> None:
        await trio.sleep(seconds)

    begun = time.time_ns()
    used = _record(directory, url, fingerprint, names, wait, backend)
    found = [_judged(directory, name, begun) for name in names]
    total = LiveReport(
        groups=sum(one.groups for one in found),
        late=sum(one.late for one in found),
        lost=sum(one.lost for one in found),
    )
    with open(report, "wb") as file:
        file.write(msgspec.json.encode(total))
    return used


def soak(
    directory: str, url: str, fingerprint: str, tracks: int, seconds: float, report: str
) -> float:
    """Record live tracks for a while, write a `SoakReport`, and return the CPU seconds."""
    names = [f"track{number}" for number in range(tracks)]
    samples: list[int] = []
    groups = 0

    async def sample(recording: Recording) -> None:
        nonlocal groups
        step = seconds / max(8, min(400, int(seconds)))
        deadline = trio.current_time() + seconds
        while trio.current_time() < deadline:
            await trio.sleep(step)
            samples.append(_resident_bytes())
        groups = recording.state.groups

    used = _record(directory, url, fingerprint, names, sample)
    quarter = len(samples) // 4
    found = SoakReport(
        groups=groups,
        early_bytes=max(samples[quarter : 2 * quarter]),
        late_bytes=max(samples[-quarter:]),
    )
    with open(report, "wb") as file:
        file.write(msgspec.json.encode(found))
    return used


def _record(
    directory: str,
    url: str,
    fingerprint: str,
    tracks: Sequence[str],
    until: Callable[[Recording], Awaitable[None]],
    backend: str = "auto",
) -> float:
    """Run a recorder, as the foreground does, and stop it when ``until`` returns.

    Returns the CPU seconds from the connection on to the last group in the index.
    """
    archive = Archive(roots_below(directory))
    options = RecordOptions(
        url=url,
        broadcast=BROADCAST,
        tracks=tuple(tracks),
        tls=TlsOptions(fingerprint=fingerprint),
        session=SessionOptions(quic=cast("BackendChoice", backend)),
    )
    state = RecorderState(broadcast=BROADCAST, relay=url)
    load_backend(available_backends()[0] if backend == "auto" else backend)
    with contextlib.closing(Follower(archive)) as mirror:
        mirror.step(None)
        with archive.writer(BROADCAST, relay=url) as writer:
            writer.on_commit = mirror.note
            begun = cpu_seconds()

            @asynccontextmanager
            async def connect(
                url: str, *, tls: TlsOptions, options: SessionOptions
            ) -> AsyncIterator[Session]:
                async with open_session(url, tls=tls, options=options) as session:
                    recording.session = session
                    yield session

            recording = Recording(Recorder(options, writer, mirror, state, connect=connect), state)
            trio.run(_run, recording, until)
            places = writer.places
        mirror.step(places)
        assert not mirror.trouble, mirror.trouble
        return cpu_seconds() - begun


async def _run(recording: Recording, until: Callable[[Recording], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.recorder.run)
        await until(recording)
        recording.recorder.stop()


def _judged(directory: str, track: str, begun: int) -> LiveReport:
    """Look at what was recorded of a track, by a recorder that began at that time."""
    records = list(_records(directory, track))
    sequences = sorted({int(record.sequence) for record in records if record.complete})
    missing = sequences[-1] - sequences[0] + 1 - len(sequences) if sequences else 1
    late = sum(_age_at_arrival(directory, record, begun) > _LATE_NS for record in records)
    return LiveReport(groups=len(sequences), late=late, lost=missing)


def _records(directory: str, track: str) -> Iterator[GroupRecord]:
    roots = roots_below(directory)
    journal = os.path.join(roots.manifests, encode_name(BROADCAST), encode_name(track))
    for item in JournalReader(journal):
        if isinstance(item, Line):
            yield from (kept.record for kept in kept_groups(item.record))


def _age_at_arrival(directory: str, record: GroupRecord, begun: int) -> int:
    """Return how long after its sending a group had been received, nanoseconds.

    One that was sent before we were there counts from the time at which we were.
    """
    if not record.complete:
        return 0
    path = os.path.join(roots_below(directory).cas, object_path(record.hash))
    with open(path, "rb") as file:
        file.seek(record.offset + record.size - record.frame_sizes[-1])
        return parse_time(record.received_end) - max(begun, mark_of(file.read(8)))


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
