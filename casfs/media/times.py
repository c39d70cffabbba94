"""When the media of a group begin, by its own first frame: all that is needed is its head.

Fragments tell a decode time (``tfdt``), the frames of hang and LOC a presentation time. The first
frame of a group is one that can be decoded by itself, so between groups either goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from casfs.media.boxes import Fields, MalformedMediaError, require, walk
from casfs.media.fragments import read_decode_time
from casfs.media.frames import read_frame_time

if TYPE_CHECKING:
    from casfs.media.boxes import Box
    from casfs.media.catalog import Container
    from casfs.media.movie import Movie

_NANOSECONDS: Final = 10**9
_MOST_BOXES: Final = 8
"""Before the first ``moof``: ``styp``, ``sidx``, ``prft``, ``emsg``."""


def time_of_fragment(data: bytes, movie: Movie) -> int | None:
    """Return when a fragment begins, in nanoseconds of its track's own time; None if unknown.

    ``data`` begins with the fragment. Of several tracks the first one's time counts.
    """
    try:
        moof = _first_moof(data)
        if moof is None:
            return None
        traf = require(data, moof, b"traf")
        fields = Fields(data, require(data, traf, b"tfhd"))
        fields.version_and_flags()
        track = movie.track(fields.unsigned(4))
        if track is None or not track.timescale:
            return None
        ticks = read_decode_time(Fields(data, require(data, traf, b"tfdt")))
    except MalformedMediaError:
        return None
    return ticks * _NANOSECONDS // track.timescale


def time_of_frame(frame: bytes, container: Container) -> int | None:
    """Return when a frame of hang or LOC is presented, nanoseconds; None if it does not say."""
    try:
        time, timescale = read_frame_time(frame, container)
    except MalformedMediaError:
        return None
    return time * _NANOSECONDS // timescale


def _first_moof(data: bytes) -> Box | None:
    for count, box in enumerate(walk(data, outermost=True)):
        if box.kind == b"moof":
            return box if box.whole else None
        if box.kind == b"mdat" or count == _MOST_BOXES:
            return None
    return None
