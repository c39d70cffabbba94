"""The threads in which a mount waits, so that its event loop never does.

Three kinds of waiting are kept apart: questions to the tree (one at a time: the tree is not made
for several threads), opens (which hash), and reads from disk. None holds up the others. What nobody
waits for yet runs in the background, a little at a time, and its failure is only noted: whoever
needs it asks again.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_OPENS_AT_ONCE = 8
_READS_AT_ONCE = 32
_PREPARATIONS_AT_ONCE = 2


class Workers:
    """The limits of one mount. Use it in one event loop."""

    def __init__(self) -> None:
        self._questions = trio.CapacityLimiter(1)
        self._opens = trio.CapacityLimiter(_OPENS_AT_ONCE)
        self._reads = trio.CapacityLimiter(_READS_AT_ONCE)
        self._preparations = trio.CapacityLimiter(_PREPARATIONS_AT_ONCE)
        self._background: trio.Nursery | None = None

    @contextlib.asynccontextmanager
    async def background(self) -> AsyncIterator[None]:
        """Let `in_background` work within the block; what still runs at its end is given up."""
        async with trio.open_nursery() as nursery:
            self._background = nursery
            try:
                yield
            finally:
                self._background = None
                nursery.cancel_scope.cancel()

    def in_background(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run ``task`` while the mount goes on; without `background` nothing happens."""
        if self._background is not None:
            self._background.start_soon(_shielded_from_failure, task)

    async def ask(self, question: Callable[..., _T], *args: object) -> _T:
        """Put a question to the tree or to what is behind it; others wait until it is answered."""
        return await trio.to_thread.run_sync(question, *args, limiter=self._questions)

    async def open(self, opening: Callable[..., _T], *args: object) -> _T:
        """Open an object. When the mount ends nobody waits for it any more."""
        return await trio.to_thread.run_sync(
            opening, *args, limiter=self._opens, abandon_on_cancel=True
        )

    async def prepare(self, preparing: Callable[..., _T], *args: object) -> _T:
        """Do what an open will need. When the mount ends nobody waits for it any more."""
        return await trio.to_thread.run_sync(
            preparing, *args, limiter=self._preparations, abandon_on_cancel=True
        )

    async def read(self, reading: Callable[..., _T], *args: object) -> _T:
        """Wait for the disk. When the mount ends nobody waits for it any more."""
        return await trio.to_thread.run_sync(
            reading, *args, limiter=self._reads, abandon_on_cancel=True
        )


async def _shielded_from_failure(task: Callable[[], Awaitable[None]]) -> None:
    try:
        await task()
    except Exception as error:  # noqa: BLE001  whoever needs its result meets the error itself
        log.debug("what was done ahead failed: %s", error)
