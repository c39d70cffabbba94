"""The disk of the index dies, or the process that keeps it: a recorder goes on all the same."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from casfs.archive import Archive
from casfs.digest import digest_of
from casfs.follower import Follower
from casfs.index.payload_names import PayloadName
from casfs.index.samples import SUFFIX, SampleIndex
from casfs.manifests.layout import JournalPlace
from casfs.roots import Roots, create
from tests.fakes.fragments import Sample, fragment, init, trak
from tests.fakes.store import Clock, contents, group, known, make_archive
from tools.crashes.disk import FILESYSTEMS, Disk, UnavailableError
from tools.crashes.promises import violations
from tools.crashes.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEFORE, MOST = 30, 200
INIT = init(trak(1))
MEDIA = group(0, fragment(1, 0, Sample(b"picture")), init=digest_of(INIT))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


@pytest.fixture
def follower(archive: Archive) -> Iterator[Follower]:
    with contextlib.closing(Follower(archive)) as found:
        yield found


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_a_recorder_outlives_the_disk_of_its_index(tmp_path: Path, filesystem: str) -> None:
    roots = Roots.of(str(tmp_path / "cas"), str(tmp_path / "manifests"))
    create(roots)
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(Disk(tmp_path / "disk", filesystem))
        except UnavailableError as error:
            pytest.skip(str(error))
        archive = Archive(roots, index_path=str(disk.path / "index.sqlite3"))
        options = ("--index", archive.index_path, "--count", str(MOST), "--batch", "1")
        with Recording(roots, *options) as recording:
            while len(recording.kept) < BEFORE:
                assert recording.read()
            disk.cut()
            assert recording.finish() == 0
        assert recording.kept == set(range(MOST))
        assert "the index lags behind the manifests" in recording.complaints
        disk.unmount()
        disk.mount()
        assert violations(archive, {"news": recording.kept}) == []
        mirror = archive.mirror()
        mirror.step(None)
        assert mirror.trouble == ""
        mirror.close()


def test_shared_memory_whose_file_fails_does_not_end_a_recorder(
    archive: Archive, follower: Follower
) -> None:
    with archive.writer("news", clock=Clock()) as writer:
        follower.step(None)
        os.truncate(f"{archive.index_path}-shm", 0)
        writer.commit([group(0)])
        assert follower.step(writer.places) == 0
        assert follower.trouble == "the process that keeps it was ended by SIGBUS"
        follower.step(None)
        assert follower.trouble == ""
    assert contents(archive) == [known(group(0))]


def test_a_process_that_is_killed_is_started_again(
    archive: Archive, follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit([group(0)])
        assert follower.step(None) == 4
        assert follower._child is not None
        os.kill(follower._child.pid, signal.SIGKILL)
        writer.commit([group(1)])
        assert follower.step(writer.places) == 0
        assert follower.trouble == "the process that keeps it was ended by SIGKILL"
        assert follower.trouble in caplog.text
        assert follower.step(writer.places) == 1
        assert follower.trouble == ""
    assert contents(archive) == [known(group(0)), known(group(1))]


def test_it_ends_with_its_parent_and_not_by_a_signal_to_all(follower: Follower) -> None:
    follower.step(None)
    child = follower._child
    assert child is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child.pid, number)
    assert follower.step(None) == 0
    assert follower.trouble == ""
    assert follower._child is child
    follower.close()
    assert child.returncode == 0


def test_a_recorder_that_ends_does_not_wait_for_an_index_that_hangs(
    archive: Archive, follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    follower.step(None)
    child = follower._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    stepping = threading.Thread(target=follower.step, args=(None,))
    stepping.start()
    stepping.join(0.1)
    assert stepping.is_alive()
    follower.hurry(0.0)
    stepping.join(30)
    assert follower.trouble == "it was not waited for any longer at the end"
    assert follower.trouble in caplog.text
    assert child.wait(30) == -signal.SIGKILL


def test_what_is_asked_of_a_process_that_does_not_read_is_given_up_in_the_end(
    archive: Archive, follower: Follower
) -> None:
    follower.step(None)
    child = follower._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    follower.hurry(0.2)
    # More than a pipe holds.
    assert follower.step([JournalPlace("news", f"track-{number}") for number in range(9999)]) == 0
    assert follower.trouble == "it was not waited for any longer at the end"
    assert child.wait(30) == -signal.SIGKILL


def test_a_process_that_cannot_be_started_is_trouble_only(
    archive: Archive, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    with archive.writer("news", clock=Clock()) as writer, monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/nowhere/python")
        assert follower.step(None) == 0
        assert "No such file" in follower.trouble
        writer.commit([group(0)])
    assert follower.step(None) == 5
    assert follower.trouble == ""


def test_trouble_in_the_child_is_trouble_here(archive: Archive, follower: Follower) -> None:
    os.mkdir(archive.index_path)
    assert follower.step(None) == 0
    assert "unable to open" in follower.trouble
    os.rmdir(archive.index_path)
    follower.step(None)
    assert follower.trouble == ""


def test_sample_tables_are_derived_where_a_bad_disk_ends_no_recorder(
    archive: Archive, follower: Follower
) -> None:
    with archive.writer("news", clock=Clock()) as writer:
        writer.on_commit = follower.note
        writer.commit([group(0, INIT, track="init.mp4")])
        (kept,) = writer.commit([MEDIA])
        follower.step(None)
        with open("/proc/self/maps", encoding="utf-8") as maps:
            assert SUFFIX not in maps.read()
        follower.close()
    record = kept.record
    name = PayloadName(record.hash, 0, record.size, "video0.m4s", record.init)
    with contextlib.closing(SampleIndex.open_for_reading(archive.index_path)) as samples:
        found = samples.get(name)
    assert found is not None
    assert [list(table.sizes) for table in found.tables] == [[len(b"picture")]]
