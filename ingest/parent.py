"""A recorder that ends with whoever started it: the other end of its standard input.

The kernel closes a pipe however its owner ends, SIGKILL included. A signal at the parent's death
(prctl(2)) would tell of the end of the thread that started us, and could not be told from any
other signal.
"""

from __future__ import annotations

import os
import select
import stat
import time

import trio

from casfs.errors import UsageError

STDIN = 0


def check_stdin() -> None:
    """Raise UsageError if standard input is nothing that anybody could close."""
    mode = os.fstat(STDIN).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(STDIN)):
        raise UsageError(
            "standard input is a file, which nobody closes",
            advice="give --stop-with-stdin only where it is a pipe",
        )


def sleep_or_stdin_closed(seconds: float) -> bool:
    """Block for so long; return True as soon as standard input is closed."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        readable, _, _ = select.select([STDIN], [], [], left)
        if readable and not os.read(STDIN, 4096):
            return True
    return False


async def stdin_closed() -> None:
    """Return when standard input is closed. What comes on it is thrown away."""
    while True:
        await trio.lowlevel.wait_readable(STDIN)
        if not os.read(STDIN, 4096):
            return
