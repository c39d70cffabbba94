"""What supervising costs: polling a long list, deciding, an idle recorder, a recorder's start."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import Struct

from ingest.directory import ListingLimits
from ingest.fetching import Fetcher, FetchOptions
from ingest.supervision import Policy, Supervision
from tools.loopback.directory import running_directory
from tools.loopback.publisher import running_publisher
from tools.loopback.relay import running_relay
from tools.supervision.installed import CASFS, Installed
from tools.supervision.processes import children, cpu_seconds, footprint

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = 10_000
_ROUNDS = 20
_IDLE_SECONDS = 20.0
_PATIENCE = 60.0


class Numbers(Struct):
    """What was measured."""

    poll_new_ms: float = 0.0
    """Processor time to fetch, read and take a list of 10,000 broadcasts that has changed."""
    poll_same_ms: float = 0.0
    """The same if it has not changed and the server says so."""
    decide_ms: float = 0.0
    """Processor time of one decision over 10,000 broadcasts that wait."""
    start_seconds: float = 0.0
    """From the start of a recorder's process to its first acknowledged group."""
    start_cpu_seconds: float = 0.0
    """Processor time of that, imports and all."""
    idle_own_megabytes: float = 0.0
    """Memory of a recorder of which nothing is on air and of the process that keeps its index:
    their own, and their share of what others map too (PSS)."""
    idle_resident_megabytes: float = 0.0
    """The same with all shared pages, counted in each (RSS)."""
    idle_cpu_percent: float = 0.0
    """Of one core."""


def measure(path: Path) -> Numbers:
    """Measure everything below ``path``."""
    numbers = Numbers()
    trio.run(_measure_polling, numbers)
    _measure_recorder(Installed(path), numbers)
    return numbers


async def _measure_polling(numbers: Numbers) -> None:
    with running_directory() as directory:
        supervision = Supervision(Policy(max_workers=1))
        fetcher = Fetcher(directory.url, FetchOptions(limits=ListingLimits()))
        spent = same = decided = 0.0
        for number in range(_ROUNDS):
            # The server's own work is not ours: it has its answer ready.
            body = _body(number)
            directory.body = lambda body=body: body  # type: ignore[method-assign, misc]
            before = time.process_time()
            listing = await fetcher.fetch()
            supervision.take_listing("directory", listing.listed, 30.0 * number)
            spent += time.process_time() - before
            before = time.process_time()
            listing = await fetcher.fetch()
            supervision.take_listing("directory", listing.listed, 30.0 * number)
            same += time.process_time() - before
            before = time.process_time()
            supervision.decide(30.0 * number)
            decided += time.process_time() - before
        fetcher.close()
    numbers.poll_new_ms = round(1000 * spent / _ROUNDS, 2)
    numbers.poll_same_ms = round(1000 * same / _ROUNDS, 2)
    numbers.decide_ms = round(1000 * decided / _ROUNDS, 2)


def _body(number: int) -> bytes:
    entries = [
        {
            "relay_url": "https://relay.example/anon",
            "broadcast_name": f"demo/tv-{index}",
            "track_name": "video0.m4s",
            "viewers": number,
        }
        for index in range(number, ENTRIES + number)
    ]
    return json.dumps({"streams": entries}).encode()


def _measure_recorder(installed: Installed, numbers: Numbers) -> None:
    with contextlib.ExitStack() as held:
        relay = held.enter_context(running_relay())
        publisher = held.enter_context(running_publisher(relay.url, relay.fingerprint))
        publisher.create_broadcast("demo")
        publisher.create_track("demo", "video0.m4s")
        publisher.announce("demo")
        publisher.append_group("demo", "video0.m4s", [b"first"])
        command = [
            *(CASFS, "archive", "--url", relay.url, "--tls-fingerprint", relay.fingerprint),
            *("--cas-root", installed.roots.cas, "--manifest-root", installed.roots.manifests),
            *("--log-format=json", "--stop-with-stdin", "--name"),
        ]
        began = time.monotonic()
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen([*command, "demo"], stdin=pipe, stdout=quiet, stderr=quiet) as worker:
            while not installed.kept("demo", "video0.m4s"):
                if time.monotonic() - began > _PATIENCE:
                    raise TimeoutError("the recorder brought nothing")
                time.sleep(0.01)
            numbers.start_seconds = round(time.monotonic() - began, 3)
            numbers.start_cpu_seconds = round(cpu_seconds(worker.pid), 3)
        with subprocess.Popen([*command, "none"], stdin=pipe, stdout=quiet, stderr=quiet) as worker:
            time.sleep(_IDLE_SECONDS / 2)
            before = cpu_seconds(worker.pid)
            time.sleep(_IDLE_SECONDS)
            used = cpu_seconds(worker.pid) - before
            numbers.idle_cpu_percent = round(100 * used / _IDLE_SECONDS, 2)
            prints = [footprint(pid) for pid in (worker.pid, *children(worker.pid))]
            there = [one for one in prints if one is not None]
            numbers.idle_own_megabytes = sum(one.proportional for one in there) / 1e6
            numbers.idle_resident_megabytes = sum(one.resident for one in there) / 1e6


def as_text(numbers: Numbers) -> str:
    """Return the numbers, one a line."""
    return "\n".join(
        f"{name:24} {value:10.2f}" for name, value in msgspec.structs.asdict(numbers).items()
    )
