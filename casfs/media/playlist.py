"""HLS playlists (RFC 8216): text made of segments, no more.

A media playlist names its segments in order; before those that do not follow the one before it
tells of the discontinuity, and before those that need another init segment which one. The instant
of the begin of each such stretch is told too. Every URI is relative and needs no percent-encoding:
a playlist and what it names are siblings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.media.codec_strings import codec_string
from casfs.media.descriptions import Kind, SampleDescription
from casfs.timestamps import NANOSECONDS, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence


_VERSION: Final = 7
"""EXT-X-MAP in playlists that are not of I-frames alone takes 6 (section 7); 7 is common."""


class ListedSegment(Struct, frozen=True):
    """A segment as a playlist names it."""

    uri: str
    init: str
    """URI of its init segment."""
    follows: bool
    """It goes on where the one before ended."""
    instant: int
    """Of its begin, nanoseconds since the Unix epoch."""
    duration: int
    """Nanoseconds."""


class Variant(Struct, frozen=True):
    """A media playlist as a multivariant playlist names it."""

    uri: str
    descriptions: tuple[SampleDescription, ...]
    """Of everything in it."""
    bandwidth: int
    """Bits a second: those of the segment that needs most."""


def media_playlist(segments: Sequence[ListedSegment], *, ended: bool) -> str:
    """Return a media playlist; ``ended`` if nothing will be added to it (section 4.3.3)."""
    target = max((-(-segment.duration // NANOSECONDS) for segment in segments), default=1)
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_VERSION}",
        f"#EXT-X-TARGETDURATION:{target}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f"#EXT-X-PLAYLIST-TYPE:{'VOD' if ended else 'EVENT'}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
    init = ""
    for number, segment in enumerate(segments):
        begins = number == 0 or not segment.follows
        if begins and number:
            lines.append("#EXT-X-DISCONTINUITY")
        if segment.init != init:
            lines.append(f'#EXT-X-MAP:URI="{segment.init}"')
            init = segment.init
        if begins:
            lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{_date_time(segment.instant)}")
        lines.append(f"#EXTINF:{segment.duration / NANOSECONDS:.6f},")
        lines.append(segment.uri)
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def multivariant_playlist(variants: Sequence[Variant]) -> str:
    """Return a multivariant playlist (section 4.3.4)."""
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{_VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for variant in variants:
        codecs = dict.fromkeys(codec_string(item) for item in variant.descriptions)
        attributes = [f"BANDWIDTH={variant.bandwidth}", f'CODECS="{",".join(codecs)}"']
        pictures = [item for item in variant.descriptions if item.kind is Kind.VIDEO]
        if pictures:
            largest = max(pictures, key=lambda item: item.width * item.height)
            attributes.append(f"RESOLUTION={largest.width >> 16}x{largest.height >> 16}")
        lines += [f"#EXT-X-STREAM-INF:{','.join(attributes)}", variant.uri]
    return "\n".join(lines) + "\n"


def _date_time(instant: int) -> str:
    """Return an instant with milliseconds, as ISO 8601 has it."""
    return f"{format_time(instant)[:23]}Z"
