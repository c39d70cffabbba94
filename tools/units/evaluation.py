"""What nix/module.nix makes of a configuration, found out by Nix with a stand-in for nixpkgs.

Nothing is built or fetched: ``nix-instantiate --eval`` reads files and computes. The stand-in
(``standin/lib.nix``) knows only that part of nixpkgs' library that the module uses.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
from msgspec import Struct

ROOT = Path(__file__).parents[2]
STANDIN = Path(__file__).parent / "standin"
SOURCES = (
    "nix/module.nix",
    "tools/units/standin/evaluate.nix",
    "tools/units/standin/lib.nix",
)
"""What an evaluation depends on, besides the configuration."""

Value = str | int | float | bool | None
Setting = Value | list[Value]
"""What a key of a unit has: a list is a line for each item."""


class EvaluationError(Exception):
    """Nix refuses; the message is its own."""


class Unit(Struct, frozen=True, rename="camel", kw_only=True):
    """A service or timer, with the names that NixOS gives its parts."""

    description: str = ""
    documentation: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    wanted_by: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    unit_config: dict[str, Setting] = {}
    service_config: dict[str, Setting] = {}
    timer_config: dict[str, Setting] = {}
    stop_if_changed: bool = True
    reload_triggers: tuple[str, ...] = ()
    restart_triggers: tuple[str, ...] = ()


class User(Struct, frozen=True, rename="camel"):
    """A user of the system."""

    group: str
    description: str
    home: str
    is_system_user: bool


class Fuse(Struct, frozen=True, rename="camel"):
    """What the configuration says of FUSE."""

    enable: bool
    user_allow_other: bool


class Evaluation(Struct, frozen=True):
    """What is left of a configuration once NixOS has it."""

    failed: tuple[str, ...]
    """Assertions that do not hold: NixOS refuses the configuration."""
    warnings: tuple[str, ...]
    services: dict[str, Unit]
    timers: dict[str, Unit]
    settings: dict[str, Setting | dict[str, Setting | dict[str, str]]]
    """The configuration file of casfs."""
    files: dict[str, str]
    """Below /etc."""
    users: dict[str, User]
    groups: dict[str, dict[str, str]]
    fuse: Fuse
    packages: tuple[str, ...]


def evaluate(configuration: str, *, nixpkgs: str = "") -> Evaluation:
    """Evaluate the text of a NixOS module; raises EvaluationError if Nix refuses it.

    ``nixpkgs``: where nixpkgs is, or as much of it as its ``lib``, to take that for the stand-in.
    """
    arguments = ["--eval", "--strict", "--json", "--arg", "configuration", configuration]
    if nixpkgs:
        arguments += ["--arg", "lib", f"import {nixpkgs}/lib"]
    said = run_nix(*arguments, str(STANDIN / "evaluate.nix"))
    return msgspec.json.decode(said, type=Evaluation)


def nix_is_installed() -> bool:
    """Say whether `run_nix` can work."""
    return shutil.which("nix-instantiate") is not None


def run_nix(*arguments: str) -> bytes:
    """Run ``nix-instantiate`` and return what it prints; raises EvaluationError.

    It touches no store but one that exists for this call alone.
    """
    result = subprocess.run(
        ["nix-instantiate", "--store", "dummy://", *arguments],
        env={**os.environ, "NIX_CONFIG": "build-users-group ="},
        capture_output=True,
        check=False,
        timeout=60,
    )
    if result.returncode != 0:
        raise EvaluationError(result.stderr.decode(errors="replace"))
    return result.stdout


def digests_of_sources() -> dict[str, str]:
    """Return the SHA-256 of each of `SOURCES`."""
    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in SOURCES}
