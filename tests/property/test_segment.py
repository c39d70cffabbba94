"""Scans of one segment: whatever stands in it, what is read is what was written, in order."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from casfs.manifests.record import AliveRecord, Line, Position, encode_line
from casfs.manifests.segment import Fault, SegmentName, SegmentScan, parse_segment_name

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "2026-11-22.000.jsonl"

batches = st.lists(st.integers(1, 3), min_size=1, max_size=6)


def build(batches: Sequence[int]) -> tuple[bytes, list[Line]]:
    """Return a segment of so many lines a sync, and its lines."""
    data = b""
    lines: list[Line] = []
    prev: str | None = None
    for count in batches:
        synced = len(data)
        for _ in range(count):
            record = AliveRecord(
                broadcast="b", number=1, track="t", n=len(lines) + 1, time="t",
                connected=True, since="s", recorder="r",
            )  # fmt: skip
            text, line = encode_line(record, offset=len(data), synced=synced, prev=prev)
            data += text
            lines.append(line)
            prev = line.sum
    return data, lines


def scan(
    data: bytes, *, limit: Position | None = None, trusted: Position | None = None
) -> tuple[list[Line], list[Fault], int]:
    scanning = SegmentScan(io.BytesIO(data), NAME, limit=limit, trusted=trusted)
    items = list(scanning)
    lines = [item for item in items if isinstance(item, Line)]
    assert scanning.position.offset == (lines[-1].end if lines else 0)
    return lines, [item for item in items if isinstance(item, Fault)], scanning.torn


def end_of(lines: Sequence[Line]) -> Position:
    return Position(NAME, lines[-1].end, lines[-1].sum)


@given(batches)
def test_a_whole_segment_reads_as_it_was_written(batches: list[int]) -> None:
    data, lines = build(batches)
    assert scan(data) == (lines, [], 0)
    assert scan(data, limit=end_of(lines)) == (lines, [], 0)
    assert scan(data, trusted=end_of(lines)) == (lines, [], 0)


@given(batches, st.data())
def test_every_prefix_opens(batches: list[int], data: st.DataObject) -> None:
    whole, lines = build(batches)
    size = data.draw(st.integers(0, len(whole)))
    read = [line for line in lines if line.end <= size]
    torn = size - (read[-1].end if read else 0)
    assert scan(whole[:size]) == (read, [], torn)


@given(batches, st.integers(1, 3), st.data())
def test_anything_may_stand_in_the_unsynced_part(
    batches: list[int], last: int, data: st.DataObject
) -> None:
    """NULs, garbage, holes in it: nothing that was synced before is lost, nothing is damage."""
    synced, kept = build(batches)
    whole, lines = build([*batches, last])
    tail = bytearray(whole[len(synced) :])
    start = data.draw(st.integers(0, len(tail) - 1))
    end = data.draw(st.integers(start + 1, len(tail)))
    tail[start:end] = data.draw(
        st.just(b"\0" * (end - start)) | st.binary(min_size=end - start, max_size=end - start)
    )
    read, faults, _ = scan(synced + bytes(tail))
    assert faults == []
    assert read[: len(kept)] == kept
    assert read == lines[: len(read)]


@given(batches, st.data())
def test_damage_in_the_synced_part_costs_only_the_lines_it_touches(
    batches: list[int], data: st.DataObject
) -> None:
    whole, lines = build(batches)
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start + 1, len(whole)))
    damaged = bytearray(whole)
    damaged[start:end] = b"\0" * (end - start)
    touched = [line for line in lines if line.offset < end and line.end > start]
    read, faults, torn = scan(bytes(damaged), trusted=end_of(lines))
    assert read == [line for line in lines if line not in touched]
    assert [(fault.offset, fault.end) for fault in faults] == [(touched[0].offset, touched[-1].end)]
    assert scan(bytes(damaged), limit=end_of(lines))[:2] == (read, faults)
    assert torn == (0 if read and read[-1] == lines[-1] else len(whole) - touched[0].offset)


@given(batches, st.binary(min_size=1, max_size=50), st.data())
def test_what_was_put_in_before_the_end_costs_no_line(
    batches: list[int], garbage: bytes, data: st.DataObject
) -> None:
    whole, lines = build(batches)
    at = data.draw(st.sampled_from([0, *(line.end for line in lines[:-1])]))
    strange = garbage.replace(b"\n", b"?") + b"\n"
    found, faults, _ = scan(whole[:at] + strange + whole[at:], limit=end_of(lines))
    assert [line.sum for line in found] == [line.sum for line in lines]
    assert [(fault.offset, fault.end) for fault in faults] == [(at, at + len(strange))]


@given(batches, st.data())
def test_a_line_that_was_taken_out_costs_no_other(batches: list[int], data: st.DataObject) -> None:
    whole, lines = build(batches)
    gone = data.draw(st.sampled_from(lines))
    left = whole[: gone.offset] + whole[gone.end :]
    found, faults, _ = scan(left, limit=end_of(lines))
    assert [line.sum for line in found] == [line.sum for line in lines if line != gone]
    assert faults[0].offset == gone.offset
    assert len(faults) == 1


@given(batches, st.integers(1, 2), st.data())
def test_nothing_behind_the_limit_is_read(
    batches: list[int], more: int, data: st.DataObject
) -> None:
    _, kept = build(batches)
    whole, _ = build([*batches, more])
    limit = end_of(kept)
    assert scan(whole, limit=limit) == (kept, [], 0)
    start = data.draw(st.integers(0, limit.offset - 1))
    damaged = bytearray(whole)
    damaged[start] ^= 1
    found, faults, _ = scan(bytes(damaged), limit=limit)
    assert found == [line for line in kept if not line.offset <= start < line.end]
    assert len(faults) == 1


def test_a_long_stretch_without_a_newline_is_damage_like_any_other() -> None:
    whole, lines = build([1, 1, 1])
    garbage = b"x" * (3 << 20) + b"\n"
    at = lines[0].end
    found, faults, _ = scan(whole[:at] + garbage + whole[at:], limit=end_of(lines))
    assert [line.sum for line in found] == [line.sum for line in lines]
    assert [(fault.offset, fault.end) for fault in faults] == [(at, at + len(garbage))]


@given(st.dates(), st.integers(0, 999_999_999))
def test_a_segments_name_reads_back(date: object, ordinal: int) -> None:
    name = SegmentName(str(date), ordinal)
    assert parse_segment_name(str(name)) == name


@given(st.text(max_size=30) | st.from_regex(r"\d{4}-\d\d-\d\d\.\d{0,5}\.jsonl", fullmatch=True))
def test_a_name_is_a_segments_only_if_it_reads_the_same(text: str) -> None:
    name = parse_segment_name(text)
    assert name is None or str(name) == text


@given(st.lists(st.builds(SegmentName, st.dates().map(str), st.integers(0, 5000)), max_size=20))
def test_names_order_by_date_and_number(names: list[SegmentName]) -> None:
    assert sorted(names) == sorted(names, key=lambda name: (name.date, name.ordinal))
