"""When the media of a group begin: by what the group itself says, or by what came beside it.

Pure. It has to be told of catalogs and init segments as they come. Times of different clocks say
nothing about each other: a publisher may count the ones from its start and the others since 1970.
"""

from __future__ import annotations

import contextlib
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.manifests.record import INIT_TRACKS
from casfs.media.boxes import MalformedMediaError
from casfs.media.catalog import Catalog, Container, parse_hang_catalog, parse_msf_catalog
from casfs.media.catalog_names import HANG_CATALOG
from casfs.media.groups import movie_of
from casfs.media.movie import Movie, read_movie
from casfs.media.times import time_of_fragment, time_of_frame
from casfs.timestamps import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

_INIT: Final = "init.mp4"


class Clock(Enum):
    """Whose time it is."""

    PAYLOAD = auto()
    """The media's own: ``tfdt``, or the time before a frame of hang or LOC."""
    TRANSPORT = auto()
    """The protocol's, beside each frame."""


class MediaTime(Struct, frozen=True):
    """A time of media."""

    clock: Clock
    nanoseconds: int


class MediaClock:
    """Reads the times of one broadcast's groups."""

    def __init__(self) -> None:
        self._catalog = Catalog()
        self._init: Movie | None = None
        self._movies: dict[str, Movie | None] = {}
        """The init segments that the catalog gives, by track."""

    def note(self, track: str, frames: Sequence[bytes]) -> None:
        """Take a catalog or an init segment; groups of other tracks are ignored."""
        if track == _INIT:
            try:
                self._init = read_movie(b"".join(frames))
            except MalformedMediaError:
                return
        elif track in INIT_TRACKS:
            parse = parse_hang_catalog if track == HANG_CATALOG else parse_msf_catalog
            catalog = parse(frames)
            if catalog.tracks:
                self._catalog = catalog
                self._movies.clear()

    def time(
        self,
        track: str,
        frames: Sequence[bytes],
        timestamps: Sequence[int] | None,
        timescale: int | None,
    ) -> MediaTime | None:
        """Return when a group begins; None if nobody says, or it is no media.

        ``timestamps`` and ``timescale`` are the protocol's.
        """
        if track in INIT_TRACKS or not frames:
            return None
        own = self._own_time(track, frames[0])
        if own is not None:
            return MediaTime(Clock.PAYLOAD, own)
        if timestamps and timescale:
            return MediaTime(Clock.TRANSPORT, timestamps[0] * NANOSECONDS // timescale)
        return None

    def _own_time(self, name: str, frame: bytes) -> int | None:
        track = self._catalog.track(name)
        if track is not None and track.container in (Container.LEGACY, Container.LOC):
            return time_of_frame(frame, track.container)
        if name not in self._movies:
            self._movies[name] = None
            if track is not None:
                with contextlib.suppress(MalformedMediaError):
                    self._movies[name] = movie_of(track)
        movie = self._movies[name] or self._init
        return None if movie is None else time_of_fragment(frame, movie)
