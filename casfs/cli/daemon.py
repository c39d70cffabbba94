"""Going to the background, as a shell expects it: only once the work has begun, or failed aloud.

The process forks before it opens anything. The child leaves the terminal's session but keeps its
stderr, so that whatever goes wrong is said where the user looks; the parent waits for its word.
Told that the work has begun it exits with 0, otherwise with the exit code of the child.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BEGUN = b"begun"
_SYSLOG = "/dev/log"


def detach() -> Callable[[], None]:
    """Return in a child process; call the result there once the work has begun.

    It lets the parent exit and the terminal go; what is logged from then on goes to syslog, if
    there is one. The parent never returns from here. Call this before any thread is started and
    any database opened.
    """
    receiver, sender = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(sender)
        _exit_as(child, receiver)
    os.close(receiver)
    os.setsid()

    def begun() -> None:
        os.chdir("/")
        os.write(sender, _BEGUN)
        os.close(sender)
        _let_the_terminal_go()

    return begun


def _exit_as(child: int, receiver: int) -> None:
    """Exit once the child has said that it began, or has ended."""
    if os.read(receiver, len(_BEGUN)) == _BEGUN:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _let_the_terminal_go() -> None:
    with open(os.devnull, "r+b") as nothing:
        for descriptor in (0, 1, 2):
            os.dup2(nothing.fileno(), descriptor)
    if os.path.exists(_SYSLOG):
        handler = logging.handlers.SysLogHandler(_SYSLOG)
        handler.setFormatter(logging.Formatter("casfs[%(process)d]: %(levelname)s: %(message)s"))
        logging.getLogger().addHandler(handler)
