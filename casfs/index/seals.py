"""Which hours of a broadcast were sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from casfs.index.rows import SealRow
from casfs.timestamps import HOUR, parse_time

if TYPE_CHECKING:
    from casfs.index.index import Index


def seals(index: Index, number: int) -> list[SealRow]:
    """Return the hours of a broadcast that were sealed, in rising n; raises `IndexFault`."""
    rows = index.select(
        "select body ->> 'hour', body ->> 'through' from events"
        " where number = ? and kind = 'seal' order by n",
        (number,),
    )
    return [SealRow(parse_time(hour) // HOUR, through) for hour, through in rows]
