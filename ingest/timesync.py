"""Whether the system's clock is synchronised: recordings are named by its time."""

from __future__ import annotations

import ctypes
import logging
import os

import trio

_LOG = logging.getLogger(__name__)

_SYNCHRONISED = "/run/systemd/timesync/synchronized"
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 208 * 2  # struct timex is 208 bytes on 64-bit Linux
_LOOK_EVERY = 1.0


def clock_is_synchronised() -> bool:
    """Say whether systemd-timesyncd or the kernel (adjtimex(2)) calls the clock synchronised.

    True also where neither can be asked: then there is nothing to wait for.
    """
    if os.path.exists(_SYNCHRONISED):
        return True
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return True
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return bool(state != _TIME_ERROR)


async def wait_for_clock(most: float) -> None:
    """Wait until the clock is synchronised, at most so many seconds; a warning tells if it is not.

    Recorders refuse a clock that stands far behind what is recorded, and time their groups by it:
    a clock that is set later puts a step into the recording.
    """
    if not most:
        return
    with trio.move_on_after(most):
        while not clock_is_synchronised():  # noqa: ASYNC110  the kernel tells nobody
            await trio.sleep(_LOOK_EVERY)
        return
    _LOG.warning("the clock is not synchronised after %g seconds; beginning all the same", most)
