"""Filesystems that are measured: mounted by a process of their own, and surely taken away again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.errors import MountPointError
from casfs.mount.mountpoint import check_fuse, mounts_at, unmount
from tools.benchmarks.measuring import BenchError, Measurement, peak_bytes, run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from casfs.roots import Roots

_MOST_SECONDS = 600.0
_PAUSE = 0.002


class Filesystem(Struct, frozen=True):
    """Something mounted, and the process that serves it."""

    path: Path
    process: int
    """Its number; 0 where the kernel serves it by itself."""
    seconds: float
    """From the start of the process until the mount was there."""


def cannot_mount() -> str:
    """Return why nothing can be mounted here; empty if it can."""
    try:
        check_fuse(allow_other=False)
    except MountPointError as error:
        return error.message
    return ""


@contextlib.contextmanager
def mounted(
    command: Callable[[Path], Sequence[str]], environment: Mapping[str, str] | None = None
) -> Iterator[Filesystem]:
    """Run the command that mounts on the given directory; unmount when the block ends.

    Raises BenchError if it ends before the mount is there.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-mount-") as name,
        tempfile.TemporaryFile() as said,
    ):
        path = Path(name).resolve()
        begun = time.perf_counter()
        with subprocess.Popen(
            command(path),
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        ) as process:
            try:
                while not mounts_at(str(path)):
                    if process.poll() is not None or time.perf_counter() - begun > _MOST_SECONDS:
                        said.seek(0)
                        end = said.read()[-2000:].decode(errors="replace").strip()
                        raise BenchError(f"{process.args!r} did not mount: {end}")
                    time.sleep(_PAUSE)
                yield Filesystem(path, process.pid, time.perf_counter() - begun)
            finally:
                while mounts_at(str(path)):
                    unmount(str(path))
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def casfs(roots: Roots) -> Callable[[Path], Sequence[str]]:
    """Return the command that mounts this archive."""
    program = str(Path(sys.executable).with_name("casfs"))
    return lambda path: [
        *(program, "--cas-root", roots.cas, "--manifest-root", roots.manifests),
        *("mount", str(path)),
    ]


def bindfs(source: Path) -> Callable[[Path], Sequence[str]]:
    """Return the command that shows this directory through bindfs."""
    return lambda path: ["bindfs", "-f", "-o", "ro", str(source), str(path)]


def floor(source: Path) -> Callable[[Path], Sequence[str]]:
    """Return the command that shows this directory through pyfuse3 alone."""
    return lambda path: [
        *(sys.executable, "-m", "tools.benchmarks.mount_floor", str(source), str(path)),
    ]


def measured_on(
    filesystem: Filesystem, command: Sequence[str], directory: Path | None = None
) -> Measurement:
    """Run a command that reads the filesystem; the memory is that of who serves it."""
    run = run_command(command, directory=directory)
    return Measurement(run.seconds, served_peak(filesystem) or run.peak_bytes)


def served_peak(filesystem: Filesystem) -> int:
    """Return the most memory that the process behind the filesystem has held."""
    return peak_bytes(str(filesystem.process)) if filesystem.process else 0


def drop_from_memory(paths: Sequence[Path]) -> None:
    """Have the kernel forget what it holds of these files, which are on disk."""
    os.sync()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
