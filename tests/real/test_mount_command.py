"""``casfs mount`` as a service: in the background, under systemd, for another user."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from casfs.archive import Archive, Group
from casfs.errors import MountPointError
from casfs.mount.mountpoint import check_fuse, is_private, mounts_at, unmount
from casfs.roots import Roots, create
from casfs.timestamps import NANOSECONDS, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator

CASFS = Path(sys.executable).with_name("casfs")
RECEIVED = parse_time("2026-11-22T13:00:00Z")
SOON = 45.0
NOBODY = 65534
LATEST = "broadcasts/demo/tv/0.m4s/latest.m4s"


def _why_not() -> str | None:
    try:
        check_fuse(allow_other=False)
    except MountPointError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(_why_not() is not None, reason=f"cannot mount: {_why_not()}")


def group(sequence: int, payload: bytes = b"payload") -> Group:
    start = RECEIVED + sequence * NANOSECONDS
    return Group(
        track="0.m4s",
        epoch=1,
        sequence=sequence,
        frames=(payload,),
        received_start=start,
        received_end=start + 1000,
    )


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return archive_below(tmp_path)


def archive_below(directory: Path) -> Roots:
    roots = Roots.of(str(directory / "cas"), str(directory / "manifests"))
    create(roots)
    (directory / "mnt").mkdir()
    with Archive(roots).writer("demo/tv", clock=lambda: RECEIVED) as writer:
        writer.commit([group(0)])
    return roots


def command(roots: Roots, *arguments: str | Path) -> list[str]:
    where = ("--cas-root", roots.cas, "--manifest-root", roots.manifests)
    return [str(CASFS), *where, "mount", *map(str, arguments)]


@contextmanager
def nothing_left_at(mountpoint: Path) -> Iterator[None]:
    try:
        yield
    finally:
        while mounts_at(str(mountpoint.resolve())):
            unmount(str(mountpoint.resolve()))


def content(mountpoint: Path) -> bytes:
    return (mountpoint / LATEST).read_bytes()


def eventually_unmounted(path: Path) -> bool:
    deadline = time.monotonic() + SOON
    while mounts_at(str(path.resolve())):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_in_the_background_the_command_returns_once_the_mount_can_be_read(
    roots: Roots, tmp_path: Path
) -> None:
    mountpoint = tmp_path / "mnt"
    with nothing_left_at(mountpoint):
        done = subprocess.run(
            command(roots, "--daemon", "mnt"), cwd=tmp_path, timeout=SOON, check=False,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert content(mountpoint) == b"payload"
        unmount(str(mountpoint))
        assert eventually_unmounted(mountpoint)


@pytest.mark.parametrize(("place", "code"), [("nowhere", 2), ("cas", 2)])
def test_in_the_background_errors_still_reach_who_called(
    roots: Roots, tmp_path: Path, place: str, code: int
) -> None:
    done = subprocess.run(
        command(roots, "--daemon", tmp_path / place),
        timeout=SOON, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert line.startswith("casfs: error: the mount point")


def test_systemd_is_told_when_the_mount_is_ready_lives_and_ends(
    roots: Roots, tmp_path: Path
) -> None:
    mountpoint, address = tmp_path / "mnt", tmp_path / "notify"
    with (
        nothing_left_at(mountpoint),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(str(address))
        manager.settimeout(SOON)
        environment = {**os.environ, "NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "100000"}
        with subprocess.Popen(command(roots, mountpoint), env=environment) as process:
            try:
                assert manager.recv(4096) == f"READY=1\nSTATUS=mounted at {mountpoint}".encode()
                assert content(mountpoint) == b"payload"
                lives = [manager.recv(4096).decode().splitlines() for _ in range(3)]
                process.send_signal(signal.SIGHUP)
                assert process.wait(SOON) == 0
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
        assert [life[0] for life in lives] == ["WATCHDOG=1"] * 3
        assert lives[0][1].startswith("STATUS=mounted: ")
        told = [manager.recv(4096)]
        while not told[-1].startswith(b"STOPPING=1"):
            told.append(manager.recv(4096))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_mounts_an_archive_that_he_may_only_read() -> None:
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        pytest.skip("/dev/fuse is not open to other users")
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    version = [*as_nobody, str(CASFS), "--version"]
    if subprocess.run(version, capture_output=True, check=False).returncode:
        pytest.skip("other users cannot run this program where it stands")
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to others
        directory = Path(name)
        directory.chmod(0o755)
        roots, mountpoint = archive_below(directory), directory / "mnt"
        os.chown(mountpoint, NOBODY, NOBODY)
        with nothing_left_at(mountpoint):
            for _ in range(2):  # the second one finds the dead mount of the first
                with subprocess.Popen(
                    [*as_nobody, *command(roots, mountpoint)], stderr=subprocess.PIPE, text=True
                ) as process:
                    assert process.stderr is not None
                    said = [process.stderr.readline()]
                    while "mounted at" not in said[-1]:
                        assert said[-1], said
                        said.append(process.stderr.readline())
                    read = [*as_nobody, "cat", str(mountpoint / LATEST)]
                    shown = subprocess.run(read, capture_output=True, check=True)
                    assert shown.stdout == b"payload"
                    process.kill()


def test_a_mount_in_the_namespace_of_everybody_is_not_private(tmp_path: Path) -> None:
    assert not is_private(str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a mount namespace")
def test_a_mount_in_a_namespace_of_its_own_says_that_nobody_will_see_it(
    roots: Roots, tmp_path: Path
) -> None:
    mountpoint = tmp_path / "mnt"
    with subprocess.Popen(
        ["unshare", "--mount", *command(roots, mountpoint)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            lines = [process.stderr.readline(), process.stderr.readline()]
            assert list(mountpoint.iterdir()) == []
        finally:
            process.terminate()
    assert process.returncode == 0
    assert "is visible to this service alone" in lines[0]
    assert "mounted at" in lines[1]


def test_a_group_is_visible_within_a_second_of_its_acknowledgement_and_latest_moves(
    roots: Roots, tmp_path: Path
) -> None:
    mountpoint = tmp_path / "mnt"
    hour = mountpoint / "broadcasts/demo/tv/0.m4s/2026-11-22/13"
    with (
        nothing_left_at(mountpoint),
        subprocess.Popen(command(roots, mountpoint), stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stderr is not None
            assert "mounted at" in process.stderr.readline()
            assert content(mountpoint) == b"payload"
            with Archive(roots).writer("demo/tv", clock=lambda: RECEIVED) as writer:
                for sequence in range(1, 6):
                    payload = b"payload %d" % sequence
                    writer.commit([group(sequence, payload)])
                    acknowledged = time.monotonic()
                    while content(mountpoint) != payload:
                        assert time.monotonic() - acknowledged < 1.0
                    assert len(list(hour.iterdir())) == sequence + 1
        finally:
            process.terminate()
