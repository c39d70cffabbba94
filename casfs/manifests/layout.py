"""Where the journals lie below the manifest root, and who they speak of."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.errors import storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator

BROADCAST_JOURNAL = "@broadcast"
"""The directory of a broadcast's own journal; no track's name is ever encoded so."""


EXPIRIES = os.path.join(".casfs", "expired")
"""Below the manifest root: a journal for each broadcast that says which of its hours expired."""


class JournalPlace(Struct, frozen=True, order=True):
    """One journal's directory, as two path components below the manifest root."""

    broadcast: str
    """The encoded name of the broadcast, or `EXPIRIES`."""
    track: str
    """The encoded name of the track, or `BROADCAST_JOURNAL`; in `EXPIRIES` of the broadcast."""

    @property
    def of_expiries(self) -> bool:
        """Whether it tells what expired."""
        return self.broadcast == EXPIRIES

    def directory(self, root: str) -> str:
        """Return the absolute path of the journal below ``root``."""
        return os.path.join(root, self.broadcast, self.track)

    def __str__(self) -> str:
        return f"{self.broadcast}/{self.track}"


def broadcast_directories(root: str) -> list[str]:
    """Return the encoded names of all broadcasts, sorted; raises StorageError."""
    return _directories(root)


def journal_places(root: str, broadcast: str) -> list[JournalPlace]:
    """Return the journals of one broadcast (an encoded name), sorted; raises StorageError."""
    return [JournalPlace(broadcast, name) for name in _directories(os.path.join(root, broadcast))]


def expiry_place(broadcast: str) -> JournalPlace:
    """Return the journal of what expired of a broadcast (an encoded name)."""
    return JournalPlace(EXPIRIES, broadcast)


def expiry_places(root: str) -> list[JournalPlace]:
    """Return the journals of what expired, sorted; raises StorageError."""
    return [expiry_place(name) for name in _directories(os.path.join(root, EXPIRIES))]


def all_journals(root: str) -> Iterator[JournalPlace]:
    """Yield every journal, those of expiries first, sorted; raises StorageError."""
    yield from expiry_places(root)
    for broadcast in broadcast_directories(root):
        yield from journal_places(root, broadcast)


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".")
                and entry.name != "lost+found"
                and entry.is_dir(follow_symlinks=False)
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, "listing", path) from error
