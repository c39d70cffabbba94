"""Between the network and the disk: deliveries queue here, a worker thread keeps them.

Whatever has queued while one batch was being made durable goes into the next, so syncs are shared
more the busier it is; while groups come without a pause, batches begin some tens of milliseconds
apart, for the sake of that. Small groups of a fast track wait in the queue for others of their
track, to be committed together (`ingest.coalescing`). The queue is bounded in bytes: a slow disk
makes the recorder, and through it the relay, wait. A failing disk is tried again and again with the
same batch; nothing that has come is let go.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from casfs.errors import StorageError
from casfs.groups import MOST_BYTES
from ingest.backoff import Backoff
from ingest.coalescing import MOST_SECONDS, Pace, Queued, waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.archive import BroadcastWriter
    from casfs.follower import Follower
    from casfs.index.mirror import Mirror
    from ingest.keeper import Delivery, Keeper
    from ingest.state import RecorderState

_LOG = logging.getLogger(__name__)
_BATCH_GROUPS = 64
_BATCH_BYTES = 32 << 20
_BATCH_MOST = 1 << 14
_GATHERED = 0.08
"""Seconds from the beginning of one batch to that of the next, unless that is full before."""
_MIRROR_SECONDS = 0.3
_TROUBLE_SECONDS = 5.0


class CommitQueue:
    """Keeps deliveries in the order in which they come. `run` does the work, in one task."""

    def __init__(
        self,
        keeper: Keeper,
        writer: BroadcastWriter,
        mirror: Mirror | Follower,
        state: RecorderState,
        *,
        most_bytes: int = 128 << 20,
        coalesce: bool = False,
    ) -> None:
        self._keeper = keeper
        self._writer = writer
        self._mirror = mirror
        self._state = state
        self._most_bytes = most_bytes
        self._queue: deque[Queued | Callable[[], object]] = deque()
        self._pace = Pace() if coalesce else None
        self._small_bytes: dict[str, int] = {}
        """Of the small groups that came since the last step, by track."""
        self._bytes = 0
        self._next = -math.inf
        """When the next batch may begin although it is not full."""
        self._changed = trio.Event()
        self._committed = trio.Event()
        self._closed = False

    async def room(self) -> None:
        """Wait until the queue has room: while the disk is behind, the relay waits here."""
        while self._bytes >= self._most_bytes:
            await self._changed.wait()

    def put(self, delivery: Delivery) -> None:
        """Queue a delivery. Call `room` first, but for the few that are left at the end."""
        now = trio.current_time()
        if self._pace is not None and self._pace.may_wait(delivery, now):
            delivery = replace(delivery, small=True)
        item = Queued(delivery, now)
        self._queue.append(item)
        self._bytes += item.size
        self._state.pending_groups += 1
        if self._must_act(item):
            self._signal()

    def _must_act(self, item: Queued) -> bool:
        """Say whether an item changes what is to be done; most small ones only wait with others."""
        if not item.delivery.small or self._bytes >= self._most_bytes:
            return True
        track = item.delivery.track
        before = self._small_bytes.get(track)
        self._small_bytes[track] = (before or 0) + item.size
        return before is None or self._small_bytes[track] >= MOST_BYTES

    def call(self, note: Callable[[], object]) -> None:
        """Have ``note`` called in the worker thread after everything that is queued already."""
        self._queue.append(note)
        self._signal()

    def close(self) -> None:
        """Let `run` return once everything that is queued is kept."""
        self._closed = True
        self._signal()

    async def run(self) -> None:
        """Keep everything that comes until `close`.

        While recording, a failing disk is waited for; once closed, StorageError is raised.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_with_index)
            await self._keep_all()
            nursery.cancel_scope.cancel()

    async def _keep_all(self) -> None:
        backoff = Backoff()
        while self._queue or not self._closed:
            if not self._queue:
                await self._wait(None)
                continue
            try:
                await self._step()
                backoff.reset()
                self._state.trouble = ""
            except StorageError as error:
                if self._closed:
                    raise
                await self._wait_for_disk(error, backoff.delay())

    async def _follow_with_index(self) -> None:
        """Keep the index in step: a task of its own, since no commit ever waits for the index."""
        # What an earlier recorder left behind when it was killed is caught up with first.
        places = None
        while True:
            self._committed = trio.Event()
            await trio.to_thread.run_sync(self._mirror.step, places)
            self._state.index_trouble = self._mirror.trouble
            if self._mirror.trouble:
                places = None
                await trio.sleep(_TROUBLE_SECONDS)
            else:
                await trio.sleep(_MIRROR_SECONDS)
                await self._committed.wait()
                places = self._writer.places

    async def _step(self) -> None:
        """Do the next piece of work: a note, or a batch of deliveries up to the next note."""
        first = self._queue[0]
        if callable(first):
            await trio.to_thread.run_sync(first)
            self._queue.popleft()
            self._committed.set()
            return
        now = trio.current_time()
        if now < self._next and not self._is_full():
            await self._wait(self._next - now)
            return
        self._next = now + _GATHERED
        batch, held, until = self._next_batch()
        if len(held) == len(batch):
            await self._wait(until - trio.current_time())
            return
        self._small_bytes.clear()
        await trio.to_thread.run_sync(
            self._keeper.keep, [item.delivery for item in batch], frozenset(held)
        )
        for _ in batch:
            self._queue.popleft()
        self._queue.extendleft(batch[at] for at in sorted(held, reverse=True))
        self._bytes -= sum(item.size for at, item in enumerate(batch) if at not in held)
        self._state.pending_groups -= len(batch) - len(held)
        self._committed.set()
        self._signal()

    def _is_full(self) -> bool:
        """Say whether there is no use in waiting for more to share a batch."""
        return (
            self._closed
            or self._bytes >= min(_BATCH_BYTES, self._most_bytes)
            or self._state.pending_groups >= _BATCH_GROUPS
        )

    def _next_batch(self) -> tuple[list[Queued], set[int], float]:
        """Return the deliveries to hand over, which of them go on waiting, and until when."""
        batch: list[Queued] = []
        alone = size = 0
        wait = not self._closed and self._bytes < self._most_bytes
        for item in self._queue:
            if callable(item):
                # It notes something that comes after all of them.
                wait = False
                break
            if alone == _BATCH_GROUPS or size >= _BATCH_BYTES or len(batch) == _BATCH_MOST:
                break
            batch.append(item)
            size += item.size
            alone += not item.delivery.small
        held = waiting(batch, trio.current_time()) if wait else set()
        if len(batch) == _BATCH_MOST and len(held) == len(batch):
            held = set()
        until = min((batch[at].since for at in held), default=0.0) + MOST_SECONDS
        return batch, held, until

    async def _wait_for_disk(self, error: StorageError, delay: float) -> None:
        if self._state.trouble != str(error):
            _LOG.error("%s; trying again until it works", error)
        self._state.trouble = str(error)
        deadline = trio.current_time() + delay
        while not self._closed and trio.current_time() < deadline:
            await self._wait(deadline - trio.current_time())

    async def _wait(self, seconds: float | None) -> None:
        with trio.move_on_after(float("inf") if seconds is None else seconds):
            await self._changed.wait()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
