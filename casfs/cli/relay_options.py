"""Options of the commands that speak to a relay."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal, TypeVar

import click
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.backends.choice import BackendChoice
    from ingest.session import SessionOptions
    from ingest.tls import TlsOptions

R = TypeVar("R")

url_option = click.option(
    "--url",
    required=True,
    envvar="CASFS_URL",
    help="The relay: https://HOST[:PORT]/PATH, token included; moqt:// for raw QUIC."
    "  [env: CASFS_URL]",
)


class RelayFlags(Struct, frozen=True):
    """How to speak to the relay, as given."""

    protocols: str | None
    transport: str | None
    tls_ca: str | None
    tls_fingerprint: str | None
    tls_insecure: bool
    quic: Literal["auto", "aioquic", "qh3"]

    def tls(self) -> TlsOptions:
        """Return whom to trust; warns when that is anyone."""
        from ingest.tls import TlsOptions

        if self.tls_insecure:
            click.echo("casfs: warning: the relay's certificate is not checked at all", err=True)
        return TlsOptions(
            ca_file=self.tls_ca, fingerprint=self.tls_fingerprint, insecure=self.tls_insecure
        )

    def session(self) -> SessionOptions:
        """Return how sessions behave."""
        from ingest.session import SessionOptions
        from ingest.transport import Transport

        transport = None if self.transport is None else Transport(self.transport)
        if self.protocols is None:
            return SessionOptions(transport=transport, quic=self.quic)
        protocols = tuple(name.strip() for name in self.protocols.split(","))
        return SessionOptions(protocols=protocols, transport=transport, quic=self.quic)


def pass_relay(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command its relay flags as the argument ``relay``, and add the options for them."""

    @click.option(
        "--protocol",
        "protocols",
        metavar="NAME[,NAME...]",
        help="Protocols to offer, the preferred first: moq-lite-04/05/06, moqt-14/16/18.",
    )
    @click.option(
        "--transport",
        type=click.Choice(["webtransport", "quic"]),
        help="What carries them; else the URL says it: https:// WebTransport, moqt:// raw QUIC.",
    )
    @click.option(
        "--tls-ca", metavar="FILE", help="Trust these roots instead of the system's (PEM)."
    )
    @click.option("--tls-fingerprint", metavar="SHA256", help="Trust this one certificate.")
    @click.option("--tls-insecure", is_flag=True, help="Trust anyone. For tests alone.")
    @click.option(
        "--quic",
        type=click.Choice(["auto", "aioquic", "qh3"]),
        default="auto",
        show_default=True,
        help="The QUIC library; auto takes qh3, several times as fast, where it is installed.",
    )
    @functools.wraps(command)
    def wrapped(
        protocols: str | None,
        transport: str | None,
        tls_ca: str | None,
        tls_fingerprint: str | None,
        tls_insecure: bool,
        quic: BackendChoice,
        **options: object,
    ) -> R:
        flags = RelayFlags(protocols, transport, tls_ca, tls_fingerprint, tls_insecure, quic)
        return command(relay=flags, **options)

    return wrapped
