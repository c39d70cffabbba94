"""Where measured groups come from: the Rust implementation of MoQ, from PyPI's ``moq-rs``.

    python -m tools.benchmarks.source '{"groups": 200, "group_bytes": 1000000, "frames": 20}'

is relay and publisher in one process. It holds whole groups of one track, ready for whoever asks,
or leaves them open, or sends live. It says where it listens in a line of JSON, and ends with its
stdin.

Frames are the same random bytes throughout, but for a mark at the beginning of each: its group's
sequence, or, of a live group's last frame, when it was sent (nanoseconds UTC), eight bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from tools.loopback.process import START_TIMEOUT, LineProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import moq

BROADCAST = "bench/tv"
HELD_TRACK = "track0"
_MARK = 8
_SEED = 1
_MAX_AGE_US = 24 * 3600 * 1_000_000
_LIVE_AGE_US = 5_000_000
_CACHE_BYTES = 4 << 30


class Plan(Struct, frozen=True):
    """What a source offers."""

    group_bytes: int
    frames: int
    """In each group."""
    groups: int = 0
    """Of `HELD_TRACK`; all are there from the start."""
    leave_open: bool = False
    """The last byte of each group never comes."""
    live_tracks: int = 0
    """So many tracks get a group a second, evenly, a frame at a time."""
    cycle: int = 1 << 62
    """Live groups repeat after so many: an archive stores them once."""


class Listening(Struct, frozen=True):
    """What it says when it is ready."""

    url: str
    fingerprint: str


def frame_body(plan: Plan) -> bytes:
    """Return a frame, with no mark in it."""
    return random.Random(_SEED).randbytes(plan.group_bytes // plan.frames)


def marked(body: bytes, mark: int) -> bytes:
    """Return a frame with its mark."""
    return mark.to_bytes(_MARK) + body[_MARK:]


def mark_of(frame: bytes) -> int:
    """Return a frame's mark."""
    return int.from_bytes(frame[:_MARK])


@contextlib.contextmanager
def running_source(plan: Plan) -> Iterator[Listening]:
    """Run a source for the time of the context.

    Raises:
        LoopbackError: it did not start.
    """
    argument = msgspec.json.encode(plan).decode()
    with LineProcess("tools.benchmarks.source", [argument]) as process:
        yield msgspec.json.decode(process.receive(START_TIMEOUT), type=Listening)


async def _serve(plan: Plan, lines: AsyncIterator[bytes]) -> None:
    import moq

    from tools.loopback.service import say

    origin = moq.OriginProducer(cache_capacity_bytes=_CACHE_BYTES)
    broadcast = origin.create_broadcast(BROADCAST)
    body = frame_body(plan)
    age = _LIVE_AGE_US if plan.live_tracks else _MAX_AGE_US
    tracks = [
        broadcast.publish_track(f"track{number}", moq.TrackInfo(max_age_us=age))
        for number in range(plan.live_tracks or 1)
    ]
    kept = [_hold(tracks[0], plan, body, sequence) for sequence in range(plan.groups)]
    broadcast.announce()
    server = moq.Server(
        "127.0.0.1:0", tls_generate=["localhost"], publish=origin, subscribe=moq.OriginProducer()
    )
    tasks: set[asyncio.Task[None]] = set()
    async with server:
        say(Listening(f"https://{server.local_addr}", server.cert_fingerprints()[0]))
        tasks.add(asyncio.create_task(_accept(server)))
        tasks |= {
            asyncio.create_task(_send_live(track, plan, body)) for track in tracks if not kept
        }
        async for _ in lines:
            pass
        for task in tasks:
            task.cancel()


def _hold(track: moq.TrackProducer, plan: Plan, body: bytes, sequence: int) -> moq.GroupProducer:
    group = track.append_group()
    for number in range(plan.frames):
        group.write_frame(marked(body, sequence), (sequence * plan.frames + number) * 1000)
    if not plan.leave_open:
        group.finish()
    return group


async def _accept(server: moq.Server) -> None:
    sessions: set[asyncio.Task[None]] = set()
    async for request in server:
        sessions.add(asyncio.create_task(_stay(request)))


async def _stay(request: moq.Request) -> None:
    import moq

    with contextlib.suppress(moq.Error):
        session = await request.accept()
        await session.closed()


async def _send_live(track: moq.TrackProducer, plan: Plan, body: bytes) -> None:
    """Send a group a second, begun at a time of its own so that tracks do not march in step."""
    loop = asyncio.get_running_loop()
    due = loop.time() + random.random()
    for sequence in range(1 << 62):
        group = track.append_group()
        for number in range(plan.frames):
            due += 1 / plan.frames
            await asyncio.sleep(due - loop.time())
            last = number == plan.frames - 1
            repeated = sequence % plan.cycle if plan.cycle < 1 << 62 else time.time_ns()
            mark = repeated if last else sequence % plan.cycle
            group.write_frame(marked(body, mark), int(due * 1_000_000))
        group.finish()


def main() -> None:
    """Serve what the argument says until stdin closes."""
    from tools.loopback.service import run_service

    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    run_service(lambda lines: _serve(plan, lines))


if __name__ == "__main__":
    main()
