"""A real MoQ publisher: the Rust implementation, from PyPI's ``moq-rs``, told what to send.

    python -m tools.loopback.publisher --url URL --fingerprint SHA256

reads one command as a JSON line on stdin at a time (`tools.loopback.commands`), carries it out, and
confirms it with one line on stdout. The first line, ``{}``, says that it is connected. It ends when
stdin closes, or on SIGTERM or SIGINT. The commands are the methods of `Publisher`, through which
tests and tools drive such a process without any event loop::

    with running_relay() as relay, running_publisher(relay.url, relay.fingerprint) as publisher:
        publisher.create_broadcast("demo/tv")
        publisher.create_track("demo/tv", "video0.m4s")
        publisher.announce("demo/tv")
        publisher.append_group("demo/tv", "video0.m4s", [b"first frame", b"second frame"])

A confirmation means that the publisher has it, not yet that anybody received it. The
implementation writes the tracks ``catalog.json``, ``catalog`` and ``catalog.json.z`` itself, with
the time of day in them: their bytes cannot be chosen, only extended by `set_catalog_section`, and
read back with `catalog`.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

import msgspec

from tools.loopback.commands import (
    AbortGroup,
    Announce,
    Command,
    Confirmation,
    CreateBroadcast,
    CreateGroup,
    CreateTrack,
    EndBroadcast,
    FinishContainer,
    FinishGroup,
    FinishTrack,
    OpenContainer,
    ReadCatalog,
    SetCatalogSection,
    Unannounce,
    WriteContainer,
    WriteFrames,
)
from tools.loopback.process import START_TIMEOUT, LineProcess, LoopbackError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ANSWER_TIMEOUT = 20.0
"""Seconds in which a command must have been confirmed."""


class Publisher:
    """Drives a publisher process. Every call returns when the process has confirmed it.

    All calls raise `LoopbackError` when the process could not do what was asked.
    """

    def __init__(self, process: LineProcess) -> None:
        self.process = process

    def create_broadcast(self, broadcast: str) -> None:
        """Make a broadcast. Nobody sees it until it is announced."""
        self._do(CreateBroadcast(broadcast))

    def create_track(
        self, broadcast: str, track: str, *, max_age: int = 3600, timescale: int | None = None
    ) -> None:
        """Add a track of raw bytes.

        Its groups stay available for ``max_age`` seconds; timestamps are sent in units of
        1/``timescale`` s (None: microseconds).
        """
        self._do(CreateTrack(broadcast, track, max_age, timescale))

    def announce(self, broadcast: str) -> None:
        """Let the relay and its clients know the broadcast."""
        self._do(Announce(broadcast))

    def unannounce(self, broadcast: str) -> None:
        """Withdraw the announcement."""
        self._do(Unannounce(broadcast))

    def append_group(
        self,
        broadcast: str,
        track: str,
        frames: Sequence[bytes] = (),
        *,
        files: Sequence[str] = (),
        timestamps: Sequence[int] = (),
        sequence: int | None = None,
    ) -> int:
        """Send a whole group and return its sequence.

        The frames are ``frames``, then the content of each of ``files``. ``timestamps`` are
        microseconds, one for each frame, 0 where there are none. ``sequence`` None takes the next.
        """
        return self._group(broadcast, track, frames, files, timestamps, sequence, finish=True)

    def open_group(
        self,
        broadcast: str,
        track: str,
        frames: Sequence[bytes] = (),
        *,
        files: Sequence[str] = (),
        timestamps: Sequence[int] = (),
        sequence: int | None = None,
    ) -> int:
        """Begin a group, as `append_group`, and leave it open; return its sequence."""
        return self._group(broadcast, track, frames, files, timestamps, sequence, finish=False)

    def write_frames(
        self,
        broadcast: str,
        track: str,
        sequence: int,
        frames: Sequence[bytes],
        *,
        timestamps: Sequence[int] = (),
    ) -> None:
        """Add frames to an open group."""
        self._do(WriteFrames(broadcast, track, sequence, list(frames), list(timestamps)))

    def finish_group(self, broadcast: str, track: str, sequence: int) -> None:
        """End an open group: it is complete."""
        self._do(FinishGroup(broadcast, track, sequence))

    def abort_group(self, broadcast: str, track: str, sequence: int, code: int = 0) -> None:
        """Cut an open group short with an application error code."""
        self._do(AbortGroup(broadcast, track, sequence, code))

    def finish_track(self, broadcast: str, track: str) -> None:
        """End a track."""
        self._do(FinishTrack(broadcast, track))

    def end_broadcast(self, broadcast: str) -> None:
        """End a broadcast; one of the same name can be made again, and begins anew."""
        self._do(EndBroadcast(broadcast))

    def set_catalog_section(self, broadcast: str, section: str, value: object) -> None:
        """Put ``value`` (anything that JSON knows) under a top-level key of the catalog.

        ``video`` and ``audio`` are reserved by the implementation.
        """
        raw = msgspec.Raw(msgspec.json.encode(value))
        self._do(SetCatalogSection(broadcast, section, raw))

    def catalog(self, broadcast: str) -> tuple[int, tuple[bytes, ...]]:
        """Return the newest group of ``catalog.json``: its sequence and exact frames."""
        confirmation = self._do(ReadCatalog(broadcast))
        assert confirmation.sequence is not None
        return confirmation.sequence, confirmation.frames

    def open_container(self, broadcast: str, container: str) -> None:
        """Have the implementation's own importer publish a container's tracks, and a catalog.

        ``container``: ``FMP4``, ``TS``, ``FLV`` or ``MKV``.
        """
        self._do(OpenContainer(broadcast, container))

    def write_container(self, broadcast: str, data: bytes) -> None:
        """Give the importer more of the container's bytes."""
        self._do(WriteContainer(broadcast, data))

    def finish_container(self, broadcast: str) -> None:
        """End the container."""
        self._do(FinishContainer(broadcast))

    def kill(self) -> None:
        """End the publisher without a farewell (SIGKILL)."""
        self.process.kill()

    def close(self) -> None:
        """End the publisher: its broadcasts end. May be called again."""
        self.process.close()

    def _group(
        self,
        broadcast: str,
        track: str,
        frames: Sequence[bytes],
        files: Sequence[str],
        timestamps: Sequence[int],
        sequence: int | None,
        *,
        finish: bool,
    ) -> int:
        command = CreateGroup(
            broadcast, track, sequence, list(frames), list(files), list(timestamps), finish
        )
        confirmation = self._do(command)
        assert confirmation.sequence is not None
        return confirmation.sequence

    def _do(self, command: Command) -> Confirmation:
        self.process.send(msgspec.json.encode(command))
        answer = msgspec.json.decode(self.process.receive(ANSWER_TIMEOUT), type=Confirmation)
        if answer.error:
            raise LoopbackError(f"{type(command).__name__}: {answer.error}")
        return answer


@contextlib.contextmanager
def running_publisher(url: str, fingerprint: str) -> Iterator[Publisher]:
    """Run a publisher connected to ``url`` for the time of the context.

    Raises:
        LoopbackError: it did not start or could not connect.
    """
    arguments = ["--url", url, "--fingerprint", fingerprint]
    with LineProcess("tools.loopback.publisher", arguments) as process:
        process.receive(START_TIMEOUT)
        yield Publisher(process)


def main() -> None:
    """Publish what stdin says until it closes."""
    from tools.loopback.publishing import publish
    from tools.loopback.service import run_service

    parser = argparse.ArgumentParser(prog="python -m tools.loopback.publisher")
    parser.add_argument("--url", required=True, help="the relay, https://host:port")
    parser.add_argument("--fingerprint", required=True, help="SHA-256 of its certificate, hex")
    arguments = parser.parse_args()
    run_service(lambda lines: publish(arguments.url, arguments.fingerprint, lines))


if __name__ == "__main__":
    main()
