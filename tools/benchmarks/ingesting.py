"""How fast groups come in: beside the Rust implementation, real time, and a link without loss.

The source is the Rust implementation, in a process of its own that is not measured. Where a figure
is a rate of receiving or recording, it is in megabytes for each second of CPU time, user and system
mode, of the client alone; what is lossy is in seconds of the clock.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from tools.benchmarks import receiving, recording
from tools.benchmarks.material import new_archive
from tools.benchmarks.measuring import Contender, Measurement, run_task, take_turns
from tools.benchmarks.recording import LiveReport, SoakReport
from tools.benchmarks.reporting import Row
from tools.benchmarks.source import Plan, running_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tools.benchmarks.bench import Bench

_MEGABYTE = 1_000_000
_LARGE = Plan(group_bytes=_MEGABYTE, frames=20)
_SMALL = Plan(group_bytes=10_000, frames=1)
_MOQ_RS = "moq-rs"
_AIMS = {"large": {"aioquic": 0.22, "qh3": 1.8}, "small": {"aioquic": 1.1, "qh3": 3.0}}
_LIVE_TRACKS = 20
_LIVE = Plan(group_bytes=2_500_000, frames=25, live_tracks=_LIVE_TRACKS)
_LIVE_SECONDS = 60.0
_LOSSES = (0.001, 0.01, 0.05)
_OPEN_GROUPS = 64
_MOST_MEMORY = 200_000_000
_SOAK_TRACKS = 8
_SOAK = Plan(group_bytes=1_000_000, frames=25, live_tracks=_SOAK_TRACKS, cycle=16)
_SOAK_SECONDS = 1800.0


def receiving_against_moq_rs(bench: Bench) -> Iterator[Row]:
    """Compare receiving alone with the Python binding of the Rust implementation."""
    for name, groups, count, what in (
        ("large", _LARGE, bench.scaled(300), "receive 1 MB groups"),
        ("small", _SMALL, bench.scaled(10_000), "receive 10 kB groups"),
    ):
        plan = msgspec.structs.replace(groups, groups=count)
        with running_source(plan) as at:
            arguments = (at.url, at.fingerprint, count, plan.group_bytes)
            runs = take_turns(
                [
                    Contender(_MOQ_RS, _task(receiving.receive_by_moq_rs, *arguments)),
                    *(
                        Contender(backend, _task(receiving.receive, *arguments, backend))
                        for backend in _backends()
                    ),
                ],
                bench.rounds(5),
            )
        for backend, aim in _AIMS[name].items():
            yield Row(
                what=f"{what}, {backend}",
                subject=backend,
                against=_MOQ_RS,
                aim=aim,
                subject_runs=runs.get(backend, ()),
                against_runs=runs[_MOQ_RS] if backend in runs else (),
                megabytes=count * plan.group_bytes / _MEGABYTE,
                skipped=_absence(backend),
            )


def recording_against_receiving(bench: Bench) -> Iterator[Row]:
    """Compare a recorder, to the durable and indexed group, with receiving alone, and with less.

    The second row is the limit: it hashes, writes and syncs what it receives by bare calls.
    """
    count = bench.scaled(300)
    backend = _backends()[0]
    alone, stored = f"receive only, {backend}", "receive, hash, write, fsync by bare calls"
    with running_source(msgspec.structs.replace(_LARGE, groups=count)) as at:
        received = (at.url, at.fingerprint, count, _LARGE.group_bytes, backend)
        directory = bench.directory / "recorded"
        contenders = {
            "recorder": lambda: _recorded(
                directory, recording.record, at.url, at.fingerprint, count, backend
            ),
            alone: _task(receiving.receive, *received),
            stored: lambda: _recorded(directory, receiving.receive_and_store, *received),
        }
        runs = take_turns([Contender(*one) for one in contenders.items()], bench.rounds(5))
    for against, aim in ((alone, 0.7), (stored, None)):
        yield Row(
            what=f"record 1 MB groups, {backend}",
            subject="recorder",
            against=against,
            aim=aim,
            subject_runs=runs["recorder"],
            against_runs=runs[against],
            megabytes=count * _LARGE.group_bytes / _MEGABYTE,
        )


def live_against_real_time(bench: Bench) -> Iterator[Row]:
    """Record many tracks live; the other side is one core for as long."""
    seconds = bench.seconds(_LIVE_SECONDS)
    report = bench.directory / "live.json"
    for backend in _backends():
        with running_source(_LIVE) as at:
            used = _recorded(
                *(bench.directory / "recorded", recording.record_live),
                *(at.url, at.fingerprint, _LIVE_TRACKS, seconds, backend, str(report)),
            )
        found = msgspec.json.decode(report.read_bytes(), type=LiveReport)
        yield Row(
            what=f"{_LIVE_TRACKS} live tracks of 20 Mbit/s, {backend}: {found.groups} groups, "
            f"{found.late} late, {found.lost} lost, {used.seconds / seconds:.0%} of a core",
            subject="recorder",
            against="one core for that long",
            aim=1.0,
            failed=bool(found.late or found.lost),
            subject_runs=(used,),
            against_runs=(Measurement(seconds, 0),),
        )


def loss_against_none(bench: Bench) -> Iterator[Row]:
    """Compare lossy links with one that loses nothing; every group must come, byte for byte."""
    count = bench.scaled(40)
    megabytes = count * _LARGE.group_bytes / _MEGABYTE
    with running_source(msgspec.structs.replace(_LARGE, groups=count)) as at:
        for backend in _backends():
            arguments = (at.url, at.fingerprint, count, _LARGE.group_bytes, _LARGE.frames, backend)
            names = {loss: f"{loss:.1%} lost" for loss in (0.0, *_LOSSES)}
            runs = take_turns(
                [
                    Contender(name, _task(receiving.receive_with_loss, *arguments, loss))
                    for loss, name in names.items()
                ],
                bench.rounds(3),
            )
            for loss in _LOSSES:
                yield Row(
                    what=f"1 MB groups, {names[loss]}, all complete, {backend}",
                    subject=names[loss],
                    against="nothing lost",
                    subject_runs=runs[names[loss]],
                    against_runs=runs[names[0.0]],
                    megabytes=megabytes,
                )


def open_groups_against_a_bound(bench: Bench) -> Iterator[Row]:
    """Hold many groups open in a recorder, and compare its memory with what it may need."""
    plan = msgspec.structs.replace(_LARGE, groups=_OPEN_GROUPS, leave_open=True)
    with running_source(plan) as at:
        held = _recorded(
            *(bench.directory / "recorded", recording.hold_open),
            *(at.url, at.fingerprint, _OPEN_GROUPS * plan.group_bytes),
        )
    yield Row(
        what=f"recorder with {_OPEN_GROUPS} groups of 1 MB open: peak memory",
        subject="recorder",
        against="the bound",
        aim=1.0,
        subject_runs=(held,),
        against_runs=(Measurement(0.0, _MOST_MEMORY),),
        quantity="peak_bytes",
    )


def memory_late_against_early(bench: Bench) -> Iterator[Row]:
    """Record for long, and compare the memory at the end with that near the beginning."""
    seconds = bench.seconds(_SOAK_SECONDS)
    report = bench.directory / "soak.json"
    with running_source(_SOAK) as at:
        used = _recorded(
            *(bench.directory / "recorded", recording.soak),
            *(at.url, at.fingerprint, _SOAK_TRACKS, seconds, str(report)),
        )
    found = msgspec.json.decode(report.read_bytes(), type=SoakReport)
    yield Row(
        what=f"{_SOAK_TRACKS} live tracks of 8 Mbit/s for {seconds:g} s, {found.groups} groups: "
        "memory in the last quarter",
        subject="recorder",
        against="in the second quarter",
        aim=0.9,
        subject_runs=(Measurement(used.seconds, found.late_bytes),),
        against_runs=(Measurement(used.seconds, found.early_bytes),),
        quantity="peak_bytes",
    )


def _backends() -> list[str]:
    return ["aioquic"] if _absence("qh3") else ["qh3", "aioquic"]


def _absence(backend: str) -> str:
    return f"{backend} is not installed" if find_spec(backend) is None else ""


def _task(task: Callable[..., float], *arguments: str | float) -> Callable[[], Measurement]:
    return lambda: run_task(task, *arguments)


def _recorded(directory: Path, task: Callable[..., float], *arguments: str | float) -> Measurement:
    """Run a recorder on an archive of its own, which is gone afterwards."""
    new_archive(directory)
    os.sync()
    try:
        return run_task(task, str(directory), *arguments)
    finally:
        shutil.rmtree(directory)
