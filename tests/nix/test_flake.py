"""flake.nix and nix/package.nix, evaluated by Nix with a stand-in for nixpkgs. Nothing is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from packaging.requirements import Requirement

from tools.units.evaluation import ROOT, STANDIN

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = "packages.x86_64-linux.default"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


class Flake:
    """A copy of what the flake is made of, with nixpkgs' stand-in and a store of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._source, nixpkgs = directory / "source", directory / "nixpkgs"
        nixpkgs.mkdir()
        for file in (STANDIN / "nixpkgs" / "flake.nix", STANDIN / "lib.nix"):
            shutil.copy(file, nixpkgs)
        shutil.copytree(ROOT / "nix", self._source / "nix")
        for name in ("flake.nix", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self._source)
        for name in ("casfs", "ingest"):
            (self._source / name).mkdir()
        self._options = ["--store", str(directory / "store"), "--offline", "--no-write-lock-file"]
        self._options += ["--override-input", "nixpkgs", f"path:{nixpkgs}"]

    def run(self, *command: str, part: str = "") -> str:
        """Run a command of ``nix`` on the flake, or on a part of it."""
        result = subprocess.run(
            ["nix", *command, *self._options, f"path:{self._source}{part}"],
            env={
                **os.environ,
                "HOME": str(self._directory),
                "NIX_CONFIG": "build-users-group =\nexperimental-features = nix-command flakes",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def value(self, part: str, function: str) -> Any:
        """Return what a function makes of a part."""
        said = self.run("eval", "--json", "--impure", "--apply", function, part=f"#{part}")
        return msgspec.json.decode(said)


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Flake:
    if shutil.which("nix") is None:
        pytest.skip("nix is not installed")
    return Flake(tmp_path_factory.mktemp("flake"))


def test_the_flake_is_sound_and_offers_everything(flake: Flake) -> None:
    flake.run("flake", "check", "--no-build")
    outputs = msgspec.json.decode(flake.run("flake", "show", "--json"))
    assert set(outputs) == {
        *("packages", "overlays", "nixosModules", "checks", "devShells", "formatter"),
    }
    for system in ("x86_64-linux", "aarch64-linux"):
        assert set(outputs["packages"][system]) == {"casfs", "default"}
        assert set(outputs["checks"][system]) == {"package", "machine"}


def test_the_package_needs_what_pyproject_asks_for(flake: Flake) -> None:
    named = flake.value(f"{PACKAGE}.given.dependencies", "map (package: package.name)")
    asked = [Requirement(text).name for text in PYPROJECT["project"]["dependencies"]]
    assert named == sorted(asked)


def test_the_package_is_of_this_version_and_of_files_that_are_there(flake: Flake) -> None:
    assert flake.value(PACKAGE, "it: it.given.version") == PYPROJECT["project"]["version"]
    taken = flake.value(PACKAGE, "it: map builtins.baseNameOf it.given.src")
    assert taken == ["casfs", "ingest", "pyproject.toml", "README.md", "LICENSE"]
    assert all((ROOT / name).exists() for name in taken)


def test_the_module_of_the_flake_brings_its_package(flake: Flake) -> None:
    command = flake.value(
        "nixosModules.default",
        f"""module: (import {STANDIN}/evaluate.nix {{
          inherit module;
          configuration.services.casfs.archive = {{
            enable = true;
            directoryUrl = "https://tv.example/";
          }};
        }}).services.casfs-archive.serviceConfig.ExecStart""",
    )
    assert command.startswith("/nix/store/")
    assert f"-casfs-{PYPROJECT['project']['version']}/bin/casfs " in command


def test_the_machine_of_the_checks_is_one_that_the_module_takes(flake: Flake) -> None:
    failed = flake.value(
        "nixosModules.default",
        f"""module: (import {STANDIN}/evaluate.nix {{
          configuration = removeAttrs
            (import {ROOT}/nix/machine-test.nix {{ module = null; }}).nodes.machine [ "imports" ];
        }}).failed""",
    )
    assert failed == []
