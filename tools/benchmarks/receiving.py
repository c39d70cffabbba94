"""The clients that make no archive, each for a process of its own: they return what they took."""

from __future__ import annotations

import asyncio
import importlib
import os
import queue
import random
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import trio
from blake3 import blake3

from ingest.backends.interface import Datagrams
from ingest.foreground import spare_the_collector
from ingest.moq.events import GroupReceived
from ingest.session import SessionOptions, open_session
from ingest.tls import TlsOptions
from ingest.udp import UdpEndpoint
from tools.benchmarks.source import BROADCAST, HELD_TRACK, Plan, frame_body, marked
from tools.supervision import processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.backends.choice import BackendChoice
    from ingest.quic import DatagramEndpoint
    from ingest.udp import Address

_PATIENCE = 300.0
_HOUR_MS = 3_600_000
_BARE_THREADS = 2


def cpu_seconds() -> float:
    """Return what this process and its children have used so far, in user and system mode."""
    ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    used = sum(usage.ru_utime + usage.ru_stime for usage in ended)
    return used + sum(map(processes.cpu_seconds, processes.children(os.getpid())))


def receive(url: str, fingerprint: str, groups: int, size: int, backend: str) -> float:
    """Receive whole groups by casfs, and return the CPU seconds."""

    async def measured() -> float:
        load_backend(backend)
        begun = cpu_seconds()

        def check(group: GroupReceived) -> None:
            assert sum(map(len, group.frames)) == size

        await _receive(url, fingerprint, groups, backend, UdpEndpoint, check)
        return cpu_seconds() - begun

    return trio.run(measured)


def load_backend(backend: str) -> None:
    """Make this process ready to receive: what it imports counts on neither side."""
    importlib.import_module(f"ingest.backends.{backend}_backend")
    spare_the_collector()


def receive_and_store(
    directory: str, url: str, fingerprint: str, groups: int, size: int, backend: str
) -> float:
    """Receive whole groups, and hash, write and sync each by bare calls; return the CPU seconds.

    As little as can be done to keep a group in a file of its own: no names, manifest or index.
    """
    received: queue.SimpleQueue[GroupReceived | None] = queue.SimpleQueue()

    def store() -> None:
        while (group := received.get()) is not None:
            payload = b"".join(group.frames)
            assert len(payload) == size
            blake3(payload).digest()
            path = os.path.join(directory, str(group.sequence))
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
            os.write(descriptor, payload)
            os.fsync(descriptor)
            os.close(descriptor)

    async def measured() -> float:
        load_backend(backend)
        begun = cpu_seconds()
        with ThreadPoolExecutor(_BARE_THREADS) as threads:
            storing = [threads.submit(store) for _ in range(_BARE_THREADS)]
            await _receive(url, fingerprint, groups, backend, UdpEndpoint, received.put)
            for _ in storing:
                received.put(None)
        for one in storing:
            one.result()
        return cpu_seconds() - begun

    return trio.run(measured)


def receive_with_loss(
    url: str, fingerprint: str, groups: int, size: int, frames: int, backend: str, loss: float
) -> float:
    """Do so over a link that loses such a share of datagrams; return the seconds that it takes.

    Every byte is compared with what was sent.
    """
    body = frame_body(Plan(group_bytes=size, frames=frames))

    def check(group: GroupReceived) -> None:
        assert group.frames == (marked(body, group.sequence),) * frames

    async def measured() -> float:
        begun = time.perf_counter()
        await _receive(
            *(url, fingerprint, groups, backend), lambda address: _Lossy(address, loss), check
        )
        return time.perf_counter() - begun

    return trio.run(measured)


class _Lossy(UdpEndpoint):
    """A socket that loses datagrams by a seeded chance, in both directions."""

    def __init__(self, address: Address, loss: float) -> None:
        super().__init__(address)
        self._loss = loss
        self._chance = random.Random(4)

    def receive(self, limit: int) -> list[Datagrams]:
        return [
            Datagrams(datagram, len(datagram))
            for datagrams in super().receive(limit)
            for datagram in datagrams.split()
            if self._chance.random() >= self._loss
        ]

    def send(self, datagram: bytes) -> None:
        if self._chance.random() >= self._loss:
            super().send(datagram)


async def _receive(
    url: str,
    fingerprint: str,
    groups: int,
    backend: str,
    connect: Callable[[Address], DatagramEndpoint],
    check: Callable[[GroupReceived], None],
) -> None:
    seen: set[int] = set()
    with trio.fail_after(_PATIENCE):
        async with open_session(
            url,
            tls=TlsOptions(fingerprint=fingerprint),
            options=SessionOptions(quic=cast("BackendChoice", backend)),
            connect=connect,
        ) as session:
            session.subscribe(BROADCAST, HELD_TRACK, priority=50, max_latency=_HOUR_MS)
            while len(seen) < groups:
                for event in await session.next_events():
                    if isinstance(event, GroupReceived):
                        assert event.complete, event.reason
                        check(event)
                        seen.add(event.sequence)


def receive_by_moq_rs(url: str, fingerprint: str, groups: int, size: int) -> float:
    """Receive by the binding of the Rust implementation, and return the CPU seconds."""
    return asyncio.run(_receive_by_moq_rs(url, fingerprint, groups, size))


async def _receive_by_moq_rs(url: str, fingerprint: str, groups: int, size: int) -> float:
    import moq

    begun = cpu_seconds()
    client = moq.Client(
        url, tls_fingerprints=[fingerprint], websocket_enabled=False, bind="127.0.0.1:0"
    )
    async with asyncio.timeout(_PATIENCE), client:
        broadcast = await client.announced_broadcast(BROADCAST)
        wanted = moq.Subscription(priority=50, max_age_us=_HOUR_MS * 1000)
        track = await broadcast.subscribe_track(HELD_TRACK, wanted)
        for _ in range(groups):
            group = await track.recv_group()
            assert group is not None
            got = 0
            async for frame in group:
                got += len(frame.payload)
            assert got == size
        return cpu_seconds() - begun
