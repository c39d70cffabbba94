"""What `casfs show` tells of a group and of an object, from archives with real commits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from casfs.cli.program import run
from casfs.digest import digest_of
from casfs.errors import NotFoundError, ObjectNotFoundError
from casfs.manifests.record import GroupRecord, parse_line
from casfs.show import describe_group, describe_object
from tests.fakes.store import (
    NOON,
    Clock,
    flip_bit,
    group,
    journal_directory,
    make_archive,
    object_file,
    read_journal,
    segments,
)

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive

INIT = group(0, b"how to decode", track="init.mp4")
INIT_HASH = digest_of(b"how to decode")
DAY = 24 * 3600 * 1_000_000_000


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive with two epochs over three days, and a payload that two groups share."""
    made = make_archive(tmp_path / "archive")
    for day in range(3):
        clock = Clock(NOON + day * DAY)
        with made.writer("tv", relay="https://relay.example:4443", clock=clock) as writer:
            if day == 0:
                writer.commit([INIT])
            for number in range(10):
                sequence = day * 10 + number
                writer.commit([group(sequence, init=INIT_HASH, received=clock.now)])
    with made.writer("tv", clock=Clock(NOON + 2 * DAY)) as writer:
        writer.commit([group(7, b"another publisher", epoch=2)])
        writer.commit([group(8, b"video0.m4s 1 7", epoch=2)])
    return made


def test_a_group_is_shown_as_its_line_has_it(archive: Archive) -> None:
    shown = describe_group(archive, "tv", "video0.m4s", 15)
    assert shown.record is not None
    path = os.path.join(archive.roots.manifests, shown.record.journal, shown.record.segment)
    with open(path, "rb") as file:
        file.seek(shown.record.offset)
        text = file.read(shown.record.end - shown.record.offset)
    line = parse_line(text[:-1], shown.record.offset)
    assert line is not None
    record = line.record
    assert isinstance(record, GroupRecord)
    assert line.sum == shown.record.sum
    for name in ("sequence", "hash", "path", "size", "frame_sizes", "received_start", "recorder"):
        assert getattr(shown, name) == getattr(record, name), name
    assert (shown.n, shown.frames, shown.relay) == (record.n, 2, "https://relay.example:4443")
    assert not shown.findings


def test_every_group_of_every_segment_is_found(archive: Archive) -> None:
    lines, _ = read_journal(journal_directory(archive, "tv", "video0.m4s"))
    for line in lines:
        if isinstance(line.record, GroupRecord):
            record = line.record
            shown = describe_group(
                archive, "tv", "video0.m4s", int(record.sequence), epoch=record.epoch
            )
            assert shown.record is not None
            assert shown.record.sum == line.sum


def test_without_an_epoch_the_newest_is_shown_and_the_others_named(archive: Archive) -> None:
    shown = describe_group(archive, "tv", "video0.m4s", 7)
    assert (shown.epoch, shown.other_epochs) == (2, [1])
    assert describe_group(archive, "tv", "video0.m4s", 7, epoch=1).other_epochs == [2]


def test_who_shares_the_object_is_listed(archive: Archive) -> None:
    shown = describe_group(archive, "tv", "video0.m4s", 8)
    listed = [(item.epoch, item.sequence) for item in shown.references.groups]
    assert listed == [(1, "7"), (2, "8")]
    assert shown.references.groups_total == 2
    assert len(describe_group(archive, "tv", "video0.m4s", 8, most=1).references.groups) == 1


def test_an_init_names_those_who_need_it(archive: Archive) -> None:
    shown = describe_object(archive, INIT_HASH)
    (use,) = shown.references.init_groups
    assert (use.track, use.epoch, use.groups) == ("video0.m4s", 1, 30)
    assert (use.first_sequence, use.last_sequence) == ("0", "29")
    assert [item.track for item in shown.references.groups] == ["init.mp4"]


def test_a_superseded_record_is_listed_as_such(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    with archive.writer("tv", clock=Clock()) as writer:
        writer.commit([group(1, b"begun", complete=False)])
        # The index knows the first record, its overlay the second.
        archive.mirror().step(None)
        writer.commit([group(1, b"begun and ended")])
    (listed,) = describe_object(archive, digest_of(b"begun")).references.groups
    assert not listed.current
    assert describe_group(archive, "tv", "video0.m4s", 1).complete


def test_a_missing_object_is_a_finding(archive: Archive) -> None:
    os.unlink(object_file(archive, INIT))
    shown = describe_group(archive, "tv", "video0.m4s", 3)
    assert shown.init_object is not None
    assert not shown.init_object.present
    assert shown.findings == [f"object {INIT_HASH} is missing"]
    assert describe_object(archive, INIT_HASH).findings == shown.findings


def test_damage_is_found_when_the_object_is_read_and_only_then(archive: Archive) -> None:
    flip_bit(object_file(archive, group(3)), 2)
    assert describe_group(archive, "tv", "video0.m4s", 3).object.sound is None
    shown = describe_group(archive, "tv", "video0.m4s", 3, check=True)
    assert shown.object.sound is False
    assert len(shown.findings) == 1


def test_an_object_that_is_too_short_is_a_finding_without_reading_it(archive: Archive) -> None:
    path = object_file(archive, group(3))
    os.chmod(path, 0o600)
    os.truncate(path, 4)
    shown = describe_group(archive, "tv", "video0.m4s", 3)
    assert shown.object.finding == "has 4 bytes, but records need 14"


def test_a_damaged_line_is_a_finding(archive: Archive) -> None:
    archive.mirror().step(None)
    place = describe_group(archive, "tv", "video0.m4s", 15).record
    assert place is not None
    path = os.path.join(archive.roots.manifests, place.journal, place.segment)
    flip_bit(path, place.offset + 30)
    shown = describe_group(archive, "tv", "video0.m4s", 15)
    assert shown.record is None
    assert shown.findings == ["no sound manifest line holds the record of this group"]
    # Its neighbours are none the worse for it.
    assert describe_group(archive, "tv", "video0.m4s", 16).record is not None


def test_an_object_that_nobody_needs_is_shown(archive: Archive) -> None:
    digest = digest_of(b"stray")
    with open(archive.objects.path(digest), "xb") as file:
        file.write(b"stray")
    shown = describe_object(archive, digest, check=True)
    assert shown.object.sound is True
    assert shown.references.groups_total == 0


def test_what_nobody_knows_is_not_found(archive: Archive) -> None:
    with pytest.raises(NotFoundError, match="no track"):
        describe_group(archive, "tv", "audio0.m4s", 0)
    with pytest.raises(NotFoundError, match="no group 99"):
        describe_group(archive, "tv", "video0.m4s", 99)
    with pytest.raises(NotFoundError, match="it is in epoch 1"):
        describe_group(archive, "tv", "video0.m4s", 20, epoch=2)
    with pytest.raises(ObjectNotFoundError):
        describe_object(archive, digest_of(b"unheard of"))


def test_the_command_ends_with_the_documented_codes(
    archive: Archive, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    roots = ["--cas-root", archive.roots.cas, "--manifest-root", archive.roots.manifests]
    assert run(["show", "tv", "video0.m4s", "--sequence", "3", "--check", *roots]) == 0
    assert b"read: sound" in capfdbinary.readouterr().out
    assert run(["show", str(INIT_HASH), *roots]) == 0
    assert b"30 group(s) of tv video0.m4s" in capfdbinary.readouterr().out
    assert run(["show", "tv", "video0.m4s", *roots]) == 2
    assert run(["show", "tv", *roots]) == 2
    assert run(["show", "tv", "video0.m4s", "--sequence", "99", *roots]) == 4
    os.unlink(object_file(archive, group(3)))
    assert run(["show", "tv", "video0.m4s", "--sequence", "3", *roots]) == 3
    captured = capfdbinary.readouterr()
    assert b"DAMAGE: missing" in captured.out
    assert captured.err.count(b"\n") == 4


def test_a_name_cannot_steer_the_terminal(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    archive = make_archive(tmp_path / "archive")
    with archive.writer("tv\x1b[2J", clock=Clock()) as writer:
        writer.commit([group(0)])
    roots = ["--cas-root", archive.roots.cas, "--manifest-root", archive.roots.manifests]
    assert run(["show", "tv\x1b[2J", "video0.m4s", "--sequence", "0", *roots]) == 0
    assert b"\x1b" not in capfdbinary.readouterr().out
    assert segments(os.path.join(archive.roots.manifests, "tv%1B%5B2J", "video0.m4s"))
