"""A recorder in a process of its own: ``casfs archive``, started, watched and ended from here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NOT_FOR_WORKERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CASFS_CONFIG")
_WAIT_FOR_LOCK = "2m"


class WorkerOptions(Struct, frozen=True):
    """What all workers have in common."""

    cas_root: str
    manifest_root: str
    index: str | None = None
    sync_strategy: str = "auto"
    flags: tuple[str, ...] = ()
    """Further flags of ``casfs archive``."""


class Worker:
    """One recorder. It ends in good order when this process ends, however that comes about.

    It holds the reading end of a pipe as its standard input; we hold the other end.
    """

    def __init__(
        self, options: WorkerOptions, broadcast: str, relay: str, tracks: Sequence[str]
    ) -> None:
        # From the main thread, and without a shell: names and URLs are not of our making.
        self._process = subprocess.Popen(
            [
                *program(),
                "archive",
                f"--name={broadcast}",
                *(f"--track={track}" for track in tracks),
                "--stop-with-stdin",
                f"--wait-for-lock={_WAIT_FOR_LOCK}",
                *options.flags,
            ],
            env=worker_environment(os.environ, options, relay),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C and a hang-up are for the supervisor, who then ends us
        )
        self.broadcast = broadcast
        self.ended = trio.Event()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the end and return the exit code; negative for a signal."""
        descriptor = os.pidfd_open(self.pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        code = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.ended.set()
        return code

    def stop(self) -> None:
        """Ask it to end in good order."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; what it had acknowledged is kept."""
        self._process.kill()


def program() -> list[str]:
    """Return how this very program is started again."""
    started = sys.argv[0]
    if os.path.basename(started) == "casfs" and os.access(started, os.X_OK):
        return [os.path.abspath(started)]
    return [sys.executable, "-m", "casfs"]


def worker_environment(
    environment: Mapping[str, str], options: WorkerOptions, relay: str
) -> dict[str, str]:
    """Return a worker's environment. The URL is in it, for it may hold a token: nobody sees it.

    A worker reads no configuration file: one that is being edited must not end a recording.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _NOT_FOR_WORKERS and not name.startswith("CASFS_AUTO_ARCHIVE_")
    }
    kept |= {
        "CASFS_URL": relay,
        "CASFS_CAS_ROOT": options.cas_root,
        "CASFS_MANIFEST_ROOT": options.manifest_root,
        "CASFS_SYNC_STRATEGY": options.sync_strategy,
        "CASFS_CONFIG": os.devnull,
    }
    if options.index is not None:
        kept["CASFS_INDEX"] = options.index
    return kept
