"""The threads in which a mount waits, so that its event loop never does.

Four kinds of waiting are kept apart: questions to the tree (one at a time: the tree is not made
for several threads), opens (which hash), reads from disk, and building what is shown of many
objects at once. None holds up the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_OPENS_AT_ONCE = 8
_READS_AT_ONCE = 32
_BUILDS_AT_ONCE = 4


class Workers:
    """The limits of one mount. Use it in one event loop."""

    def __init__(self) -> None:
        self._questions = trio.CapacityLimiter(1)
        self._opens = trio.CapacityLimiter(_OPENS_AT_ONCE)
        self._reads = trio.CapacityLimiter(_READS_AT_ONCE)
        self._builds = trio.CapacityLimiter(_BUILDS_AT_ONCE)

    async def ask(self, question: Callable[..., _T], *args: object) -> _T:
        """Put a question to the tree or to what is behind it; others wait until it is answered."""
        return await trio.to_thread.run_sync(question, *args, limiter=self._questions)

    async def open(self, opening: Callable[..., _T], *args: object) -> _T:
        """Open an object. When the mount ends nobody waits for it any more."""
        return await trio.to_thread.run_sync(
            opening, *args, limiter=self._opens, abandon_on_cancel=True
        )

    async def read(self, reading: Callable[..., _T], *args: object) -> _T:
        """Wait for the disk. When the mount ends nobody waits for it any more."""
        return await trio.to_thread.run_sync(
            reading, *args, limiter=self._reads, abandon_on_cancel=True
        )

    async def build(self, building: Callable[..., _T], *args: object) -> _T:
        """Put something together. When the mount ends nobody waits for it any more."""
        return await trio.to_thread.run_sync(
            building, *args, limiter=self._builds, abandon_on_cancel=True
        )
