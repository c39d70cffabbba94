"""A fragment of payloads as they are stored: one ``moof`` before them all, and one ``mdat``.

The ``moof`` is made from sample tables (ISO/IEC 14496-12, section 8.8), whatever wrapped the media
when it came: older ``moof`` boxes and headers of frames lie in the ``mdat``, passed over by the
offsets. Each stretch of samples without such things between them is a ``trun``.
"""

from __future__ import annotations

import struct
from array import array
from operator import add, ne
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from casfs.media.boxes import MalformedMediaError, box, full_box
from casfs.media.layout import Layout, LayoutBuilder
from casfs.media.payloads import lay_out, sample_sizes
from casfs.media.samples import SampleTable
from casfs.media.timeline import RecordedGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_MDAT_HEADER: Final = 8
_MAX_MDAT: Final = (1 << 31) - 1
"""Offsets of runs are signed integers of 32 bits."""

_DEFAULT_BASE_IS_MOOF: Final = 0x02_0000
_RUN_FLAGS: Final = 0xF01  # data offset; duration, size, flags and composition offset of each
_EMPTY_MOOF_BYTES: Final = 8 + 16  # with its mfhd
_TRAF_BYTES: Final = 8 + 16 + 20  # with its tfhd and tfdt
_TRUN_BYTES: Final = 20
_SAMPLE_BYTES: Final = 16
_SYNC: Final = 0x0200_0000  # sample_depends_on 2: on no other
_NON_SYNC: Final = 0x0101_0000


class TablePlace(Struct, frozen=True, gc=False):
    """Where a table belongs in a fragmented file."""

    track: int
    """The track_ID, from 1; 0 leaves the table out."""
    decode_time: int
    """Of its first sample that is shown, in ticks of its timescale, on the file's timeline; not
    negative."""
    skipped: int = 0
    """Samples at the begin of the table that are left out."""


class FragmentMember(Struct, frozen=True):
    """A payload in a fragment."""

    group: RecordedGroup
    places: tuple[TablePlace, ...]
    """One for each table of the group."""


def write_fragment(number: int, members: Sequence[FragmentMember]) -> Layout:
    """Return the fragment of these payloads, in this order; ``number`` counts fragments from 1.

    Raises:
        MalformedMediaError: it would be larger than 2 GiB.
    """
    builder, runs = _laid_out(members)
    size = _moof_size(runs)
    head = _moof(number, runs, size + _MDAT_HEADER)
    assert len(head) == size
    media = struct.pack(">I4s", _MDAT_HEADER + builder.size, b"mdat")
    return builder.finish(head + media)


def fragment_size(members: Sequence[FragmentMember]) -> int:
    """Return how large the fragment of these payloads is; raises what `write_fragment` raises."""
    builder, runs = _laid_out(members)
    return _moof_size(runs) + _MDAT_HEADER + builder.size


def _laid_out(members: Sequence[FragmentMember]) -> tuple[LayoutBuilder, dict[int, list[_Run]]]:
    """Return the media of a fragment, and by track where the samples lie in it."""
    builder = LayoutBuilder()
    bases = lay_out([member.group for member in members], builder)
    if builder.size > _MAX_MDAT:
        raise MalformedMediaError(f"a fragment of {builder.size} bytes")
    runs: dict[int, list[_Run]] = {}
    for member, base in zip(members, bases, strict=True):
        for table, place in zip(member.group.tables, member.places, strict=True):
            if place.track and base is not None:
                positions, sizes = base.locate(table.offsets), sample_sizes(table)
                runs.setdefault(place.track, []).append(
                    _Run(table, place.decode_time, place.skipped, positions, sizes)
                )
    return builder, runs


class _Run(Struct, frozen=True):
    """A table, and where its samples lie in the media."""

    table: SampleTable
    decode_time: int
    skipped: int
    positions: array[int]
    sizes: array[int]


def _moof(number: int, runs: dict[int, list[_Run]], base: int) -> bytes:
    fragments = []
    for track in sorted(runs):
        for run in _joined(runs[track]):
            header = full_box(b"tfhd", track.to_bytes(4, "big"), flags=_DEFAULT_BASE_IS_MOOF)
            time = full_box(b"tfdt", run[0].decode_time.to_bytes(8, "big"), version=1)
            stretches = [stretch for part in run for stretch in _stretches(part, base)]
            fragments.append(box(b"traf", header, time, *stretches))
    return box(b"moof", full_box(b"mfhd", number.to_bytes(4, "big")), *fragments)


def _moof_size(runs: dict[int, list[_Run]]) -> int:
    """Return the bytes of what `_moof` returns, without making it: most of it is samples."""
    fragments = sum(
        _TRAF_BYTES + sum(map(_truns_size, run)) for own in runs.values() for run in _joined(own)
    )
    return _EMPTY_MOOF_BYTES + fragments


def _truns_size(run: _Run) -> int:
    """Return the bytes of what `_stretches` yields."""
    samples = len(run.table) - run.skipped
    ends = map(add, run.positions[run.skipped :], run.sizes[run.skipped :])
    cuts = sum(map(ne, run.positions[run.skipped + 1 :], ends))
    return _TRUN_BYTES * (cuts + 1) + _SAMPLE_BYTES * samples if samples else 0


def _joined(runs: list[_Run]) -> Iterator[list[_Run]]:
    """Yield the tables that follow each other without a gap in decode time, together."""
    joined: list[_Run] = []
    end = 0
    for run in runs:
        if joined and run.decode_time != end:
            yield joined
            joined = []
        joined.append(run)
        end = run.decode_time + sum(run.table.durations[run.skipped :])
    if joined:
        yield joined


def _stretches(run: _Run, base: int) -> Iterator[bytes]:
    """Yield a ``trun`` for each stretch of samples that lie one behind the other."""
    table, positions, sizes = run.table, run.positions, run.sizes
    first = run.skipped
    for index in range(first + 1, len(table) + 1):
        if index < len(table) and positions[index] == positions[index - 1] + sizes[index - 1]:
            continue
        fields = [struct.pack(">Ii", index - first, base + positions[first])]
        fields += [
            struct.pack(
                ">IIIi",
                table.durations[sample],
                sizes[sample],
                _SYNC if table.sync[sample] else _NON_SYNC,
                table.composition_offsets[sample],
            )
            for sample in range(first, index)
        ]
        yield full_box(b"trun", *fields, version=1, flags=_RUN_FLAGS)
        first = index
