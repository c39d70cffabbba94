"""What the CAS root remembers of the manifests: where each journal ended when last it was told.

The two roots may lie on two disks. A manifest root that was restored from a backup, rolled back or
not mounted is older than the heads say, and that shows here before anyone writes or deletes.
One file a broadcast, ``.casfs/heads/<encoded name>.json``, and one for all journals of expiries,
each replaced as a whole.
"""

from __future__ import annotations

import os
from typing import TypeVar

import msgspec
from msgspec import Struct

from casfs.durable import replace_file
from casfs.errors import CasfsError, ForeignRootError, storage_error
from casfs.manifests.chain import reaches
from casfs.manifests.layout import EXPIRIES, JournalPlace, expiry_place
from casfs.manifests.record import Position
from casfs.roots import OWN

_ENDING = ".json"
_H = TypeVar("_H")


class Heads(Struct, frozen=True, kw_only=True):
    """The last known place of each journal of one broadcast."""

    v: int = 1
    store: str
    broadcast: str
    number: int
    time: str
    """When it was written."""
    journals: dict[str, Position]
    """By the name of the journal's directory; every place was durable."""


def write_heads(cas: str, directory: str, heads: Heads) -> None:
    """Remember the heads of the broadcast in this (encoded) directory; raises StorageError."""
    path = _path(cas, directory)
    try:
        replace_file(path, msgspec.json.encode(heads) + b"\n")
    except OSError as error:
        raise storage_error(error, "writing", path) from error


def read_heads(cas: str, directory: str) -> Heads | None:
    """Return what is remembered of a broadcast, or None; raises StorageError, ForeignRootError."""
    known = "manifests of this broadcast are known to be complete"
    return _read(_path(cas, directory), Heads, known)


class ExpiryHeads(Struct, frozen=True, kw_only=True):
    """The last known place of each journal of expiries (`casfs.expiries`)."""

    v: int = 1
    store: str
    time: str
    """When it was written."""
    journals: dict[str, Position]
    """By the (encoded) directory of the broadcast; every place was durable."""

    @property
    def places(self) -> dict[JournalPlace, Position]:
        """The same by the journals' places, in order."""
        return {expiry_place(name): position for name, position in sorted(self.journals.items())}


def write_expiry_heads(cas: str, heads: ExpiryHeads) -> None:
    """Remember where the journals of expiries end; raises StorageError."""
    path = _expiries_path(cas)
    try:
        replace_file(path, msgspec.json.encode(heads) + b"\n")
    except OSError as error:
        raise storage_error(error, "writing", path) from error


def read_expiry_heads(cas: str) -> ExpiryHeads | None:
    """Return what is remembered of them, None if nothing; raises StorageError, ForeignRootError."""
    known = f"journals in {EXPIRIES} are known to be complete"
    return _read(_expiries_path(cas), ExpiryHeads, known)


def remembered_broadcasts(cas: str) -> list[str]:
    """Return the (encoded) directories of all broadcasts with heads; raises StorageError."""
    path = os.path.join(cas, OWN, "heads")
    try:
        names = os.listdir(path)
    except OSError as error:
        raise storage_error(error, "listing", path) from error
    return sorted(
        name.removesuffix(_ENDING)
        for name in names
        if name.endswith(_ENDING) and not name.startswith(".")
    )


def unreachable(heads: Heads, manifests: str, directory: str) -> list[JournalPlace]:
    """Return the journals that do not reach their heads any more: they lack acknowledged lines.

    Damage before a head is another matter (`casfs.verify` finds it). Raises StorageError.
    """
    places = ((JournalPlace(directory, name), heads.journals[name]) for name in heads.journals)
    return sorted(
        place for place, position in places if not reaches(place.directory(manifests), position)
    )


class KnownHeads:
    """Heads for readers: looked up when asked, read again only when the file has changed."""

    def __init__(self, cas: str) -> None:
        self._cas = cas
        self._seen: dict[str, tuple[int, int, Heads | None]] = {}

    def of(self, place: JournalPlace) -> Position | None:
        """Return how far a journal is known to have been durable; None if that cannot be told."""
        try:
            status = os.stat(_path(self._cas, place.broadcast))
        except OSError:
            return None
        stamp = (status.st_ino, status.st_mtime_ns)
        seen = self._seen.get(place.broadcast)
        if seen is None or seen[:2] != stamp:
            try:
                seen = (*stamp, read_heads(self._cas, place.broadcast))
            except CasfsError:
                # Whoever writes or verifies says what is wrong with it.
                seen = (*stamp, None)
            self._seen[place.broadcast] = seen
        heads = seen[2]
        return heads.journals.get(place.track) if heads is not None else None


def _path(cas: str, directory: str) -> str:
    return os.path.join(cas, OWN, "heads", directory + _ENDING)


def _expiries_path(cas: str) -> str:
    return os.path.join(cas, OWN, "heads", ".expired.json")


def _read(path: str, kind: type[_H], known: str) -> _H | None:
    """Return what a file says, None if it is not there; ``known``: when it may be removed."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, "reading", path) from error
    except msgspec.DecodeError as error:
        raise ForeignRootError(
            f"{path} cannot be understood: {error}",
            advice=f"restore it from a backup of the CAS root, or remove it once the {known}",
        ) from error
