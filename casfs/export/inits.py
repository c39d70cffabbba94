"""What media needs before its samples can be told: an init segment, or the catalog's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.errors import CasfsError
from casfs.manifests.locate import find_line
from casfs.manifests.record import INIT_TRACKS, GroupRecord
from casfs.media.boxes import MalformedMediaError
from casfs.media.catalog import Catalog, parse_hang_catalog, parse_msf_catalog
from casfs.media.movie import Movie, read_movie

if TYPE_CHECKING:
    from collections.abc import Callable

    from casfs.archive import Archive
    from casfs.digest import Digest
    from casfs.export.selection import Selection
    from casfs.index.reader import Reader

_HOLDERS = 100


class Init(Struct, frozen=True):
    """What an object tells of the tracks that need it; at most one of both."""

    movie: Movie | None = None
    catalog: Catalog | None = None


class Inits:
    """Reads inits and keeps those that were read: there are few."""

    def __init__(
        self,
        archive: Archive,
        reader: Reader,
        selection: Selection,
        read: Callable[[Digest], bytes],
    ) -> None:
        self._archive = archive
        self._reader = reader
        self._selection = selection
        self._read = read
        self._known: dict[Digest, Init] = {}
        self._newest: Digest | None = None
        self._looked = False

    def of(self, digest: Digest | None) -> Init:
        """Return what an object tells; without one, the newest init of the broadcast.

        What cannot be read or understood tells nothing.
        """
        digest = digest if digest is not None else self._find_newest()
        if digest is None:
            return Init()
        if digest not in self._known:
            self._known[digest] = self._parse(digest)
        return self._known[digest]

    def _parse(self, digest: Digest) -> Init:
        try:
            data = self._read(digest)
        except CasfsError:
            return Init()
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
        for held in self._reader.references(digest, _HOLDERS).listed:
            if held.broadcast != self._selection.span.broadcast or held.offset:
                continue
            journal = self._selection.journal(held.track)
            placed = find_line(journal.directory(self._archive.roots.manifests), held.n)
            record = placed.line.record if placed is not None else None
            if isinstance(record, GroupRecord) and sum(record.frame_sizes) == len(data):
                frames: list[bytes] = []
                at = 0
                for size in record.frame_sizes:
                    frames.append(data[at : at + size])
                    at += size
                return frames
        return [data]

    def _find_newest(self) -> Digest | None:
        if not self._looked:
            self._looked = True
            for name in INIT_TRACKS:
                track = self._reader.track(self._selection.span.broadcast, name)
                group = self._reader.newest(track) if track is not None else None
                if group is not None:
                    self._newest = group.hash
                    break
        return self._newest
