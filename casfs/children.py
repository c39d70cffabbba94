"""Processes of our own that do one thing beside us: how one is started, and how it ended.

Each is a module of casfs that is run, reads requests on its stdin, answers on its stdout, and ends
with its stdin: it never outlives whoever started it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def start_child(
    module: str, *arguments: str, buffer_bytes: int = -1, pipe_bytes: int = -1
) -> subprocess.Popen[bytes]:
    """Start ``module`` with pipes of ``pipe_bytes`` (-1: as usual) to its stdin and stdout.

    ``buffer_bytes``: of our ends of them (-1: as usual; 0: none). Raises OSError.
    """
    # The modules are found where we found them, however that came about.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=buffer_bytes,
        pipesize=pipe_bytes,
        process_group=0,
    )


def how_it_ended(code: int) -> str:
    """Say how a child with this return code ended, as the end of a sentence about it."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with {code}"
