"""Heads for readers: what a clean stop left behind is read past damage, to its end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from casfs.archive import Archive, Group
from casfs.heads import KnownHeads
from casfs.index.mirror import rebuild
from casfs.manifests.layout import JournalPlace
from casfs.roots import Roots, create
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    from pathlib import Path

START = 500_000 * HOUR
PLACE = JournalPlace("demo", "video")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    roots = Roots.of(str(tmp_path / "cas"), str(tmp_path / "manifests"))
    create(roots)
    return Archive(roots)


def record(archive: Archive, sequences: range) -> None:
    """Commit all groups in one batch, so that no later line vouches for an earlier one."""
    with archive.writer("demo", clock=lambda: START) as writer:
        writer.commit(
            [
                Group(
                    track="video",
                    epoch=1,
                    sequence=sequence,
                    frames=(b"%d" % sequence,),
                    received_start=START,
                    received_end=START,
                )
                for sequence in sequences
            ]
        )


def overwrite_line(archive: Archive, number: int) -> None:
    directory = PLACE.directory(archive.roots.manifests)
    (name,) = os.listdir(directory)
    with open(os.path.join(directory, name), "r+b") as file:
        lines = file.read().split(b"\n")
        lines[number] = b"x" * len(lines[number])
        file.seek(0)
        file.write(b"\n".join(lines))


def sequences(archive: Archive) -> list[int]:
    reader = archive.reader()
    try:
        track = reader.track("demo", "video")
        assert track is not None
        return [row.sequence for row in reader.groups(track, START, START + HOUR)]
    finally:
        reader.close()


@pytest.mark.parametrize("index", ["none", "mirrored", "rebuilt"])
def test_intact_lines_behind_damage_in_the_last_batch_are_read(
    archive: Archive, index: str
) -> None:
    record(archive, range(8))
    overwrite_line(archive, 4)
    known = KnownHeads(archive.roots.cas)
    if index == "mirrored":
        mirror = archive.mirror()
        mirror.step(None)
        mirror.close()
        assert not mirror.trouble
    elif index == "rebuilt":
        rebuild(archive.index_path, archive.roots.manifests, archive.store_id, head_of=known.of)
    assert sequences(archive) == [0, 1, 2, 4, 5, 6, 7]


def test_heads_are_read_again_when_they_have_changed(archive: Archive) -> None:
    known = KnownHeads(archive.roots.cas)
    assert known.of(PLACE) is None
    record(archive, range(2))
    first = known.of(PLACE)
    assert first is not None
    record(archive, range(2, 3))
    second = known.of(PLACE)
    assert second is not None
    assert second.offset > first.offset


def test_heads_that_cannot_be_read_tell_nothing(archive: Archive) -> None:
    record(archive, range(2))
    path = os.path.join(archive.roots.cas, ".casfs", "heads", "demo.json")
    with open(path, "wb") as file:
        file.write(b"not json")
    assert KnownHeads(archive.roots.cas).of(PLACE) is None
    assert sequences(archive) == [0, 1]
