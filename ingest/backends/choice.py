"""Which QUIC library a connection uses."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from casfs.errors import ConfigError

if TYPE_CHECKING:
    from ingest.backends.interface import ConnectionSettings, QuicConnection

BackendName = Literal["aioquic", "qh3"]
BackendChoice = Literal["auto", "aioquic", "qh3"]


def available_backends() -> tuple[BackendName, ...]:
    """Return the libraries that are installed, the fastest first."""
    return ("qh3", "aioquic") if find_spec("qh3") is not None else ("aioquic",)


def new_connection(choice: BackendChoice, settings: ConnectionSettings) -> QuicConnection:
    """Make a connection; ``auto`` takes the fastest library that is installed.

    Raises:
        ConfigError: the library that was asked for is not installed.
    """
    name = available_backends()[0] if choice == "auto" else choice
    if name not in available_backends():
        raise ConfigError(
            f"the QUIC library {name} is not installed",
            advice="install casfs[fast], or choose --quic aioquic",
        )
    if name == "qh3":
        from ingest.backends.qh3_backend import Qh3Connection

        return Qh3Connection(settings)
    from ingest.backends.aioquic_backend import AioquicConnection

    return AioquicConnection(settings)
