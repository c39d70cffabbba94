"""What lies in the trash: objects that were taken out of the store and wait for their deletion.

``.casfs/trash/<instant>/<64 digits>.bin`` below the CAS root; the directory says since when
(`casfs.collect` fills and empties it, one directory a run).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import Digest, is_digest
from casfs.errors import storage_error
from casfs.objects.local import SUFFIX
from casfs.roots import OWN
from casfs.timestamps import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator

TRASH = os.path.join(OWN, "trash")
"""Below the CAS root."""

_BAG = re.compile(r"(?a)(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z")


class TrashedObject(Struct, frozen=True):
    """An object in the trash."""

    digest: Digest
    since: int
    """Nanoseconds UTC, to the second."""
    size: int
    path: str


def bag_name(now: int) -> str:
    """Return the name of the directory for what is thrown away now, ``20261122T130000Z``."""
    return re.sub(r"[-:]", "", format_time(now)[:19]) + "Z"


def bag_time(name: str) -> int | None:
    """Return the instant that such a name says, or None if it is none."""
    match = _BAG.fullmatch(name)
    if match is None:
        return None
    year, month, day, hour, minute, second = match.groups()
    try:
        return parse_time(f"{year}-{month}-{day}T{hour}:{minute}:{second}Z")
    except ValueError:
        return None


def trashed(cas: str) -> Iterator[TrashedObject]:
    """Yield what lies in the trash below the CAS root, oldest first; raises StorageError."""
    root = os.path.join(cas, TRASH)
    try:
        for bag in sorted(os.listdir(root)):
            since = bag_time(bag)
            if since is not None:
                yield from _objects(os.path.join(root, bag), since)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, "listing", root) from error


def _objects(directory: str, since: int) -> Iterator[TrashedObject]:
    with os.scandir(directory) as entries:
        for entry in entries:
            stem = entry.name.removesuffix(SUFFIX)
            if stem != entry.name and is_digest(stem):
                size = entry.stat(follow_symlinks=False).st_size
                yield TrashedObject(Digest(stem), since, size, entry.path)
