"""A stream directory on loopback that can be told to misbehave: a real HTTP server, in threads.

with running_directory() as directory:
directory.entries = [{"relay_url": ..., "broadcast_name": ...}]
directory.behaviour = Behaviour.STALLS
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = b" " * (1 << 16)


class Behaviour(enum.Enum):
    """What becomes of a request."""

    ANSWERS = "answers"
    FAILS = "fails"
    """Status 500."""
    GARBAGE = "garbage"
    """Status 200, and bytes that are no list."""
    EMPTY = "empty"
    """An empty list."""
    STALLS = "stalls"
    """Nothing comes, and the connection stays."""
    HUGE = "huge"
    """A body without end."""
    HANGS_UP = "hangs up"
    """The connection is closed in the midst of the body."""
    COMPRESSED = "compressed"
    """Says that its body is compressed."""
    LOOPS = "loops"
    """A redirection to itself."""


class StreamDirectory:
    """What the server answers, and what it was asked."""

    def __init__(self) -> None:
        self.entries: list[object] = []
        self.behaviour = Behaviour.ANSWERS
        self.plain = False
        """Answer with text, one entry a line."""
        self.requests: list[dict[str, str]] = []
        """The headers of each request."""
        self.not_modified = 0
        """How often nothing had changed."""
        self.url = ""
        self.ending = threading.Event()

    def body(self) -> bytes:
        """Return what a good answer holds."""
        if self.plain:
            return "\n".join(map(str, self.entries)).encode()
        return json.dumps({"streams": self.entries}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory: StreamDirectory

    def do_GET(self) -> None:
        directory = self.directory
        directory.requests.append({name.lower(): value for name, value in self.headers.items()})
        match directory.behaviour:
            case Behaviour.ANSWERS:
                self._answer(directory.body())
            case Behaviour.EMPTY:
                self._answer(b"[]")
            case Behaviour.GARBAGE:
                self._answer(b"<html>\xff\xfe not a list")
            case Behaviour.FAILS:
                self._send(500, b"no")
            case Behaviour.COMPRESSED:
                self._send(200, b"[]", {"Content-Encoding": "gzip"})
            case Behaviour.LOOPS:
                self._send(302, b"", {"Location": self.path})
            case Behaviour.STALLS:
                directory.ending.wait()
                self.close_connection = True
            case Behaviour.HANGS_UP:
                self._begin(200, {"Content-Length": "1000"})
                self.wfile.write(b"[")
                self.close_connection = True
            case Behaviour.HUGE:
                self._begin(200, {})
                self.close_connection = True
                while not directory.ending.is_set():
                    self.wfile.write(_PIECE)

    def _answer(self, body: bytes) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == tag:
            self.directory.not_modified += 1
            self._begin(304, {"ETag": tag})
            return
        kind = "text/plain" if self.directory.plain else "application/json"
        self._send(200, body, {"ETag": tag, "Content-Type": kind})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._begin(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is given
        """Say nothing."""


@contextlib.contextmanager
def running_directory() -> Iterator[StreamDirectory]:
    """Serve a directory on a free port of loopback for the time of the context."""
    directory = StreamDirectory()
    handler = type("Handler", (_Handler,), {"directory": directory})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        directory.url = f"http://127.0.0.1:{server.server_port}/api/public-streams"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield directory
        finally:
            directory.ending.set()
            server.shutdown()
            thread.join()
