"""The inside of a process that `tools.loopback.process` runs: its lines, its signals, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

_LONGEST_LINE = 1 << 30


def say(message: msgspec.Struct) -> None:
    """Write ``message`` as a JSON line on stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def run_service(serve: Callable[[AsyncIterator[bytes]], Coroutine[None, None, None]]) -> None:
    """Run ``serve`` with the lines of stdin until it returns, or SIGTERM or SIGINT comes."""
    asyncio.run(_run(serve))


async def _run(serve: Callable[[AsyncIterator[bytes]], Coroutine[None, None, None]]) -> None:
    task = asyncio.current_task()
    assert task is not None
    ending = False

    def end() -> None:
        nonlocal ending
        ending = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        await serve(_stdin_lines())
    except asyncio.CancelledError:
        if not ending:
            raise


async def _stdin_lines() -> AsyncIterator[bytes]:
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(sys.stdin.fileno())):
        await asyncio.Event().wait()  # a file or /dev/null: nobody is there who could close it
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line
