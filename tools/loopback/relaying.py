"""The inside of a relay process: ``moq-rs`` relays, this accepts."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import moq
import msgspec

from tools.loopback.relay import RelayReady
from tools.loopback.service import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class RelayArguments(msgspec.Struct, frozen=True):
    """How to relay. See `tools.loopback.relay.running_relay`."""

    host: str
    port: int
    reject: tuple[str, ...]
    certificate: str | None
    key: str | None
    cache_bytes: int | None


async def _answer(request: moq.Request, rejected: frozenset[str]) -> None:
    """Serve one client until it leaves."""
    with contextlib.suppress(moq.Error):
        if request.path in rejected:
            await request.reject(403)
            return
        session = await request.accept()
        await session.closed()


async def serve(arguments: RelayArguments, lines: AsyncIterator[bytes]) -> None:
    """Serve until stdin, of which ``lines`` come, closes."""
    accepting = asyncio.create_task(_accept(arguments))
    ending = asyncio.create_task(_exhaust(lines))
    done, _ = await asyncio.wait({accepting, ending}, return_when=asyncio.FIRST_COMPLETED)
    for task in (accepting, ending):
        task.cancel()
    for task in done:
        task.result()


async def _exhaust(lines: AsyncIterator[bytes]) -> None:
    async for _ in lines:
        pass


async def _accept(arguments: RelayArguments) -> None:
    origin = moq.OriginProducer(cache_capacity_bytes=arguments.cache_bytes)
    rejected = frozenset(arguments.reject)
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    server = moq.Server(
        f"{host}:{arguments.port}",
        tls_generate=["localhost", arguments.host] if arguments.certificate is None else [],
        tls_cert=[] if arguments.certificate is None else [arguments.certificate],
        tls_key=[] if arguments.key is None else [arguments.key],
        publish=origin,
        subscribe=origin,
    )
    sessions: set[asyncio.Task[None]] = set()
    async with server:
        fingerprint = server.cert_fingerprints()[0]
        say(RelayReady(f"https://{server.local_addr}", fingerprint, os.getpid()))
        async for request in server:
            task = asyncio.create_task(_answer(request, rejected))
            sessions.add(task)
            task.add_done_callback(sessions.discard)
