"""The inside of a relay process: ``moq-rs`` relays, this accepts."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

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
    tokens: str | None


_TOKEN_LOOK = 0.1
"""How often we look, in seconds, whether a token still holds."""


async def _answer(request: moq.Request, rejected: frozenset[str], tokens: str | None) -> None:
    """Serve one client until it leaves, or its token is good no more."""
    with contextlib.suppress(moq.Error):
        query = request.query
        if request.path in rejected or not _opens(query, tokens):
            await request.reject(403)
            return
        session = await request.accept()
        closed = asyncio.ensure_future(session.closed())
        while tokens is not None and _opens(query, tokens) and not closed.done():
            await asyncio.wait({closed}, timeout=_TOKEN_LOOK)
        if tokens is not None and not closed.done():
            session.cancel(2)
        await closed


def _opens(query: str | None, tokens: str | None) -> bool:
    """Say whether the query holds one of the tokens in the file."""
    if tokens is None:
        return True
    given = dict(parse_qsl(query or "")).get("jwt")
    with open(tokens, encoding="utf-8") as file:
        return given in file.read().split()


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
            task = asyncio.create_task(_answer(request, rejected, arguments.tokens))
            sessions.add(task)
            task.add_done_callback(sessions.discard)
