"""A real MoQ relay: the Rust implementation, from PyPI's ``moq-rs``, on a loopback address.

    python -m tools.loopback.relay [--port N] [--reject /path] [--certificate FILE --key FILE]

prints one JSON line when it is ready, ``{"url": ..., "fingerprint": ..., "pid": ...}``, and ends on
SIGTERM, on SIGINT, or when its stdin closes. Whatever one client publishes, every other one gets.
Unlike a production relay it does not scope broadcasts to the path of the URL.

From Python, without any event loop::

    with running_relay() as relay:
        ... relay.url, relay.fingerprint ...
"""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

import msgspec

from tools.loopback.process import START_TIMEOUT, LineProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class RelayReady(msgspec.Struct, frozen=True):
    """What the relay says once it listens."""

    url: str
    """Where it listens: https, an IP address, a port, no path."""
    fingerprint: str
    """SHA-256 of its certificate (DER), lower-case hex."""
    pid: int


class Relay:
    """A relay that runs in a process of its own."""

    def __init__(self, process: LineProcess, ready: RelayReady) -> None:
        self.process = process
        self.url = ready.url
        self.fingerprint = ready.fingerprint

    @property
    def pid(self) -> int:
        """The process id of the relay."""
        return self.process.pid

    @property
    def port(self) -> int:
        """The UDP port."""
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """End it without a farewell to its clients (SIGKILL)."""
        self.process.kill()


@contextlib.contextmanager
def running_relay(
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    reject: Sequence[str] = (),
    certificate: str | None = None,
    key: str | None = None,
    cache_bytes: int | None = None,
    tokens: str | None = None,
) -> Iterator[Relay]:
    """Run a relay for the time of the context; it is gone afterwards, whatever happened.

    ``port`` 0 takes a free one. Sessions whose URL has one of the paths in ``reject`` are refused
    (403). Without ``certificate`` and ``key`` (PEM files) it makes its own, self-signed, for
    localhost. ``cache_bytes`` bounds what it remembers of old groups. Without a token (``?jwt=``)
    that is a line of the file ``tokens`` nobody is let in, or stays.

    Raises:
        LoopbackError: it did not start.
    """
    arguments = ["--host", host, "--port", str(port)]
    for path in reject:
        arguments += ["--reject", path]
    if certificate is not None and key is not None:
        arguments += ["--certificate", certificate, "--key", key]
    if cache_bytes is not None:
        arguments += ["--cache-bytes", str(cache_bytes)]
    if tokens is not None:
        arguments += ["--tokens", tokens]
    with LineProcess("tools.loopback.relay", arguments) as process:
        ready = msgspec.json.decode(process.receive(START_TIMEOUT), type=RelayReady)
        yield Relay(process, ready)


def main() -> None:
    """Run a relay until told to end."""
    from tools.loopback.relaying import RelayArguments, serve
    from tools.loopback.service import run_service

    parser = argparse.ArgumentParser(prog="python -m tools.loopback.relay")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="UDP port; 0 takes a free one")
    parser.add_argument(
        "--reject", action="append", default=[], metavar="PATH", help="refuse such sessions (403)"
    )
    parser.add_argument("--certificate", metavar="FILE", help="PEM chain to present")
    parser.add_argument("--key", metavar="FILE", help="its private key, PEM")
    parser.add_argument(
        "--cache-bytes", type=int, default=None, metavar="N", help="bound of what is remembered"
    )
    parser.add_argument("--tokens", metavar="FILE", help="tokens that open it, one a line")
    arguments = msgspec.convert(vars(parser.parse_args()), RelayArguments)
    run_service(lambda lines: serve(arguments, lines))


if __name__ == "__main__":
    main()
