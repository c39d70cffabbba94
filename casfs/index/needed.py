"""Which objects of a shard are needed by the groups of some broadcasts, or of some time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from casfs.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from casfs.index.index import Index

_BEGINNING = -(1 << 62)
_END = 1 << 62


def needed_objects(
    index: Index,
    shard: str,
    *,
    broadcasts: Collection[int] | None = None,
    since: int | None = None,
    until: int | None = None,
) -> Iterator[tuple[Digest, int | None]]:
    """Yield each object of a shard that these groups need, and the bytes it must have at least.

    What expired needs nothing. ``broadcasts``: numbers, None for all. ``since`` and ``until``
    bound the groups' received-start (nanoseconds UTC, ``until`` excluded). None instead of the
    bytes for an object that is known only as the init of others. Raises
    `casfs.index.index.IndexFault`.
    """
    if broadcasts is None and since is None and until is None:
        yield from index.objects(shard)
        return
    chosen = "not expired and last_start >= ?3 and received_start < ?4"
    if broadcasts is not None:
        chosen += " and number in (select value from json_each(?5))"
    rows = index.select(
        "select hash, max(size) from ("
        f"select hash, offset + size as size from groups where hash between ?1 and ?2 and {chosen}"
        f" union all select init, null from groups where init between ?1 and ?2 and {chosen}"
        ") group by hash",
        (
            bytes.fromhex(shard).ljust(32, b"\x00"),
            bytes.fromhex(shard).ljust(32, b"\xff"),
            _BEGINNING if since is None else since,
            _END if until is None else until,
            *(() if broadcasts is None else (msgspec.json.encode(sorted(broadcasts)).decode(),)),
        ),
    )
    for digest, size in rows:
        yield Digest(digest.hex()), size
