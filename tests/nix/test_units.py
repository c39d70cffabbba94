"""docs/systemd: units for systems without NixOS, which cannot drift from its module."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs.cli.program import run
from tools.units import __main__ as units
from tools.units.evaluation import Unit, evaluate, nix_is_installed
from tools.units.rendering import render_unit

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(units.DIRECTORY.glob("casfs-*"))


def test_the_units_are_what_was_evaluated_and_the_module_has_not_changed_since() -> None:
    assert units.complaints() == []


def test_evaluating_again_gives_what_is_stored() -> None:
    if not nix_is_installed():
        pytest.skip("nix-instantiate is not installed; what it last said is checked all the same")
    assert units.read_stored().evaluation == evaluate(units.CONFIGURATION)


def test_whatever_is_changed_by_hand_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "systemd"
    shutil.copytree(units.DIRECTORY, copy)
    monkeypatch.setattr(units, "DIRECTORY", copy)
    monkeypatch.setattr(units, "STORED", copy / units.STORED.name)
    assert units.complaints() == []
    (copy / "casfs-archive.service").write_text("[Service]\n")
    (copy / "casfs-mount.service").unlink()
    (copy / "else.service").touch()
    assert len(units.complaints()) == 3
    monkeypatch.setattr(units, "digests_of_sources", lambda: {"nix/module.nix": "0"})
    assert "nix/module.nix has changed since" in units.complaints()


def test_the_settings_beside_them_are_sound() -> None:
    assert run(["config", "check", str(units.DIRECTORY / "config.toml")]) == 0


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_systemd_takes_them(file: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for path in FILES:
        text = path.read_text().replace("/opt/casfs/.venv/bin/casfs", "/usr/bin/true")
        (tmp_path / path.name).write_text(text)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / file.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_a_unit_is_written_as_nixos_does() -> None:
    unit = Unit(
        description="one",
        after=("a.target", "b.target"),
        wanted_by=("multi-user.target",),
        environment={"NAME": "two words"},
        unit_config={"StartLimitIntervalSec": 0},
        service_config={"Restart": "no", "NoNewPrivileges": True, "ExecStart": ["a", "b"]},
    )
    assert render_unit(unit).split("\n\n", 1)[1] == (
        "[Unit]\nDescription=one\nAfter=a.target b.target\nStartLimitIntervalSec=0\n\n"
        '[Service]\nEnvironment="NAME=two words"\nExecStart=a\nExecStart=b\nRestart=no\n'
        "NoNewPrivileges=true\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
