"""Servers of MoQ transport that share no code with moq-rs nor with us: PyPI's ``aiomoqt``.

`independent_publisher` is that package's own publisher, as it is. `independent_origin` is a server
of ours on its session and codecs, which sends exactly what it is told to
(`tools.loopback.independent_origin`).

It needs a newer Python than casfs, so it lives in an environment of its own, which is made when it
is first asked for: ``CASFS_AIOMOQT`` names the directory, else one in the user's cache. Without
such a Python (on the path, or of pyenv), or without a package registry, `Unavailable` says so.
"""

from __future__ import annotations

import base64
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

from tools.loopback.process import START_TIMEOUT, LineProcess, LoopbackError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    broadcast: str, track: str, certificate: str, key: str, *, push: bool = False
) -> Iterator[IndependentPublisher]:
    """Run it for the time of the context, on WebTransport and on raw QUIC at one port.

    With ``push`` it offers its track (PUBLISH) as well as its namespace, in 14 and 16 at once, and
    then refuses SUBSCRIBE as a duplicate.

    Raises:
        Unavailable: it cannot be installed, or does not start.
    """
    python, port = _installed(), _free_port()
    size, objects = 500, 5
    arguments = [
        *(python, "-u", "-m", "aiomoqt.tools.pub_server", "--bind", "127.0.0.1", "-p", str(port)),
        *(
            "-W",
            "-Q",
            "--pub-both" if push else "--pub-ns",
            "-s",
            str(size),
            "-g",
            str(objects),
            "-r",
            "25",
        ),
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


class Asked(msgspec.Struct, frozen=True):
    """What an origin has been asked for so far."""

    subscribe: int
    fetch: int
    refused: int
    """How many of the tracks that it offered were refused."""


class IndependentOrigin:
    """A server that was told what to serve, on WebTransport and on raw QUIC at one port.

    Every call returns when the server has done it, and raises `LoopbackError` when it could not.
    """

    def __init__(self, process: LineProcess, url: str) -> None:
        self.process = process
        self.url = url

    def create(self, broadcast: str, *tracks: str, push: bool = False) -> None:
        """Make a broadcast; with ``push`` its tracks are offered (PUBLISH), and never SUBSCRIBEd.

        Offers are made when a client asks for the namespace, in 18 for its tracks.
        """
        self._do({"do": "create", "broadcast": broadcast, "tracks": tracks, "push": push})

    def group(
        self,
        broadcast: str,
        track: str,
        sequence: int,
        objects: Sequence[bytes],
        *,
        cut: int | None = None,
        silent: bool = False,
    ) -> None:
        """Send a group to all who listen; FETCH serves it whole from then on.

        ``cut``: send only so many objects, then reset the stream. ``silent``: send nothing.
        """
        encoded = [base64.b64encode(item).decode() for item in objects]
        command = {"do": "group", "broadcast": broadcast, "track": track, "sequence": sequence}
        self._do({**command, "objects": encoded, "cut": cut, "silent": silent})

    def listeners(self, broadcast: str, track: str) -> int:
        """Return how many subscriptions to a track there are."""
        answer = self._do({"do": "listeners", "broadcast": broadcast, "track": track})
        return msgspec.convert(answer["count"], int)

    def end(self, broadcast: str, track: str) -> None:
        """Say that a track is over (PUBLISH_DONE)."""
        self._do({"do": "end", "broadcast": broadcast, "track": track})

    def leave(self, broadcast: str, uri: str) -> None:
        """Ask every client that listens to a broadcast to go elsewhere (GOAWAY)."""
        self._do({"do": "leave", "broadcast": broadcast, "uri": uri})

    def asked(self) -> Asked:
        """Return what clients have asked for."""
        return msgspec.convert(self._do({"do": "asked"}), Asked)

    def _do(self, command: dict[str, object]) -> dict[str, object]:
        self.process.send(msgspec.json.encode(command))
        line = self.process.receive(START_TIMEOUT)
        answer = msgspec.json.decode(line, type=dict[str, object])
        if "error" in answer:
            raise LoopbackError(f"{command['do']}: {answer['error']}")
        return answer


@contextlib.contextmanager
def independent_origin(certificate: str, key: str) -> Iterator[IndependentOrigin]:
    """Run one for the time of the context.

    Raises:
        Unavailable: it cannot be installed, or does not start.
    """
    python, port = _installed(), _free_port()
    arguments = ["--port", str(port), "--certificate", certificate, "--key", key]
    module = "tools.loopback.independent_origin"
    with LineProcess(module, arguments, python=python) as process:
        try:
            process.receive(START_TIMEOUT)
        except LoopbackError as error:
            raise Unavailable(str(error)) from None
        yield IndependentOrigin(process, f"https://127.0.0.1:{port}/")


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
