"""What a verification does about findings when asked: it moves aside, it takes good copies."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.digest import SHARD_LENGTH, digest_of
from casfs.durable import open_directory
from casfs.errors import NotInitialisedError, WriterLockedError
from casfs.objects.local import OBJECTS
from casfs.timestamps import HOUR, parse_time
from casfs.verify import Plan, verify
from casfs.verify.quarantine import QUARANTINE, Quarantine, QuarantineRecord
from tests.fakes.store import (
    NOON,
    Clock,
    check,
    copy_tree,
    flip_bit,
    group,
    make_archive,
    object_file,
    read_journal,
    segments,
)

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive
    from casfs.verify import Report

SET_ASIDE = Plan(quarantine=True)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    found = make_archive(tmp_path / "archive")
    with found.writer("news", clock=Clock()) as writer:
        writer.commit([group(number) for number in range(6)])
    return found


@pytest.fixture
def backup(archive: Archive, tmp_path: Path) -> str:
    """Return the CAS root of a good copy."""
    copy_tree(archive.roots.cas, str(tmp_path / "backup"))
    return str(tmp_path / "backup")


def mend(archive: Archive, *sources: str, quarantine: bool = False) -> Report:
    return verify(archive, Plan(repair_from=sources, quarantine=quarantine), threads=1)


def journal(archive: Archive) -> str:
    return os.path.join(archive.roots.manifests, QUARANTINE)


def records(archive: Archive) -> list[QuarantineRecord]:
    found: list[QuarantineRecord] = []
    for path in segments(journal(archive)):
        found += [
            msgspec.json.decode(line, type=QuarantineRecord)
            for line in contents(path).splitlines()
            if b'"kind":"quarantine"' in line
        ]
    return found


def contents(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# Quarantine


def test_a_damaged_object_is_moved_aside_as_it_is(archive: Archive) -> None:
    path = object_file(archive, group(2))
    flip_bit(path, 3)
    before = contents(path)
    report = verify(archive, SET_ASIDE, threads=1)
    assert not report.sound
    (damaged,) = report.damaged
    assert damaged.quarantined == f"{QUARANTINE}/{damaged.hash}.2"
    assert contents(os.path.join(archive.roots.cas, damaged.quarantined)) == before
    assert not os.path.exists(path)
    assert [found.hash for found in check(archive).missing] == [damaged.hash]


def test_a_later_put_of_the_same_bytes_heals_the_archive(archive: Archive) -> None:
    flip_bit(object_file(archive, group(2)), 3)
    with archive.writer("news", clock=Clock(NOON + HOUR)) as writer:
        verify(archive, SET_ASIDE, threads=1)
        assert not check(archive).sound
        (again,) = writer.commit([group(2, track="copy", payload=b"".join(group(2).frames))])
        assert again.new
    assert check(archive).sound


def test_what_was_moved_aside_is_on_record(archive: Archive) -> None:
    for number in (1, 4):
        flip_bit(object_file(archive, group(number)), 3)
    first = verify(archive, SET_ASIDE, threads=1)
    flip_bit(object_file(archive, group(5)), 3)
    second = verify(archive, SET_ASIDE, threads=1)
    damaged = [*first.damaged, *second.damaged]
    found = records(archive)
    assert [(record.hash, record.path, record.moved_to) for record in found] == [
        (item.hash, item.path, item.quarantined) for item in damaged
    ]
    assert all(record.reason.startswith("hashes to ") for record in found)
    assert len({record.recorder for record in found}) == 2
    assert all(parse_time(record.time) > 0 for record in found)
    lines, faults = read_journal(journal(archive))
    assert faults == []
    assert [line.record.n for line in lines] == [1, 2, 3, 4, 5]
    assert len(segments(journal(archive))) == 2


def test_a_damaged_journal_of_quarantines_is_a_finding(archive: Archive) -> None:
    for number in (1, 4):
        flip_bit(object_file(archive, group(number)), 3)
    verify(archive, SET_ASIDE, threads=1)
    (path,) = segments(journal(archive))
    flip_bit(path, 700)
    errors = verify(archive, Plan(level="manifests")).manifest_errors
    assert [error.journal for error in errors] == [".casfs/quarantine"]


def test_nothing_is_written_where_nothing_is_damaged(archive: Archive) -> None:
    os.unlink(object_file(archive, group(1)))
    verify(archive, SET_ASIDE, threads=1)
    assert os.listdir(journal(archive)) == []
    assert os.listdir(os.path.join(archive.roots.cas, QUARANTINE)) == []


def test_an_object_that_was_healed_meanwhile_stays(archive: Archive) -> None:
    digest = digest_of(b"".join(group(2).frames))
    with Quarantine(archive.roots, archive.store_id) as quarantine:
        outcome = quarantine.set_aside(digest, "hashes to something else")
    assert not isinstance(outcome, str)
    assert "sound" in outcome.reason
    assert check(archive).sound


def test_it_waits_for_writers_that_rely_on_the_shard(archive: Archive) -> None:
    path = object_file(archive, group(2))
    digest = digest_of(b"".join(group(2).frames))
    flip_bit(path, 3)
    shard = os.path.join(archive.roots.cas, OBJECTS, digest[:SHARD_LENGTH])
    with Quarantine(archive.roots, archive.store_id) as quarantine:
        mover = threading.Thread(target=quarantine.set_aside, args=(digest, "bad"))
        with open_directory(shard) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            mover.start()
            mover.join(0.2)
            assert mover.is_alive()
            assert os.path.exists(path)
        mover.join()
    assert not os.path.exists(path)


def test_a_link_in_the_place_of_an_object_is_moved_aside(archive: Archive) -> None:
    path = object_file(archive, group(1))
    os.rename(path, f"{path}.away")
    os.symlink(f"{path}.away", path)
    (damaged,) = verify(archive, SET_ASIDE, threads=1).damaged
    assert damaged.quarantined is not None
    assert os.path.islink(os.path.join(archive.roots.cas, damaged.quarantined))


def test_a_move_that_fails_is_reported_and_the_others_go_on(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 4):
        flip_bit(object_file(archive, group(number)), 3)
    bad = object_file(archive, group(1))
    rename = os.rename

    def fail(source: str, target: str) -> None:
        if source == bad:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    report = verify(archive, SET_ASIDE, threads=1)
    assert sorted(item.quarantined is None for item in report.damaged) == [False, True]
    (unmended,) = report.unmended
    assert unmended.hash == digest_of(b"".join(group(1).frames))
    assert "Input/output error" in unmended.reason


def test_two_verifiers_do_not_write_one_journal(archive: Archive) -> None:
    with Quarantine(archive.roots, archive.store_id), pytest.raises(WriterLockedError):
        verify(archive, SET_ASIDE)


# Repair


@pytest.mark.parametrize("quarantine", [False, True])
def test_damaged_and_missing_objects_are_made_whole(
    archive: Archive, backup: str, quarantine: bool
) -> None:
    flip_bit(object_file(archive, group(2)), 3)
    os.unlink(object_file(archive, group(4)))
    report = mend(archive, backup, quarantine=quarantine)
    assert report.sound
    assert report.findings == 0
    assert {item.hash for item in report.repaired} == {
        digest_of(b"".join(group(number).frames)) for number in (2, 4)
    }
    assert {item.source for item in report.repaired} == {backup}
    assert (len(report.damaged), len(report.missing), report.unmended) == (1, 1, [])
    assert (report.damaged[0].quarantined is not None) == quarantine
    assert check(archive).sound
    assert os.stat(object_file(archive, group(2))).st_mode & 0o777 == 0o444


def test_a_copy_that_is_damaged_itself_is_not_taken(archive: Archive, backup: str) -> None:
    flip_bit(object_file(archive, group(2)), 3)
    os.unlink(object_file(archive, group(3)))
    os.unlink(object_file(archive, group(4)))
    flip_bit(os.path.join(backup, relative(archive, 2)), 1)
    os.unlink(os.path.join(backup, relative(archive, 3)))
    before = contents(object_file(archive, group(2)))
    report = mend(archive, backup)
    assert not report.sound
    assert report.findings == 2
    assert len(report.repaired) == 1
    assert sorted(item.reason for item in report.unmended) == [
        f"damaged in {backup}", f"missing in {backup}",
    ]  # fmt: skip
    assert contents(object_file(archive, group(2))) == before


def relative(archive: Archive, number: int) -> str:
    return os.path.relpath(object_file(archive, group(number)), archive.roots.cas)


def test_what_one_source_lacks_another_may_have(
    archive: Archive, backup: str, tmp_path: Path
) -> None:
    second = str(tmp_path / "second")
    copy_tree(backup, second)
    for number, root in ((1, backup), (2, second)):
        os.unlink(object_file(archive, group(number)))
        flip_bit(os.path.join(root, relative(archive, number)), 1)
    report = mend(archive, backup, second)
    assert report.sound
    assert {item.source for item in report.repaired} == {backup, second}


def test_a_copy_that_cannot_be_read_is_reported(
    archive: Archive, backup: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.unlink(object_file(archive, group(1)))
    bad = os.stat(os.path.join(backup, relative(archive, 1))).st_ino
    pread = os.pread

    def read(descriptor: int, size: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", read)
    (unmended,) = mend(archive, backup).unmended
    assert "Input/output error" in unmended.reason


def test_a_disk_that_is_full_is_reported_and_nothing_is_lost(
    archive: Archive, backup: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_bit(object_file(archive, group(2)), 3)
    before = contents(object_file(archive, group(2)))

    def fail(descriptor: int, parts: list[bytes]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", fail)
    report = mend(archive, backup)
    assert "disk full" in report.unmended[0].reason
    assert contents(object_file(archive, group(2))) == before


def test_manifest_errors_are_not_repaired(archive: Archive, backup: str) -> None:
    flip_bit(object_file(archive, group(2)), 3)
    (path,) = segments(os.path.join(archive.roots.manifests, "news", "@broadcast"))
    flip_bit(path, 50)
    report = mend(archive, backup)
    assert len(report.repaired) == 1
    assert not report.sound


def test_quick_repairs_what_it_finds(archive: Archive, backup: str) -> None:
    os.unlink(object_file(archive, group(1)))
    os.truncate(object_file(archive, group(2)), 2)
    plan = Plan(level="quick", repair_from=(backup,), quarantine=True)
    assert verify(archive, plan).sound
    assert check(archive).sound


def test_what_is_no_store_is_refused_before_anything_is_read(
    archive: Archive, tmp_path: Path
) -> None:
    for source in (str(tmp_path / "nowhere"), archive.roots.cas):
        with pytest.raises(NotInitialisedError):
            mend(archive, source)


def test_beside_a_recorder(archive: Archive, backup: str) -> None:
    flip_bit(object_file(archive, group(2)), 3)
    with archive.writer("news", clock=Clock(NOON + HOUR)) as writer:
        assert mend(archive, backup, quarantine=True).sound
        writer.commit([group(10)])
    assert check(archive).sound
