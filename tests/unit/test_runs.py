"""The groups of a run, through everything that reads an archive: each is itself, to the byte."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from casfs.adopt.tree import import_tree
from casfs.archive import Archive, Run
from casfs.digest import digest_of
from casfs.export.files import export_files
from casfs.export.manifest import Span
from casfs.manifests.record import Line, RunRecord
from casfs.mount.broadcasts import BroadcastsView, GroupFile, HourDirectory
from casfs.mount.filenames import group_file_name
from casfs.mount.tree import Directory
from casfs.show import describe_group, describe_object
from casfs.timestamps import HOUR
from casfs.verify import verify
from tests.fakes.hours import collect_all, expire_all, hour_group, in_trash, record_hours, stored
from tests.fakes.store import (
    NOON,
    Clock,
    check,
    contents,
    flip_bit,
    group,
    journal_directory,
    known,
    make_archive,
    python,
    read_journal,
)

if TYPE_CHECKING:
    from casfs.archive import Group

TV, TRACK = "demo", "audio"
CASFS = "from casfs.cli.program import main; main()"


def audio(sequence: int, data: bytes | None = None) -> Group:
    received = NOON + sequence * 21_000_000
    return group(sequence, data, track=TRACK, received=received)


GROUPS = [audio(number) for number in range(10, 20)]
PAYLOADS = {item.sequence: b"".join(item.frames) for item in GROUPS}
OBJECT = digest_of(b"".join(PAYLOADS.values()))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive of one run, between two groups by themselves."""
    archive = make_archive(tmp_path / "archive")
    with archive.writer(TV, clock=Clock()) as writer:
        writer.commit([audio(9)])
        (done,) = writer.commit([Run(tuple(GROUPS))])
        writer.commit([audio(20)])
    assert isinstance(done.record, RunRecord)
    assert (done.record.hash, done.record.size) == (OBJECT, sum(map(len, PAYLOADS.values())))
    return archive


def cat(archive: Archive, *arguments: str) -> bytes:
    environment = {
        "CASFS_CAS_ROOT": archive.roots.cas,
        "CASFS_MANIFEST_ROOT": archive.roots.manifests,
    }
    done = subprocess.run(
        python("-c", CASFS, "cat", TV, TRACK, *arguments),
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cat_gives_a_group_a_range_and_a_time_to_the_byte(archive: Archive) -> None:
    assert cat(archive, "--sequence", "13") == PAYLOADS[13]
    assert cat(archive, "--sequence", "12-14") == b"".join(PAYLOADS[n] for n in (12, 13, 14))
    since, until = "2026-11-22T12:00:00.252Z", "2026-11-22T12:00:00.315Z"
    found = cat(archive, "--since", since, "--until", until)
    assert found == b"".join(PAYLOADS[n] for n in (12, 13, 14))


def test_a_run_takes_a_number_for_each_group_and_the_next_record_goes_on(archive: Archive) -> None:
    lines, faults = read_journal(journal_directory(archive, TV, TRACK))
    assert not faults
    one, run, other = (line.record for line in lines[1:])
    assert isinstance(run, RunRecord)
    assert (run.n - one.n, other.n - run.n) == (len(GROUPS), 1)
    with closing(archive.reader()) as reader:
        found = [reader.group(1, n) for n in range(one.n, other.n + 1)]
    assert [row.sequence for row in found if row is not None] == list(range(9, 21))


def test_a_run_is_one_line_of_some_kilobytes(archive: Archive) -> None:
    with archive.writer(TV, clock=Clock()) as writer:
        writer.commit([Run(tuple(audio(number, b"%03d" % number) for number in range(100, 194)))])
    lines, _ = read_journal(journal_directory(archive, TV, TRACK))
    line = next(line for line in reversed(lines) if isinstance(line.record, RunRecord))
    assert line.end - line.offset < 94 * 150


def test_show_tells_where_and_when_a_group_of_a_run_is(archive: Archive) -> None:
    said = describe_group(archive, TV, TRACK, 13, check=True)
    assert said.run is not None
    assert (said.run.groups, said.run.first_sequence, said.run.last_sequence) == (10, "10", "19")
    whole = b"".join(PAYLOADS.values())
    assert whole[said.offset : said.offset + said.size] == PAYLOADS[13]
    assert said.payload == digest_of(PAYLOADS[13])
    assert said.received_start == "2026-11-22T12:00:00.273000000Z"
    assert said.frame_sizes == [5, len(PAYLOADS[13]) - 5]
    assert said.record is not None
    assert said.findings == []
    assert describe_group(archive, TV, TRACK, 9).run is None


def test_show_tells_which_groups_an_object_holds_and_verify_which_are_damaged(
    archive: Archive,
) -> None:
    said = describe_object(archive, OBJECT)
    assert [item.sequence for item in said.references.groups] == [str(n) for n in PAYLOADS]
    assert said.references.groups_total == 10
    flip_bit(archive.objects.path(OBJECT), 3)
    (damaged,) = verify(archive, threads=1).damaged
    assert [item.sequence for item in damaged.groups] == [str(number) for number in PAYLOADS]
    assert damaged.groups_total == 10


def test_the_mount_shows_a_run_as_one_file_named_by_its_first_group(archive: Archive) -> None:
    with closing(archive.reader()) as reader:
        view = BroadcastsView(reader, "/broadcasts")
        node: Directory = view.root
        for name in (TV, TRACK, "2026-11-22", "12"):
            child = node.child(name)
            assert isinstance(child, Directory)
            node = child
        files = {entry.name: entry.node for entry in node.entries()}
        assert [name.split("-")[1] for name in files] == [f"{n:020d}" for n in (9, 10, 20)]
        name = next(name for name in files if "00010-" in name)
        file = files[name]
        assert isinstance(file, GroupFile)
        assert name == "e0001-00000000000000000010-120000.210Z.bin"
        assert (file.payload.digest, file.payload.offset) == (OBJECT, 0)
        assert file.payload.size == sum(map(len, PAYLOADS.values()))
        attributes = file.extended_attributes()
        assert attributes["user.casfs.groups"] == b"10"
        assert attributes["user.casfs.last-sequence"] == b"19"
        again = view.resolve(file.inode)
        assert again is not None
        assert group_file_name(again.group) == group_file_name(file.group)
        within = name.replace("00010-120000.210", "00013-120000.273")
        assert node.child(within) is None


def test_the_mount_lists_runs_without_their_rows_as_its_entries_are(archive: Archive) -> None:
    with closing(archive.reader()) as reader:
        track = reader.track(TV, TRACK)
        assert track is not None
        hour = HourDirectory("/hour", track, NOON // HOUR, reader)
        entries = [(entry.name, entry.cookie, entry.node.attributes()) for entry in hour.entries()]
        listed = [(entry.name, entry.cookie, entry.attributes) for entry in hour.listing(0, 10)]
        assert len(entries) == 3
        assert listed == entries


def test_behind_a_run_comes_the_file_with_the_next_sequence(archive: Archive) -> None:
    with archive.writer(TV, clock=Clock(NOON + 10**10)) as writer:
        writer.commit([Run((audio(21), audio(22))), audio(23)])
    with closing(archive.reader()) as reader:
        view = BroadcastsView(reader, "/broadcasts")
        track = reader.track(TV, TRACK)
        assert track is not None
        first = reader.extent_of(track, 1, 9)
        assert first is not None
        following = view.following(GroupFile(first), 9)
        found = [after.name and int(after.name[6:26]) for after in following]
        assert found == [10, 20, 21, 23]


def test_part_of_an_hour_is_found_by_when_groups_began(archive: Archive) -> None:
    """Also where a clock was set back, so that they ended before."""
    early = replace(audio(30), received_end=audio(30).received_start - 10**9)
    with archive.writer(TV, clock=Clock(NOON + 10**10)) as writer:
        writer.commit([early, Run((replace(early, sequence=31), replace(early, sequence=32)))])
    with closing(archive.reader()) as reader:
        track = reader.track(TV, TRACK)
        assert track is not None
        start = early.received_start
        found = [row.sequence for row in reader.groups(track, start, start + 1)]
        assert found == [30, 31, 32]


def test_what_is_exported_comes_back_by_import_group_by_group(
    archive: Archive, tmp_path: Path
) -> None:
    target = str(tmp_path / "out")
    exported = export_files(archive, Span(TV, ()), target)
    assert (exported.groups, exported.objects, exported.complete) == (12, 3, True)
    other = make_archive(tmp_path / "other")
    problems: list[object] = []
    for count in (12, 0):
        totals = import_tree(other, target, os.path.join(target, "manifests"), tell=problems.append)
        assert (totals.groups, totals.known) == (count, 12 - count)
    assert problems == []
    assert contents(other) == contents(archive)
    lines, _ = read_journal(journal_directory(other, TV, TRACK))
    assert [len(r.sequences) for r in map(_record, lines) if isinstance(r, RunRecord)] == [10]
    assert check(other).sound


def _record(line: Line) -> object:
    return line.record


def test_the_edge_of_an_export_takes_a_run_whole(archive: Archive, tmp_path: Path) -> None:
    span = Span(TV, (), since=NOON + 15 * 21_000_000, until=NOON + 16 * 21_000_000)
    exported = export_files(archive, span, str(tmp_path / "out"))
    assert (exported.groups, exported.objects) == (10, 1)


def test_no_silent_delete_of_a_run_while_its_hour_lives(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    runs = [
        Run(tuple(hour_group(hour, b"%d %d" % (hour, n), sequence=hour * 10 + n) for n in range(5)))
        for hour in range(2)
    ]
    record_hours(archive, [[run] for run in runs])
    old, new = (digest_of(b"".join(b"%d %d" % (hour, n) for n in range(5))) for hour in range(2))
    (first, _) = expire_all(archive, act=False)
    assert (first.groups, first.bytes) == (5, 15)
    collect_all(archive)
    assert {old, new} <= stored(archive)
    expire_all(archive)
    collect_all(archive)
    assert {old, new} <= in_trash(archive)
    assert contents(archive) == []


KILLED = """
import os, signal, sys
from casfs.archive import Archive, Run
from casfs.manifests.journal import Journal
from casfs.objects.commit import LocalBatch
from casfs.roots import Roots
from tests.fakes.store import Clock, group
where, *roots = sys.argv[1:]
writer = Archive(Roots.of(*roots)).writer("news", clock=Clock()).__enter__()
def run(first):
    return Run(tuple(group(number) for number in range(first, first + 20)))
writer.commit([run(0)])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
owner, name, after = {
    "before the object": (LocalBatch, "put", False),
    "between object and record": (LocalBatch, "put", True),
    "before the line is synced": (Journal, "append", True),
    "before the acknowledgement": (Journal, "sync", True),
}[where]
call = getattr(owner, name)
def killing(*arguments):
    if after:
        call(*arguments)
    die()
setattr(owner, name, killing)
writer.commit([run(20)])
"""


@pytest.mark.parametrize(
    "where",
    [
        *("before the object", "between object and record"),
        *("before the line is synced", "before the acknowledgement"),
    ],
)
def test_acknowledged_is_durable_also_when_a_recorder_is_killed_in_a_run(
    tmp_path: Path, where: str
) -> None:
    archive = make_archive(tmp_path / "archive")
    done = subprocess.run(
        python("-c", KILLED, where, archive.roots.cas, archive.roots.manifests),
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with archive.writer("news", clock=Clock(NOON + 10**10)) as writer:
        writer.commit([Run(tuple(group(number) for number in range(40, 60)))])
    found = contents(archive)
    sequences = {item.sequence for item in found}
    assert sequences - {*range(20, 40)} == {*range(20), *range(40, 60)}
    # A run is there as a whole or not at all.
    assert len(sequences & {*range(20, 40)}) in (0, 20)
    assert all(item == known(group(item.sequence)) for item in found)
    assert contents(archive, index=False) == found
    assert check(archive).sound


def test_a_run_that_stands_twice_counts_once(archive: Archive) -> None:
    with archive.writer(TV, clock=Clock(NOON + 10**10)) as writer:
        part = Run(tuple(audio(number) for number in (8, 12, 13, 21)))
        writer.commit([part, Run(tuple(GROUPS))])
    found = [item.sequence for item in contents(archive)]
    assert found == list(range(8, 22))
    with closing(archive.reader()) as reader:
        track = reader.track(TV, TRACK)
        assert track is not None
        assert reader.summary(track).groups == 14
        assert reader.statistics().totals.groups == 14
    assert contents(archive, index=False) == contents(archive)
