"""The first start of a service makes an archive, and no later one takes an empty disk for one."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from casfs.cli.program import run
from casfs.errors import (
    AlreadyInitialisedError,
    CasfsError,
    ConfigError,
    ForeignRootError,
    NotInitialisedError,
    StorageError,
)
from casfs.first_run import MEMORY, begin
from casfs.roots import Roots, create, recognise

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """Return two roots on one disk, which is mounted."""
    (tmp_path / "disk").mkdir()
    return Roots.of(str(tmp_path / "disk" / "cas"), str(tmp_path / "disk" / "manifests"))


@pytest.fixture
def state(tmp_path: Path) -> str:
    return str(tmp_path / "state")


def unmount(*paths: str) -> None:
    """Leave an empty directory, as the mount point of a disk is without it."""
    for path in paths:
        os.rename(path, f"{path}-elsewhere")
        os.mkdir(path)


def test_the_first_start_makes_an_archive_and_later_ones_find_it(roots: Roots, state: str) -> None:
    first = begin(roots, state)
    assert first.created
    assert recognise(roots).store == first.store
    for _ in range(2):
        later = begin(roots, state)
        assert (later.store, later.created) == (first.store, False)


@pytest.mark.parametrize("missing", [("cas",), ("manifests",), ("cas", "manifests")], ids=str)
def test_a_disk_that_is_not_mounted_is_refused(
    roots: Roots, state: str, missing: tuple[str, ...]
) -> None:
    kept = begin(roots, state).store
    paths = [getattr(roots, name) for name in missing]
    unmount(*paths)
    with pytest.raises(NotInitialisedError, match=f"has kept archive {kept}"):
        begin(roots, state)
    assert [os.listdir(path) for path in paths] == [[]] * len(paths)


def test_roots_that_are_missing_altogether_are_refused(roots: Roots, state: str) -> None:
    begin(roots, state)
    shutil.rmtree(os.path.dirname(roots.cas))
    with pytest.raises(NotInitialisedError, match="mount its disk"):
        begin(roots, state)


def test_the_disk_of_another_archive_is_refused(roots: Roots, state: str) -> None:
    begin(roots, state)
    unmount(roots.cas, roots.manifests)
    shutil.rmtree(roots.cas)
    shutil.rmtree(roots.manifests)
    other = create(roots).store
    with pytest.raises(ForeignRootError, match=f"hold archive {other}"):
        begin(roots, state)


def test_an_archive_that_was_there_before_is_remembered(roots: Roots, state: str) -> None:
    made = create(roots).store
    assert begin(roots, state).store == made
    unmount(roots.cas, roots.manifests)
    with pytest.raises(NotInitialisedError, match=made):
        begin(roots, state)


@pytest.mark.parametrize("missing", ["cas", "manifests"])
def test_half_of_an_archive_is_refused_and_not_remembered(
    roots: Roots, state: str, missing: str
) -> None:
    create(roots)
    unmount(getattr(roots, missing))
    with pytest.raises(AlreadyInitialisedError, match="mount the disk"):
        begin(roots, state)
    assert not os.path.exists(state)


def test_what_is_checked_before_an_archive_is_made_is_not_asked_of_one_that_is_there(
    roots: Roots, state: str
) -> None:
    def refuse() -> None:
        raise ConfigError("not on this filesystem")

    with pytest.raises(ConfigError):
        begin(roots, state, refuse)
    assert not os.path.exists(roots.cas)
    made = create(roots).store
    assert begin(roots, state, refuse).store == made


def test_an_archive_may_move_to_other_paths(roots: Roots, state: str, tmp_path: Path) -> None:
    kept = begin(roots, state).store
    os.rename(tmp_path / "disk", tmp_path / "larger-disk")
    moved = Roots.of(str(tmp_path / "larger-disk/cas"), str(tmp_path / "larger-disk/manifests"))
    assert begin(moved, state).store == kept


@pytest.mark.parametrize("text", [b"", b"{}", b"\0" * 40, b'{"store":7}'])
def test_a_memory_of_garbage_makes_no_archive(roots: Roots, state: str, text: bytes) -> None:
    os.mkdir(state)
    with open(os.path.join(state, MEMORY), "wb") as file:
        file.write(text)
    with pytest.raises(ForeignRootError, match="cannot be understood"):
        begin(roots, state)
    assert not os.path.exists(roots.cas)


def test_what_cannot_be_remembered_is_an_error(roots: Roots, state: str) -> None:
    """Else an unmounted disk would be taken for a new one the next time."""
    with open(state, "wb"):
        pass
    with pytest.raises(StorageError):
        begin(roots, state)


def test_removing_the_memory_allows_a_new_archive(roots: Roots, state: str) -> None:
    first = begin(roots, state)
    unmount(roots.cas, roots.manifests)
    with pytest.raises(CasfsError) as refused:
        begin(roots, state)
    path = os.path.join(state, MEMORY)
    assert path in refused.value.advice
    os.unlink(path)
    second = begin(roots, state)
    assert second.created
    assert second.store != first.store


def test_the_command_makes_and_finds_it(
    roots: Roots, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["init", "--cas-root", roots.cas, "--manifest-root", roots.manifests, "--json"]
    first = [*arguments, "--first-run", "--state-dir", state]
    assert run(first) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["created"] is True
    assert run(first) == 0
    assert json.loads(capsys.readouterr().out) == {**made, "created": False}
    assert run(arguments) == 5
    assert run([*arguments, "--state-dir", state]) == 2
    unmount(roots.cas, roots.manifests)
    assert run(first) == 5
