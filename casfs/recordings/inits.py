"""What media needs before its samples can be told: an init segment, or the catalog's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.errors import CasfsError
from casfs.manifests.record import INIT_TRACKS
from casfs.media.boxes import MalformedMediaError
from casfs.media.catalog import Catalog, parse_hang_catalog, parse_msf_catalog
from casfs.media.movie import Movie, read_movie

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.digest import Digest
    from casfs.index.lookup import Lookup
    from casfs.recordings.reading import FramesOf


class Init(Struct, frozen=True):
    """What an object tells of the tracks that need it; at most one of both."""

    movie: Movie | None = None
    catalog: Catalog | None = None


class Inits:
    """Reads inits and keeps those that were read: there are few. As many threads as ``lookup``."""

    def __init__(
        self, lookup: Lookup, read: Callable[[Digest], bytes], frames_of: FramesOf
    ) -> None:
        self._lookup = lookup
        self._read = read
        self._frames_of = frames_of
        self._known: dict[Digest, Init] = {}

    def of(self, digest: Digest | None) -> Init:
        """Return what an object tells. What cannot be read or understood tells nothing."""
        if digest is None:
            return Init()
        known = self._known.get(digest)
        if known is None:
            try:
                known = self._parse(digest, self._read(digest))
            except CasfsError:
                return Init()
            self._known[digest] = known
        return known

    def newest(self, broadcast: str) -> Digest | None:
        """Return the newest init of a broadcast: what a group is played with that names none."""
        for name in INIT_TRACKS:
            track = self._lookup.track(broadcast, name)
            group = self._lookup.newest(track) if track is not None else None
            if group is not None:
                return group.hash
        return None

    def _parse(self, digest: Digest, data: bytes) -> Init:
        if data.lstrip()[:1] == b"{":
            frames = self._frames(digest, data)
            catalog = parse_hang_catalog(frames)
            return Init(catalog=catalog if catalog.tracks else parse_msf_catalog(frames))
        try:
            return Init(movie=read_movie(data))
        except MalformedMediaError:
            return Init()

    def _frames(self, digest: Digest, data: bytes) -> list[bytes]:
        """Return the frames of a catalog: a snapshot, and perhaps what has changed since."""
        for row in self._lookup.referencing(digest):
            if row.offset or row.size != len(data):
                continue
            sizes = self._frames_of([row]).get(row.n, ())
            if sum(sizes) == len(data):
                frames: list[bytes] = []
                at = 0
                for size in sizes:
                    frames.append(data[at : at + size])
                    at += size
                return frames
        return [data]
