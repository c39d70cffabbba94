"""A recorder in a process of its own: ``casfs archive``, started, watched and ended from here."""

from __future__ import annotations

import fnmatch
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from casfs.errors import ConfigError
from ingest.credentials import TOKEN_VARIABLE, Credentials, has_token
from ingest.relay_url import parse_relay_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NOT_FOR_WORKERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CASFS_CONFIG")
_WAIT_FOR_LOCK = "2m"


class TrustedRelays(Struct, frozen=True):
    """Relays that may have our token; a directory can name any other that it likes."""

    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Globs."""

    def has(self, url: str) -> bool:
        """Say whether the relay at ``url`` is among them."""
        try:
            relay = parse_relay_url(url)
        except ConfigError:
            return False
        named = any(fnmatch.fnmatchcase(relay.host, glob) for glob in self.hosts)
        return named or relay.origin in self.origins


class WorkerOptions(Struct, frozen=True):
    """What all workers have in common."""

    cas_root: str
    manifest_root: str
    index: str | None = None
    sync_strategy: str = "auto"
    flags: tuple[str, ...] = ()
    """Further flags of ``casfs archive``."""
    choice_flags: tuple[str, ...] = ()
    """Those that choose tracks, for broadcasts of which none are named."""
    token_file: str | None = None
    trusted: TrustedRelays = TrustedRelays()
    """To whom the token goes."""


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
                *(() if tracks else options.choice_flags),
                *_token_flags(options, relay),
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


def credentials_for(options: WorkerOptions, relay: str) -> Credentials:
    """Return what opens a relay: nothing for one that is not trusted, or whose URL has a token."""
    if has_token(relay) or not options.trusted.has(relay):
        return Credentials()
    return Credentials(options.token_file, os.environ.get(TOKEN_VARIABLE))


def _token_flags(options: WorkerOptions, relay: str) -> tuple[str, ...]:
    token_file = credentials_for(options, relay).token_file
    return () if token_file is None else (f"--token-file={token_file}",)


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
    if not options.trusted.has(relay):
        kept.pop(TOKEN_VARIABLE, None)
    if options.index is not None:
        kept["CASFS_INDEX"] = options.index
    return kept
