"""The members of a JSON value, written as docs/json.md writes them: ``damaged[].hash``. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def members_of(value: object, named: Collection[str] = ()) -> dict[str, set[str]]:
    """Return the types that are found at each member's path.

    ``named``: the members whose own members have names that are data, and are written ``*``.
    """
    found: dict[str, set[str]] = {}
    for path, kind in _walk(value, "", named):
        found.setdefault(path, set()).add(kind)
    return found


def _walk(value: object, path: str, named: Collection[str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, member in value.items():
            key = "*" if path in named else name
            yield from _walk(member, f"{path}.{key}" if path else key, named)
    elif isinstance(value, list):
        for member in value:
            yield from _walk(member, f"{path}[]", named)
    else:
        yield path, _TYPES[type(value)]
