"""What media needs before its samples can be told: an init segment, or the catalog's word."""

from __future__ import annotations

from bisect import bisect_left
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.errors import CasfsError
from casfs.index.rows import SealRow
from casfs.manifests.record import INIT_TRACKS
from casfs.media.boxes import MalformedMediaError
from casfs.media.catalog import Catalog, parse_hang_catalog, parse_msf_catalog
from casfs.media.movie import Movie, read_movie
from casfs.timestamps import HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from casfs.digest import Digest
    from casfs.index.lookup import Lookup
    from casfs.index.rows import GroupRow
    from casfs.recordings.reading import FramesOf

_HOURS: Final = 2
"""In so many hours a catalog is looked for: those nearest to the group."""


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

    def knows(self, digest: Digest | None, track: str) -> bool:
        """Say whether an object tells how a track is played."""
        init = self.of(digest)
        return init.movie is not None or (
            init.catalog is not None and init.catalog.track(track) is not None
        )

    def near(self, broadcast: str, received: int, through: int | None) -> list[GroupRow]:
        """Return inits and catalogs of a broadcast that came around an instant, better ones first.

        With ``through`` as they stood after that commit number.
        """
        found: list[GroupRow] = []
        hour = received // HOUR
        for name in INIT_TRACKS:
            own = self._lookup.track(broadcast, name)
            if own is None:
                continue
            for close in sorted(self._lookup.hours(own), key=lambda one: abs(one - hour))[:_HOURS]:
                if through is None:
                    start = close * HOUR
                    found += self._lookup.groups(own, start, start + HOUR)
                else:
                    found += self._lookup.sealed(own, SealRow(close, through))
        return found

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


class InitChoice:
    """Which init each group of a track is played with: its own, if that knows the track.

    Publishers list tracks late and strike them off early, so the catalog that was the newest when
    a group came may not know its track: then the one nearest to it in its epoch does that does.
    ``rows`` gives groups of the track that name inits. With ``through`` only what had been
    committed by then counts, so that the choice is always the same.
    """

    def __init__(
        self,
        inits: Inits,
        broadcast: str,
        track: str,
        rows: Callable[[], Iterable[GroupRow]],
        through: int | None = None,
    ) -> None:
        self._inits = inits
        self._broadcast = broadcast
        self._track = track
        self._rows = rows
        self._through = through
        self._named: dict[int, list[tuple[int, Digest]]] | None = None
        self._others: dict[tuple[int, int], list[tuple[int, Digest]]] = {}

    def of(self, n: int, epoch: int, init: Digest | None, received: int) -> Digest | None:
        """Return the init of the group with this commit number, which names ``init``."""
        if self._inits.knows(init, self._track):
            return init
        if self._named is None:
            self._named = self._by_epoch((row, row.init) for row in self._rows())
        nearest = _nearest(self._named.get(epoch, ()), n)
        if nearest is not None:
            return nearest
        hour = received // HOUR
        if (epoch, hour) not in self._others:
            near = self._inits.near(self._broadcast, received, self._through)
            known = self._by_epoch((row, row.hash) for row in near)
            others = [pair for pairs in known.values() for pair in pairs]
            self._others[epoch, hour] = known.get(epoch) or others
        return _nearest(self._others[epoch, hour], n) or init

    def _by_epoch(
        self, named: Iterable[tuple[GroupRow, Digest | None]]
    ) -> dict[int, list[tuple[int, Digest]]]:
        """Return commit numbers and inits, of those inits that know the track."""
        knows: dict[Digest, bool] = {}
        found: dict[int, list[tuple[int, Digest]]] = {}
        for row, digest in named:
            if digest is None:
                continue
            if digest not in knows:
                knows[digest] = self._inits.knows(digest, self._track)
            if knows[digest]:
                found.setdefault(row.epoch, []).append((row.n, digest))
        for pairs in found.values():
            pairs.sort()
        return found


def _nearest(pairs: Sequence[tuple[int, Digest]], n: int) -> Digest | None:
    """Return the digest whose number is nearest to ``n``, of equally near ones the earlier."""
    place = bisect_left(pairs, n, key=itemgetter(0))
    around = pairs[max(0, place - 1) : place + 1]
    return min(around, key=lambda pair: abs(pair[0] - n))[1] if around else None
