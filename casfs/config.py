"""Settings: built-in defaults, then the configuration file, then the environment, then flags.

The file is TOML: the one named by ``--config`` or ``CASFS_CONFIG``, else the user's
``casfs/config.toml`` below ``XDG_CONFIG_HOME`` (``~/.config``), else ``/etc/casfs/config.toml``.
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.errors import ConfigError, storage_error
from casfs.objects.syncing import STRATEGIES, StrategyName
from casfs.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_FILE = "/etc/casfs/config.toml"
"""Read when neither flag, environment nor user name a file."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What may stand in the file; every member may be missing."""

    cas_root: str | None = None
    """Where objects are (``CASFS_CAS_ROOT``)."""
    manifest_root: str | None = None
    """Where manifests are (``CASFS_MANIFEST_ROOT``)."""
    index: str | None = None
    """The index file (``CASFS_INDEX``); by default below the manifest root."""
    sync_strategy: StrategyName = "auto"
    """How objects are made durable (``CASFS_SYNC_STRATEGY``): ``auto``, ``fsync``, ``syncfs``."""

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


def load_settings(
    flags: Mapping[str, str | None], environment: Mapping[str, str], file: str | None = None
) -> Settings:
    """Return the settings in force; ``flags`` by member name, None for those not given.

    Raises ConfigError for a file that was asked for and is not there, and for a bad one.
    """
    named = file or environment.get("CASFS_CONFIG")
    found = _read(named) if named else _read_first(_default_files(environment))
    chosen = {
        name: flags.get(name)
        or environment.get(f"CASFS_{name.upper()}")
        or getattr(found, name)
        for name in Settings.__struct_fields__
    }  # fmt: skip
    wanted = chosen.pop("sync_strategy")
    try:
        strategy: StrategyName = msgspec.convert(wanted, StrategyName)
    except msgspec.ValidationError:
        raise ConfigError(
            f"{wanted!r} is no strategy to make objects durable by",
            advice=f"use one of {', '.join(STRATEGIES)}",
        ) from None
    return Settings(**chosen, sync_strategy=strategy)


def _default_files(environment: Mapping[str, str]) -> list[str]:
    home = environment.get("XDG_CONFIG_HOME") or os.path.join(
        environment.get("HOME", "/nonexistent"), ".config"
    )
    return [os.path.join(home, "casfs", "config.toml"), SYSTEM_FILE]


def _read_first(paths: list[str]) -> Settings:
    for path in paths:
        if os.path.exists(path):
            return _read(path)
    return Settings()


def _read(path: str) -> Settings:
    try:
        with open(path, "rb") as file:
            return msgspec.convert(tomllib.load(file), Settings)
    except FileNotFoundError:
        raise ConfigError(
            f"the configuration file {path} does not exist", advice="create it or name another"
        ) from None
    except OSError as error:
        raise storage_error(error, "reading", path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"the configuration file {path} is not valid: {error}") from error
