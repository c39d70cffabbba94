"""Where an export goes: it appears under its name whole and durable, or not at all.

An export grows beside its target as ``<target>.partial`` and takes the name when everything in it
is durable. What exists is never overwritten. If the export fails or is interrupted, the partial is
removed; if it is killed, the name says what it is. What was finished but lacks something because
the archive is damaged gets the name ``<target>.incomplete`` instead.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Self

from casfs.durable import sync_directory
from casfs.errors import ConfigError, storage_error

if TYPE_CHECKING:
    from casfs.roots import Roots

PARTIAL = ".partial"
INCOMPLETE = ".incomplete"


class Target:
    """A directory or file to be; a context manager.

    Within the block it grows at `path`; `finish` gives it its name, and without that the partial
    is gone after the block. Raises ConfigError if the target exists already or cannot be made
    there, StorageError.
    """

    def __init__(self, target: str, roots: Roots, *, directory: bool) -> None:
        self.target = os.path.abspath(target)
        self.path = self.target + PARTIAL
        """Where it grows."""
        self._directory = directory
        self._finished = False
        parent = os.path.dirname(self.target)
        real = os.path.join(os.path.realpath(parent), os.path.basename(self.target))
        for root in (roots.cas, roots.manifests):
            if os.path.commonpath([real, root]) == root:
                raise ConfigError(
                    f"{target} lies within the archive's root {root}",
                    advice="export to a place outside of the archive",
                )
        for path in (self.target, self.incomplete):
            if os.path.lexists(path):
                raise ConfigError(
                    f"{path} exists already", advice="nothing is overwritten: name a new target"
                )
        if not os.path.isdir(parent):
            raise ConfigError(
                f"the directory {parent} does not exist", advice="create it or name another target"
            )

    @property
    def incomplete(self) -> str:
        """The name that it gets if something lacks."""
        return self.target + INCOMPLETE

    def __enter__(self) -> Self:
        try:
            if self._directory:
                os.mkdir(self.path)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(self.path, flags, 0o644))
        except FileExistsError:
            raise ConfigError(
                f"{self.path} exists: another export is under way there, or was killed",
                advice="remove it if no export runs",
            ) from None
        except OSError as error:
            raise storage_error(error, "creating", self.path) from error
        return self

    def __exit__(self, *_: object) -> None:
        if not self._finished:
            with contextlib.suppress(OSError):
                if self._directory:
                    shutil.rmtree(self.path)
                else:
                    os.unlink(self.path)

    def finish(self, *, complete: bool) -> str:
        """Make the partial durable, give it its name, and return that.

        Everything below it must be durable but for the names of a directory's own entries. Raises
        ConfigError if something else took the name meanwhile, StorageError.
        """
        name = self.target if complete else self.incomplete
        try:
            if self._directory:
                sync_directory(self.path)
                os.rename(self.path, name)
            else:
                # Unlike a rename, a link never replaces what is there.
                os.link(self.path, name)
                os.unlink(self.path)
            self._finished = True
            sync_directory(os.path.dirname(name))
        except OSError as error:
            if os.path.lexists(self.path) and os.path.lexists(name):
                raise ConfigError(
                    f"{name} exists already", advice="nothing is overwritten: name a new target"
                ) from error
            raise storage_error(error, "finishing", name) from error
        return name
