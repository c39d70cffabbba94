"""What a broadcast says of its tracks: the hang catalog and the MSF catalog.

hang (track ``catalog.json``): the first frame of a group is the catalog, each further one a merge
patch on it (RFC 7396); a new group begins anew. MSF (track ``catalog``, draft-ietf-moq-msf-00 and
-01): the first object of a group is the catalog, further ones are catalogs or delta updates, of
which ``add`` and ``remove`` are known here.

A catalog is somebody else's word: what has not the right type or is out of range is left out and
named in ``problems``; what is unknown is passed over. Nothing is raised.
"""

from __future__ import annotations

import base64
import binascii
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from casfs.media.descriptions import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_CATALOG_BYTES: Final = 8 << 20
"""No frame of a catalog is larger."""

MAX_CATALOG_TRACKS: Final = 1024

_MAX_DEPTH: Final = 64
_MAX_NAME: Final = 4096
_MAX_SIDE: Final = 1 << 16
_MAX_RATE: Final = 1 << 24
_MAX_CHANNELS: Final = 255
_MAX_FRAME_RATE: Final = 1000.0
_MAX_BITRATE: Final = 1 << 53
_MAX_ID: Final = (1 << 32) - 1


class Container(StrEnum):
    """How a track's frames wrap their media."""

    CMAF = "cmaf"
    """ISO BMFF fragments."""
    LEGACY = "legacy"
    """A time before the codec's bytes (hang)."""
    LOC = "loc"
    """Properties before the codec's bytes (draft-ietf-moq-loc)."""
    UNKNOWN = "unknown"


class CatalogTrack(Struct, frozen=True, kw_only=True):
    """A media track of a broadcast. A number that the catalog does not give is 0."""

    name: str
    kind: Kind
    codec: str
    """As in the WebCodecs registry, such as ``avc1.64001f``."""
    container: Container
    init: bytes | None = None
    """``ftyp`` + ``moov``, for `Container.CMAF`."""
    description: bytes | None = None
    """The codec's own configuration record, such as an ``avcC`` without box header."""
    timescale: int = 0
    """Of fragments without an init (hang of early 2026), with ``track_id``."""
    track_id: int = 0
    broadcast: str = ""
    """Where the track is published, if it is not where the catalog is; a relative path."""
    width: int = 0
    """Pixels, as coded."""
    height: int = 0
    frame_rate: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    bitrate: int = 0
    """Bits a second."""


class Catalog(Struct, frozen=True):
    """The media tracks of a broadcast, in the catalog's order."""

    tracks: tuple[CatalogTrack, ...] = ()
    problems: tuple[str, ...] = ()
    """What could not be understood, one line each."""

    def track(self, name: str) -> CatalogTrack | None:
        """Return the track called ``name``."""
        return next((track for track in self.tracks if track.name == name), None)


def parse_hang_catalog(frames: Sequence[bytes]) -> Catalog:
    """Return what the ``frames`` of one group of ``catalog.json`` say, together."""
    reader = _Reader()
    document: object = None
    for number, frame in enumerate(frames):
        part = reader.decode(frame)
        if part is not None:
            document = part if number == 0 else merge_patch(document, part)
    for section, kind in (("video", Kind.VIDEO), ("audio", Kind.AUDIO)):
        renditions = _members(_member(_member(document, section), "renditions"))
        for name, rendition in renditions:
            reader.add(_hang_track(reader, name, kind, rendition))
    return reader.catalog()


def parse_msf_catalog(objects: Sequence[bytes]) -> Catalog:
    """Return what the ``objects`` of one group of ``catalog`` say, together."""
    reader = _Reader()
    tracks: dict[str, CatalogTrack] = {}
    inits: dict[str, object] = {}
    for data in objects:
        document = reader.decode(data)
        updates = _items(_member(document, "deltaUpdate"))
        for entry in _items(_member(document, "initDataList")):
            inits[reader.text(entry, "id")] = _member(entry, "data")
        if not updates:
            if _items(_member(document, "tracks")):
                tracks = {}
            updates = [{"op": "add", "tracks": _member(document, "tracks")}]
        for update in updates:
            _apply_msf_update(reader, update, tracks, inits)
    for track in tracks.values():
        reader.add(track)
    return reader.catalog()


def merge_patch(target: object, patch: object, *, depth: int = _MAX_DEPTH) -> object:
    """Return ``target`` changed by ``patch`` (RFC 7396, section 2); neither is altered.

    What lies deeper than ``depth`` objects is replaced and not merged.
    """
    if not isinstance(patch, dict):
        return patch
    merged: dict[str, object] = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif depth > 0:
            merged[key] = merge_patch(merged.get(key), value, depth=depth - 1)
        else:
            merged[key] = value
    return merged


class _Reader:
    """Collects tracks and problems, and takes values only of the right type and range."""

    def __init__(self) -> None:
        self._tracks: dict[str, CatalogTrack] = {}
        self._problems: list[str] = []

    def catalog(self) -> Catalog:
        return Catalog(tuple(self._tracks.values()), tuple(self._problems))

    def add(self, track: CatalogTrack | None) -> None:
        if track is None:
            return
        if len(self._tracks) == MAX_CATALOG_TRACKS:
            self.problem(f"more than {MAX_CATALOG_TRACKS} tracks")
            return
        self._tracks[track.name] = track

    def problem(self, text: str) -> None:
        if text not in self._problems and len(self._problems) < MAX_CATALOG_TRACKS:
            self._problems.append(text)

    def decode(self, data: bytes) -> object:
        """Return the JSON value in ``data``, None where there is none."""
        if len(data) > MAX_CATALOG_BYTES:
            self.problem(f"a catalog of {len(data)} bytes")
            return None
        try:
            value: object = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            self.problem("not JSON")
            return None
        if not isinstance(value, dict):
            self.problem("a catalog that is no JSON object")
            return None
        return value

    def text(self, value: object, key: str) -> str:
        found = _member(value, key)
        return found if isinstance(found, str) and len(found) <= _MAX_NAME else ""

    def number(self, value: object, key: str, most: int) -> int:
        found = _member(value, key)
        if found is None:
            return 0
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= most:
            self.problem(f"{key} is not a number that it can be")
            return 0
        return found

    def real(self, value: object, key: str, most: float) -> float:
        found = _member(value, key)
        if found is None:
            return 0.0
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= most:
            self.problem(f"{key} is not a number that it can be")
            return 0.0
        return float(found)

    def base64(self, found: object) -> bytes | None:
        if not isinstance(found, str):
            return None
        try:
            return base64.b64decode(found, validate=True)
        except (binascii.Error, ValueError):
            self.problem("init data that is not base64")
            return None

    def hexadecimal(self, value: object, key: str) -> bytes | None:
        found = _member(value, key)
        if not isinstance(found, str):
            return None
        try:
            return bytes.fromhex(found)
        except ValueError:
            self.problem(f"{key} is not hexadecimal")
            return None

    def container(self, name: str) -> Container:
        try:
            return Container(name)
        except ValueError:
            return Container.UNKNOWN


def _hang_track(reader: _Reader, name: str, kind: Kind, rendition: object) -> CatalogTrack | None:
    if not name or len(name) > _MAX_NAME:
        reader.problem("a track with an impossible name")
        return None
    container = _member(rendition, "container")
    # Before containers were named, and wherever none is, it is the legacy one.
    named = container if isinstance(container, str) else reader.text(container, "kind")
    return CatalogTrack(
        name=name,
        kind=kind,
        codec=reader.text(rendition, "codec"),
        container=Container.LEGACY if container is None else reader.container(named),
        init=reader.base64(_member(container, "init")),
        description=reader.hexadecimal(rendition, "description"),
        timescale=reader.number(container, "timescale", _MAX_ID),
        track_id=reader.number(container, "trackId", _MAX_ID),
        broadcast=reader.text(rendition, "broadcast"),
        width=reader.number(rendition, "codedWidth", _MAX_SIDE),
        height=reader.number(rendition, "codedHeight", _MAX_SIDE),
        frame_rate=reader.real(rendition, "framerate", _MAX_FRAME_RATE),
        sample_rate=reader.number(rendition, "sampleRate", _MAX_RATE),
        channels=reader.number(rendition, "numberOfChannels", _MAX_CHANNELS),
        bitrate=reader.number(rendition, "bitrate", _MAX_BITRATE),
    )


def _apply_msf_update(
    reader: _Reader, update: object, tracks: dict[str, CatalogTrack], inits: dict[str, object]
) -> None:
    operation = reader.text(update, "op")
    for entry in _items(_member(update, "tracks")):
        name = reader.text(entry, "name")
        if operation == "remove":
            tracks.pop(name, None)
        elif operation == "add":
            track = _msf_track(reader, name, entry, inits)
            if track is not None:
                tracks[name] = track
        else:
            reader.problem(f"a delta update that is not understood: {operation[:40]!r}")


def _msf_track(
    reader: _Reader, name: str, entry: object, inits: dict[str, object]
) -> CatalogTrack | None:
    codec, role = reader.text(entry, "codec"), reader.text(entry, "role")
    kind = _msf_kind(role, entry)
    container = reader.container(reader.text(entry, "packaging"))
    if not name or kind is None or container is Container.UNKNOWN:
        return None  # captions, timelines and the like
    inline = _member(entry, "initData")
    data = reader.base64(inits.get(reader.text(entry, "initRef")) if inline is None else inline)
    channels = reader.text(entry, "channelConfig")
    return CatalogTrack(
        name=name,
        kind=kind,
        codec=codec,
        container=container,
        init=data if container is Container.CMAF else None,
        description=None if container is Container.CMAF else data,
        width=reader.number(entry, "width", _MAX_SIDE),
        height=reader.number(entry, "height", _MAX_SIDE),
        frame_rate=reader.real(entry, "framerate", _MAX_FRAME_RATE),
        sample_rate=reader.number(entry, "samplerate", _MAX_RATE),
        channels=int(channels) if channels.isascii() and channels.isdigit() else 0,
        bitrate=reader.number(entry, "bitrate", _MAX_BITRATE),
    )


def _msf_kind(role: str, entry: object) -> Kind | None:
    if role:
        return next((kind for kind in Kind if kind == role), None)
    if _member(entry, "width") is not None:
        return Kind.VIDEO
    return Kind.AUDIO if _member(entry, "samplerate") is not None else None


# JSON of unknown shape


def _member(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _members(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from value.items()


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []
