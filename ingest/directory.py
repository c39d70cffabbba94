"""What a stream directory lists. Pure: bytes in, broadcasts out; nothing in them is believed.

Three forms are understood: a JSON array of objects, or an object with such an array somewhere near
its top (every.channel's ``/api/public-streams``); a JSON array of names; and plain text, one name a
line, as moq-relay serves at ``/announced/PREFIX``. What is refused is counted, and the rest taken.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from casfs.errors import CasfsError, ConfigError, DirectoryError
from casfs.names import name_bytes
from ingest.relay_url import parse_relay_url

if TYPE_CHECKING:
    from collections.abc import Iterator

_ANNOUNCED = "/announced"
_DEPTH = 2


class Fields(Struct, frozen=True):
    """How a directory calls the members of an entry."""

    relay: str = "relay_url"
    name: str = "broadcast_name"
    track: str = "track_name"


class ListingLimits(Struct, frozen=True):
    """What is taken from one directory at most."""

    bytes: int = 8 << 20
    broadcasts: int = 20_000
    relays: int = 8
    """For one broadcast."""
    tracks: int = 64
    """For one broadcast."""
    url_bytes: int = 4096


class Listed(Struct, frozen=True):
    """A broadcast as a directory lists it."""

    broadcast: str
    """A name that the archive can hold."""
    relays: tuple[str, ...] = ()
    """URLs, in the directory's order; may hold tokens. Empty: it names none."""
    tracks: tuple[str, ...] = ()


class Listing(Struct, frozen=True):
    """All that one directory lists."""

    listed: tuple[Listed, ...] = ()
    """Each broadcast once, in the directory's order."""
    refused: int = 0
    """Entries that were not taken."""
    problem: str = ""
    """Why not, of the first of them."""


class _RefusalError(Exception):
    """Why an entry is not taken."""


class _Reader(Struct):
    """Takes entries one by one. What many entries share is checked once."""

    fields: Fields
    limits: ListingLimits
    listed: dict[str, Listed] = field(default_factory=dict)
    relays: set[str] = field(default_factory=set)
    """URLs that are fit."""
    tracks: set[str] = field(default_factory=set)
    """Names that are fit."""

    def take(self, entry: object) -> None:
        """Add one entry; raises _RefusalError."""
        fields = self.fields
        members = entry if isinstance(entry, dict) else {fields.name: entry}
        name = _name(members.get(fields.name), "a broadcast's name")
        relay = members.get(fields.relay)
        track = members.get(fields.track)
        relays: tuple[str, ...] = () if relay is None else (self._relay(relay),)
        if track is None:
            tracks: tuple[str, ...] = ()
        elif isinstance(track, list):
            tracks = tuple(dict.fromkeys(map(self._track, track)))
        else:
            tracks = (self._track(track),)
        known = self.listed.get(name)
        if known is not None:
            relays = tuple(dict.fromkeys(known.relays + relays))
            tracks = tuple(dict.fromkeys(known.tracks + tracks))
        elif len(self.listed) >= self.limits.broadcasts:
            raise _RefusalError(f"there are more than {self.limits.broadcasts} broadcasts")
        if len(relays) > self.limits.relays:
            raise _RefusalError(f"a broadcast has more than {self.limits.relays} relays")
        if len(tracks) > self.limits.tracks:
            raise _RefusalError(f"a broadcast has more than {self.limits.tracks} tracks")
        self.listed[name] = Listed(name, relays, tracks)

    def _relay(self, value: object) -> str:
        if not isinstance(value, str) or len(value) > self.limits.url_bytes:
            raise _RefusalError("a relay's URL is none")
        if value not in self.relays:
            try:
                relay_host(value)
            except CasfsError as error:
                raise _RefusalError(error.message) from None
            self.relays.add(value)
        return value

    def _track(self, value: object) -> str:
        if isinstance(value, str) and value in self.tracks:
            return value
        name = _name(value, "a track's name")
        self.tracks.add(name)
        return name


def check_source_url(url: str) -> None:
    """Raise ConfigError if a directory cannot be at ``url``; the message does not repeat it."""
    advice = "write it as http(s)://host[:port]/path or file:///path"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises if it is no number
    except ValueError:
        raise ConfigError("a directory's URL cannot be read", advice=advice) from None
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ConfigError("a directory's file: URL names no local file", advice=advice)
    elif parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("a directory's URL is neither http(s): nor file:", advice=advice)


def shown_source(url: str) -> str:
    """Return what of a directory's URL may be shown: no user, no query."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return f"file://{parts.path}"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def announcing_relay(url: str) -> str | None:
    """Return the relay whose ``/announced/PREFIX`` this is, or None: its names are below PREFIX."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return None
    path = parts.path.rstrip("/")
    if path != _ANNOUNCED and not path.startswith(f"{_ANNOUNCED}/"):
        return None
    query = f"?{parts.query}" if parts.query else ""
    return f"https://{parts.netloc}{path.removeprefix(_ANNOUNCED) or '/'}{query}"


@functools.lru_cache(maxsize=1024)
def relay_host(url: str) -> str:
    """Return the host of a relay; raises ConfigError if the URL is none."""
    return parse_relay_url(url).host


def read_listing(
    body: bytes,
    *,
    plain: bool = False,
    fields: Fields = Fields(),  # noqa: B008  frozen
    limits: ListingLimits = ListingLimits(),  # noqa: B008  frozen
) -> Listing:
    """Return what a directory's answer lists.

    ``plain``: it is text, one name a line. Raises DirectoryError if it is no list at all.
    """
    if len(body) > limits.bytes:
        raise DirectoryError(f"the answer has more than {limits.bytes} bytes")
    reader = _Reader(fields, limits)
    refused, problem = 0, ""
    for entry in _lines(body) if plain else _json_entries(body, fields):
        try:
            reader.take(entry)
        except _RefusalError as refusal:
            refused += 1
            problem = problem or str(refusal)
    return Listing(tuple(reader.listed.values()), refused, problem)


def _lines(body: bytes) -> Iterator[str]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise DirectoryError("the answer is no text") from None
    return (line for line in text.split("\n") if line)


def _json_entries(body: bytes, fields: Fields) -> list[object]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise DirectoryError("the answer is no JSON") from None
    if isinstance(value, list):
        return value
    arrays = list(_arrays(value, _DEPTH))
    named = [array for array in arrays if any(_has(entry, fields.name) for entry in array)]
    chosen = named or arrays
    if len(chosen) != 1:
        found = "several lists" if chosen else "no list"
        raise DirectoryError(f"the answer holds {found} of broadcasts")
    return chosen[0]


def _arrays(value: object, depth: int) -> Iterator[list[object]]:
    if isinstance(value, list):
        yield value
    elif isinstance(value, dict) and depth:
        for member in value.values():
            yield from _arrays(member, depth - 1)


def _has(entry: object, member: str) -> bool:
    return isinstance(entry, dict) and member in entry


def _name(value: object, what: str) -> str:
    """Return a name that the archive and a command line can hold."""
    if not isinstance(value, str) or not value:
        raise _RefusalError(f"{what} is missing")
    try:
        name_bytes(value)
    except CasfsError as error:
        raise _RefusalError(error.message) from None
    if "\0" in value:
        raise _RefusalError(f"{what} holds a NUL")
    return value
