"""What a mount tells systemd: that it is ready, how it fares, that it lives, that it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from casfs.systemd import notify, watchdog_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

_STATUS_SECONDS = 10.0


def tell_ready(path: str) -> None:
    """Say that the archive is mounted at ``path``."""
    notify("READY=1", f"STATUS=mounted at {path}")


def tell_stopping() -> None:
    """Say that the mount ends."""
    notify("STOPPING=1", "STATUS=unmounting")


async def keep_telling(status: Callable[[], str]) -> None:
    """Say how the mount fares, and twice in each watchdog period that it lives; until cancelled.

    The event loop that says so is the one that answers the kernel. A disk that hangs does not end
    it: a restart would not mend the disk.
    """
    period = watchdog_seconds()
    alive = () if period is None else ("WATCHDOG=1",)
    pause = _STATUS_SECONDS if period is None else min(_STATUS_SECONDS, period / 2)
    # Without a manager nobody is told; with a watchdog there is one, even if it was busy once.
    while True:
        told = notify(*alive, f"STATUS={status()}")
        if not told and not alive:
            return
        await trio.sleep(pause)
