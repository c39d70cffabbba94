"""What is left of an end that went wrong: kept where nothing of a campaign removes it.

Each case is a directory of its own. It holds what was found (``found.txt``), what the writers said,
when, and how they ended (``account.txt``), and what they left: the disk images as the cut left
them, before anybody recovered a journal, and the files as they were found.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tools.crashes.disk import copy_sparse
from tools.crashes.results import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tools.crashes.promises import Violation


class Evidence:
    """Where cases are kept: a directory that is made, and named, when the first one comes."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._directory: Path | None = None
        self._cases = 0

    @property
    def directory(self) -> Path | None:
        """Where the cases are; None if there is none."""
        return self._directory

    def keep(
        self,
        subject: str,
        found: Sequence[Violation],
        accounts: Sequence[str] = (),
        files: Mapping[str, Path | str] | None = None,
    ) -> Path:
        """Keep a case: what was found, what writers said, and copies of ``files`` (by name)."""
        for item in found:
            say(f"{subject}: {item.promise}: {item.what}")
        self._cases += 1
        name = re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")
        case = self._made() / f"{self._cases:03}-{name}"
        case.mkdir()
        told = [f"{item.promise}: {item.what}" for item in found]
        (case / "found.txt").write_text("\n".join([subject, *told, ""]), encoding="utf-8")
        (case / "account.txt").write_text("\n\n".join(accounts) + "\n", encoding="utf-8")
        for as_name, path in (files or {}).items():
            # As much as can be had: what broke may be the disk that it lies on.
            with contextlib.suppress(OSError, shutil.Error, subprocess.SubprocessError):
                if os.path.isdir(path):
                    shutil.copytree(path, case / as_name, symlinks=True)
                else:
                    copy_sparse(path, case / as_name)
        say(f"{subject}: all that is left of it is in {case}")
        return case

    def _made(self) -> Path:
        if self._directory is None:
            when = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            prefix = f"casfs-crash-evidence-{when}-"
            # Not where tempfile puts things: what tests keep there is gone with them.
            parent = self._parent or os.environ.get("TMPDIR", "/tmp")
            self._directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        return self._directory
