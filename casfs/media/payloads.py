"""Payloads put one behind the other in a file, and where their samples then lie."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.media.layout import LayoutBuilder
    from casfs.media.samples import SampleTable, StartCodes
    from casfs.media.timeline import RecordedGroup

_SHORT_CODE: Final = 3


class Base(Struct, frozen=True):
    """Where a payload lies in the media."""

    position: int
    holes: array[int]
    """``I``: payload offsets before which a byte was put in."""

    def locate(self, offsets: array[int]) -> array[int]:
        """Return where payload offsets lie in the media."""
        if not self.holes:
            return array("Q", map(self.position.__add__, offsets))
        return array(
            "Q", [self.position + offset + bisect_left(self.holes, offset) for offset in offsets]
        )


def lay_out(groups: Sequence[RecordedGroup], builder: LayoutBuilder) -> list[Base | None]:
    """Put the payloads of ``groups`` and the lengths of their NAL units into ``builder``."""
    bases: list[Base | None] = []
    for group in groups:
        if not group.tables:
            bases.append(None)
            continue
        coded = [
            (_code_offsets(table, codes), codes)
            for table in group.tables
            if (codes := table.start_codes) is not None
        ]
        holes = array(
            "I",
            sorted(
                offset
                for offsets, codes in coded
                for offset, length in zip(offsets, codes.lengths, strict=True)
                if length == _SHORT_CODE
            ),
        )
        position = builder.add(group.digest, group.offset, group.size, holes)
        base = Base(position, holes)
        for offsets, codes in coded:
            for place_of_code, size in zip(base.locate(offsets), codes.sizes, strict=True):
                builder.add_length(place_of_code, size)
        bases.append(base)
    return bases


def _code_offsets(table: SampleTable, codes: StartCodes) -> array[int]:
    """Return the payload offset of each start code."""
    spans = list(accumulate(map(add, codes.sizes, codes.lengths), initial=0))
    offsets = array("I")
    first = 0
    for offset, count in zip(table.offsets, codes.counts, strict=True):
        offsets.extend([offset + span - spans[first] for span in spans[first : first + count]])
        first += count
    return offsets


def sample_sizes(table: SampleTable) -> array[int]:
    """Return the bytes that each sample has in the file."""
    codes = table.start_codes
    if codes is None or _SHORT_CODE not in codes.lengths:
        return table.sizes
    sizes = array("I")
    first = 0
    for size, count in zip(table.sizes, codes.counts, strict=True):
        sizes.append(size + codes.lengths.count(_SHORT_CODE, first, first + count))
        first += count
    return sizes
