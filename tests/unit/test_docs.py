"""The pages fit the program: commands, errors, limits, links and names of tests."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from casfs.cli.program import INTERRUPTED, program
from casfs.errors import CasfsError
from casfs.mount.filenames import latest_name, parse_day, parse_group_file_name, parse_hour
from ingest.moq.interface import Limits
from ingest.moq.negotiation import PROTOCOLS
from ingest.recorder import DEFAULT_TRACKS, Timers
from ingest.session import SessionOptions
from tools.docs.__main__ import (
    COMMANDS,
    commands_page,
    difference,
    error_classes,
    visible_commands,
)
from tools.docs.markdown import Block, Page, Table, anchor_of, read_page

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "nix" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
}
COMMAND_NAMES = [" ".join(names) for names, _ in visible_commands()]


def page(name: str) -> Page:
    return read_page(PAGES[name])


def first_column(tables: list[Table]) -> list[str]:
    return [row[0].strip("`") for table in tables for row in table.rows]


# Commands


def test_the_commands_page_is_what_would_be_generated() -> None:
    assert difference(COMMANDS.read_text(encoding="utf-8"), commands_page()) == ""


@pytest.mark.parametrize(("names", "command"), list(visible_commands()), ids=str)
def test_every_command_is_explained_with_an_example(
    names: tuple[str, ...], command: click.Command
) -> None:
    assert command.help
    assert " ".join(names) in page("docs/commands.md").headings
    if not isinstance(command, click.Group) or command is program:
        assert "Example:" in command.help
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@pytest.mark.parametrize("name", [name for name in COMMAND_NAMES if " " in name])
def test_the_readme_knows_every_command(name: str) -> None:
    word = name.split()[1]
    assert word == "wt-archive" or re.search(rf"`{word}`|casfs {word}\b", PAGES["README.md"])


def test_every_exit_code_is_in_the_table() -> None:
    (table,) = page("docs/commands.md").tables_in("Exit codes")
    codes = {int(row[0]) for row in table.rows}
    assert codes == {0, INTERRUPTED, *(error.exit_code for error in error_classes())}
    epilog = program.epilog or ""
    assert codes == {int(code) for code in re.findall(r"(?:^|\s\s)(\d+)  ", epilog)}


# Errors


def raised_errors() -> set[str]:
    """Return the names of all errors of ours that some code constructs or raises."""
    known = {error.__name__ for error in error_classes()}
    called = set()
    for folder in ("casfs", "ingest"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    called.add(node.func.id)
    return known & called


def test_operations_says_what_to_do_about_every_error_that_is_raised() -> None:
    described = {
        name: section
        for table in page("docs/operations.md").tables
        if table.head[0] == "error"
        for name, section in ((row[0].strip("`"), table.section) for row in table.rows)
    }
    assert set(described) == raised_errors()
    codes = {error.__name__: error.exit_code for error in error_classes()}
    assert all(section.endswith(f"({codes[name]})") for name, section in described.items())


def test_the_errors_are_one_tree() -> None:
    assert error_classes()[0] is CasfsError
    assert len(error_classes()) == len(set(error_classes())) > 20


# Protocols


def test_the_limits_are_those_of_the_code() -> None:
    (limits, times) = page("docs/protocols.md").tables_in("Limits")
    assert {row[0].strip("`"): int(row[1]) for row in limits.rows} == {
        name: getattr(Limits(), name) for name in Limits.__struct_fields__
    }
    session, timers = SessionOptions(), Timers()
    expected = (
        session.connect_timeout,
        session.keep_alive,
        session.idle_timeout,
        timers.no_data,
        timers.still_open,
    )
    assert tuple(float(row[1]) for row in times.rows[:5]) == expected


def test_the_coverage_table_says_what_is_offered() -> None:
    (table,) = page("docs/protocols.md").tables_in("Coverage")
    spoken = [row[2].strip("`") for row in table.rows if row[2]]
    assert spoken == list(PROTOCOLS)
    assert all(row[1].startswith("works") for row in table.rows if row[2])


def test_the_default_tracks_are_named() -> None:
    assert all(f"`{track}`" in PAGES["docs/protocols.md"] for track in DEFAULT_TRACKS)


# Links


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for link in page(name).links:
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), link
        if anchor:
            assert anchor in read_page(path.read_text(encoding="utf-8")).anchors, link


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_of_the_tree_exists(name: str) -> None:
    named = re.findall(r"`((?:casfs|ingest|tests|tools|docs|nix)/[\w./-]+)`", PAGES[name])
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(page("README.md").links)
    assert {name for name in PAGES if name.startswith("docs/") and name.count("/") == 1} <= linked


@pytest.mark.parametrize("name", PAGES)
def test_lines_fit_on_a_screen(name: str) -> None:
    long = [
        line
        for line in PAGES[name].splitlines()
        if len(line) > 105 and not line.startswith(("|", '{"kind":', "- [", "casfs", "    ", "rel"))
    ]
    assert not long


def test_every_promise_names_tests_that_exist() -> None:
    (table,) = page("README.md").tables_in("What it promises")
    for promise, proof in table.rows:
        named = re.findall(r"\[(test_\w+)\]\(([\w/.]+)\)", proof)
        assert named, promise
        for test, path in named:
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), test


# The picture of the mount


def test_the_names_in_the_picture_are_those_of_the_mount() -> None:
    (picture,) = [block for block in page("README.md").blocks if "broadcasts" in block.text][:1]
    words = picture.text.split()
    groups = [word for word in words if word.startswith("e0001-")]
    assert groups
    assert all(parse_group_file_name(word) for word in groups)
    day, hour, name = words[words.index("->") + 1].split("/")
    assert parse_day(day) is not None
    assert parse_hour(hour) is not None
    assert name in groups
    assert latest_name("video0.m4s") in words


# Units


def test_the_archive_s_unit_with_the_drop_in_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    (drop_in,) = [b.text for b in page("docs/operations.md").blocks if b.language == "ini"]
    casfs = shutil.which("true")
    assert casfs is not None
    unit = (ROOT / "docs" / "systemd" / "casfs-archive.service").read_text()
    whole = (unit + drop_in).replace("/opt/casfs/.venv/bin/casfs", casfs)
    assert not complaints_of_systemd(tmp_path / "good", {"casfs-archive.service": whole})
    bad = whole.replace("ReadWritePaths=-/pool/cas", "ReadWritePaths=pool/cas")
    assert complaints_of_systemd(tmp_path / "bad", {"casfs-archive.service": bad})


def complaints_of_systemd(directory: Path, units: dict[str, str]) -> list[str]:
    """Return what systemd says of these units; it may say what it likes of the machine's own."""
    directory.mkdir()
    for name, text in units.items():
        (directory / name).write_text(text)
    path = directory / next(reversed(units))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
    )
    return [line for line in result.stderr.splitlines() if path.name in line]


# Reading Markdown


def test_a_page_is_read() -> None:
    text = (
        "# One\n\n[a](b.md#c)\n\n```sh\n# no heading\n```\n\n"
        "## Two, three\n\n|a|b|\n|---|---|\n|1||\n"
    )
    assert read_page(text) == Page(
        blocks=(Block("sh", "# no heading\n", "One", 5),),
        tables=(Table(("a", "b"), (("1", ""),), "Two, three"),),
        headings=("One", "Two, three"),
        links=("b.md#c",),
    )
    assert anchor_of("Two, three") == "two-three"
    with pytest.raises(ValueError, match="no end"):
        read_page("```\n")
