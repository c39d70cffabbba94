"""A recorder that is killed, or whose disk fails, at each system call that a commit depends on.

strace makes it happen; see tools/crash, which does it at every call there is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from tests.fakes.store import check, make_archive, python
from tools.crashes.disk import UnavailableError
from tools.crashes.promises import violations
from tools.crashes.recording import Recording
from tools.crashes.traced import Strace, errors, kill
from tools.crashes.writer import payload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from casfs.archive import Archive
    from tools.crashes.results import Row

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: it makes system calls fail"
)

CALLS = ["mkdir", "fdatasync", "rename"]


def run(campaign: Iterator[Row]) -> list[Row]:
    try:
        return list(campaign)
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("call", [*CALLS, "writev"])
def test_killed_at_each_system_call_of_a_commit(call: str) -> None:
    (row,) = run(kill(1, [call]))
    assert row.found == ()
    assert row.events >= 2


@pytest.mark.parametrize("call", [*CALLS, "fsync"])
def test_an_error_at_each_system_call_of_a_commit(call: str) -> None:
    for row in run(errors(1, [call])):
        assert row.found == ()
        # No sync says that the disk is full.
        assert row.events >= 2 or (row.subject.startswith("ENOSPC") and "sync" in call)


def test_a_kill_and_errors_at_each_syncfs_of_a_commit() -> None:
    """A batch whose sync fails is not acknowledged, and is kept when it is tried again."""
    rows = run(kill(1, ["syncfs"], "syncfs")) + run(errors(1, ["syncfs"], "syncfs"))
    assert [row.found for row in rows] == [(), (), ()]
    assert [row.events for row in rows] == [2, 2, 2]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive of two groups."""
    archive = make_archive(tmp_path / "archive")
    with Recording(archive.roots, "--count", "2", "--batch", "2") as recording:
        assert recording.finish() == 0
    return archive


def failing_reads(path: str) -> list[str]:
    return ["-P", path, "-e", "trace=pread64", "-e", "inject=pread64:error=EIO:when=1+"]


def test_an_object_that_cannot_be_read_back_is_written_again(
    archive: Archive, tmp_path: Path
) -> None:
    """Dedup reads what is there: where that fails, the put replaces it."""
    path = archive.objects.path(digest_of(payload(1)))
    before = os.stat(path).st_ino
    with Recording(archive.roots, "--stepwise", "--batch", "2") as recording:
        assert recording.read() == "recording"
        log = str(tmp_path / "strace.log")
        with Strace(recording.process.pid, log, *failing_reads(path)) as strace:
            assert recording.step() == "kept"
        assert recording.finish() == 0
    assert "INJECTED" in strace.log()
    assert violations(archive, {"news": recording.kept}) == []
    assert os.stat(path).st_ino != before


def test_verify_finds_what_cannot_be_read_and_goes_on(archive: Archive, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom casfs.archive import Archive\nfrom casfs.roots import Roots\n"
        "from casfs.verify import verify\n"
        "report = verify(Archive(Roots.of(*sys.argv[1:])), threads=1)\n"
        "print(report.sound, report.objects, [found.reason for found in report.damaged])\n"
    )
    assert check(archive).sound
    path = archive.objects.path(digest_of(payload(0)))
    done = subprocess.run(
        [
            *("strace", "-f", "--seccomp-bpf", "-o", str(tmp_path / "strace.log")),
            *failing_reads(path),
            *python("-c", script, archive.roots.cas, archive.roots.manifests),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    # strace says which addresses it could not look at; that is not ours.
    assert "Traceback" not in done.stderr
    assert done.stdout == "False 2 ['cannot be read: Input/output error']\n"
