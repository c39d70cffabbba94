from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from casfs.archive import Archive
from casfs.errors import (
    AlreadyInitialisedError,
    ConfigError,
    ForeignRootError,
    NotInitialisedError,
    StorageError,
    UnsupportedFormatError,
)
from casfs.objects.local import shard_names
from casfs.roots import Roots, create, recognise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots.of(str(tmp_path / "cas"), str(tmp_path / "manifests"))


def format_file(root: str) -> str:
    return os.path.join(root, ".casfs", "format.json")


def change(root: str, **members: object) -> None:
    path = format_file(root)
    with open(path, encoding="utf-8") as file:
        described: dict[str, Any] = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(described | members, file)


def everything_below(*roots: str) -> set[str]:
    return {
        os.path.join(directory, name)
        for root in roots
        for directory, folders, files in os.walk(root)
        for name in [*folders, *files]
    }


def test_what_was_created_is_recognised(roots: Roots) -> None:
    created = create(roots)
    assert recognise(roots) == created
    assert created.format == 1
    assert len(created.store) == 32
    assert Archive(roots).store_id == created.store


def test_a_new_archive_has_all_its_directories(roots: Roots) -> None:
    create(roots)
    objects = os.path.join(roots.cas, "objects", "blake3")
    assert sorted(os.listdir(objects)) == shard_names()
    own = sorted(os.listdir(os.path.join(roots.cas, ".casfs")))
    assert own == ["format.json", "heads", "tmp", "trash"]
    own = sorted(os.listdir(os.path.join(roots.manifests, ".casfs")))
    assert own == ["expired", "format.json", "quarantine"]
    assert os.listdir(roots.manifests) == [".casfs"]


def test_two_archives_have_different_ids(tmp_path: Path) -> None:
    one = create(Roots.of(str(tmp_path / "a"), str(tmp_path / "b")))
    other = create(Roots.of(str(tmp_path / "c"), str(tmp_path / "d")))
    assert one.store != other.store


def test_existing_empty_directories_are_taken(roots: Roots) -> None:
    os.mkdir(roots.cas)
    os.mkdir(roots.manifests)
    # What mkfs leaves in every new filesystem is no content.
    os.mkdir(os.path.join(roots.manifests, "lost+found"))
    create(roots)
    recognise(roots)


def test_opening_creates_nothing(roots: Roots) -> None:
    with pytest.raises(NotInitialisedError):
        Archive(roots)
    assert not os.path.exists(roots.cas)
    assert not os.path.exists(roots.manifests)


@pytest.mark.parametrize("root", ["cas", "manifests"])
def test_an_empty_root_is_refused(roots: Roots, root: str) -> None:
    """Its disk is not mounted."""
    create(roots)
    os.rename(getattr(roots, root), f"{getattr(roots, root)}-elsewhere")
    os.mkdir(getattr(roots, root))
    with pytest.raises(NotInitialisedError, match="holds no archive"):
        Archive(roots)
    assert os.listdir(getattr(roots, root)) == []


@pytest.mark.parametrize("root", ["cas", "manifests"])
def test_init_refuses_an_empty_root_beside_an_initialised_one(roots: Roots, root: str) -> None:
    create(roots)
    path = getattr(roots, root)
    os.rename(path, f"{path}-elsewhere")
    with pytest.raises(AlreadyInitialisedError, match="mount the disk"):
        create(roots)
    assert not os.path.exists(path)
    os.mkdir(path)
    with pytest.raises(AlreadyInitialisedError, match="mount the disk"):
        create(roots)
    assert os.listdir(path) == []


def test_init_twice_changes_nothing(roots: Roots) -> None:
    created = create(roots)
    before = everything_below(roots.cas, roots.manifests)
    with pytest.raises(AlreadyInitialisedError, match="nothing was changed"):
        create(roots)
    assert recognise(roots) == created
    assert everything_below(roots.cas, roots.manifests) == before


@pytest.mark.parametrize("root", ["cas", "manifests"])
def test_init_refuses_a_root_with_other_content(roots: Roots, root: str) -> None:
    os.mkdir(getattr(roots, root))
    holiday = os.path.join(getattr(roots, root), "holiday.mp4")
    with open(holiday, "w", encoding="utf-8"):
        pass
    with pytest.raises(NotInitialisedError, match=r"not empty: it holds holiday\.mp4"):
        create(roots)
    assert everything_below(roots.cas, roots.manifests) == {holiday}


def test_init_creates_only_the_last_component(tmp_path: Path) -> None:
    with pytest.raises(NotInitialisedError, match="does not exist"):
        create(Roots.of(str(tmp_path / "disk" / "cas"), str(tmp_path / "manifests")))
    assert os.listdir(tmp_path) == []


def test_a_file_is_no_root(roots: Roots) -> None:
    with open(roots.cas, "w", encoding="utf-8"):
        pass
    with pytest.raises(NotInitialisedError):
        Archive(roots)
    with pytest.raises(StorageError):
        create(roots)


def test_roots_of_two_archives_are_refused(tmp_path: Path) -> None:
    one = Roots.of(str(tmp_path / "a"), str(tmp_path / "b"))
    other = Roots.of(str(tmp_path / "c"), str(tmp_path / "d"))
    create(one)
    create(other)
    with pytest.raises(ForeignRootError, match="different archives"):
        Archive(Roots.of(one.cas, other.manifests))


def test_swapped_roots_are_refused(roots: Roots) -> None:
    create(roots)
    with pytest.raises(ForeignRootError, match="swapped"):
        Archive(Roots.of(roots.manifests, roots.cas))


@pytest.mark.parametrize(
    ("cas", "manifests"),
    [("a", "a"), ("a", "a/b"), ("a/b", "a"), (".", "a"), ("a/../b", "b"), ("link", "a/b")],
)
def test_roots_that_overlap_are_refused(tmp_path: Path, cas: str, manifests: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(ConfigError, match="overlap"):
        Roots.of(str(tmp_path / cas), str(tmp_path / manifests))


def test_names_that_only_begin_alike_do_not_overlap(tmp_path: Path) -> None:
    roots = Roots.of(str(tmp_path / "tv"), str(tmp_path / "tv-manifests"))
    create(roots)
    recognise(roots)


@pytest.mark.parametrize("root", ["cas", "manifests"])
@pytest.mark.parametrize(
    "members",
    [
        {"requires": ["time-travel"]},
        {"format": 2},
        {"shard_depth": 2},
        {"hash": "sha-256"},
        {"store": 5},
        {"format": None},
    ],
    ids=str,
)
def test_a_format_that_we_do_not_know_is_refused(
    roots: Roots, root: str, members: dict[str, object]
) -> None:
    create(roots)
    change(getattr(roots, root), **members)
    with pytest.raises(UnsupportedFormatError):
        Archive(roots)


@pytest.mark.parametrize("text", [b"", b"{", b"\0" * 100, b"[]", b'{"format":"\xff"}'])
def test_a_format_file_of_garbage_is_refused(roots: Roots, text: bytes) -> None:
    create(roots)
    with open(format_file(roots.cas), "wb") as file:
        file.write(text)
    with pytest.raises(UnsupportedFormatError, match="cannot be understood"):
        Archive(roots)
    # It is still a root of an archive: init does not make a new one of it.
    with pytest.raises(AlreadyInitialisedError):
        create(roots)


def test_unknown_members_are_ignored(roots: Roots) -> None:
    create(roots)
    change(roots.cas, colour="blue", requires=[])
    Archive(roots)


def test_a_root_that_cannot_be_written_gives_a_clear_error(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, mode: int = 0o777) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", fail)
    with pytest.raises(StorageError, match="creating the archive"):
        create(roots)


def test_a_filesystem_that_folds_case_is_noticed(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    lexists = os.path.lexists

    def folding(path: str) -> bool:
        names = _names(os.path.dirname(path))
        return lexists(path) or os.path.basename(path).lower() in map(str.lower, names)

    monkeypatch.setattr(os.path, "lexists", folding)
    assert create(roots).fold_case is True


def _names(directory: str) -> Iterator[str]:
    return iter(os.listdir(directory) if os.path.isdir(directory) else ())


def test_this_filesystem_does_not_fold_case(roots: Roots) -> None:
    assert create(roots).fold_case is False
    assert not stat.S_ISREG(os.stat(roots.manifests).st_mode)
    assert sorted(os.listdir(os.path.join(roots.manifests, ".casfs"))) == [
        "expired",
        "format.json",
        "quarantine",
    ]


def test_an_interrupted_init_is_taken_up(roots: Roots) -> None:
    for root in (roots.cas, roots.manifests):
        os.makedirs(os.path.join(root, ".casfs"))
    os.makedirs(os.path.join(roots.cas, "objects", "blake3", "00"))
    with open(os.path.join(roots.manifests, ".casfs", ".new-1-abcdef01"), "wb"):
        pass
    assert create(roots) == recognise(roots)


def test_what_holds_data_is_never_taken_for_an_interrupted_init(roots: Roots) -> None:
    shard = os.path.join(roots.cas, "objects", "blake3", "00")
    os.makedirs(shard)
    os.makedirs(os.path.join(roots.cas, ".casfs"))
    with open(os.path.join(shard, "0" * 64 + ".bin"), "wb"):
        pass
    with pytest.raises(NotInitialisedError, match="not empty"):
        create(roots)
