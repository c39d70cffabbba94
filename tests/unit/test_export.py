"""What `casfs export` leaves, and what it never does, on archives with real commits."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from casfs.adopt.tree import import_tree
from casfs.cli.program import run
from casfs.digest import digest_of
from casfs.durable import write_fully
from casfs.errors import ConfigError, DiskFullError, NotFoundError, StorageError
from casfs.export.files import export_files
from casfs.export.manifest import Span
from casfs.export.placing import Placer, Way
from casfs.manifests.record import GapRecord, GroupRecord, parse_line
from tests.fakes.store import (
    NOON,
    Clock,
    check,
    contents,
    flip_bit,
    group,
    make_archive,
    object_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from casfs.adopt.source import Problem
    from casfs.archive import Archive
    from casfs.export.manifest import Exported
    from casfs.manifests.record import AnyRecord

SECOND = 1_000_000_000
INIT = group(0, b"how to decode", track="init.mp4", received=NOON - 10 * SECOND)
INIT_HASH = digest_of(b"how to decode")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive with a broadcast of three tracks, and a group every second."""
    made = make_archive(tmp_path / "archive")
    with made.writer("demo/tv", clock=Clock()) as writer:
        writer.commit(
            [
                INIT,
                *(
                    group(number, track=track, received=NOON + number * SECOND, init=INIT_HASH)
                    for number in range(20)
                    for track in ("audio0.m4s", "video0.m4s")
                ),
            ]
        )
        writer.note_gap(
            "video0.m4s", epoch=1, start=NOON + 5 * SECOND, end=NOON + 6 * SECOND, reason="lost"
        )
        writer.commit([group(20, b"video0.m4s 1 3", received=NOON + 20 * SECOND, init=INIT_HASH)])
    return made


def records(directory: str) -> list[AnyRecord]:
    """Return what every line below a directory says; each must prove itself."""
    found = []
    for text in lines(directory):
        line = parse_line(text.rstrip(b"\n"), 0)
        assert line is not None
        found.append(line.record)
    return found


def lines(directory: str) -> Iterator[bytes]:
    for place, _, names in sorted(os.walk(directory)):
        for name in sorted(names):
            if name.endswith(".jsonl"):
                with open(os.path.join(place, name), "rb") as file:
                    yield from file


def groups(directory: str) -> set[tuple[str | None, int]]:
    return {
        (record.track, int(record.sequence))
        for record in records(directory)
        if isinstance(record, GroupRecord)
    }


def check_objects(exported: Exported) -> None:
    """Every object that a line needs is there, and its content is what its name says."""
    for record in records(exported.target):
        if isinstance(record, GroupRecord):
            for digest in {record.hash, record.init or record.hash}:
                path = os.path.join(exported.target, "objects/blake3", digest[:2], f"{digest}.bin")
                with open(path, "rb") as file:
                    assert digest_of(file.read()) == digest


def unexpected(problem: Problem) -> None:
    pytest.fail(problem.reason)


def beside(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if name != "archive")


@pytest.mark.parametrize("way", [Way.AUTO, Way.HARD, Way.COPY])
def test_an_export_holds_every_object_and_every_line_as_it_is_stored(
    archive: Archive, tmp_path: Path, way: Way
) -> None:
    exported = export_files(archive, Span("demo/tv"), str(tmp_path / "out"), way=way)
    check_objects(exported)
    assert exported.complete
    assert exported.groups == 42
    assert exported.objects == 41
    stored = set(lines(archive.roots.manifests))
    assert set(lines(exported.target)) < stored
    assert any(isinstance(record, GapRecord) for record in records(exported.target))
    with open(os.path.join(exported.target, "export.json"), "rb") as file:
        described = msgspec.json.decode(file.read())
    assert described == {
        name: value for name, value in msgspec.to_builtins(exported).items() if name != "target"
    }


def test_a_span_holds_what_was_received_in_it_and_no_more(archive: Archive, tmp_path: Path) -> None:
    span = Span("demo/tv", ("video0.m4s",), NOON + 5 * SECOND, NOON + 8 * SECOND)
    exported = export_files(archive, span, str(tmp_path / "out"))
    video = os.path.join(exported.target, "manifests", "demo%2Ftv", "video0.m4s.jsonl")
    assert groups(exported.target) == {
        *(("video0.m4s", 5), ("video0.m4s", 6), ("video0.m4s", 7)),
        ("init.mp4", 0),
    }
    assert os.path.exists(video)
    assert exported.groups == 3
    check_objects(exported)


def test_an_exported_span_can_be_imported_and_played_elsewhere(
    archive: Archive, tmp_path: Path
) -> None:
    span = Span("demo/tv", ("video0.m4s",), NOON + 5 * SECOND)
    exported = export_files(archive, span, str(tmp_path / "out"))
    other = make_archive(tmp_path / "other")
    totals = import_tree(
        other, exported.target, os.path.join(exported.target, "manifests"), tell=unexpected
    )
    assert totals.groups == exported.groups + 1
    wanted = [item for item in contents(archive) if item.track != "audio0.m4s"]
    assert contents(other) == [i for i in wanted if i.track == "init.mp4" or i.sequence >= 5]
    with_reader = other.reader()
    track = with_reader.track("demo/tv", "video0.m4s")
    assert track is not None
    assert {row.init for row in with_reader.groups(track, 0, 1 << 62)} == {INIT_HASH}
    with_reader.close()
    assert check(other).sound


def test_a_superseded_record_is_left_out(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    with archive.writer("tv", clock=Clock()) as writer:
        writer.commit([group(1, b"begun", complete=False)])
        writer.commit([group(1, b"begun and ended")])
    exported = export_files(archive, Span("tv"), str(tmp_path / "out"))
    (found,) = records(exported.target)
    assert isinstance(found, GroupRecord)
    assert found.hash == digest_of(b"begun and ended")


def test_what_exists_is_never_overwritten(archive: Archive, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    for name in ("out", "out.partial", "out.incomplete"):
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        (place / "mine").write_text("keep this")
        with pytest.raises(ConfigError, match="exists"):
            export_files(archive, Span("demo/tv"), str(target))
        assert (place / "mine").read_text() == "keep this"
        (place / "mine").unlink()
        place.rmdir()
    assert beside(tmp_path) == []


def test_nothing_is_exported_into_the_archive(archive: Archive) -> None:
    for root in (archive.roots.cas, archive.roots.manifests):
        with pytest.raises(ConfigError, match="within the archive"):
            export_files(archive, Span("demo/tv"), os.path.join(root, "out"))
        assert "out" not in os.listdir(root)


def test_what_is_damaged_is_left_out_named_and_the_rest_marked(
    archive: Archive, tmp_path: Path
) -> None:
    flip_bit(object_file(archive, group(4, track="video0.m4s")), 3)
    os.unlink(object_file(archive, group(9, track="audio0.m4s")))
    exported = export_files(archive, Span("demo/tv"), str(tmp_path / "out"))
    assert not exported.complete
    assert beside(tmp_path) == ["out.incomplete"]
    assert exported.target == str(tmp_path / "out.incomplete")
    lacking = {(item.track, item.sequence) for item in exported.lacking}
    assert lacking == {("video0.m4s", "4"), ("audio0.m4s", "9")}
    assert groups(exported.target).isdisjoint({("video0.m4s", 4), ("audio0.m4s", 9)})
    assert exported.groups == 40
    check_objects(exported)


def test_every_group_that_needs_a_damaged_object_is_named(archive: Archive, tmp_path: Path) -> None:
    os.unlink(object_file(archive, group(3, track="video0.m4s")))
    os.unlink(object_file(archive, INIT))
    exported = export_files(archive, Span("demo/tv"), str(tmp_path / "out"))
    lacking = [(item.track, item.sequence, item.reason) for item in exported.lacking]
    assert ("video0.m4s", "3", "missing") in lacking
    assert ("video0.m4s", "20", "missing") in lacking
    assert ("init.mp4", "0", "missing") in lacking


@pytest.mark.parametrize("way", [Way.HARD, Way.COPY])
def test_a_damaged_object_is_never_left_at_its_new_place(
    archive: Archive, tmp_path: Path, way: Way
) -> None:
    item = group(4)
    flip_bit(object_file(archive, item), 3)
    digest = digest_of(b"".join(item.frames))
    with pytest.raises(Exception, match="hashes to"):
        Placer(archive.objects, way).place(digest, str(tmp_path / "placed"))
    assert beside(tmp_path) == []


def test_a_hard_link_is_the_archives_own_file_and_a_copy_is_not(
    archive: Archive, tmp_path: Path
) -> None:
    path = object_file(archive, INIT)
    Placer(archive.objects, Way.HARD).place(INIT_HASH, str(tmp_path / "hard"))
    Placer(archive.objects, Way.COPY).place(INIT_HASH, str(tmp_path / "copy"))
    assert os.path.samefile(path, tmp_path / "hard")
    assert not os.path.samefile(path, tmp_path / "copy")
    assert os.stat(tmp_path / "copy").st_mode & 0o777 == 0o444
    assert os.stat(tmp_path / "copy").st_mtime_ns == os.stat(path).st_mtime_ns


def test_auto_copies_where_nothing_can_be_shared(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(source: str, _target: str, **_: object) -> None:
        tried.append(source)
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    exported = export_files(archive, Span("demo/tv"), str(tmp_path / "out"))
    assert exported.copied == exported.objects == 41
    # Whatever cannot be done is not tried for each object: at most once by each thread.
    assert len(tried) <= 4
    check_objects(exported)


def test_blocks_are_shared_where_the_filesystem_can(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clone(target: int, request: int, source: int) -> int:
        assert request == 0x40049409
        os.pwrite(target, os.pread(source, 1 << 20, 0), 0)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    exported = export_files(archive, Span("demo/tv"), str(tmp_path / "out"))
    assert exported.reflinked == exported.objects == 41
    check_objects(exported)


def test_a_way_that_was_asked_for_is_not_replaced_by_another(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with pytest.raises(ConfigError, match="reflink"):
        export_files(archive, Span("demo/tv"), str(tmp_path / "out"), way=Way.REFLINK)
    assert beside(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EIO, StorageError)]
)
def test_a_failing_disk_ends_the_export_and_leaves_nothing(
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[StorageError],
) -> None:
    written = 0

    def failing(descriptor: int, parts: list[bytes]) -> int:
        nonlocal written
        written += 1
        if written > 10:
            raise OSError(number, os.strerror(number))
        return write_fully(descriptor, parts)

    monkeypatch.setattr("casfs.export.placing.write_fully", failing)
    with pytest.raises(kind, match=r"out\.partial"):
        export_files(archive, Span("demo/tv"), str(tmp_path / "out"), way=Way.COPY)
    assert beside(tmp_path) == []
    assert check(archive).sound


def test_an_interrupted_export_leaves_nothing(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("casfs.export.files.sync_directory", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_files(archive, Span("demo/tv"), str(tmp_path / "out"))
    assert beside(tmp_path) == []


def test_everything_is_durable_before_it_has_its_name(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    named = False
    fsync, rename = os.fsync, os.rename

    def noting_sync(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def noting_rename(source: str, target: str) -> None:
        nonlocal named
        named = True
        for place, _, names in os.walk(source):
            for path in (place, *(os.path.join(place, name) for name in names)):
                assert os.stat(path).st_ino in synced, path
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "rename", noting_rename)
    export_files(archive, Span("demo/tv"), str(tmp_path / "out"), way=Way.COPY)
    assert named
    assert os.stat(tmp_path).st_ino in synced


def test_what_is_not_there_is_not_found(archive: Archive, tmp_path: Path) -> None:
    target = str(tmp_path / "out")
    for span in (
        Span("other"),
        Span("demo/tv", ("nothing",)),
        Span("demo/tv", (), NOON + 3600 * SECOND),
    ):
        with pytest.raises(NotFoundError):
            export_files(archive, span, target)
    assert beside(tmp_path) == []


def test_the_command_prints_what_it_did_and_ends_with_the_documented_codes(
    archive: Archive, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    roots = ["--cas-root", archive.roots.cas, "--manifest-root", archive.roots.manifests]
    target = str(tmp_path / "out")
    assert run(["export", "demo/tv", target, "--json", *roots]) == 0
    printed = json.loads(capfdbinary.readouterr().out)
    assert (printed["target"], printed["groups"], printed["lacking"]) == (target, 42, [])
    assert run(["export", "demo/tv", target, *roots]) == 2
    assert run(["export", "demo/tv", str(tmp_path / "no/where"), *roots]) == 2
    assert run(["export", "nobody", f"{target}2", *roots]) == 4
    os.unlink(object_file(archive, group(4)))
    assert run(["export", "demo/tv", f"{target}3", "--link", "copy", *roots]) == 3
    captured = capfdbinary.readouterr()
    assert b"lacking   video0.m4s epoch 1 sequence 4" in captured.out
    assert captured.err.count(b"\n") == 4
