"""A recorder that is killed, or whose disk fails, at each system call that has to do with a commit.

strace makes it happen; the same archive goes through all of it, and must be sound each time.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from tests.fakes.record_groups import payload
from tests.fakes.store import check, contents, make_archive, python

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: it makes system calls fail"
)

CALLS = ["mkdir", "writev", "fsync", "fdatasync", "rename", "flock"]
_MOST = 60


def strace(log: Path, fault: str, path: str = "") -> list[str]:
    """Return the command under which another one meets the fault."""
    call, _, kind = fault.partition(":")
    # What makes it quicker loses injected signals.
    quick = [] if kind.startswith("signal") else ["--seccomp-bpf"]
    only = ["-P", path] if path else []
    options = ["-o", str(log), "-e", f"trace={call}", "-e", f"inject={fault}"]
    return ["strace", "-f", *quick, *only, *options]


class Recording:
    """Runs of the recorder on one archive, each with its own fault, and all they acknowledged."""

    def __init__(self, directory: Path) -> None:
        self.archive: Archive = make_archive(directory)
        self.log = directory / "strace.log"
        self.kept: set[int] = set()
        self.failures: list[str] = []
        self.first = 0

    def run(
        self, fault: str, *, count: int = 3, path: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Record ``count`` groups more under a fault (of calls on ``path`` only, if given)."""
        roots = self.archive.roots
        arguments = (roots.cas, roots.manifests, str(self.first), str(count), "--retry")
        done = subprocess.run(
            [
                *strace(self.log, fault, path),
                *python("-m", "tests.fakes.record_groups", *arguments),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        self.first += count
        for line in done.stdout.splitlines():
            word, _, rest = line.partition(" ")
            if word == "kept":
                self.kept.add(int(rest))
            elif word == "failed":
                self.failures.append(rest)
        return done

    @property
    def struck(self) -> bool:
        """Whether the fault came about in the last run."""
        text = self.log.read_text(encoding="utf-8")
        return "INJECTED" in text or "killed by SIGKILL" in text

    def verify(self) -> None:
        report = check(self.archive)
        assert report.sound, report
        for index in (True, False):
            found = contents(self.archive, index=index)
            by_sequence = {item.sequence: item for item in found}
            assert len(by_sequence) == len(found)
            assert by_sequence.keys() >= self.kept
            for sequence in self.kept:
                assert by_sequence[sequence].hash == digest_of(payload(sequence))

    def temporaries(self) -> list[str]:
        return os.listdir(os.path.join(self.archive.roots.cas, ".casfs", "tmp"))


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_each_system_call_of_a_commit(tmp_path: Path, call: str) -> None:
    recording = Recording(tmp_path)
    kills = 0
    for number in itertools.count(1):
        assert number < _MOST
        done = recording.run(f"{call}:signal=KILL:when={number}", count=2)
        recording.verify()
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        kills += 1
    assert kills >= 3
    # What the dead left half written is gone, and the last one recorded everything.
    assert recording.temporaries() == []
    assert recording.kept >= {recording.first - 2, recording.first - 1}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        *((call, "EIO") for call in ("mkdir", "writev", "fsync", "fdatasync", "rename")),
        *((call, "ENOSPC") for call in ("mkdir", "writev")),
    ],
)
def test_an_error_at_each_system_call_of_a_commit(tmp_path: Path, call: str, error: str) -> None:
    recording = Recording(tmp_path)
    struck = 0
    for number in itertools.count(1):
        assert number < _MOST
        done = recording.run(f"{call}:error={error}:when={number}", count=2)
        recording.verify()
        assert recording.temporaries() == []
        # It went on after the error, or could not begin and said so.
        assert done.returncode in (0, 7)
        if not recording.struck:
            break
        struck += 1
    assert struck >= 3
    expected = "disk full" if error == "ENOSPC" else "Input/output error"
    assert recording.failures
    assert all(expected in failure for failure in recording.failures)


def test_an_object_that_cannot_be_read_back_is_written_again(tmp_path: Path) -> None:
    """Dedup reads what is there: where that fails, the put replaces it."""
    recording = Recording(tmp_path)
    recording.run("pread64:error=EIO:when=1", count=2, path="/nowhere")
    recording.first = 0
    path = recording.archive.objects.path(digest_of(payload(1)))
    before = os.stat(path).st_ino
    done = recording.run("pread64:error=EIO:when=1", count=2, path=path)
    assert done.returncode == 0
    assert recording.struck
    recording.verify()
    assert os.stat(path).st_ino != before


def test_verify_finds_what_cannot_be_read_and_goes_on(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.run("pread64:error=EIO:when=1", count=2, path="/nowhere")
    script = (
        "import sys\nfrom casfs.archive import Archive\nfrom casfs.roots import Roots\n"
        "from casfs.verify import verify\n"
        "report = verify(Archive(Roots.of(*sys.argv[1:])), threads=1)\n"
        "print(report.sound, report.objects, [found.reason for found in report.damaged])\n"
    )
    roots, store = recording.archive.roots, recording.archive.objects
    path = store.path(digest_of(payload(0)))
    done = subprocess.run(
        [
            *strace(recording.log, "pread64:error=EIO:when=1+", path),
            *python("-c", script, roots.cas, roots.manifests),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    # strace says which addresses it could not look at; that is not ours.
    assert "Traceback" not in done.stderr
    assert done.stdout == "False 2 ['cannot be read: Input/output error']\n"
