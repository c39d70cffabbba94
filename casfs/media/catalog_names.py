"""Which tracks a catalog names: of any kind, whether we understand their media or not.

hang (track ``catalog.json``): the keys of ``renditions`` in each section, and the ``track`` or
``tracks`` that other sections name. MSF (track ``catalog``, draft-ietf-moq-msf) and the older
catalog of Cloudflare (track ``.catalog``): the members of ``tracks``, of ``deltaUpdate``, and the
``initTrack`` of a track. What is published elsewhere (another ``broadcast`` or ``namespace``) is
not among them.

A catalog is somebody else's word: at most `MAX_CATALOG_TRACKS` names are taken, none that is empty
or that no archive can hold. Nothing is raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from casfs.media.catalog import MAX_CATALOG_BYTES, MAX_CATALOG_TRACKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HANG_CATALOG: Final = "catalog.json"
CATALOG_TRACKS: Final = (HANG_CATALOG, "catalog", ".catalog")
"""The tracks that are catalogs, by name."""

_MAX_NAME_BYTES: Final = 1024
"""Far above any real one; a thousand longer ones would only fill memory."""
_HERE = ("", ".", "./")


def named_tracks(catalog: str, frames: Sequence[bytes]) -> tuple[str, ...]:
    """Return what the ``frames`` of one group of the track ``catalog`` name, in their order.

    The group may still be open: whatever is whole in it counts. Of one larger than
    `MAX_CATALOG_BYTES` nothing does.
    """
    if sum(map(len, frames)) > MAX_CATALOG_BYTES:
        return ()
    documents = [document for frame in frames if (document := _decoded(frame)) is not None]
    found = _of_hang(documents) if catalog == HANG_CATALOG else _of_msf(documents)
    names: dict[str, None] = {}
    for name in found:
        if len(names) == MAX_CATALOG_TRACKS:
            break
        if _can_be(name):
            names[name] = None
    return tuple(names)


def _of_hang(documents: Sequence[object]) -> Iterator[str]:
    merged: dict[object, object] = {}
    for document in documents:
        _merge_into(merged, document)
    for section in _values(merged):
        for name, rendition in _members(_member(section, "renditions")):
            if _member(rendition, "broadcast") in (None, *_HERE):
                yield name
        yield from _texts(_member(section, "track"))
        tracks = _member(section, "tracks")
        yield from _texts(tracks)
        yield from (name for name, _ in _members(tracks))
        yield from (name for item in _items(tracks) for name in _texts(_member(item, "name")))


def _of_msf(documents: Sequence[object]) -> Iterator[str]:
    for document in documents:
        # What a delta removes has been there: its groups may still come.
        updates = [document, *_items(_member(document, "deltaUpdate"))]
        for update in updates:
            for track in _items(_member(update, "tracks")):
                if _member(track, "namespace") in (None, *_HERE):
                    yield from _texts(_member(track, "name"))
                    yield from _texts(_member(track, "initTrack"))
        common = _member(document, "commonTrackFields")
        yield from _texts(_member(common, "initTrack"))


def _merge_into(target: dict[object, object], patch: object, depth: int = 64) -> None:
    """Change ``target`` by ``patch`` (RFC 7396) in place: work grows with the patch alone."""
    for key, value in _members(patch):
        before = target.get(key)
        if value is None:
            target.pop(key, None)
        elif depth and isinstance(value, dict) and isinstance(before, dict):
            _merge_into(before, value, depth - 1)
        else:
            target[key] = value


def _decoded(frame: bytes) -> object:
    try:
        document: object = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _can_be(name: str) -> bool:
    try:
        return 0 < len(name.encode("utf-8")) <= _MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def _member(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _members(value: object) -> Sequence[tuple[str, object]]:
    return list(value.items()) if isinstance(value, dict) else []


def _values(value: object) -> Sequence[object]:
    return list(value.values()) if isinstance(value, dict) else []


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []


def _texts(value: object) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    return [item for item in _items(value) if isinstance(item, str)]
