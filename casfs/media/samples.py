"""The sample table of a group: where in its payload each sample lies, and when it is shown.

Columns instead of an object for each sample: a broadcast has six million samples a day. Times are
in ticks of the table's timescale. A table describes samples of one track with one sample
description, in decode order, without a jump in time; where one of these changes within a group,
another table begins. `casfs.media.packing` has the compact stored form.

`TableBuilder` is the only maker of tables and keeps what all readers rely on: every sample lies
within the payload and has at least one byte, decode times rise, and columns are of equal length.
"""

from __future__ import annotations

from array import array
from typing import Final

from msgspec import Struct

from casfs.digest import Digest
from casfs.media.boxes import MalformedMediaError
from casfs.media.descriptions import SampleDescription

MAX_SAMPLES: Final = 1 << 20
"""Samples in one group. A header of forty bytes can claim four thousand million."""

MAX_PAYLOAD: Final = (1 << 32) - 1
"""Bytes in a payload that tables can describe."""

MAX_TIMESCALE: Final = (1 << 31) - 1

JUMP_SECONDS: Final = 60
"""Decode times that are farther apart than this are a jump: a new table begins."""

_MAX_TIME: Final = 1 << 62


class StartCodes(Struct, frozen=True):
    """Where an Annex-B byte stream (ISO/IEC 14496-10) has start codes and not NAL unit lengths.

    The NAL units of a sample follow each other without a gap, each behind its start code.
    """

    counts: array[int]
    """``I``: NAL units in each sample."""
    sizes: array[int]
    """``I``: bytes of each NAL unit, without its start code."""
    lengths: bytes
    """Bytes of each start code: 3 or 4."""


class SampleTable(Struct, frozen=True):
    """Samples of one track, in decode order."""

    track: int
    """Position among the tracks of its kind that the payload can hold, from 0. Not the track_ID:
    that changes when a publisher restarts with another order."""
    description: Digest
    """Names the `SampleDescription`."""
    timescale: int
    """Ticks in a second."""
    decode_time: int
    """Of the first sample, in ticks. May be negative."""
    offsets: array[int]
    """``I``: where each sample begins in the payload."""
    sizes: array[int]
    """``I``: bytes of each sample in the payload, at least 1."""
    durations: array[int]
    """``I``: ticks to the decode time of the next sample, at least 1; for the last, its own."""
    composition_offsets: array[int]
    """``i``: ticks from decode to presentation of each sample. May be negative."""
    sync: bytes
    """1 for each sample at which decoding can begin, 0 for the others."""
    start_codes: StartCodes | None = None
    """Given where players need lengths in the place of start codes."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.offsets)

    @property
    def last_decode_time(self) -> int:
        """Decode time of the last sample."""
        return self.decode_time + sum(self.durations) - self.durations[-1]

    @property
    def presentation_time(self) -> int:
        """When the first sample in decode order is shown, in ticks."""
        return self.decode_time + self.composition_offsets[0]


class GroupSamples(Struct, frozen=True):
    """What was found in the payload of one group."""

    tables: tuple[SampleTable, ...] = ()
    descriptions: tuple[SampleDescription, ...] = ()
    """Those that the tables name."""
    reason: str = ""
    """Why there is no table, or what the tables lack; one line, empty when nothing is amiss."""


class _Columns:
    """A table that is being filled."""

    def __init__(self, description: Digest, decode_time: int) -> None:
        self.description = description
        self.decode_time = decode_time
        self.last_time = decode_time
        self.last_duration = 0
        self.offsets = array("I")
        self.sizes = array("I")
        self.durations = array("I")
        self.composition_offsets = array("i")
        self.sync = bytearray()
        self.nal_counts = array("I")
        self.nal_sizes = array("I")
        self.code_lengths = bytearray()

    def close(self, track: int, timescale: int) -> SampleTable:
        codes = StartCodes(self.nal_counts, self.nal_sizes, bytes(self.code_lengths))
        return SampleTable(
            track=track,
            description=self.description,
            timescale=timescale,
            decode_time=self.decode_time,
            offsets=self.offsets,
            sizes=self.sizes,
            durations=array("I", [*self.durations, self.last_duration]),
            composition_offsets=self.composition_offsets,
            sync=bytes(self.sync),
            start_codes=codes if self.nal_counts else None,
        )


class TableBuilder:
    """Takes the samples of one track of one payload, in decode order, and gives their tables."""

    def __init__(self, payload_size: int, track: int, timescale: int) -> None:
        if payload_size > MAX_PAYLOAD:
            raise MalformedMediaError(f"a payload of {payload_size} bytes")
        if not 0 < timescale <= MAX_TIMESCALE:
            raise MalformedMediaError(f"a timescale of {timescale}")
        self._payload_size = payload_size
        self._track = track
        self._timescale = timescale
        self._jump = min(JUMP_SECONDS * timescale, MAX_TIMESCALE)
        self._open: _Columns | None = None
        self._closed: list[SampleTable] = []
        self._count = 0
        self.outside = 0
        """Samples left out because they are not, or not as a whole, within the payload."""

    def add(
        self,
        description: Digest,
        *,
        offset: int,
        size: int,
        decode_time: int,
        duration: int,
        composition_offset: int = 0,
        sync: bool = True,
        nal_units: list[tuple[int, int]] | None = None,
    ) -> None:
        """Add a sample; ``nal_units`` are (start code length, NAL unit size) in Annex-B streams.

        A sample without bytes is left out: it says nothing, and players stumble over it. A decode
        time that does not rise is moved behind the one before, its presentation time stays.

        Raises:
            MalformedMediaError: times beyond all measure, or too many samples.
        """
        self._count += 1
        if self._count > MAX_SAMPLES:
            raise MalformedMediaError(f"more than {MAX_SAMPLES} samples")
        if offset < 0 or offset + size > self._payload_size:
            self.outside += 1
            return
        if size == 0:
            return
        if abs(decode_time) > _MAX_TIME:
            raise MalformedMediaError(f"a decode time of {decode_time}")
        columns = self._columns_for(description, decode_time)
        presentation_time = decode_time + composition_offset
        if columns.offsets:
            decode_time = max(decode_time, columns.last_time + 1)
        composition_offset = presentation_time - decode_time
        if abs(composition_offset) > self._jump:
            raise MalformedMediaError(f"a composition offset of {composition_offset}")
        if columns.offsets:
            columns.durations.append(decode_time - columns.last_time)
        columns.last_time = decode_time
        columns.last_duration = max(1, min(duration, self._jump))
        columns.offsets.append(offset)
        columns.sizes.append(size)
        columns.composition_offsets.append(composition_offset)
        columns.sync.append(sync)
        if nal_units is not None:
            columns.nal_counts.append(len(nal_units))
            columns.nal_sizes.extend(size for _, size in nal_units)
            columns.code_lengths.extend(length for length, _ in nal_units)

    def finish(self) -> list[SampleTable]:
        """Return the tables, in decode order. The builder is empty afterwards."""
        self._close()
        tables, self._closed = self._closed, []
        return tables

    def _columns_for(self, description: Digest, decode_time: int) -> _Columns:
        columns = self._open
        if columns is not None and (
            columns.description != description or abs(decode_time - columns.last_time) > self._jump
        ):
            self._close()
            columns = None
        if columns is None:
            columns = self._open = _Columns(description, decode_time)
        return columns

    def _close(self) -> None:
        if self._open is not None and self._open.offsets:
            self._closed.append(self._open.close(self._track, self._timescale))
        self._open = None
