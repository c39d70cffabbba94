"""Write docs/systemd anew, or check that it is current.

    python -m tools.units            evaluate nix/module.nix, and write
    python -m tools.units --check    say what is not current; needs no Nix

What Nix said is kept beside the units (``evaluation.json``), with the digests of what it depends
on. So whoever changes the module without writing the units anew is found out without Nix, too.
"""

from __future__ import annotations

import argparse
import sys

import msgspec
from msgspec import Struct

from tools.units.evaluation import ROOT, Evaluation, digests_of_sources, evaluate
from tools.units.rendering import render_settings, render_units, render_user

DIRECTORY = ROOT / "docs" / "systemd"
STORED = DIRECTORY / "evaluation.json"

CONFIGURATION = """{
  services.casfs = {
    archive.enable = true;
    archive.directoryUrl = "https://tv.example/api/public-streams";
    verify.enable = true;
    mount.enable = true;
  };
}
"""

BEGINNING = "# The settings for the units beside this file: an example to begin with.\n"


class Stored(Struct, frozen=True):
    """What `evaluation.json` holds."""

    configuration: str
    sources: dict[str, str]
    """SHA-256 of each file that the evaluation depends on."""
    evaluation: Evaluation


def files_of(evaluation: Evaluation) -> dict[str, str]:
    """Return the text of each file in docs/systemd, but for the stored evaluation."""
    users = {
        f"{name}.sysusers.conf": render_user(name, user) for name, user in evaluation.users.items()
    }
    return {
        **render_units(evaluation),
        **users,
        "config.toml": BEGINNING + render_settings(evaluation),
    }


def read_stored() -> Stored:
    """Return what is kept of the last evaluation."""
    return msgspec.json.decode(STORED.read_bytes(), type=Stored)


def complaints() -> list[str]:
    """Return what is not current; empty if all is."""
    stored = read_stored()
    stale = [
        f"{name} has changed since" for name, digest in digests_of_sources().items()
        if stored.sources.get(name) != digest
    ]  # fmt: skip
    if stored.configuration != CONFIGURATION:
        stale.append("the configuration has changed since")
    wanted = files_of(stored.evaluation)
    found = {path.name: path.read_text() for path in DIRECTORY.iterdir() if path != STORED}
    stale += [
        f"docs/systemd/{name} is not what the module says"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    return stale


def write() -> None:
    """Evaluate the module and write everything."""
    evaluation = evaluate(CONFIGURATION)
    stored = Stored(CONFIGURATION, digests_of_sources(), evaluation)
    DIRECTORY.mkdir(exist_ok=True)
    STORED.write_bytes(msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n")
    for name, text in files_of(evaluation).items():
        (DIRECTORY / name).write_text(text)


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(prog="python -m tools.units")
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        write()
        print("docs/systemd is written")
        return
    stale = complaints()
    for line in stale:
        print(line, file=sys.stderr)
    if stale:
        sys.exit("run python -m tools.units")


if __name__ == "__main__":
    main()
