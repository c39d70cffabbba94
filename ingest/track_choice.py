"""Which tracks of a broadcast to record. Pure.

Those that the user names. Else the default ones from the start, since what a relay does not have it
refuses at no cost; the other kinds of catalog, where the usual one does not come; and every track
that a catalog names, as soon as it does. What was chosen once stays chosen: a track that a catalog
names no more may still come.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Final

from casfs.media.catalog_names import CATALOG_TRACKS, named_tracks

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_TRACKS: Final = ("catalog.json", "init.mp4", "video0.m4s", "audio0.m4s")
"""What is asked for without being named."""

MAX_TRACKS: Final = 512
"""So many are recorded of a broadcast at most, however many its catalogs come to name."""


class TrackChoice:
    """Chooses tracks. ``include`` and ``exclude`` are globs of names and hold without ``named``.

    Catalogs and ``init.mp4`` need not be included: nothing plays without them. Excluding wins.
    """

    def __init__(
        self,
        named: Sequence[str] = (),
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> None:
        self._named = bool(named)
        self._include = _any_of(include)
        self._exclude = _any_of(exclude)
        self._tracks = dict.fromkeys(named or filter(self._takes, DEFAULT_TRACKS))
        self._latest: dict[str, int] = {}
        self._wanted: set[str] = set(named)
        self._present: dict[str, frozenset[str]] = {}
        self._turned_away = 0
        self._has_catalog = False

    @property
    def tracks(self) -> tuple[str, ...]:
        """What to record, as far as it is known."""
        return tuple(self._tracks)

    @property
    def turned_away(self) -> int:
        """How many names came beyond `MAX_TRACKS`."""
        return self._turned_away

    @property
    def has_catalog(self) -> bool:
        """Whether any catalog has come."""
        return self._has_catalog

    def other_catalogs(self) -> tuple[str, ...]:
        """Take that the usual catalog does not come; return the other kinds that are new by it."""
        if self._named:
            return ()
        new = [name for name in CATALOG_TRACKS if name not in self._tracks and self._takes(name)]
        self._tracks |= dict.fromkeys(new)
        return tuple(new)

    def reads(self, track: str) -> bool:
        """Say whether the groups of a track choose others."""
        return not self._named and track in CATALOG_TRACKS

    def begin(self) -> None:
        """Take that sequences may begin again: another session, or another publisher."""
        self._latest.clear()
        self._present.clear()

    def take(self, catalog: str, sequence: int, frames: Sequence[bytes]) -> tuple[str, ...]:
        """Take a group of a catalog, whole or not; return the tracks that are new by it.

        Of groups that come out of order the highest sequence counts.
        """
        if not self.reads(catalog) or sequence < self._latest.get(catalog, 0):
            return ()
        self._latest[catalog] = sequence
        self._has_catalog = True
        new = []
        named = [name for name in named_tracks(catalog, frames) if self._takes(name)]
        self._present[catalog] = frozenset(named)
        for name in named:
            if name not in self._tracks:
                if len(self._tracks) >= MAX_TRACKS:
                    self._turned_away += 1
                    continue
                self._tracks[name] = None
                new.append(name)
            self._wanted.add(name)
        return tuple(new)

    def is_there(self, track: str) -> bool:
        """Say whether the publisher whose tracks were asked for last says that it has this one."""
        return any(track in named for named in self._present.values())

    def worth_asking_again(self, track: str) -> bool:
        """Say whether a track that was refused may come yet.

        Once a catalog names tracks, the default ones that it does not name will not.
        """
        return not self._wanted or track in self._wanted or track in CATALOG_TRACKS

    def _takes(self, name: str) -> bool:
        if self._exclude is not None and self._exclude.match(name):
            return False
        needed = name in CATALOG_TRACKS or name == "init.mp4"
        return needed or self._include is None or self._include.match(name) is not None


def _any_of(globs: Sequence[str]) -> re.Pattern[str] | None:
    if not globs:
        return None
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs))
