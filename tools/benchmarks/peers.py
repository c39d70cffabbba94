"""The programs that casfs is compared with: Debian packages, installed when they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from tools.benchmarks.measuring import Measurement, run_command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PACKAGES = {
    "b3sum": "b3sum",
    "bindfs": "bindfs",
    "borg": "borgbackup",
    "borg-fuse": "python3-pyfuse3",
    "restic": "restic",
}
"""Program -> the Debian package that holds it; `borg mount` needs a library as well."""

_BORG_FUSE = ["/usr/bin/python3", "-c", "import pyfuse3"]


class Peers:
    """Which peers are here, and why not."""

    def __init__(self, *, install: bool) -> None:
        self._install = install
        self._reasons: dict[str, str] = {}

    def missing(self, program: str) -> str:
        """Return why ``program`` cannot be run, after an attempt to install it; empty if it can."""
        if program not in self._reasons:
            self._reasons[program] = self._missing(program)
        return self._reasons[program]

    def _missing(self, program: str) -> str:
        if _is_here(program):
            return ""
        package = PACKAGES[program]
        if not self._install:
            return f"{program} is not installed"
        if shutil.which("apt-get") is None:
            return f"{program} is not installed and there is no apt-get"
        if os.geteuid() != 0 and shutil.which("sudo") is None:
            return f"{program} is not installed, and this is neither root nor is there sudo"
        as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        print(f"bench: installing {package} to compare with", file=sys.stderr, flush=True)
        command = [
            *(*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"),
            *("-o", "DPkg::Lock::Timeout=60", "install", "--yes", "--no-install-recommends"),
            package,
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode == 0 and _is_here(program):
            return ""
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return f"{package} could not be installed: {said[-1] if said else 'apt-get failed'}"


def _is_here(program: str) -> bool:
    if program != "borg-fuse":
        return shutil.which(program) is not None
    return subprocess.run(_BORG_FUSE, capture_output=True, check=False).returncode == 0


class Repository:
    """A backup repository of a peer below ``directory``, made anew by `create`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "repository"
        self.environment = {
            "HOME": str(directory),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "RESTIC_PASSWORD": "benchmark",
            "BORG_BASE_DIR": str(directory / "borg"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def create(self) -> None:
        """Make it, empty, in place of the one that is there."""
        self.remove()
        self.path.parent.mkdir()
        self._run(self._creation())

    def remove(self) -> None:
        """Remove it with all that its program keeps about it."""
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def backup(self, source: Path) -> Measurement:
        """Store every file below ``source``."""
        return self._run(self._backing_up(source))

    def check(self) -> Measurement:
        """Read and check all data."""
        return self._run(self._checking())

    def mounting(self, path: Path) -> Sequence[str]:
        """Return the command that mounts what is stored at ``path`` and serves it."""
        raise NotImplementedError

    def _run(self, command: Sequence[str]) -> Measurement:
        return run_command(command, environment=self.environment)

    def _creation(self) -> Sequence[str]:
        raise NotImplementedError

    def _backing_up(self, source: Path) -> Sequence[str]:
        raise NotImplementedError

    def _checking(self) -> Sequence[str]:
        raise NotImplementedError


class ResticRepository(Repository):
    """restic: always encrypts; compression is off."""

    def _creation(self) -> Sequence[str]:
        return self._restic("init", "--repository-version", "2")

    def _backing_up(self, source: Path) -> Sequence[str]:
        return self._restic("backup", "--compression", "off", str(source))

    def _checking(self) -> Sequence[str]:
        return self._restic("check", "--read-data")

    def mounting(self, path: Path) -> Sequence[str]:
        """Return restic's command."""
        return self._restic("mount", str(path))

    def _restic(self, *arguments: str) -> Sequence[str]:
        return ["restic", "--quiet", "--repo", str(self.path), *arguments]


class BorgRepository(Repository):
    """borg without encryption and without compression."""

    def _creation(self) -> Sequence[str]:
        return ["borg", "init", "--encryption", "none", str(self.path)]

    def _backing_up(self, source: Path) -> Sequence[str]:
        return ["borg", "create", "--compression", "none", f"{self.path}::bench", str(source)]

    def _checking(self) -> Sequence[str]:
        return ["borg", "check", "--verify-data", str(self.path)]

    def mounting(self, path: Path) -> Sequence[str]:
        """Return borg's command."""
        return ["borg", "mount", "--foreground", f"{self.path}::bench", str(path)]
