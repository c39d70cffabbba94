"""The README can be followed: its commands run one after the other and print what it shows."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.errors import MountPointError
from casfs.mount.mountpoint import check_fuse, mounts_at, unmount
from tests.real.programs import Station
from tools.docs.markdown import Block, read_page
from tools.docs.members import members_of
from tools.loopback.directory import running_directory
from tools.loopback.media import OnAir
from tools.loopback.process import START_TIMEOUT, LineProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.programs import Installation
    from tools.loopback.publisher import Publisher
    from tools.loopback.relay import Relay

ROOT = Path(__file__).parents[2]
README = read_page((ROOT / "README.md").read_text(encoding="utf-8"))
JSON = read_page((ROOT / "docs" / "json.md").read_text(encoding="utf-8"))
WALK = [block for block in README.blocks if block.section == "A walk"]

HOME = "/home/you"
"""The directory in which the README is followed."""
BROADCAST = "demo/tv"
MARK = "=== block ==="


def why_not() -> str | None:
    """Say why the walk cannot be walked here."""
    missing = [name for name in ("jq", "ffmpeg", "ffprobe") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        check_fuse(allow_other=False)
    except MountPointError as error:
        return str(error)
    return None


needs_everything = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def on_air(relay: Relay) -> Iterator[OnAir]:
    """Return a broadcast of real media, for as long as the test runs."""
    arguments = ["--url", relay.url, "--fingerprint", relay.fingerprint, "--name", BROADCAST]
    with LineProcess("tools.loopback.media", arguments) as media:
        yield msgspec.json.decode(media.receive(START_TIMEOUT), type=OnAir)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Return an empty directory in which nothing stays mounted."""
    yield tmp_path
    mountpoint = os.path.realpath(tmp_path / "mnt")
    if mounts_at(mountpoint):
        unmount(mountpoint)


def environment(relay: Relay) -> dict[str, str]:
    """Return what the README expects to be set."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("CASFS_")}
    return mine | {
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "RELAY": relay.url,
        "FINGERPRINT": relay.fingerprint,
        "COLUMNS": "200",
        "LC_ALL": "C.UTF-8",
    }


def steps() -> list[tuple[Block, Block]]:
    """Return each block of commands with the block that shows what they print."""
    pairs = []
    shown = [block for block in WALK if not block.text.startswith(".venv/")]
    for block, after in itertools.pairwise(shown):
        if block.language == "bash":
            assert after.language == "text", f"line {block.line} shows no output"
            pairs.append((block, after))
    assert len(pairs) * 2 == len(shown)
    return pairs


def alike(text: str, directory: str) -> list[str]:
    """Return the lines of an output without what differs from one time to the next."""
    text = text.replace(directory, HOME)
    for pattern, replacement in (
        (r"\b[0-9a-f]{32,64}\b", "HASH"),
        (r"[\d.]+ [kMG]?B\b", "SIZE"),
        (r"\d+(\.\d+)?", "N"),
        (r"  N incomplete", ""),  # whether a group is open at the end is a matter of chance
        (r"[ \t]+", " "),
    ):
        text = re.sub(pattern, replacement, text)
    return [line.strip() for line in text.strip().splitlines()]


@needs_everything
def test_the_walk_prints_what_it_shows(relay: Relay, on_air: OnAir, directory: Path) -> None:
    pairs = steps()
    script = f"\necho '{MARK}'\n".join(commands.text for commands, _ in pairs)
    result = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=directory,
        env=environment(relay),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert len(on_air.tracks) == 3
    outputs = result.stdout.split(f"{MARK}\n")
    assert len(outputs) == len(pairs)
    for (commands, shown), output in zip(pairs, outputs, strict=True):
        found = alike(output, os.path.realpath(directory))
        assert found == alike(shown.text, HOME), commands.text


@needs_everything
def test_the_summary_of_a_recording_is_what_json_md_says(
    relay: Relay, on_air: OnAir, directory: Path
) -> None:
    assert on_air.broadcast == BROADCAST
    script = (
        "export CASFS_CAS_ROOT=$PWD/cas CASFS_MANIFEST_ROOT=$PWD/manifests; casfs init >&2;"
        'casfs archive --url "$RELAY" --tls-fingerprint "$FINGERPRINT" --name demo/tv'
        " --duration 3 --json"
    )
    out = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=directory,
        env=environment(relay),
        capture_output=True,
        timeout=200,
        check=True,
    ).stdout
    found = members_of(msgspec.json.decode(out), named=["tracks"])
    (table,) = JSON.tables_in("casfs archive")
    described = {row[0].strip("`"): row[1] for row in table.rows}
    assert set(found) == set(described)
    for path, types in found.items():
        assert types <= {described[path], *(("integer",) if described[path] == "number" else ())}


def test_the_commands_for_two_more_terminals_take_their_options() -> None:
    (block,) = [block for block in WALK if block.text.startswith(".venv/")]
    for line in block.text.splitlines():
        python, dash, module, *arguments = line.split()
        assert (python, dash) == (".venv/bin/python", "-m")
        said = subprocess.run(
            [sys.executable, "-m", module, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        options = [argument for argument in arguments if argument.startswith("--")]
        assert options
        assert all(option in said for option in options)


def test_the_two_commands_are_there() -> None:
    commands = [block.text.strip() for block in README.blocks if block.section == "Two commands"]
    assert commands == ["tools/quickstart", "tools/test"]
    assert all(os.access(ROOT / command, os.X_OK) for command in commands)


def test_whatever_is_on_air_is_recorded_and_shown_by_the_commands_that_say_so(
    installation: Installation, relay: Relay, publisher: Publisher
) -> None:
    block, nix = (block for block in README.blocks if block.section == "Whatever is on air")
    assert (block.language, nix.language) == ("text", "nix")  # tests/nix evaluates the other one
    (casfs, *recording), status = (shlex.split(line) for line in block.text.splitlines())
    assert casfs == "casfs"
    Station(publisher, BROADCAST, "video0.m4s").send("video0.m4s", b"a group")
    settings = ("--time-sync-wait=0", "--min-free=1M", "--tls-fingerprint", relay.fingerprint)
    with running_directory() as directory:
        directory.entries = [{"relay_url": relay.url, "broadcast_name": BROADCAST}]
        public = recording.index("https://tv.example/api/public-streams")
        recording[public] = directory.url
        with installation.running(*recording, *settings) as supervisor:
            installation.wait_for(BROADCAST, "video0.m4s", 1)
            shown = installation.run(*status[1:])
            assert supervisor.stop().code == 0
    assert shown.code == 0, shown.err
    assert BROADCAST in shown.out.decode()


def test_no_other_block_of_the_readme_is_left_out() -> None:
    tested = ("A walk", "Two commands", "Whatever is on air")
    others = [block for block in README.blocks if block.section not in tested]
    assert [block.section for block in others] == ["What you see"]
