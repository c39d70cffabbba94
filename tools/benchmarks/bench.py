"""What all comparisons of one run share: where, how large, how often, and what was made already."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tools.benchmarks.durable_put import put_files
from tools.benchmarks.material import new_archive, roots_below, write_files
from tools.benchmarks.measuring import run_task

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.roots import Roots
    from tools.benchmarks.peers import Peers, Repository


class Bench:
    """One run below ``directory``, which is empty; all that is made stays until the run ends."""

    def __init__(
        self,
        directory: Path,
        peers: Peers,
        *,
        scale: float,
        rounds: int | None,
        seconds: float | None = None,
    ) -> None:
        self.directory = directory
        self.peers = peers
        self.scale = scale
        self._rounds = rounds
        self._seconds = seconds

    def scaled(self, full: int) -> int:
        """Return what ``full`` of a whole run comes to in this one; at least 10."""
        return max(10, round(full * self.scale))

    def rounds(self, usual: int) -> int:
        """Return how often to repeat, where ``usual`` is the default."""
        return self._rounds or usual

    def seconds(self, usual: float) -> float:
        """Return how long to go on with what is live, where ``usual`` is the default."""
        return self._seconds or usual * self.scale

    def files(self, count: int) -> Path:
        """Return a directory of ``count`` incompressible files, made at the first call."""
        directory = self.directory / f"files-{count}"
        if not directory.exists():
            write_files(directory, count)
        return directory

    def stored(self, count: int) -> Roots:
        """Return the roots of an archive that holds these files, made at the first call."""
        directory = self.directory / f"stored-{count}"
        if not directory.exists():
            new_archive(directory)
            run_task(put_files, str(directory), str(self.files(count)))
            os.sync()
        return roots_below(directory)

    def backed_up(self, repository: Repository, count: int) -> Repository:
        """Return ``repository`` with these files in it, made at the first call."""
        if not repository.path.exists():
            repository.create()
            repository.backup(self.files(count))
            os.sync()
        return repository
