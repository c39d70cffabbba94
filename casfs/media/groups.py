"""The samples of a group, whatever wraps them: the one door for who commits or rebuilds.

Which wrapping it is comes from the catalog; without one (a broadcast of ``init.mp4`` and ``.m4s``
tracks) the payload is taken for fragments of the init segment that was archived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.media.boxes import MalformedMediaError
from casfs.media.catalog import CatalogTrack, Container
from casfs.media.codecs import describe
from casfs.media.fragments import samples_of_fragments
from casfs.media.frames import samples_of_frames
from casfs.media.movie import Movie, MovieTrack, SampleDefaults, read_movie
from casfs.media.samples import MAX_TIMESCALE, GroupSamples

if TYPE_CHECKING:
    from collections.abc import Sequence


def movie_of(track: CatalogTrack) -> Movie:
    """Return the init segment that a catalog gives a track of fragments.

    It is the catalog's own, or, where that tells only timescale and track_ID, one that says the
    same. Worth keeping: it is the same for all groups of the track.

    Raises:
        MalformedMediaError: the catalog says too little or nonsense.
    """
    if track.init is not None:
        return read_movie(track.init)
    if not 0 < track.timescale <= MAX_TIMESCALE:
        raise MalformedMediaError("a track of fragments without an init segment")
    described = MovieTrack(
        id=track.track_id,
        position=0,
        timescale=track.timescale,
        descriptions=(describe(track),),
        shift=0,
        defaults=SampleDefaults(),
    )
    return Movie((described,))


def samples_of_group(
    payload: bytes,
    frame_sizes: Sequence[int],
    *,
    track: CatalogTrack | None = None,
    movie: Movie | None = None,
) -> GroupSamples:
    """Return the tables of a group, or of a run of groups, that make up ``payload``.

    ``track`` is what the catalog says; ``movie``, where given, goes before its init segment.
    ``frame_sizes`` matter to codec frames alone. Nothing is raised: a payload without tables gives
    a reason.
    """
    if track is not None and track.container is not Container.CMAF:
        return samples_of_frames(payload, frame_sizes, track)
    if movie is None and track is not None:
        try:
            movie = movie_of(track)
        except MalformedMediaError as error:
            return GroupSamples(reason=str(error))
    return samples_of_fragments(payload, movie)
