"""One manifest line: what goes in comes out, and nothing else passes for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.digest import Digest, digest_of
from casfs.manifests.record import (
    LINE_START,
    RECORD_VERSION,
    AliveRecord,
    EpochRecord,
    ExpiredRecord,
    GapRecord,
    GroupRecord,
    KnownRecord,
    LostSessionRecord,
    Position,
    Record,
    RestoredRecord,
    RunRecord,
    SealRecord,
    SegmentRecord,
    StartRecord,
    StopRecord,
    UnknownRecord,
    encode_line,
    parse_line,
)
from casfs.manifests.runs import kept_groups
from casfs.timestamps import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

names = st.text(max_size=40)
small = st.integers(0, 2**53)
times = st.integers(0, 2**62).map(format_time)
decimals = st.integers(0, 2**64).map(str)
digests = st.binary(max_size=4).map(digest_of)
common = {
    "broadcast": names,
    "number": small,
    "track": st.none() | names,
    "n": small,
    "time": times,
}
positions = st.builds(Position, segment=names, offset=small, hash=digests)
own: dict[type[Record], dict[str, st.SearchStrategy[object]]] = {
    SegmentRecord: {
        "store": names, "writer": names, "recorder": names, "reason": names,
        "continues": st.none() | positions,
    },
    GroupRecord: {
        "epoch": small, "sequence": decimals, "hash": digests, "path": names, "offset": small,
        "size": small, "frame_sizes": st.lists(small, max_size=4), "lacking": small,
        "frame_timestamps": st.none() | st.lists(decimals, max_size=4),
        "timescale": st.none() | decimals, "blocks": st.none() | st.lists(digests, max_size=3),
        "init": st.none() | digests, "received_start": times, "received_end": times,
        "complete": st.booleans(), "reason": st.none() | names, "relay": names,
        "protocol": names, "recorder": names, "writer": names,
    },
    GapRecord: {
        "epoch": small, "first": st.none() | decimals, "last": st.none() | decimals,
        "start": times, "end": times, "reason": names, "recorder": names,
    },
    StartRecord: {"recorder": names, "writer": names, "relay": names, "host": names},
    StopRecord: {"recorder": names, "reason": names},
    LostSessionRecord: {"lost": names, "last": times, "recorder": names},
    EpochRecord: {"epoch": small, "reason": names, "recorder": names},
    AliveRecord: {"connected": st.booleans(), "since": times, "recorder": names},
    SealRecord: {"hour": times, "through": small, "recorder": names},
    ExpiredRecord: {
        "hour": times, "through": small, "keep": st.lists(small, max_size=3), "groups": small,
        "bytes": small, "policy": names, "by": names, "writer": names,
    },
    RestoredRecord: {"hour": times, "by": names, "writer": names},
}  # fmt: skip


@st.composite
def runs(draw: st.DrawFn) -> RunRecord:
    sequences = sorted(draw(st.sets(st.integers(0, 2**62), min_size=1, max_size=4)))
    count = len(sequences)

    def each(values: st.SearchStrategy[T]) -> list[T]:
        return draw(st.lists(values, min_size=count, max_size=count))

    sizes = each(small)
    return RunRecord(
        broadcast=draw(names),
        number=draw(small),
        track=draw(names),
        n=draw(st.integers(count, 2**53)),
        time=draw(times),
        epoch=draw(small),
        sequences=[str(sequence) for sequence in sequences],
        sizes=sizes,
        hashes=each(digests),
        frame_sizes=each(st.lists(small, max_size=2)),
        frame_timestamps=draw(st.none() | st.just(each(st.lists(decimals, max_size=2)))),
        timescale=draw(st.none() | decimals),
        starts=each(small),
        ends=each(small),
        hash=draw(digests),
        path=draw(names),
        offset=draw(small),
        size=sum(sizes),
        init=draw(st.none() | digests),
        received_start=draw(times),
        received_end=draw(times),
        relay=draw(names),
        protocol=draw(names),
        recorder=draw(names),
        writer=draw(names),
    )


records: st.SearchStrategy[Record] = st.one_of(
    runs(), *[st.builds(kind, **common, **members) for kind, members in own.items()]
)
chained = st.none() | digests


def resum(text: bytes) -> bytes:
    """Return the line with a sum that fits, as another writer would have written it."""
    head = text[: text.rindex(b',"sum":')]
    return head + b',"sum":"' + digest_of(head).encode() + b'"}'


def changed(record: Record, **members: object) -> bytes:
    """Return the text of a line whose members are these, and in order."""
    text, _ = encode_line(record, offset=0, synced=0, prev=None)
    return resum(json.dumps(json.loads(text) | members, separators=(",", ":")).encode())


def test_every_kind_is_tried() -> None:
    assert {*own, RunRecord} == set(KnownRecord.__args__)


@given(runs(), st.data())
def test_a_run_whose_arrays_do_not_fit_each_other_is_no_run(
    record: RunRecord, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(("sizes", "hashes", "frame_sizes", "starts", "ends")))
    column = getattr(record, name)
    broken = changed(record, **{name: [*column, *column[-1:]]})
    line = parse_line(broken, 0)
    assert line is not None
    assert isinstance(line.record, UnknownRecord)


@given(runs())
def test_the_groups_of_a_run_lie_one_behind_another_and_have_its_numbers(
    record: RunRecord,
) -> None:
    kept = [kept.record for kept in kept_groups(record)]
    assert [group.sequence for group in kept] == record.sequences
    assert [group.n for group in kept] == list(range(record.n - len(kept) + 1, record.n + 1))
    ends = [record.offset, *(group.offset + group.size for group in kept)]
    assert [group.offset for group in kept] == ends[:-1]
    assert ends[-1] == record.offset + record.size
    assert all(group.complete and group.hash == record.hash for group in kept)


@given(records, st.integers(0, 2**40), st.integers(0, 2**40), chained)
def test_a_line_reads_back_as_it_was_written(
    record: Record, offset: int, synced: int, prev: Digest | None
) -> None:
    text, line = encode_line(record, offset=offset, synced=synced, prev=prev)
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert parse_line(text[:-1], offset) == line
    assert line.record == record
    assert (line.offset, line.end) == (offset, offset + len(text))
    assert (line.synced, line.prev) == (synced, prev)


@given(records, chained)
def test_a_line_is_one_object_whose_last_member_sums_the_rest(
    record: Record, prev: Digest | None
) -> None:
    text, line = encode_line(record, offset=0, synced=0, prev=prev)
    members = json.loads(text)
    assert list(members)[-3:] == ["synced", "prev", "sum"]
    assert members["kind"] == record.__struct_config__.tag
    assert members["v"] == RECORD_VERSION
    head, _, _ = text.rpartition(b',"sum":')
    assert members["sum"] == line.sum == digest_of(head)


@given(records)
def test_a_line_begins_like_no_part_of_any_line(record: Record) -> None:
    """So that a reader which lost a newline finds where the next line begins."""
    text, _ = encode_line(record, offset=0, synced=0, prev=None)
    assert text.startswith(LINE_START)
    assert text.count(LINE_START) == 1


@given(records)
def test_integers_are_exact_where_numbers_are_floats(record: Record) -> None:
    """Beyond 2**53 they are text: jq and browsers read the same as we do."""
    text, _ = encode_line(record, offset=0, synced=0, prev=None)
    for number in _numbers(json.loads(text)):
        assert int(float(number)) == number


def _numbers(value: object) -> Sequence[int]:
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        return [value]
    if isinstance(value, list | dict):
        items = value.values() if isinstance(value, dict) else value
        return [number for item in items for number in _numbers(item)]
    return []


@given(records)
def test_every_flipped_bit_is_noticed(record: Record) -> None:
    text, _ = encode_line(record, offset=0, synced=0, prev=None)
    line = bytearray(text[:-1])
    # Each byte by one bit, and the whole of a byte of the sum: all bits of all bytes is the next.
    for at in range(len(line)):
        line[at] ^= 1 << at % 8
        assert parse_line(bytes(line), 0) is None
        line[at] ^= 1 << at % 8


@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_a_line_is_covered(bit: int) -> None:
    record = StopRecord(
        broadcast="b", number=1, track=None, n=1, time="t", recorder="r", reason="stopped"
    )
    text, _ = encode_line(record, offset=0, synced=0, prev=digest_of(b""))
    line = bytearray(text[:-1])
    for at in range(len(line)):
        line[at] ^= 1 << bit
        assert parse_line(bytes(line), 0) is None
        line[at] ^= 1 << bit
    assert parse_line(bytes(line), 0) is not None


@given(records, st.integers(min_value=1))
def test_a_cut_line_is_noticed(record: Record, cut: int) -> None:
    text, _ = encode_line(record, offset=0, synced=0, prev=None)
    line = text[:-1]
    cut = 1 + cut % len(line)
    assert parse_line(line[:-cut], 0) is None
    assert parse_line(line[cut:], 0) is None


@given(st.binary(max_size=300))
def test_garbage_is_no_line(text: bytes) -> None:
    assert parse_line(text, 0) is None


@given(st.binary(max_size=200))
def test_garbage_with_a_sum_that_fits_is_no_line(head: bytes) -> None:
    text = head + b',"sum":"' + digest_of(head).encode() + b'"}'
    assert parse_line(text, 0) is None


@given(records, st.integers(RECORD_VERSION + 1, 99))
def test_a_higher_version_is_kept_and_skipped(record: Record, version: int) -> None:
    line = parse_line(changed(record, v=version), 0)
    assert line is not None
    kind = record.__struct_config__.tag
    assert line.record == UnknownRecord(kind=str(kind), n=record.n, v=version)


@given(records)
def test_an_unknown_kind_is_kept_and_skipped(record: Record) -> None:
    line = parse_line(changed(record, kind="hologram"), 0)
    assert line is not None
    assert line.record == UnknownRecord(kind="hologram", n=record.n, v=RECORD_VERSION)


@given(records)
def test_unknown_members_are_skipped(record: Record) -> None:
    line = parse_line(changed(record, colour="blue", nested={"kind": ["x"]}), 0)
    assert line is not None
    assert line.record == record


@given(records)
def test_a_known_kind_that_lacks_members_is_kept_and_skipped(record: Record) -> None:
    text, _ = encode_line(record, offset=0, synced=0, prev=None)
    members = json.loads(text)
    del members["broadcast"]
    line = parse_line(resum(json.dumps(members, separators=(",", ":")).encode()), 0)
    assert line is not None
    assert isinstance(line.record, UnknownRecord)


@pytest.mark.parametrize("member", ["kind", "n", "synced", "prev"])
def test_what_no_reader_can_do_without_makes_it_no_line(member: str) -> None:
    record = StopRecord(
        broadcast="b", number=1, track=None, n=1, time="t", recorder="r", reason="stopped"
    )
    text, _ = encode_line(record, offset=0, synced=0, prev=None)
    members = json.loads(text)
    del members[member]
    assert parse_line(resum(json.dumps(members, separators=(",", ":")).encode()), 0) is None


def test_names_of_any_unicode_stay_on_one_line() -> None:
    record = StopRecord(
        broadcast="a\nb\r\u2028\0\U0001f4fa\"\\", number=1, track=None, n=1, time="t",
        recorder="r", reason="stopped",
    )  # fmt: skip
    text, line = encode_line(record, offset=0, synced=0, prev=None)
    assert text.count(b"\n") == 1
    assert parse_line(text[:-1], 0) == line
    assert msgspec.json.decode(text)["broadcast"] == record.broadcast
