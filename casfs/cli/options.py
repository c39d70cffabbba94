"""Options that many commands share, and the archive that they name."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click
from msgspec import Struct

from casfs.cli.quantities import Quantity
from casfs.config import Loaded, Settings, load
from casfs.errors import ConfigError
from casfs.objects.syncing import STRATEGIES
from casfs.quantities import parse_duration
from casfs.timestamps import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from casfs.archive import Archive

P = ParamSpec("P")
R = TypeVar("R")

_NAMES = ("cas_root", "manifest_root", "index", "config")


class RootFlags(Struct, frozen=True):
    """The root options as given, before or after the command's name."""

    cas_root: str | None = None
    manifest_root: str | None = None
    index: str | None = None
    config: str | None = None

    def over(self, other: RootFlags) -> RootFlags:
        """Return these flags, and those of ``other`` where these are not given."""
        return RootFlags(*(getattr(self, name) or getattr(other, name) for name in _NAMES))

    def settings(self, *, sync_strategy: str | None = None) -> Settings:
        """Return the settings in force; raises ConfigError."""
        return self.load(os.environ, {"sync-strategy": sync_strategy}).settings

    def load(self, environment: Mapping[str, str], given: Mapping[str, object]) -> Loaded:
        """Return the settings in force and their origins; ``given``: further flags, by name.

        Raises ConfigError.
        """
        flags = {name.replace("_", "-"): getattr(self, name) for name in _NAMES[:3]}
        return load({**flags, **given}, environment, self.config)

    def archive(self, *, sync_strategy: str | None = None) -> Archive:
        """Open the archive; raises ConfigError, ArchiveError, StorageError.

        ``sync_strategy``: as given to a command that writes objects (`sync_strategy_option`).
        """
        # Not for those who only ask for help, or what the settings are.
        from casfs.archive import Archive

        settings = self.settings(sync_strategy=sync_strategy)
        return Archive(
            settings.roots(), index_path=settings.index, sync_strategy=settings.sync_strategy
        )


def root_options(command: Callable[P, R]) -> Callable[..., R]:
    """Add the root options to a command and remember what was given."""

    @click.option(
        "--cas-root",
        "--output-dir",
        metavar="DIR",
        help="Where the objects are.  [env: CASFS_CAS_ROOT]",
    )
    @click.option(
        "--manifest-root",
        "--manifest-dir",
        metavar="DIR",
        help="Where the manifests are.  [env: CASFS_MANIFEST_ROOT]",
    )
    @click.option(
        "--index",
        metavar="FILE",
        help="The index, if not below the manifest root.  [env: CASFS_INDEX]",
    )
    @click.option("--config", metavar="FILE", help="A configuration file.  [env: CASFS_CONFIG]")
    @functools.wraps(command)
    def wrapped(
        cas_root: str | None,
        manifest_root: str | None,
        index: str | None,
        config: str | None,
        *arguments: P.args,
        **options: P.kwargs,
    ) -> R:
        context = click.get_current_context()
        outer = context.obj if isinstance(context.obj, RootFlags) else RootFlags()
        context.obj = RootFlags(cas_root, manifest_root, index, config).over(outer)
        return command(*arguments, **options)

    return wrapped


def pass_roots(command: Callable[Concatenate[RootFlags, P], R]) -> Callable[..., R]:
    """Give a command its root flags as first argument; adds `root_options`."""

    @functools.wraps(command)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> R:
        flags = click.get_current_context().obj
        return command(flags, *arguments, **options)

    return root_options(wrapped)


sync_strategy_option = click.option(
    "--sync-strategy",
    type=click.Choice(STRATEGIES),
    help="Make objects durable by fsync of each or by syncfs of their filesystem; auto takes syncfs"
    " on btrfs alone.  [env: CASFS_SYNC_STRATEGY; default: auto]",
)
"""An option of the commands that write objects."""


class Duration(Quantity[float]):
    """A span of time: ``90``, ``90s``, ``15m``, ``2h``, ``7d``; gives seconds."""

    name = "duration"
    kind = float
    read = staticmethod(parse_duration)


def _instant(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time such as 2026-11-22T13:00:00Z") from None


class Instant(Quantity[int]):
    """An RFC 3339 time such as ``2026-11-22T13:00:00Z``; gives nanoseconds UTC."""

    name = "time"
    kind = int
    read = staticmethod(_instant)


def parse_range(text: str) -> tuple[int, int]:
    """Return (first, last) of ``42`` or ``42-50``; raises ConfigError."""
    first, dash, last = text.partition("-")
    try:
        pair = int(first), int(last) if dash else int(first)
    except ValueError:
        raise ConfigError(f"{text!r} is no sequence or range such as 42 or 42-50") from None
    if not 0 <= pair[0] <= pair[1]:
        raise ConfigError(f"the range {text!r} is empty")
    return pair
