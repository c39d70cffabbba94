"""docs/operations.md keeps its word: its commands run, and what it says of copies is so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.archive import Archive
from casfs.errors import ForeignRootError
from casfs.roots import Roots
from casfs.timestamps import HOUR
from tests.fakes.hours import LONG_AGO, hour_group, in_trash, record_hours
from tests.fakes.store import Clock, check, contents, flip_bit, group, object_file
from tools.docs.markdown import read_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from casfs.archive import BroadcastWriter
    from casfs.manifests.layout import JournalPlace

PAGE = read_page((Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8"))
BLOCKS = {block.section: block.text for block in PAGE.blocks if block.language == "bash"}


class Place:
    """A directory with an archive, a backup and a shell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.backup = directory / "backup"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CASFS_")},
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "BACKUP": str(self.backup),
        }
        self.clock = Clock()
        self._sequence = 0

    def shell(self, text: str, *, succeeds: bool = True) -> str:
        """Run commands in the directory, and return what they print."""
        result = subprocess.run(
            ["bash", "-eu", "-c", text],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode == 0) is succeeds, (result.stdout, result.stderr)
        return result.stdout

    def start(self) -> None:
        """Do what stands under "First start", and keep its settings for what follows."""
        said = self.shell(BLOCKS["First start"] + "echo\nenv")
        for line in said.splitlines():
            name, _, value = line.partition("=")
            if name.startswith("CASFS_"):
                self.environment[name] = value

    def archive(self) -> Archive:
        """Open the archive."""
        return Archive(
            Roots.of(self.environment["CASFS_CAS_ROOT"], self.environment["CASFS_MANIFEST_ROOT"])
        )

    def copy(self) -> Archive:
        """Open the backup."""
        return Archive(Roots.of(str(self.backup / "cas"), str(self.backup / "manifests")))

    def record(self, writer: BroadcastWriter, groups: int = 3) -> None:
        """Commit some groups, at an hour of their own."""
        self.clock.now += HOUR
        numbers = range(self._sequence, self._sequence + groups)
        self._sequence += groups
        writer.commit([group(number) for number in numbers])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    place = Place(tmp_path)
    place.start()
    return place


@pytest.fixture
def writer(place: Place) -> Iterator[BroadcastWriter]:
    """Return a recorder at work."""
    with place.archive().writer("demo/tv", clock=place.clock) as writer:
        place.record(writer)
        yield writer


def copy_while_recording(
    place: Place, writer: BroadcastWriter, order: Callable[[list[str]], Sequence[str]]
) -> None:
    """Run the commands of the backup one by one, in some order, and record between them.

    Everything happens between any two: groups, a full hour, a further broadcast that ends.
    """
    first, *copies = BLOCKS["Backup"].splitlines()
    assert first == 'cd "$CASFS_CAS_ROOT"'
    made, *copies = copies
    place.shell(f"{first}\n{made}")
    for number, command in enumerate(order(copies)):
        place.shell(f"{first}\n{command}")
        place.record(writer)
        writer.write_heads()
        with place.archive().writer(f"other/{number}", clock=place.clock) as other:
            other.commit([group(number)])


def test_a_backup_in_the_order_of_the_page_is_whole_and_can_be_gone_on_with(
    place: Place, writer: BroadcastWriter
) -> None:
    copy_while_recording(place, writer, lambda commands: commands)
    report = check(place.copy())
    assert report.sound
    assert report.objects >= 3
    assert "the archive is sound" in place.shell(BLOCKS["Restore"])
    with place.copy().writer("demo/tv", clock=place.clock) as again:
        again.commit([group(10**6)])
    assert check(place.copy()).sound


def test_a_second_backup_brings_what_the_first_lacks(place: Place, writer: BroadcastWriter) -> None:
    copy_while_recording(place, writer, lambda commands: commands)
    first = contents(place.copy())
    place.shell(BLOCKS["Backup"])
    assert len(contents(place.copy())) > len(first)
    assert contents(place.copy()) == contents(place.archive())
    assert check(place.copy()).sound


def test_objects_before_manifests_would_lack_objects(place: Place, writer: BroadcastWriter) -> None:
    copy_while_recording(place, writer, lambda commands: sorted(commands, key=objects_first))
    assert check(place.copy()).missing


def objects_first(command: str) -> bool:
    return "cp -au objects" not in command


def test_heads_copied_last_are_refused_until_they_are_taken_away(
    place: Place, writer: BroadcastWriter
) -> None:
    copy_while_recording(place, writer, lambda commands: [*commands[1:], commands[0]])
    with pytest.raises(ForeignRootError), place.copy().writer("demo/tv", clock=place.clock):
        pass
    assert contents(place.copy()), "reading works"
    heads = place.backup / "cas" / ".casfs" / "heads"
    for path in heads.glob("*.json"):
        path.unlink()
    with place.copy().writer("demo/tv", clock=place.clock):
        pass
    assert check(place.copy()).sound


def test_older_manifests_are_refused_until_the_heads_are_taken_away(place: Place) -> None:
    with place.archive().writer("demo/tv", clock=place.clock) as writer:
        place.record(writer)
    place.shell(BLOCKS["Backup"])
    with place.archive().writer("demo/tv", clock=place.clock) as writer:
        place.record(writer)
    manifests = place.environment["CASFS_MANIFEST_ROOT"]
    shutil.rmtree(manifests)
    shutil.copytree(place.backup / "manifests", manifests)
    archive = place.archive()
    with pytest.raises(ForeignRootError), archive.writer("demo/tv", clock=place.clock):
        pass
    report = check(archive)
    assert report.manifest_errors
    assert not report.missing
    assert len(contents(archive)) == 3
    (rm,) = [block.text for block in PAGE.blocks if block.text.startswith("rm ")]
    place.shell(rm.replace("CAS-ROOT", '"$CASFS_CAS_ROOT"').replace("BROADCAST", "demo%2Ftv"))
    with archive.writer("demo/tv", clock=place.clock) as writer:
        place.record(writer)
    assert check(archive).sound
    assert check(archive).unreferenced == 3


def test_an_older_cas_root_lacks_objects_and_verify_lists_them_all(place: Place) -> None:
    with place.archive().writer("demo/tv", clock=place.clock) as writer:
        place.record(writer)
        place.shell(BLOCKS["Backup"])
        place.record(writer, groups=4)
    cas = place.environment["CASFS_CAS_ROOT"]
    shutil.rmtree(cas)
    shutil.copytree(place.backup / "cas", cas)
    assert len(check(place.archive()).missing) == 4
    with place.archive().writer("demo/tv", clock=place.clock):
        pass


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_an_object_is_mended_by_the_commands_of_the_page(
    place: Place, writer: BroadcastWriter, how: str
) -> None:
    place.shell(BLOCKS["Verify"])
    place.shell(BLOCKS["Backup"])
    bad = object_file(place.archive(), group(1))
    if how == "damaged":
        flip_bit(bad, 2)
    else:
        os.unlink(bad)
    assert not check(place.archive()).sound
    place.shell(BLOCKS["Mend an object"])
    assert check(place.archive()).sound
    assert os.stat(bad).st_mode & 0o777 == 0o444


def test_a_lost_index_is_made_anew(place: Place, writer: BroadcastWriter) -> None:
    with place.archive().writer("silent", clock=place.clock) as silent:
        silent.commit([group(1)])
    before = contents(place.archive(), index=False)
    assert contents(place.archive()) == before
    said = place.shell(BLOCKS["The index"])
    assert "no usable index" in said
    assert "lines are in" in said
    assert "mirrors all" in place.shell("casfs index status")
    assert contents(place.archive()) == before


def test_what_is_old_goes_and_comes_back_by_the_commands_of_the_page(place: Place) -> None:
    archive = place.archive()
    record_hours(
        archive, [[hour_group(LONG_AGO + at, b"%d" % at, sequence=at)] for at in range(30)]
    )
    place.shell(BLOCKS["Retention"])
    assert len(contents(archive)) == 24
    assert len(in_trash(archive)) == 6
    place.shell(BLOCKS["Undo an expiry"])
    assert len(contents(archive)) == 30
    assert in_trash(archive) == set()
    assert check(archive).sound


def test_a_recorder_fills_a_new_index_with_every_broadcast(place: Place) -> None:
    archive = place.archive()
    places: list[JournalPlace] = []
    for broadcast in ("one", "two"):
        with archive.writer(broadcast, clock=place.clock) as writer:
            place.record(writer)
        places = writer.places
    mirror = archive.mirror()
    mirror.step(places)
    mirror.close()
    assert msgspec.json.decode(place.shell("casfs index status --json"))["behind_bytes"] == 0


def test_every_command_block_is_run_here() -> None:
    assert set(BLOCKS) == {
        "First start",
        "Verify",
        "Mend an object",
        "The index",
        "Backup",
        "Restore",
        "Retention",
        "Undo an expiry",
    }
    assert len(BLOCKS) == sum(block.language == "bash" for block in PAGE.blocks)
