"""The program as a whole: its help, its exit codes, its one line for each failure."""

from __future__ import annotations

import builtins
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

import casfs.cli
from casfs import errors
from casfs.cli.deferred import DeferredCommand, real_commands
from casfs.cli.options import Duration, Instant, RootFlags, parse_range
from casfs.cli.output import printable
from casfs.cli.program import INTERRUPTED, program, run
from casfs.errors import CasfsError, ConfigError
from casfs.quantities import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def commands(
    group: click.Group = program, name: str = "casfs"
) -> Iterator[tuple[str, click.Command]]:
    for word, command in real_commands(group):
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def test_every_command_says_what_it_does_and_shows_an_example() -> None:
    for name, command in commands():
        assert command.help, name
        assert "Example:" in command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_the_list_of_commands_says_what_each_command_says_itself() -> None:
    for name, command in real_commands(program):
        listed = program.commands[name]
        assert isinstance(listed, DeferredCommand), name
        for limit in (20, 45, 300):
            assert listed.get_short_help_str(limit) == command.get_short_help_str(limit), name


def test_the_list_of_commands_imports_none_of_them() -> None:
    script = (
        "import sys; from casfs.cli.program import run; code = run(['--help']);"
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.split())
    assert "casfs.cli.program" in loaded
    dear = {"trio", "rich", "sqlite3", "sqlite_utils", "pyfuse3", "casfs.archive", "ingest"}
    assert not loaded & (dear | {"casfs.cli.archive", "casfs.cli.ls", "casfs.cli.mount"})


def test_every_exit_code_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, CasfsError)
    }
    for code in codes | {0, INTERRUPTED}:
        assert re.search(rf"\b{code}  ", shown), code


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["frobnicate"], 2), (["ls", "--frobnicate"], 2), (["ls"], 2), (["archive"], 2)],
)
def test_a_failure_is_one_line_and_its_code(
    arguments: list[str],
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in ("CASFS_CAS_ROOT", "CASFS_MANIFEST_ROOT", "CASFS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run(arguments) == code
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("casfs: error: ")


def test_root_options_may_stand_before_or_behind_the_command(tmp_path: Path) -> None:
    outer = RootFlags(cas_root="a", manifest_root="b")
    inner = RootFlags(manifest_root="c")
    assert inner.over(outer) == RootFlags(cas_root="a", manifest_root="c")
    roots = ["--cas-root", str(tmp_path / "cas"), "--manifest-root", str(tmp_path / "manifests")]
    assert run([*roots, "init"]) == 0
    assert run(["ls", *roots]) == 0
    assert run(["ls", "--output-dir", roots[1], "--manifest-dir", roots[3]]) == 0


def test_an_empty_archive_is_said_to_be_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = ["--cas-root", str(tmp_path / "cas"), "--manifest-root", str(tmp_path / "manifests")]
    assert run(["init", *roots]) == 0
    capsys.readouterr()
    assert run(["ls", *roots]) == 0
    assert "empty" in capsys.readouterr().out
    assert run(["ls", "--json", *roots]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "0", "1w", "nan", "inf", "1e400", "1 2", "1hh"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_instants_and_ranges() -> None:
    assert Instant().convert("1970-01-01T00:00:01Z", None, None) == 1_000_000_000
    with pytest.raises(click.BadParameter):
        Instant().convert("noon", None, None)
    assert parse_range("42") == (42, 42)
    assert parse_range("42-50") == (42, 50)
    for text in ("", "-", "5-", "-5", "9-3", "a-b", "1-2-3"):
        with pytest.raises(ConfigError):
            parse_range(text)


def test_sizes_read_well_and_names_steer_nothing() -> None:
    assert [format_bytes(count) for count in (0, 999, 1000, 1_500_000, 3e18)] == [
        *("0 B", "999 B", "1.0 kB", "1.5 MB", "3000.0 PB"),
    ]
    assert printable("tv\x1b[2J") == "tv\\x1b[2J"


def test_closed_standard_descriptors_are_no_place_for_files(tmp_path: Path) -> None:
    environment = os.environ | {
        "CASFS_CAS_ROOT": str(tmp_path / "cas"),
        "CASFS_MANIFEST_ROOT": str(tmp_path / "manifests"),
    }
    code = "from casfs.cli import main; main(['init'])"
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "{code}" <&- >&- 2>&-', sys.executable],
        env=environment,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == (b"", b"")
    assert (
        run(
            [
                "ls",
                "--cas-root",
                str(tmp_path / "cas"),
                "--manifest-root",
                str(tmp_path / "manifests"),
            ]
        )
        == 0
    )


def test_an_interrupt_while_the_program_is_being_imported_ends_it_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real_import = builtins.__import__

    def interrupted(name: str, *arguments: Any, **options: Any) -> object:
        if name == "casfs.cli.program":
            raise KeyboardInterrupt
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as end:
        casfs.cli.main([])
    assert end.value.code == 130
    assert capsys.readouterr() == ("", "")
