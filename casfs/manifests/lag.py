"""How much of a journal lies behind a place, without reading it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from casfs.manifests.chain import segment_names

if TYPE_CHECKING:
    from casfs.manifests.record import Position


def journal_lag(directory: str, position: Position | None) -> int:
    """Return the bytes of the journal's segments behind ``position`` (None: all of them)."""
    total = 0
    reached = position is None
    for name in segment_names(directory):
        try:
            size = os.stat(os.path.join(directory, str(name))).st_size
        except OSError:
            continue
        if reached:
            total += size
        elif position is not None and str(name) == position.segment:
            reached = True
            total += max(0, size - position.offset)
    return total
