"""Every setting: its name, type, default, and what it means. The one place where they stand.

A setting has the same name in the file (``max-workers`` in the table ``[auto-archive]``), as a flag
(``--max-workers``) and in the environment (``CASFS_AUTO_ARCHIVE_MAX_WORKERS``).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from casfs.errors import ConfigError
from casfs.objects.syncing import StrategyName
from casfs.quantities import Room
from casfs.roots import Roots


class Seconds(float):
    """A span of time; written ``90s``, ``15m``, ``2h``, ``7d``."""

    __slots__ = ()


def _shown_as(metavar: str) -> dict[str, str]:
    return {"metavar": metavar}


class AutoArchive(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """``[auto-archive]``: what ``casfs auto-archive`` records, and how."""

    directory: Annotated[
        tuple[str, ...],
        Meta(
            description="A public stream directory (JSON) or a relay's /announced/ listing, polled:"
            " http(s)://..., or file:///... for broadcasts that are pinned. May be given often.",
            extra=_shown_as("URL"),
        ),
    ] = ()
    announced_by: Annotated[
        tuple[str, ...],
        Meta(
            description="A relay whose own announcements over MoQ say what there is. May be given"
            " often.",
            extra=_shown_as("URL"),
        ),
    ] = ()
    broadcast: Annotated[
        tuple[str, ...],
        Meta(
            description="A broadcast at --relay-url to record whatever any directory says. May be"
            " given often.",
            extra=_shown_as("NAME"),
        ),
    ] = ()
    relay_url: Annotated[
        str | None,
        Meta(
            description="The relay of broadcasts for which nothing else names one.",
            extra=_shown_as("URL"),
        ),
    ] = None
    field: Annotated[
        dict[Literal["relay", "name", "track"], str],
        Meta(
            description="How a directory calls a member: relay=FIELD, name=FIELD or track=FIELD;"
            " relay_url, broadcast_name and track_name unless given. May be given often.",
            extra=_shown_as("NAME=FIELD"),
        ),
    ] = field(default_factory=dict)
    include: Annotated[
        tuple[str, ...],
        Meta(
            description="Record only broadcasts whose names match. May be given often.",
            extra=_shown_as("GLOB"),
        ),
    ] = ()
    exclude: Annotated[
        tuple[str, ...],
        Meta(
            description="Do not record broadcasts whose names match; wins over --include. May be"
            " given often.",
            extra=_shown_as("GLOB"),
        ),
    ] = ()
    relay_host: Annotated[
        tuple[str, ...],
        Meta(
            description="Follow a directory only to relays on these hosts; to any, unless given."
            " May be given often.",
            extra=_shown_as("GLOB"),
        ),
    ] = ()
    track: Annotated[
        tuple[str, ...],
        Meta(
            description="A track to record of each broadcast; may be given often. Without, what"
            " casfs archive records.",
            extra=_shown_as("TRACK"),
        ),
    ] = ()
    listed_tracks: Annotated[
        bool,
        Meta(description="Record only the tracks that the directory names, where it names any."),
    ] = False
    max_workers: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Record at most so many broadcasts at the same time.",
            extra=_shown_as("N"),
        ),
    ] = 100
    poll_interval: Annotated[
        Seconds,
        Meta(
            description="How often directories are asked.",
            extra=_shown_as("DURATION"),
        ),
    ] = Seconds(30)
    grace: Annotated[
        Seconds,
        Meta(
            description="A recording ends when its broadcast has been off every list, and no data"
            " has come, for so long.",
            extra=_shown_as("DURATION"),
        ),
    ] = Seconds(600)
    min_free: Annotated[
        Room,
        Meta(
            description="Begin no recording while less than this is free on either disk (10G, 5%);"
            " below half of it end recordings, the newest first.",
            extra=_shown_as("ROOM"),
        ),
    ] = Room(2e9)
    time_sync_wait: Annotated[
        Seconds,
        Meta(
            description="At the start, wait at most so long until the clock is synchronised; 0 does"
            " not wait.",
            extra=_shown_as("DURATION"),
        ),
    ] = Seconds(60)
    directory_token_file: Annotated[
        str | None,
        Meta(
            description="A file with the bearer token that all directories get; a bare name is one"
            " of systemd's credentials.",
            extra=_shown_as("FILE"),
        ),
    ] = None
    directory_ca: Annotated[
        str | None,
        Meta(
            description="For directories, trust these roots instead of the system's (PEM).",
            extra=_shown_as("FILE"),
        ),
    ] = None
    protocol: Annotated[
        str | None,
        Meta(
            description="Protocols to offer to relays, the preferred first.",
            extra=_shown_as("NAME,..."),
        ),
    ] = None
    tls_ca: Annotated[
        str | None,
        Meta(
            description="For relays, trust these roots instead of the system's (PEM).",
            extra=_shown_as("FILE"),
        ),
    ] = None
    tls_fingerprint: Annotated[
        str | None,
        Meta(
            description="For relays, trust this one certificate.",
            extra=_shown_as("SHA256"),
        ),
    ] = None
    tls_insecure: Annotated[bool, Meta(description="Trust any relay. For tests alone.")] = False
    metrics: Annotated[
        str | None,
        Meta(
            description="Serve metrics for Prometheus at this loopback address.",
            extra=_shown_as("HOST:PORT"),
        ),
    ] = None
    metrics_file: Annotated[
        str | None,
        Meta(
            description="Write metrics for Prometheus to this file (*.prom), for a textfile"
            " collector.",
            extra=_shown_as("FILE"),
        ),
    ] = None
    log_format: Annotated[
        Literal["text", "json"],
        Meta(description="How to log on stderr.", extra=_shown_as("text|json")),
    ] = "text"


class ExpireWhenShort(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """``[expire-when-short]``: what ``auto-archive`` may give up when ``min-free`` is not met."""

    enable: Annotated[
        bool,
        Meta(description="Expire the oldest hours, and collect them, until there is room again."),
    ] = False
    broadcast: Annotated[
        tuple[str, ...],
        Meta(description="Only hours of these broadcasts (globs); of all, unless given."),
    ] = ()
    keep_last: Annotated[
        int, Meta(ge=0, description="So many newest hours of each broadcast stay.")
    ] = 24
    keep_daily: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^\d\d?-\d\d?$")], ...],
        Meta(description="These hours of the day (UTC, such as 18-23) stay."),
    ] = ()
    grace: Annotated[
        Seconds,
        Meta(description="How long what expired can be restored before it is deleted."),
    ] = Seconds(3600)


class Settings(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """All settings; every one may be missing."""

    cas_root: Annotated[str | None, Meta(description="Where the objects are.")] = None
    manifest_root: Annotated[str | None, Meta(description="Where the manifests are.")] = None
    index: Annotated[str | None, Meta(description="The index, if not below the manifest root.")] = (
        None
    )
    sync_strategy: Annotated[
        StrategyName,
        Meta(
            description="How objects are made durable: by fsync of each, or by syncfs of their"
            " filesystem; auto takes syncfs on btrfs alone."
        ),
    ] = "auto"
    auto_archive: AutoArchive = field(default_factory=AutoArchive)
    expire_when_short: ExpireWhenShort = field(default_factory=ExpireWhenShort)

    def roots(self) -> Roots:
        """Return both roots; raises ConfigError if one is not known."""
        missing = [
            f"--{name} (or {variable})"
            for name, variable, value in (
                ("cas-root", "CASFS_CAS_ROOT", self.cas_root),
                ("manifest-root", "CASFS_MANIFEST_ROOT", self.manifest_root),
            )
            if not value
        ]
        if missing or not self.cas_root or not self.manifest_root:
            raise ConfigError(
                "it is not known where the archive lies",
                advice=f"give {' and '.join(missing)}, or name them in the configuration file",
            )
        return Roots.of(self.cas_root, self.manifest_root)
