"""The rules of the house: who may import whom, and who may touch the world.

Data flows one way; imports point the other way, never back. Each rule is a row of `RULES`: its
sentence, what breaks it, a text that it must catch and one that it must let pass.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]

# What each part of casfs may import of casfs, besides itself. A new part needs a row.

_GROUND = frozenset({"errors", "digest", "timestamps", "names", "durable"})
_STORES = _GROUND | {"roots", "objects", "manifests"}
_ARCHIVE = _STORES | {"index", "media", "heads", "admission", "groups", "archive"}
LAYERS: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "digest": frozenset({"errors"}),
    "timestamps": frozenset({"errors"}),
    "names": frozenset({"errors", "digest"}),
    "durable": frozenset({"errors"}),
    "systemd": frozenset(),
    "children": frozenset(),
    "quantities": frozenset(),
    "filesystems": frozenset(),
    "recorders": frozenset({"errors", "durable", "roots"}),
    "outlook": frozenset({"errors", "roots", "recorders", "timestamps"}),
    "media": frozenset({"errors", "digest", "timestamps"}),
    "objects": _GROUND,
    "manifests": _GROUND,
    "roots": _GROUND | {"objects"},
    "first_run": _GROUND | {"roots"},
    "capacity": _GROUND | {"roots"},
    "config": _GROUND | {"roots", "quantities", "objects"},
    "heads": _GROUND | {"roots", "manifests"},
    "admission": _GROUND | {"roots", "manifests", "heads"},
    "index": _STORES - {"objects"} | {"media", "children"},
    "groups": _STORES - {"roots"},
    "archive": _ARCHIVE - {"archive"},
    "verify": _ARCHIVE,
    "show": _ARCHIVE,
    "recordings": _ARCHIVE | {"children"},
    "follower": _ARCHIVE | {"recordings", "children"},
    "export": _ARCHIVE | {"recordings"},
    "adopt": _ARCHIVE,
    "retention": _STORES | {"index"},
    "trash": _GROUND | {"roots", "objects"},
    "expiries": _ARCHIVE | {"retention"},
    "expire": _ARCHIVE | {"retention", "trash", "expiries"},
    "survey": _ARCHIVE | {"retention", "trash", "expiries", "expire"},
    "collect": _ARCHIVE | {"retention", "trash", "expiries", "expire", "survey"},
    "restore": _ARCHIVE | {"retention", "trash", "expiries", "expire", "survey"},
    "mount": _ARCHIVE | {"systemd", "recordings"},
    "cli": _ARCHIVE
    | {"config", "verify", "show", "export", "adopt", "mount", "recordings"}
    | {
        "retention",
        "expire",
        "collect",
        "restore",
        "systemd",
        "quantities",
        "recorders",
        "filesystems",
    }
    | {"outlook", "capacity", "first_run"},
    "__main__": frozenset({"cli"}),
}

PURE = (
    "casfs.digest",
    "casfs.names",
    "casfs.quantities",
    "casfs.config.schema",
    "casfs.config.entries",
    "casfs.config.lines",
    "casfs.adopt.lines",
    "casfs.adopt.epochs",
    "casfs.manifests.record",
    "casfs.manifests.expiry",
    "casfs.manifests.runs",
    "casfs.retention",
    "casfs.media",
    "casfs.mount.tree",
    "casfs.mount.filenames",
    "casfs.mount.inodes",
    "casfs.mount.recent",
    "casfs.mount.broadcasts",
    "casfs.mount.views",
    "ingest.moq",
    "ingest.directory",
    "ingest.supervision",
)
"""These decide: they do no I/O and know no clock."""

_WORLD = (
    *("asyncio", "concurrent", "fcntl", "glob", "mmap", "multiprocessing", "os", "pathlib"),
    *("pyfuse3", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "sqlite_utils"),
    *("ssl", "subprocess", "tempfile", "threading", "time", "trio"),
)
_WORLD_CALLS = frozenset({"open", "print", "input"})
_CLOCK_METHODS = frozenset({"now", "utcnow", "today"})


# Reading a module


@dataclass(frozen=True)
class Import:
    """One name that a module imports."""

    name: str
    """Dotted, and absolute."""
    line: int
    in_function: bool
    for_typing: bool
    """Only where TYPE_CHECKING holds: nothing is imported when the program runs."""


class _Reader(ast.NodeVisitor):
    """Collects what a module imports and the calls that reach the world."""

    def __init__(self, package: str) -> None:
        self._package = package.split(".")
        self._functions = 0
        self._typing = 0
        self.imports: list[Import] = []
        self.calls: list[tuple[str, int]] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._note(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self._package[: len(self._package) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            self._note(f"{module}.{alias.name}", node.lineno)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_function(node)

    def visit_If(self, node: ast.If) -> None:
        typing = ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING"
        self.visit(node.test)
        self._typing += typing
        for statement in node.body:
            self.visit(statement)
        self._typing -= typing
        for statement in node.orelse:
            self.visit(statement)

    def visit_Call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(name) if name in _WORLD_CALLS:
                self.calls.append((name, node.lineno))
            case ast.Attribute(attr=name) if name in _CLOCK_METHODS:
                self.calls.append((name, node.lineno))
        self.generic_visit(node)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._functions += 1
        self.generic_visit(node)
        self._functions -= 1

    def _note(self, name: str, line: int) -> None:
        self.imports.append(Import(name, line, bool(self._functions), bool(self._typing)))


@dataclass(frozen=True)
class Module:
    """A module as the rules see it."""

    name: str
    imports: tuple[Import, ...]
    calls: tuple[tuple[str, int], ...]

    @property
    def part(self) -> str:
        """The second component of its name: the part of the house that it is in."""
        return self.name.split(".")[1] if "." in self.name else ""


def read(name: str, source: str, *, is_package: bool = False) -> Module:
    """Read the source text of the module ``name``."""
    reader = _Reader(name if is_package else name.rpartition(".")[0])
    reader.visit(ast.parse(source))
    return Module(name, tuple(reader.imports), tuple(reader.calls))


@functools.cache
def modules_of_the_house() -> tuple[Module, ...]:
    return tuple(
        read(name_of(path), path.read_text(encoding="utf-8"), is_package=path.stem == "__init__")
        for package in ("casfs", "ingest")
        for path in sorted((ROOT / package).rglob("*.py"))
    )


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def within(name: str, *places: str) -> bool:
    """Whether the dotted ``name`` is one of ``places`` or lies in one."""
    return any(name == place or name.startswith(place + ".") for place in places)


# What breaks a rule


def _imports(
    module: Module, *forbidden: str, allowed_in: frozenset[str] = frozenset()
) -> Iterator[str]:
    if within(module.name, *allowed_in):
        return
    for item in module.imports:
        if within(item.name, *forbidden):
            yield f"{module.name}:{item.line} imports {item.name}"


def upward_imports(module: Module) -> Iterator[str]:
    if module.part not in LAYERS or not within(module.name, "casfs"):
        return
    for item in module.imports:
        target = item.name.split(".")
        if target[0] != "casfs" or len(target) < 2 or target[1] not in LAYERS:
            continue
        if target[1] != module.part and target[1] not in LAYERS[module.part]:
            yield f"{module.name}:{item.line} imports {item.name}"


def parts_without_a_place(module: Module) -> Iterator[str]:
    if within(module.name, "casfs") and module.part and module.part not in LAYERS:
        yield f"{module.name} has no row in LAYERS: say what it may import"


def imports_of_ingest(module: Module) -> Iterator[str]:
    if not within(module.name, "casfs"):
        return
    command = within(module.name, "casfs.cli")
    for item in module.imports:
        allowed = command and (item.in_function or item.for_typing)
        if within(item.name, "ingest") and not allowed:
            yield f"{module.name}:{item.line} imports {item.name}"


def what_ingest_must_not_see(module: Module) -> Iterator[str]:
    if not within(module.name, "ingest"):
        return
    yield from _imports(
        module, "casfs.cli", "casfs.mount", "casfs.verify", "casfs.collect", "casfs.restore"
    )
    for item in module.imports:
        # It may name the type of a mirror that the archive hands it.
        if within(item.name, "casfs.index") and not item.for_typing:
            yield f"{module.name}:{item.line} imports {item.name}"


def impure(module: Module) -> Iterator[str]:
    if not within(module.name, *PURE):
        return
    for item in module.imports:
        if within(item.name, "pathlib.PurePosixPath") or item.for_typing:
            continue
        if within(item.name, *_WORLD):
            yield f"{module.name}:{item.line} imports {item.name}"
    for call, line in module.calls:
        yield f"{module.name}:{line} calls {call}()"


@dataclass(frozen=True)
class Rule:
    """A rule, and the proof that it can be broken and kept."""

    sentence: str
    violations: Callable[[Module], Iterator[str]]
    breaks: tuple[tuple[str, str], ...]
    """(module, source) of which each must be caught."""
    keeps: tuple[tuple[str, str], ...]
    """(module, source) of which none may be caught."""


RULES = (
    Rule(
        "imports run one way",
        upward_imports,
        breaks=(
            ("casfs.objects.local", "from casfs.index import index"),
            ("casfs.objects.local", "from casfs import index"),
            ("casfs.objects.local", "from ..manifests.record import Record"),
            ("casfs.manifests.journal", "import casfs.objects.commit"),
            ("casfs.index.index", "def f():\n    from casfs.archive import Archive"),
            ("casfs.archive", "if TYPE_CHECKING:\n    from casfs.mount.tree import Node"),
            ("casfs.verify", "from casfs.cli import main"),
        ),
        keeps=(
            ("casfs.objects.local", "from casfs.digest import Digest\nfrom .store import Store"),
            ("casfs.objects.local", "from casfs import __version__"),
            ("casfs.archive", "from casfs.index.index import Index"),
            ("casfs.cli.verify", "from casfs.verify import verify"),
        ),
    ),
    Rule(
        "every part of casfs has its place",
        parts_without_a_place,
        breaks=(("casfs.gadgets", ""), ("casfs.gadgets.wheel", "")),
        keeps=(("casfs", ""), ("casfs.objects.local", ""), ("ingest.gadgets", "")),
    ),
    Rule(
        "casfs imports ingest only inside a command",
        imports_of_ingest,
        breaks=(
            ("casfs.archive", "def f():\n    import ingest.recorder"),
            ("casfs.cli.archive", "from ingest.recorder import record"),
        ),
        keeps=(
            ("casfs.cli.archive", "async def f():\n    from ingest.recorder import record"),
            ("ingest.recorder", "from ingest.quic import connect"),
        ),
    ),
    Rule(
        "ingest commits and sees nothing behind the commit",
        what_ingest_must_not_see,
        breaks=(
            ("ingest.recorder", "from casfs.index.index import Index"),
            ("ingest.recorder", "def f():\n    import casfs.mount.tree"),
        ),
        keeps=(
            ("ingest.recorder", "from casfs.archive import Archive"),
            ("ingest.recorder", "if TYPE_CHECKING:\n    from casfs.index.mirror import Mirror"),
        ),
    ),
    Rule(
        "what decides does no I/O and knows no clock",
        impure,
        breaks=(
            ("casfs.mount.tree", "import time"),
            ("casfs.mount.tree", "from os import path"),
            ("casfs.names", "from pathlib import Path"),
            ("casfs.media.boxes", "def f(name):\n    return open(name)"),
            ("casfs.manifests.record", "NOW = datetime.now(UTC)"),
            ("ingest.moq.lite", "def f():\n    import trio"),
        ),
        keeps=(
            ("casfs.mount.tree", "if TYPE_CHECKING:\n    import os"),
            ("casfs.names", "from urllib.parse import quote"),
            ("casfs.objects.local", "import os"),
            ("ingest.moq.lite", "def f(stream):\n    stream.open(1)"),
        ),
    ),
    Rule(
        "SQL only in the index",
        lambda module: _imports(
            module, "sqlite3", "sqlite_utils", allowed_in=frozenset({"casfs.index"})
        ),
        breaks=(
            ("casfs.archive", "import sqlite3"),
            ("casfs.cli.ls", "from sqlite_utils import Database"),
        ),
        keeps=(("casfs.index.index", "import sqlite3, sqlite_utils"),),
    ),
    Rule(
        "FUSE only in the adapter",
        lambda module: _imports(
            module, "pyfuse3", allowed_in=frozenset({"casfs.mount.filesystem"})
        ),
        breaks=(("casfs.mount.tree", "import pyfuse3"), ("casfs.cli.mount", "import pyfuse3")),
        keeps=(("casfs.mount.filesystem", "import pyfuse3"),),
    ),
    Rule(
        "QUIC libraries only behind their interface",
        lambda module: _imports(
            module, "aioquic", "qh3", allowed_in=frozenset({"ingest.backends"})
        ),
        breaks=(
            ("ingest.moq.lite", "from aioquic.buffer import Buffer"),
            ("ingest.webtransport", "def f():\n    import qh3.h3.connection"),
        ),
        keeps=(("ingest.backends.qh3_backend", "from qh3.h3.connection import H3Connection"),),
    ),
    Rule(
        "click only in the command line",
        lambda module: _imports(module, "click", allowed_in=frozenset({"casfs.cli"})),
        breaks=(("casfs.config", "import click"),),
        keeps=(("casfs.cli.ls", "import click"),),
    ),
    Rule(
        "trio only, never asyncio",
        lambda module: _imports(
            module, "asyncio", "aioquic.asyncio", "qh3.asyncio", "pyfuse3.asyncio"
        ),
        breaks=(("ingest.quic", "from aioquic.asyncio import connect"),),
        keeps=(("ingest.backends.x", "from aioquic.quic.connection import QuicConnection"),),
    ),
    Rule(
        "only the archive knows the commit order",
        lambda module: _imports(
            module,
            "casfs.objects.commit",
            "casfs.manifests.journal",
            # The collector and the verifier keep journals of their own decisions.
            allowed_in=frozenset(
                {
                    "casfs.objects",
                    "casfs.manifests",
                    "casfs.archive",
                    "casfs.expiries",
                    "casfs.verify",
                }
            ),
        ),
        breaks=(
            ("casfs.mount.objects", "from casfs.objects.commit import GroupCommit"),
            ("ingest.recorder", "from casfs.manifests.journal import Journal"),
        ),
        keeps=(("casfs.archive", "from casfs.manifests.journal import Journal"),),
    ),
    Rule(
        "only a command asks for anything to expire or to be deleted",
        lambda module: _imports(
            module,
            *("casfs.expiries", "casfs.expire", "casfs.collect", "casfs.restore"),
            allowed_in=frozenset(
                {"casfs.cli", "casfs.expire", "casfs.survey", "casfs.collect", "casfs.restore"}
            ),
        ),
        breaks=(
            ("casfs.mount.tree", "from casfs.collect import collect"),
            ("ingest.recorder", "def f():\n    from casfs.expire import expire"),
        ),
        keeps=(("casfs.cli.collect", "from casfs.collect import collect"),),
    ),
    Rule(
        "what only developers install is not imported",
        lambda module: _imports(module, "moq", "moq_ffi", "pytest", "hypothesis", "tools", "tests"),
        breaks=(("ingest.recorder", "import moq"),),
        keeps=(("ingest.recorder", "from ingest.moq import negotiation"),),
    ),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.sentence)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    violations = [text for module in modules_of_the_house() for text in rule.violations(module)]
    assert not violations


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [(rule, *text) for rule in RULES for text in rule.breaks],
    ids=lambda value: value.sentence if isinstance(value, Rule) else None,
)
def test_a_text_that_breaks_the_rule_is_caught(rule: Rule, name: str, source: str) -> None:
    assert list(rule.violations(read(name, source)))


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [(rule, *text) for rule in RULES for text in rule.keeps],
    ids=lambda value: value.sentence if isinstance(value, Rule) else None,
)
def test_a_text_that_keeps_the_rule_passes(rule: Rule, name: str, source: str) -> None:
    assert not list(rule.violations(read(name, source)))


def test_the_layers_have_no_circle() -> None:
    placed: set[str] = set()
    while len(placed) < len(LAYERS):
        ready = {part for part, below in LAYERS.items() if below <= placed} - placed
        assert ready, f"in a circle: {set(LAYERS) - placed}"
        placed |= ready


def test_the_house_is_read_as_a_whole() -> None:
    names = {module.name for module in modules_of_the_house()}
    assert {"casfs", "casfs.digest", "casfs.errors", "ingest", "ingest.moq.interface"} <= names


@pytest.mark.parametrize(
    ("entered", "without"),
    [
        pytest.param(
            "casfs.cli.program, casfs.cli.archive, ingest.foreground",
            {"casfs.mount", "casfs.verify", "casfs.index.index", "casfs.recordings.sampling"}
            | {"cryptography", "httpx", "prometheus_client", "pyfuse3", "rich", "sqlite_utils"},
            id="a recorder",
        ),
        pytest.param(
            "casfs.follower, casfs.heads, casfs.index.mirror",
            {"casfs.archive", "casfs.mount", "casfs.recordings.sampling", "click", "hashlib"}
            | {"ingest", "rich", "sqlite_utils", "ssl", "trio"},
            id="the process that keeps its index",
        ),
    ],
)
def test_what_runs_for_weeks_carries_only_what_it_needs(entered: str, without: set[str]) -> None:
    script = f"import sys; import {entered}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not without & set(done.stdout.split())
