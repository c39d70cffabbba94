"""A publisher of MoQ transport that shares no code with moq-rs nor with us: PyPI's ``aiomoqt``.

It needs a newer Python than casfs, so it lives in an environment of its own, which is made when it
is first asked for: ``CASFS_AIOMOQT`` names the directory, else one in the user's cache. Without
such a Python (on the path, or of pyenv), or without a package registry, `Unavailable` says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_REQUIREMENT = "aiomoqt==0.13.3"
_PYTHONS = ("python3.13", "python3.12")
_INSTALL_TIMEOUT = 180
_START_TIMEOUT = 30


class Unavailable(Exception):  # noqa: N818 - no error: the one who asks goes on without
    """It cannot be had here; the message says why."""


class IndependentPublisher(msgspec.Struct, frozen=True):
    """A server that publishes one track, with no relay before it."""

    url: str
    pid: int
    object_size: int
    """Bytes of each object, which begins with ``<group>.<object>|``."""
    group_objects: int
    """Objects of each group."""


@contextlib.contextmanager
def independent_publisher(
    broadcast: str, track: str, certificate: str, key: str
) -> Iterator[IndependentPublisher]:
    """Run it for the time of the context, on WebTransport and on raw QUIC at one port.

    Raises:
        Unavailable: it cannot be installed, or does not start.
    """
    python = _installed()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    size, objects = 500, 5
    arguments = [
        *(python, "-u", "-m", "aiomoqt.tools.pub_server", "--bind", "127.0.0.1", "-p", str(port)),
        *("-W", "-Q", "--pub-ns", "-s", str(size), "-g", str(objects), "-r", "25"),
        *("-N", broadcast, "-T", track, "--cert", certificate, "--key", key),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, log.fileno())
            yield IndependentPublisher(f"https://127.0.0.1:{port}/", process.pid, size, objects)
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while b"ready" not in (said := os.pread(log, 1 << 16, 0)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"aiomoqt does not start: {said[-200:].decode(errors='replace')}")
        time.sleep(0.05)


def _installed() -> str:
    """Return the interpreter of the environment, after making it if there is none."""
    directory = Path(
        os.environ.get("CASFS_AIOMOQT")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "casfs-aiomoqt"
    )
    python = directory / "bin" / "python"
    ready = directory / _REQUIREMENT
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            _make(directory, python)
            ready.touch()
    return str(python)


def _pythons() -> Iterator[str]:
    for name in _PYTHONS:
        found = shutil.which(name)
        if found is not None:
            yield found
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for version in ("3.13.*", "3.12.*"):
        yield from map(str, root.glob(f"versions/{version}/bin/python"))


def _make(directory: Path, python: Path) -> None:
    reason = f"none of {', '.join(_PYTHONS)} is here"
    for found in _pythons():
        try:
            for command in (
                [found, "-m", "venv", str(directory)],
                [str(python), "-m", "pip", "install", "--quiet", _REQUIREMENT],
            ):
                subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_TIMEOUT)
        except (subprocess.SubprocessError, OSError) as error:
            failure = getattr(error, "stderr", None) or str(error).encode()
            last = failure.decode(errors="replace").strip().rpartition("\n")[2]
            reason = f"aiomoqt cannot be installed with {found}: {last}"
            continue
        return
    raise Unavailable(reason)
