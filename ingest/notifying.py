"""Keeps the service manager informed: ready, what is going on, and that we are alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from casfs.systemd import notify, watchdog_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY = 5.0


async def keep_notifying(status: Callable[[], str]) -> None:
    """Say that we are ready, then ``status()`` whenever it changes, until cancelled.

    Where a watchdog is asked for, it hears of us as long as this event loop turns. Returns at once
    if no service manager listens.
    """
    said = status()
    if not notify("READY=1", f"STATUS={said}"):
        return
    watchdog = watchdog_seconds()
    while True:
        await trio.sleep(min(_EVERY, watchdog / 3) if watchdog is not None else _EVERY)
        now = status()
        assignments = [] if now == said else [f"STATUS={now}"]
        if watchdog is not None:
            assignments.append("WATCHDOG=1")
        if assignments:
            notify(*assignments)
        said = now


def say_stopping() -> None:
    """Say that the end has begun."""
    notify("STOPPING=1")
