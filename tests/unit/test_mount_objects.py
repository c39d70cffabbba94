"""The view /objects over a real store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from casfs.digest import Digest, digest_of
from casfs.mount.inodes import Family, family_of
from casfs.mount.objects import ObjectsView
from casfs.mount.tree import Directory, ObjectRange, StoredFile
from tests.fakes.archive import DiskArchive

if TYPE_CHECKING:
    from pathlib import Path

MODIFIED = 17


@pytest.fixture
def archive(tmp_path: Path) -> DiskArchive:
    return DiskArchive(tmp_path)


def view_of(archive: DiskArchive) -> ObjectsView:
    return ObjectsView(archive.store, "/objects", lambda: MODIFIED)


def shard_of(view: ObjectsView, digest: Digest) -> Directory:
    shard = view.root.child(digest[:2])
    assert isinstance(shard, Directory)
    return shard


def test_all_shards_are_there_from_the_beginning(archive: DiskArchive) -> None:
    names = [entry.name for entry in view_of(archive).root.entries()]
    assert names == [f"{number:02x}" for number in range(256)]


def test_an_object_is_a_file_with_its_own_time_and_size(archive: DiskArchive) -> None:
    digest = archive.put(b"payload")
    os.utime(archive.store.path(digest), ns=(5, 1_000_000_007))
    file = shard_of(view_of(archive), digest).child(f"{digest}.bin")
    assert isinstance(file, StoredFile)
    assert file.payload == ObjectRange(digest, 0, 7)
    assert file.attributes().modified == 1_000_000_007
    assert file.extended_attributes() == {"user.casfs.blake3": digest.encode()}


def test_a_shard_lists_every_object_once_also_when_it_is_resumed(archive: DiskArchive) -> None:
    digests = sorted(
        digest for digest in (archive.put(b"%d" % i) for i in range(3000)) if digest[:2] == "0a"
    )
    assert len(digests) > 3
    shard = shard_of(view_of(archive), digests[0])
    names = [entry.name for entry in shard.entries()]
    assert names == [f"{digest}.bin" for digest in digests]
    for position, entry in enumerate(list(shard.entries())):
        rest = [each.name for each in shard.entries(after=entry.cookie)]
        assert rest == names[position + 1 :]


@pytest.mark.parametrize("change", [str.upper, lambda name: name[:-4], lambda name: name + "x"])
def test_only_the_exact_name_finds_an_object(archive: DiskArchive, change: object) -> None:
    assert callable(change)
    digest = archive.put(b"payload")
    assert shard_of(view_of(archive), digest).child(change(f"{digest}.bin")) is None


def test_an_object_is_not_found_in_another_shard(archive: DiskArchive) -> None:
    digest = archive.put(b"payload")
    other = "00" if digest[:2] != "00" else "01"
    shard = view_of(archive).root.child(other)
    assert isinstance(shard, Directory)
    assert shard.child(f"{digest}.bin") is None


def test_an_object_is_found_by_a_number_that_was_never_looked_up(archive: DiskArchive) -> None:
    digest = archive.put(b"payload")
    file = shard_of(view_of(archive), digest).child(f"{digest}.bin")
    assert file is not None
    assert family_of(file.inode) is Family.OBJECT
    resolved = view_of(archive).resolve(file.inode)
    assert resolved is not None
    assert resolved.payload.digest == digest


def test_two_objects_of_one_number_are_not_mistaken_for_each_other(archive: DiskArchive) -> None:
    one, other = Digest("ab" * 16 + "0" * 32), Digest("ab" * 8 + "0" * 48)
    for digest in (one, other):
        with open(archive.store.path(digest), "xb"):
            pass
    view = view_of(archive)
    files = {d: shard_of(view, d).child(f"{d}.bin") for d in (one, other)}
    found = [file for file in files.values() if isinstance(file, StoredFile)]
    assert found[0].inode == found[1].inode
    assert found[0].attributes().generation != found[1].attributes().generation
    assert view_of(archive).resolve(found[0].inode) is None


def test_an_object_that_vanished_has_no_number_any_more(archive: DiskArchive) -> None:
    digest = archive.put(b"payload")
    view = view_of(archive)
    file = shard_of(view, digest).child(f"{digest}.bin")
    assert file is not None
    os.unlink(archive.store.path(digest))
    assert view.resolve(file.inode) is None
    assert view.resolve(file.inode ^ 1) is None


def test_an_object_appears_in_a_shard_that_was_looked_up_before(archive: DiskArchive) -> None:
    digest = digest_of(b"later")
    shard = shard_of(view_of(archive), digest)
    assert list(shard.entries()) == []
    archive.put(b"later")
    assert [entry.name for entry in shard.entries()] == [f"{digest}.bin"]
    assert shard.attributes().modified == MODIFIED
