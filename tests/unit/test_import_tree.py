"""`casfs import` of trees that another program wrote, into archives with real commits."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Struct

from casfs.adopt.report import Totals
from casfs.adopt.source import Problem
from casfs.adopt.tree import import_tree
from casfs.cli.program import run
from casfs.digest import digest_of
from casfs.errors import ConfigError, NotFoundError, StorageError, WriterLockedError
from casfs.manifests.chain import JournalReader
from casfs.manifests.layout import BROADCAST_JOURNAL
from casfs.manifests.record import EpochRecord, Line
from casfs.timestamps import format_time
from tests.fakes.store import (
    NOON,
    Clock,
    check,
    contents,
    flip_bit,
    group,
    make_archive,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from casfs.archive import Archive
    from casfs.index.rows import GroupRow

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


class ForeignTree:
    """Objects and manifests as ``ec-node wt-archive`` leaves them."""

    def __init__(self, directory: Path) -> None:
        self.objects = directory / "cas"
        self.manifests = directory / "manifests"
        self.manifests.mkdir(parents=True)
        (self.objects / "objects" / "blake3").mkdir(parents=True)

    def object(self, payload: bytes) -> Path:
        digest = digest_of(payload)
        path = self.objects / "objects" / "blake3" / digest[:2] / f"{digest}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(payload)
        return path

    def write(self, name: str, line: bytes) -> None:
        path = self.manifests / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(line)

    def add(
        self,
        sequence: int,
        payload: bytes,
        *,
        track: str = "video0.m4s",
        broadcast: str = "demo/tv",
        received: int | None = None,
    ) -> None:
        """Keep a group; without a time it is received a second for each sequence after noon."""
        self.object(payload)
        digest = digest_of(payload)
        line = {
            "broadcast": broadcast,
            "track": track,
            "group_sequence": sequence,
            "blake3": digest,
            "path": f"objects/blake3/{digest[:2]}/{digest}.bin",
            "bytes": len(payload),
            "received_unix_ms": (NOON + sequence * SECOND if received is None else received)
            // 10**6,
        }
        self.write(f"{broadcast}/{track}.jsonl", json.dumps(line).encode() + b"\n")


class Outcome(Struct, frozen=True):
    """What an import did."""

    totals: Totals
    problems: list[Problem]


def adopt(archive: Archive, tree: ForeignTree, **options: Any) -> Outcome:
    problems: list[Problem] = []
    totals = import_tree(
        archive, str(tree.objects), str(tree.manifests), tell=problems.append, **options
    )
    assert totals.problems == len(problems)
    return Outcome(totals, problems)


def all_rows(archive: Archive) -> list[GroupRow]:
    with contextlib.closing(archive.reader()) as reader:
        return sorted(rows(reader), key=lambda row: (row.track, row.epoch, row.sequence))


def files_below(path: str) -> dict[str, bytes]:
    found = {}
    for place, _, names in os.walk(path):
        for name in names:
            # A reader may leave the index's log behind.
            if not name.startswith("index.sqlite3"):
                with open(os.path.join(place, name), "rb") as file:
                    found[os.path.join(place, name)] = file.read()
    return found


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an empty archive."""
    return make_archive(tmp_path / "archive")


@pytest.fixture
def tree(tmp_path: Path) -> ForeignTree:
    """Return a foreign tree with an init, and thirty groups each of video and audio."""
    made = ForeignTree(tmp_path / "foreign")
    made.add(0, b"how to decode", track="init.mp4")
    for sequence in range(30):
        made.add(sequence, b"video %d" % sequence)
        made.add(sequence, b"audio %d" % sequence, track="audio0.m4s")
    return made


def test_every_group_is_taken_in_with_its_time(archive: Archive, tree: ForeignTree) -> None:
    outcome = adopt(archive, tree)
    assert (outcome.totals.groups, outcome.totals.known, outcome.problems) == (61, 0, [])
    found = all_rows(archive)
    assert len(found) == 61
    for row in found:
        assert row.broadcast.name == "demo/tv"
        assert row.received_start == NOON + row.sequence * SECOND
        payload = f"{row.track[:5]} {row.sequence}".encode()
        assert row.track == "init.mp4" or row.hash == digest_of(payload)
    assert check(archive).sound


def test_media_are_given_the_init_that_the_tree_holds(archive: Archive, tree: ForeignTree) -> None:
    adopt(archive, tree)
    inits = {row.track: row.init for row in all_rows(archive)}
    init = digest_of(b"how to decode")
    assert inits == {"audio0.m4s": init, "init.mp4": None, "video0.m4s": init}


def test_importing_again_adds_nothing_at_all(archive: Archive, tree: ForeignTree) -> None:
    adopt(archive, tree)
    before = files_below(archive.roots.cas), files_below(archive.roots.manifests)
    outcome = adopt(archive, tree)
    assert (outcome.totals.groups, outcome.totals.known) == (0, 61)
    assert (files_below(archive.roots.cas), files_below(archive.roots.manifests)) == before


def test_importing_again_adds_nothing_either_when_the_index_is_lost(
    archive: Archive, tree: ForeignTree
) -> None:
    adopt(archive, tree)
    os.unlink(archive.index_path)
    assert adopt(archive, tree).totals.groups == 0


def test_what_has_come_since_is_taken_in_by_the_next_import(
    archive: Archive, tree: ForeignTree
) -> None:
    adopt(archive, tree)
    tree.add(30, b"video 30")
    outcome = adopt(archive, tree)
    assert (outcome.totals.groups, outcome.totals.known) == (1, 61)
    assert all_rows(archive)[-1].epoch == 1


def test_a_sequence_that_comes_again_with_other_bytes_begins_an_epoch_for_all_tracks(
    archive: Archive, tree: ForeignTree
) -> None:
    for sequence in range(5):
        for track in ("video0.m4s", "audio0.m4s"):
            payload = b"later " + track.encode() + b" %d" % sequence
            tree.add(sequence, payload, track=track, received=NOON + HOUR + sequence * SECOND)
    outcome = adopt(archive, tree)
    assert outcome.totals.epochs == 1
    epochs: dict[tuple[str, int], int] = {}
    for row in all_rows(archive):
        epochs[row.track, row.epoch] = epochs.get((row.track, row.epoch), 0) + 1
    assert epochs == {
        ("audio0.m4s", 1): 30,
        ("audio0.m4s", 2): 5,
        ("init.mp4", 1): 1,
        ("video0.m4s", 1): 30,
        ("video0.m4s", 2): 5,
    }
    directory = os.path.join(archive.roots.manifests, "demo%2Ftv", BROADCAST_JOURNAL)
    noted = [
        item.record.epoch
        for item in JournalReader(directory)
        if isinstance(item, Line) and isinstance(item.record, EpochRecord)
    ]
    assert noted == [2]
    assert adopt(archive, tree).totals.groups == 0


def test_what_was_recorded_live_is_not_taken_in_again(archive: Archive, tree: ForeignTree) -> None:
    with archive.writer("demo/tv", clock=Clock()) as writer:
        writer.commit(
            [
                # Our own recorder received them a moment later.
                group(n, b"video %d" % n, received=NOON + n * SECOND + 200_000_000)
                for n in range(10, 20)
            ]
        )
    outcome = adopt(archive, tree)
    assert (outcome.totals.groups, outcome.totals.known) == (51, 10)
    video = [row for row in all_rows(archive) if row.track == "video0.m4s"]
    assert [(row.epoch, row.sequence) for row in video] == [(1, n) for n in range(30)]


def test_a_dry_run_says_the_same_and_changes_nothing(archive: Archive, tree: ForeignTree) -> None:
    tree.add(3, b"other bytes", received=NOON + HOUR)
    os.unlink(tree.object(b"audio 7"))
    before = files_below(archive.roots.cas), files_below(archive.roots.manifests)
    dry = adopt(archive, tree, dry_run=True)
    assert (files_below(archive.roots.cas), files_below(archive.roots.manifests)) == before
    wet = adopt(archive, tree)
    for name in ("lines", "groups", "bytes", "known", "epochs", "problems"):
        assert getattr(dry.totals, name) == getattr(wet.totals, name), name
    assert dry.problems == wet.problems
    assert wet.totals.groups == 61


def test_missing_and_damaged_objects_are_all_named_and_the_rest_is_taken_in(
    archive: Archive, tree: ForeignTree
) -> None:
    os.unlink(tree.object(b"video 4"))
    flip_bit(str(tree.object(b"video 5")), 2)
    os.truncate(tree.object(b"audio 6"), 3)
    directory = tree.object(b"audio 7")
    directory.unlink()
    directory.mkdir()
    outcome = adopt(archive, tree)
    found = {(p.problem, p.track, p.sequence) for p in outcome.problems}
    assert found == {
        ("missing", "video0.m4s", "4"),
        ("damaged", "video0.m4s", "5"),
        ("damaged", "audio0.m4s", "6"),
        ("unreadable", "audio0.m4s", "7"),
    }
    assert outcome.totals.groups == 57
    assert check(archive).sound
    # Once the objects are back, the next import takes in just these.
    flip_bit(str(tree.object(b"video 5")), 2)
    for payload in (b"video 4", b"video 5", b"audio 6"):
        tree.object(payload)
    assert adopt(archive, tree).totals.groups == 3


def test_a_damaged_object_never_begins_an_epoch(archive: Archive, tree: ForeignTree) -> None:
    tree.add(3, b"other bytes", received=NOON + HOUR)
    flip_bit(str(tree.object(b"other bytes")), 1)
    tree.add(31, b"video 31", received=NOON + HOUR + SECOND)
    outcome = adopt(archive, tree)
    assert outcome.totals.epochs == 0
    assert {row.epoch for row in all_rows(archive)} == {1}


def test_lines_that_cannot_be_read_are_all_named(archive: Archive, tree: ForeignTree) -> None:
    name = "demo/tv/video0.m4s.jsonl"
    tree.write(name, b"garbage\n")
    tree.write(name, b'{"event": "reconnected"}\n\n')
    tree.write(name, b"\x00" * 512 + b"\n")
    tree.write(name, b'{"blake3": "ab", "group_sequence": 1}\n')
    tree.add(99, b"video 99")
    tree.write(name, b'{"blake3": "')
    outcome = adopt(archive, tree)
    assert [(p.problem, p.line) for p in outcome.problems] == [
        *(("line", 31), ("line", 34), ("line", 35), ("line", 37))
    ]
    assert "never finished" in outcome.problems[-1].reason
    assert outcome.totals.groups == 62
    assert outcome.totals.other_lines == 1


def test_a_last_line_without_its_newline_counts_if_it_is_whole(
    archive: Archive, tree: ForeignTree
) -> None:
    path = tree.manifests / "demo/tv/video0.m4s.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert adopt(archive, tree).totals.groups == 61


def test_a_size_that_the_object_has_not_is_damage(archive: Archive, tree: ForeignTree) -> None:
    payload = b"a payload"
    tree.object(payload)
    line = {"hash": digest_of(payload), "seq": 50, "size": 4, "ts": NOON // 10**9}
    tree.write("demo/tv/video0.m4s.jsonl", json.dumps(line).encode() + b"\n")
    (problem,) = adopt(archive, tree).problems
    assert (problem.problem, problem.sequence) == ("damaged", "50")


def test_no_path_leads_out_of_the_tree(archive: Archive, tree: ForeignTree, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"a secret")
    for sequence, path in enumerate(("../../secret", str(secret), "objects/../../../secret")):
        line = {"hash": digest_of(b"a secret"), "seq": 50 + sequence, "path": path}
        tree.write("demo/tv/video0.m4s.jsonl", json.dumps(line).encode() + b"\n")
    assert [p.problem for p in adopt(archive, tree).problems] == ["missing"] * 3


def test_names_come_from_the_path_where_lines_have_none(archive: Archive, tmp_path: Path) -> None:
    tree = ForeignTree(tmp_path / "bare")
    for sequence in range(3):
        payload = b"payload %d" % sequence
        tree.object(payload)
        line = {"object": digest_of(payload), "group": sequence, "time": format_time(NOON)}
        name = f"some/where/video0.m4s/2026-11-2{sequence}.jsonl"
        tree.write(name, json.dumps(line).encode() + b"\n")
    adopt(archive, tree)
    assert {(row.broadcast.name, row.track) for row in all_rows(archive)} == {
        ("some/where", "video0.m4s")
    }


def test_names_that_no_archive_can_hold_are_reported(archive: Archive, tree: ForeignTree) -> None:
    for name in ("x" * 5000, "\ud800"):
        line = {"hash": digest_of(b"video 1"), "seq": 1, "broadcast": name}
        tree.write("odd.jsonl", json.dumps(line).encode() + b"\n")
    outcome = adopt(archive, tree)
    assert [problem.problem for problem in outcome.problems] == ["line", "line"]


def test_without_a_time_the_object_tells_it(archive: Archive, tmp_path: Path) -> None:
    tree = ForeignTree(tmp_path / "bare")
    os.utime(tree.object(b"payload"), ns=(NOON, NOON))
    line = {"hash": digest_of(b"payload"), "seq": 1, "broadcast": "tv", "track": "v"}
    tree.write("a.jsonl", json.dumps(line).encode() + b"\n")
    adopt(archive, tree)
    assert [row.received_start for row in all_rows(archive)] == [NOON]


def test_several_broadcasts_stay_apart(archive: Archive, tree: ForeignTree) -> None:
    for sequence in range(5):
        tree.add(sequence, b"other %d" % sequence, broadcast="demo/two")
    adopt(archive, tree)
    assert {row.broadcast.name for row in all_rows(archive)} == {"demo/tv", "demo/two"}
    with pytest.raises(ConfigError, match="2 broadcasts"):
        adopt(archive, tree, broadcast="one")


def test_a_broadcast_may_be_taken_in_under_another_name(
    archive: Archive, tree: ForeignTree
) -> None:
    adopt(archive, tree, broadcast="old tv")
    assert {row.broadcast.name for row in all_rows(archive)} == {"old tv"}
    assert adopt(archive, tree, broadcast="old tv").totals.groups == 0


def test_hidden_directories_are_not_looked_into(archive: Archive, tree: ForeignTree) -> None:
    shutil.copytree(tree.manifests / "demo", tree.manifests / ".old" / "demo2")
    assert adopt(archive, tree).totals.lines == 61


def test_a_broadcast_that_is_being_recorded_is_refused_and_left_alone(
    archive: Archive, tree: ForeignTree
) -> None:
    with archive.writer("demo/tv", clock=Clock()) as writer:
        writer.commit([group(100)])
        with pytest.raises(WriterLockedError):
            adopt(archive, tree)
        writer.commit([group(101)])
    assert [item.sequence for item in contents(archive)] == [100, 101]


def test_what_is_no_tree_is_refused(archive: Archive, tree: ForeignTree, tmp_path: Path) -> None:
    def run_on(objects: Path, manifests: Path) -> None:
        import_tree(archive, str(objects), str(manifests), tell=lambda _: None)

    with pytest.raises(StorageError):
        run_on(tmp_path / "nowhere", tree.manifests)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no manifests"):
        run_on(tree.objects, tmp_path / "empty")


def test_the_command_prints_every_problem_and_a_summary(
    archive: Archive, tree: ForeignTree, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    os.unlink(tree.object(b"video 4"))
    arguments = ["import", "--manifests", str(tree.manifests), str(tree.objects), *roots(archive)]
    assert run([*arguments, "--json"]) == 3
    *problems, summary = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert [(p["problem"], p["sequence"]) for p in problems] == [("missing", "4")]
    assert (summary["groups"], summary["problems"], summary["dry_run"]) == (60, 1, False)
    tree.object(b"video 4")
    assert run(arguments) == 0
    assert b"1 groups" in capfdbinary.readouterr().out
    assert run(["import", str(tree.objects), str(tree.manifests), *roots(archive)]) == 2
    assert run(["import", str(tree.objects), "--track", "x", *roots(archive)]) == 2


class FileSet:
    """Plain files with times of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def add(self, name: str, payload: bytes, modified: int) -> str:
        path = self.directory / name
        path.write_bytes(payload)
        os.utime(path, ns=(modified, modified))
        return str(path)


def import_command(archive: Archive, paths: Sequence[str], *more: str) -> int:
    names = ["--name", "demo/tv", "--track", "clips"]
    return run(["import", "--files", *names, *paths, *more, *roots(archive)])


def test_files_become_groups_behind_those_that_are_there(archive: Archive, tmp_path: Path) -> None:
    files = FileSet(tmp_path / "files")
    first = [files.add(f"{n}.mp4", b"clip %d" % n, NOON + n * SECOND) for n in range(3)]
    assert import_command(archive, first) == 0
    with archive.writer("demo/tv", clock=Clock(NOON + HOUR)) as writer:
        writer.commit([group(0, epoch=2)])
    assert import_command(archive, [files.add("3.mp4", b"clip 3", NOON + HOUR)]) == 0
    clips = [row for row in all_rows(archive) if row.track == "clips"]
    assert [(row.epoch, row.sequence, row.received_start) for row in clips] == [
        *((1, n, NOON + n * SECOND) for n in range(3)),
        (2, 0, NOON + HOUR),
    ]
    assert [row.hash for row in clips] == [digest_of(b"clip %d" % n) for n in range(4)]
    assert check(archive).sound


def test_files_that_are_there_already_are_not_imported_again(
    archive: Archive, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    files = FileSet(tmp_path / "files")
    paths = [
        files.add("a", b"clip", NOON),
        files.add("b", b"other", NOON),
        files.add("c", b"clip", NOON),
    ]
    assert import_command(archive, paths, "--dry-run", "--json") == 0
    assert json.loads(capfdbinary.readouterr().out)["groups"] == 2
    assert import_command(archive, paths) == 0
    before = files_below(archive.roots.manifests)
    assert import_command(archive, paths, "--json") == 0
    summary = json.loads(capfdbinary.readouterr().out.splitlines()[-1])
    assert (summary["groups"], summary["known"]) == (0, 3)
    assert files_below(archive.roots.manifests) == before
    assert len(all_rows(archive)) == 2


def test_what_is_no_file_is_reported_and_the_others_are_taken_in(
    archive: Archive, tmp_path: Path
) -> None:
    files = FileSet(tmp_path / "files")
    good = files.add("good", b"clip", NOON)
    os.mkfifo(tmp_path / "pipe")
    assert import_command(archive, [str(tmp_path / "pipe"), str(tmp_path / "files"), good]) == 3
    assert len(all_rows(archive)) == 1
    assert import_command(archive, [str(tmp_path / "nowhere")]) == 2
    assert run(["import", "--files", good, *roots(archive)]) == 2


def roots(archive: Archive) -> list[str]:
    return ["--cas-root", archive.roots.cas, "--manifest-root", archive.roots.manifests]
