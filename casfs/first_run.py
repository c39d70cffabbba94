"""The first start of a service: an archive is made once, and never again on a machine that had one.

A machine remembers in a state directory, outside of the roots, which archive it keeps. As long as
it remembers none, two empty roots become a new archive. From then on empty roots mean that their
disk is not mounted, also where both lie on one, and they are refused.

``<state directory>/archive.json`` is a JSON object with the member ``store``: the archive's id. It
is written once the archive is there. Should the machine lose its power between the two, the next
start finds the archive and remembers it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.durable import replace_file, sync_directory
from casfs.errors import ForeignRootError, NotInitialisedError, storage_error
from casfs.roots import Roots, create, recognise

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = "archive.json"
"""The file in the state directory."""


class Begun(Struct, frozen=True):
    """The archive that a service may use."""

    store: str
    """Its id."""
    created: bool
    """Whether it was made just now."""


class _Memory(Struct, frozen=True):
    store: str


def begin(roots: Roots, directory: str, check: Callable[[], None] = lambda: None) -> Begun:
    """Return the archive in these roots; make it if no archive was ever kept by this machine.

    ``directory`` is where that is remembered; it is made if it is missing. ``check`` is called
    before an archive is made and may raise. Raises
    NotInitialisedError if the roots are empty and should not be; AlreadyInitialisedError if one of
    them is; ForeignRootError if they hold another archive than the one that is remembered, or the
    memory cannot be read; what `create` and `recognise` raise; StorageError.
    """
    path = os.path.join(directory, MEMORY)
    known = _remembered(path)
    if known is not None:
        return Begun(_recognise(roots, known, path), created=False)
    begun = _adopt_or_create(roots, check)
    _remember(path, begun.store)
    return begun


def _adopt_or_create(roots: Roots, check: Callable[[], None]) -> Begun:
    with contextlib.suppress(NotInitialisedError):
        return Begun(recognise(roots).store, created=False)
    check()
    return Begun(create(roots).store, created=True)


def _recognise(roots: Roots, known: str, path: str) -> str:
    try:
        found = recognise(roots).store
    except NotInitialisedError as error:
        raise NotInitialisedError(
            f"{error.message}, but this machine has kept archive {known} before",
            advice=f"mount its disk; to begin a new archive all the same, remove {path}",
        ) from error
    if found != known:
        raise ForeignRootError(
            f"{roots.cas} and {roots.manifests} hold archive {found}, but this machine has kept"
            f" archive {known} before",
            advice=f"check which disks are mounted; if this is meant, remove {path}",
        )
    return found


def _remembered(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(1 << 16), type=_Memory).store
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, "reading", path) from error
    except msgspec.DecodeError as error:
        raise ForeignRootError(
            f"{path} should say which archive this machine keeps, but cannot be understood",
            advice="if the right disks are mounted, remove it",
        ) from error


def _remember(path: str, store: str) -> None:
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        replace_file(path, msgspec.json.encode(_Memory(store)) + b"\n")
        sync_directory(os.path.dirname(os.path.abspath(directory)))
    except OSError as error:
        raise storage_error(error, "remembering the archive in", path) from error
