"""What the tree must be beside what it does: whole, locked, readable, tied to no registry."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

LOCKS = ("requirements.lock", "requirements-build.lock")
SCRIPTS = (
    *(
        "tools/setup",
        "tools/test",
        "tools/quickstart",
        "tools/lock",
        "tools/bench",
        "tools/crash",
        "tools/mount-trial",
        ".ci/run",
    ),
)
MAX_LINES = 500

REGISTRY = re.compile(
    r"pypi\.org|pythonhosted|deb\.debian\.org|npmjs|crates\.io|(--|\b)(extra-)?index-url\s|"
    r"--find-links\s|--trusted-host\s"
)
BLANKET = re.compile(r"#\s*(noqa(?!:\s?[A-Z])|type:\s*ignore(?!\[)|mypy:\s*ignore|ruff:\s*noqa)")
KITCHEN_DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}


def _python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _locked(name: str) -> dict[str, str]:
    """Package name -> version, of everything in a lock."""
    entries = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", _text(ROOT / name), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in entries}


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", *LOCKS])
def test_a_reader_finds(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_versions_and_hashes_and_nothing_else(name: str) -> None:
    entry = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+ \\")
    digest = re.compile(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?")
    comment = re.compile(r" *#.*|")
    lines = _text(ROOT / name).splitlines()
    odd = [
        line for line in lines if not any(form.fullmatch(line) for form in (entry, digest, comment))
    ]
    assert not odd
    assert not re.search(r"://|/home|/tmp|/opt", "\n".join(lines))


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_a_hash(name: str) -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", _text(ROOT / name), flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_locks_satisfy_what_the_project_asks_for() -> None:
    pyproject = tomllib.loads(_text(ROOT / "pyproject.toml"))
    groups = pyproject["dependency-groups"]
    asked = {
        "requirements.lock": pyproject["project"]["dependencies"] + groups["dev"],
        "requirements-build.lock": groups["build"] + pyproject["build-system"]["requires"],
    }
    for lock, wishes in asked.items():
        versions = _locked(lock)
        for wish in map(Requirement, wishes):
            name = canonicalize_name(wish.name)
            assert name in versions, f"{wish} is not in {lock}: run tools/lock"
            assert wish.specifier.contains(versions[name]), f"{wish}, but {lock} has another"


def test_the_two_locks_agree() -> None:
    runtime, build = (_locked(name) for name in LOCKS)
    assert {name: runtime[name] for name in runtime & build.keys()} == {
        name: build[name] for name in runtime & build.keys()
    }


def test_no_registry_is_named() -> None:
    files = [ROOT / name for name in (*LOCKS, *SCRIPTS, "pyproject.toml")]
    files += _python_files("tools", "casfs", "ingest")
    # tools/lock names the options that keep them out of the locks.
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        for line in _text(path).splitlines()
        if REGISTRY.search(line) and "--no-emit-" not in line
    ]
    assert not found


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_run(name: str) -> None:
    script = ROOT / name
    assert os.access(script, os.X_OK)
    assert _text(script).startswith("#!/usr/bin/env bash\n")
    assert re.search(r"^set -e?uo pipefail$", _text(script), re.MULTILINE)
    subprocess.run(["bash", "-n", script], check=True)


def test_no_module_has_outgrown_its_room() -> None:
    lengths = {path: len(_text(path).splitlines()) for path in _python_files("casfs", "ingest")}
    assert lengths
    assert not {str(path): length for path, length in lengths.items() if length > MAX_LINES}


def test_no_name_says_nothing() -> None:
    parts = {
        (part.removesuffix(".py"), path.relative_to(ROOT))
        for path in _python_files("casfs", "ingest", "tools", "tests")
        for part in path.relative_to(ROOT).parts
    }
    assert not [str(path) for part, path in parts if part in KITCHEN_DRAWERS]


def test_every_exception_to_a_rule_names_the_rule() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _python_files("casfs", "ingest", "tools", "tests")
        for number, line in enumerate(_text(path).splitlines(), start=1)
        if BLANKET.search(line)
    ]
    assert not found


@pytest.mark.parametrize(
    ("line", "blanket"),
    [
        ("x = 1  # " + "noqa", True),
        ("x = 1  # " + "type: ignore", True),
        ("x = 1  # " + "type: ignore  # reason", True),
        ("x = 1  # noqa: E501  # a table", False),
        ("x = 1  # type: ignore[misc]  # untyped library", False),
    ],
)
def test_a_blanket_exception_is_seen(line: str, blanket: bool) -> None:
    assert bool(BLANKET.search(line)) is blanket


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "--extra-index-url file:///somewhere",
        "--find-links /somewhere",
        "pip install --index-url https://example.org/simple casfs",
    ],
)
def test_a_registry_is_seen(line: str) -> None:
    assert REGISTRY.search(line)


def test_no_python_file_is_empty_by_accident() -> None:
    files = _python_files("casfs", "ingest", "tools")
    assert files
    assert not [str(path) for path in files if not _text(path).strip()]
