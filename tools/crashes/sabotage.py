"""Writers broken on purpose: a harness that passes one of them proves nothing.

Each takes one promise away from the real writer, by what it makes of the system calls.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TEMPORARY = "/.casfs/tmp/"


def _lie(_: int) -> None:
    pass


def _nothing() -> None:
    pass


def _no_sync() -> Callable[[], None]:
    setattr(os, "fsync", _lie)  # noqa: B010  a type checker knows what os has
    setattr(os, "fdatasync", _lie)  # noqa: B010
    return _nothing


def _no_directory_sync() -> Callable[[], None]:
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fsync(descriptor)

    setattr(os, "fsync", only_files)  # noqa: B010
    return _nothing


def _rename_first() -> Callable[[], None]:
    fsync, rename = os.fsync, os.rename
    unsynced: list[str] = []

    def sync_later(descriptor: int) -> None:
        if _TEMPORARY in os.readlink(f"/proc/self/fd/{descriptor}"):
            return
        while unsynced:
            with contextlib.suppress(IndexError):  # another thread took the last one
                file = os.open(unsynced.pop(), os.O_RDONLY)
                try:
                    fsync(file)
                finally:
                    os.close(file)
        fsync(descriptor)

    def rename_unsynced(source: str, target: str) -> None:
        rename(source, target)
        if _TEMPORARY in source:
            unsynced.append(target)

    setattr(os, "fsync", sync_later)  # noqa: B010
    setattr(os, "rename", rename_unsynced)  # noqa: B010
    return _nothing


def _early_acknowledgement() -> Callable[[], None]:
    fdatasync = os.fdatasync
    unsynced: list[int] = []
    setattr(os, "fdatasync", unsynced.append)  # noqa: B010

    def sync_now() -> None:
        while unsynced:
            with contextlib.suppress(OSError):
                fdatasync(unsynced.pop())

    return sync_now


BROKEN: dict[str, Callable[[], Callable[[], None]]] = {
    "no-sync": _no_sync,
    "rename-first": _rename_first,
    "no-directory-sync": _no_directory_sync,
    "early-acknowledgement": _early_acknowledgement,
}
"""Name -> breaks this process, and returns what it has to do after each acknowledgement.

- no-sync: lies about every sync.
- rename-first: gives an object its name and only then makes its data durable, nor begins to write
  it before; all is durable when it acknowledges.
- no-directory-sync: never makes a name durable.
- early-acknowledgement: acknowledges a group, and only then syncs its manifest lines.
"""

SHOWN_BY: dict[str, tuple[str, ...]] = {"no-directory-sync": ("two-disks",)}
"""The variants (`tools.crashes.power.VARIANTS`) that can show what a writer does; else all can.

On one filesystem the sync of a manifest line writes the journal that holds the rename, too.
"""

AT_RENAME = frozenset({"rename-first"})
"""Those who are wrong only while an object is on its way, and right again once they acknowledge."""
