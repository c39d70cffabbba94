"""What the settings mean for a supervisor: read once at its start and at each reload."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from casfs.config import ExpireWhenShort
from casfs.config.secrets import read_secret
from casfs.errors import ConfigError
from casfs.names import name_bytes
from casfs.quantities import Room
from casfs.roots import Roots
from ingest.directory import Fields, check_source_url, shown_source
from ingest.fetching import FetchOptions
from ingest.moq.negotiation import offer
from ingest.relay_url import parse_relay_url
from ingest.session import SessionOptions
from ingest.supervision import Policy
from ingest.tls import TlsOptions
from ingest.transport import Transport
from ingest.worker import TrustedRelays, WorkerOptions

if TYPE_CHECKING:
    from casfs.config import AutoArchive, Loaded


class Plan(Struct, frozen=True):
    """Settings, checked."""

    roots: Roots
    policy: Policy
    directories: tuple[str, ...]
    announced_by: tuple[str, ...]
    broadcasts: tuple[str, ...]
    """Those that are pinned."""
    fetching: FetchOptions
    tls: TlsOptions
    session: SessionOptions
    workers: WorkerOptions
    poll_interval: float
    time_sync_wait: float
    min_free: Room
    expiry: ExpireWhenShort
    metrics: tuple[str, int] | None = None
    metrics_file: str | None = None
    log_format: str = "text"


def plan_of(loaded: Loaded) -> Plan:
    """Return what the settings mean; raises ConfigError for those that cannot be."""
    settings = loaded.settings
    auto = settings.auto_archive
    if not (auto.directory or auto.announced_by or auto.broadcast):
        raise ConfigError(
            "nothing says what to record",
            advice="give --directory, --announced-by, or --broadcast with --relay-url",
        )
    _check_places(auto)
    roots = settings.roots()
    tls = TlsOptions(
        ca_file=auto.tls_ca, fingerprint=auto.tls_fingerprint, insecure=auto.tls_insecure
    )
    tls.check()
    return Plan(
        roots=roots,
        policy=Policy(
            include=auto.include,
            exclude=auto.exclude,
            relay_hosts=auto.relay_host,
            default_relay=auto.relay_url,
            tracks=auto.track,
            listed_tracks=auto.listed_tracks,
            max_workers=auto.max_workers,
            grace=auto.grace,
        ),
        directories=auto.directory,
        announced_by=auto.announced_by,
        broadcasts=auto.broadcast,
        fetching=FetchOptions(
            fields=Fields(**auto.field),
            token=(
                None
                if auto.directory_token_file is None
                else read_secret(auto.directory_token_file)
            ),
            ca_file=auto.directory_ca,
        ),
        tls=tls,
        session=_session(auto),
        workers=WorkerOptions(
            cas_root=roots.cas,
            manifest_root=roots.manifests,
            index=settings.index,
            sync_strategy=settings.sync_strategy,
            flags=_worker_flags(auto),
            choice_flags=_choice_flags(auto),
            token_file=auto.token_file,
            trusted=trusted_relays(auto),
        ),
        poll_interval=auto.poll_interval,
        time_sync_wait=auto.time_sync_wait,
        min_free=auto.min_free,
        expiry=settings.expire_when_short,
        metrics=None if auto.metrics is None else loopback_address(auto.metrics),
        metrics_file=auto.metrics_file,
        log_format=auto.log_format,
    )


def needs_a_start(begun: Plan, now: Plan) -> list[str]:
    """Return the settings, but for the roots, that a supervisor takes up at its start alone."""
    found = {
        "metrics": begun.metrics != now.metrics,
        "metrics-file": begun.metrics_file != now.metrics_file,
        "log-format": begun.log_format != now.log_format,
    }
    return [name for name, differs in found.items() if differs]


def loopback_address(text: str) -> tuple[str, int]:
    """Read ``127.0.0.1:9464`` or ``[::1]:9464``; raises ConfigError for any other host."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if host == "localhost":
        host = "127.0.0.1"
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
    if not (host.startswith("127.") or host == "::1") or not is_port:
        raise ConfigError(
            f"metrics cannot be served at {text!r}",
            advice="give a loopback address such as 127.0.0.1:9464; nothing there is protected",
        )
    return host, int(port)


def is_open_to_listeners(url: str) -> bool:
    """Say whether what is sent to a directory can be read on its way."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "http" and not (host.startswith("127.") or host in ("::1", "localhost"))


def _check_places(auto: AutoArchive) -> None:
    for url in auto.directory:
        check_source_url(url)
        if auto.directory_token_file is not None and is_open_to_listeners(url):
            raise ConfigError(
                f"the token would go over the network in the clear to {shown_source(url)}",
                advice="ask that directory over https",
            )
    for url in auto.announced_by:
        parse_relay_url(url)
    if auto.relay_url is not None:
        parse_relay_url(auto.relay_url)
    elif auto.broadcast:
        raise ConfigError(
            "it is not known from which relay --broadcast comes", advice="give --relay-url"
        )
    for name in (*auto.broadcast, *auto.track):
        name_bytes(name)


def _session(auto: AutoArchive) -> SessionOptions:
    transport = None if auto.transport is None else Transport(auto.transport)
    if auto.protocol is None:
        return SessionOptions(transport=transport, quic=auto.quic)
    protocols = tuple(name.strip() for name in auto.protocol.split(","))
    offer(protocols)
    return SessionOptions(protocols=protocols, transport=transport, quic=auto.quic)


def trusted_relays(auto: AutoArchive) -> TrustedRelays:
    """Return the relays that a person named, rather than a directory: they may have the token."""
    named = [*auto.announced_by, *([auto.relay_url] if auto.relay_url else [])]
    origins = tuple(parse_relay_url(url).origin for url in named)
    return TrustedRelays(origins, auto.relay_host)


def _worker_flags(auto: AutoArchive) -> tuple[str, ...]:
    given = (
        ("--protocol", auto.protocol),
        ("--transport", auto.transport),
        ("--quic", auto.quic),
        ("--coalesce", auto.coalesce),
        ("--tls-ca", auto.tls_ca),
        ("--tls-fingerprint", auto.tls_fingerprint),
        ("--log-format", auto.log_format),
    )
    flags = [f"{flag}={value}" for flag, value in given if value is not None]
    if auto.tls_insecure:
        flags.append("--tls-insecure")
    return tuple(flags)


def _choice_flags(auto: AutoArchive) -> tuple[str, ...]:
    included = (f"--include-track={glob}" for glob in auto.include_track)
    return (*included, *(f"--exclude-track={glob}" for glob in auto.exclude_track))
