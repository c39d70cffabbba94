"""The stored form of a sample table: a few hundred bytes for a group of video.

A byte of version, the description's digest (32 bytes), then variable-length integers (seven bits a
byte, least significant first, signed ones zigzag): track, timescale, number of samples, decode
time, number of NAL units (0 where the table has no start codes). Then one column after the other:

1. gaps: bytes between the end of one sample and the begin of the next, the first from 0
2. sizes, 3. durations, 4. composition offsets, 5. sync
6. with start codes: NAL units of each sample, 7. their sizes, 8. lengths of the start codes

Each column is written in the shortest of three ways, told by its first byte: 0, one value for all;
1, pairs of value and repetition count, their number first; 1 + w, the least value and then the
distance from it of each, as unsigned little-endian integers of w bytes (1, 2, 4 or 8).
"""

from __future__ import annotations

import sys
from array import array
from functools import lru_cache
from itertools import accumulate, groupby
from operator import add, sub
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from casfs.digest import Digest
from casfs.media.boxes import MalformedMediaError
from casfs.media.samples import (
    MAX_PAYLOAD,
    MAX_SAMPLES,
    MAX_TIMESCALE,
    SampleTable,
    StartCodes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    _Stored: TypeAlias = "tuple[tuple[int, int], ...] | _Distances"
    """A column as it is stored: values and how often each is repeated, or distances."""

VERSION: Final = 1

_DIGEST_BYTES: Final = 32
_CONSTANT: Final = 0
_RUNS: Final = 1
_WIDTHS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""Bytes of a distance -> type code of its array."""
_MAX_NAL_UNITS: Final = 1 << 22
_MAX_VARINT_BYTES: Final = 10

_SHARED: Final = 4096
"""Values in the longest column that tables share."""
_SHARED_COLUMNS: Final = 512


def pack_table(table: SampleTable) -> bytes:
    """Return the stored form of ``table``."""
    codes = table.start_codes
    ends = map(add, table.offsets, table.sizes)
    gaps = list(map(sub, table.offsets, (0, *ends)))
    out = bytearray((VERSION,))
    out += bytes.fromhex(table.description)
    _write_unsigned(out, table.track)
    _write_unsigned(out, table.timescale)
    _write_unsigned(out, len(table))
    _write_signed(out, table.decode_time)
    _write_unsigned(out, 0 if codes is None else len(codes.sizes))
    columns: list[Sequence[int]] = [gaps, table.sizes, table.durations]
    columns += [table.composition_offsets, table.sync]
    if codes is not None:
        columns += [codes.counts, codes.sizes, codes.lengths]
    for column in columns:
        _write_column(out, column)
    return bytes(out)


def unpack_table(data: bytes) -> SampleTable:
    """Return what `pack_table` was given.

    Raises:
        MalformedMediaError: ``data`` is no stored table, or of another version.
    """
    reader = _Reader(data)
    if reader.take(1)[0] != VERSION:
        raise MalformedMediaError("a sample table of another version")
    description = Digest(reader.take(_DIGEST_BYTES).hex())
    track = reader.unsigned()
    timescale = reader.unsigned()
    count = reader.unsigned()
    decode_time = reader.signed()
    nal_units = reader.unsigned()
    if not 0 < timescale <= MAX_TIMESCALE or not 0 < count <= MAX_SAMPLES:
        raise MalformedMediaError("a sample table without time or samples")
    if nal_units > _MAX_NAL_UNITS:
        raise MalformedMediaError(f"a sample table of {nal_units} NAL units")
    gaps = _expand(reader.column(count), count)
    try:
        sizes = array("I", _expand(reader.column(count), count))
        durations = _array("I", reader.column(count), count)
        composition_offsets = _array("i", reader.column(count), count)
        sync = _bytes(reader.column(count), count)
        ends = accumulate(map(add, gaps, sizes))
        offsets = array("I", map(sub, ends, sizes))
        codes = _read_start_codes(reader, count, nal_units) if nal_units else None
    except (OverflowError, ValueError) as error:
        raise MalformedMediaError(f"not a sample table: {error}") from error
    if set(sync) - {0, 1}:
        raise MalformedMediaError("a sample table with marks that it cannot have")
    _check(offsets, sizes, durations, codes)
    if reader.position != len(data):
        raise MalformedMediaError("bytes behind a sample table")
    return SampleTable(
        track=track,
        description=description,
        timescale=timescale,
        decode_time=decode_time,
        offsets=offsets,
        sizes=sizes,
        durations=durations,
        composition_offsets=composition_offsets,
        sync=sync,
        start_codes=codes,
    )


def description_of(data: bytes) -> Digest:
    """Return which description a stored table names; raises MalformedMediaError."""
    reader = _Reader(data)
    if reader.take(1)[0] != VERSION:
        raise MalformedMediaError("a sample table of another version")
    return Digest(reader.take(_DIGEST_BYTES).hex())


def _read_start_codes(reader: _Reader, count: int, nal_units: int) -> StartCodes:
    counts = _array("I", reader.column(count), count)
    sizes = array("I", _expand(reader.column(nal_units), nal_units))
    lengths = _bytes(reader.column(nal_units), nal_units)
    if sum(counts) != nal_units or set(lengths) - {3, 4}:
        raise MalformedMediaError("a sample table whose start codes do not add up")
    return StartCodes(counts, sizes, lengths)


def _check(
    offsets: array[int], sizes: array[int], durations: array[int], codes: StartCodes | None
) -> None:
    if min(sizes) < 1 or min(durations) < 1 or max(map(add, offsets, sizes)) > MAX_PAYLOAD:
        raise MalformedMediaError("a sample table of impossible samples")
    if codes is None:
        return
    spans = list(accumulate(map(add, codes.sizes, codes.lengths), initial=0))
    bounds = list(accumulate(codes.counts, initial=0))
    for size, first, last in zip(sizes, bounds, bounds[1:], strict=False):
        if spans[last] - spans[first] != size:
            raise MalformedMediaError("a sample table whose NAL units do not fill the sample")


# Integers and columns


def _write_unsigned(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _write_signed(out: bytearray, value: int) -> None:
    _write_unsigned(out, value << 1 if value >= 0 else (-value << 1) - 1)


def _write_column(out: bytearray, values: Sequence[int]) -> None:
    least = min(values, default=0)
    spread = max(values, default=0) - least
    if spread == 0:
        out.append(_CONSTANT)
        _write_signed(out, least)
        return
    width, code = next(item for item in _WIDTHS.items() if spread < 1 << 8 * item[0])
    runs = bytearray((_RUNS,))
    grouped = [(value, sum(1 for _ in group)) for value, group in groupby(values)]
    if len(grouped) * 2 < width * len(values):
        _write_unsigned(runs, len(grouped))
        for value, repetitions in grouped:
            _write_signed(runs, value)
            _write_unsigned(runs, repetitions)
    distances = bytearray((1 + width,))
    _write_signed(distances, least)
    column = array(code, [value - least for value in values])
    if sys.byteorder == "big":
        column.byteswap()
    distances += column.tobytes()
    out += runs if 1 < len(runs) < len(distances) else distances


class _Distances(Struct, frozen=True):
    """A column of distances from the least value, as it is stored."""

    width: int
    least: int
    data: bytes


class _Reader:
    """Reads integers and columns, and never past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self._data):
            raise MalformedMediaError("a sample table that ends early")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def unsigned(self) -> int:
        value = 0
        data = self._data[self.position : self.position + _MAX_VARINT_BYTES]
        for place, byte in enumerate(data):
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                self.position += place + 1
                return value
        raise MalformedMediaError("an integer that does not end")

    def signed(self) -> int:
        value = self.unsigned()
        return -((value + 1) >> 1) if value & 1 else value >> 1

    def column(self, count: int) -> _Stored:
        """Take a column of so many values as it is stored."""
        mark = self.take(1)[0]
        if mark == _CONSTANT:
            return ((self.signed(), count),)
        if mark == _RUNS:
            return self._runs(count)
        if mark - 1 not in _WIDTHS:
            raise MalformedMediaError(f"a column of kind {mark}")
        return _Distances(mark - 1, self.signed(), self.take(count * (mark - 1)))

    def _runs(self, count: int) -> _Stored:
        runs: list[tuple[int, int]] = []
        values = 0
        for _ in range(self.unsigned()):
            value, repetitions = self.signed(), self.unsigned()
            values += repetitions
            if values > count:
                break
            runs.append((value, repetitions))
        if values != count:
            raise MalformedMediaError(f"a column of {values} values for {count} samples")
        return tuple(runs)


def _expand(stored: _Stored, count: int) -> Sequence[int]:
    """Return the values of a column."""
    if not isinstance(stored, _Distances):
        if len(stored) == 1:
            return [stored[0][0]] * count
        return [value for value, repetitions in stored for _ in range(repetitions)]
    column = array(_WIDTHS[stored.width], stored.data)
    if sys.byteorder == "big":
        column.byteswap()
    return column if stored.least == 0 else [stored.least + distance for distance in column]


def _array(code: str, stored: _Stored, count: int) -> array[int]:
    """Return a column that other tables are likely to have too: they share one."""
    return (
        _shared_array(code, stored, count) if count <= _SHARED else _new_array(code, stored, count)
    )


def _bytes(stored: _Stored, count: int) -> bytes:
    """Return a column of bytes that other tables are likely to have too."""
    return _shared_bytes(stored, count) if count <= _SHARED else _new_bytes(stored, count)


def _new_array(code: str, stored: _Stored, count: int) -> array[int]:
    return array(code, _expand(stored, count))


def _new_bytes(stored: _Stored, count: int) -> bytes:
    return bytes(_expand(stored, count))


# A day has a hundred thousand tables, with a handful of frame rates and orders of frames.
_shared_array = lru_cache(_SHARED_COLUMNS)(_new_array)
_shared_bytes = lru_cache(_SHARED_COLUMNS)(_new_bytes)
