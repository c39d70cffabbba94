"""Sample tables: whatever a publisher sends, they point into the payload and to rising times."""

from __future__ import annotations

import json
from array import array
from itertools import accumulate, pairwise
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.digest import Digest, digest_of
from casfs.media.avc import has_idr, read_sequence_parameters, split_byte_stream
from casfs.media.boxes import MalformedMediaError
from casfs.media.catalog import CatalogTrack, Container, parse_hang_catalog, parse_msf_catalog
from casfs.media.descriptions import (
    Kind,
    SampleDescription,
    decode_description,
    encode_description,
)
from casfs.media.fragments import samples_of_fragments
from casfs.media.groups import samples_of_group
from casfs.media.layout import Literal
from casfs.media.movie import read_movie
from casfs.media.packing import pack_table, unpack_table
from casfs.media.recording import Recording, flat_recording
from casfs.media.samples import GroupSamples, SampleTable, StartCodes, TableBuilder
from casfs.media.timeline import RecordedGroup
from tests.fakes.codec_frames import audio_track, video_track
from tests.fakes.flat_reader import FlatSample, read_flat
from tests.fakes.fragments import AUDIO, Sample, fragment, init, sample_entry, trak, trex
from tests.property.test_boxes import mutations

PICTURE = SampleDescription(Kind.VIDEO, sample_entry(b"avc1"), 320 << 16, 180 << 16)
SOUND = SampleDescription(Kind.AUDIO, sample_entry(b"mp4a"))
DESCRIPTIONS = {item.digest: item for item in (PICTURE, SOUND)}

MOVIE = read_movie(
    init(
        trak(1, edits=((0, 512),)),
        trak(2, AUDIO, entries=(sample_entry(b"mp4a"),)),
        defaults=(trex(1, duration=512, size=3), trex(2, duration=1024, size=5)),
    )
)
PAYLOAD = b"".join(
    [
        fragment(1, 0, Sample(b"one", composition_offset=512), Sample(b"three")),
        fragment(2, 0, Sample(b"sound"), trun_flags=0x1),
        fragment(1, 1024, Sample(b"and"), Sample(b"two"), trun_flags=0x5),
    ]
)


def assert_sound(found: GroupSamples, size: int) -> None:
    """Check what `casfs.media.samples` promises of every table."""
    named = {description.digest for description in found.descriptions}
    assert found.tables or found.reason
    for table in found.tables:
        assert table.description in named
        count = len(table)
        columns = (table.sizes, table.durations, table.composition_offsets, table.sync)
        assert count
        assert all(len(column) == count for column in columns)
        assert min(table.sizes) > 0
        assert min(table.durations) > 0
        assert max(map(add, table.offsets, table.sizes)) <= size
        assert set(table.sync) <= {0, 1}
        if table.start_codes is not None:
            assert len(table.start_codes.counts) == count
        assert unpack_table(pack_table(table)) == table


@settings(max_examples=300)
@given(mutations(PAYLOAD))
def test_tables_of_changed_fragments_never_point_outside_the_payload(payload: bytes) -> None:
    assert_sound(samples_of_fragments(payload, MOVIE), len(payload))


@given(st.binary(max_size=300))
def test_any_bytes_are_fragments_or_not(payload: bytes) -> None:
    assert_sound(samples_of_fragments(payload, MOVIE), len(payload))
    assert_sound(samples_of_fragments(payload, None), len(payload))


TRACKS = st.builds(
    lambda make, container, codec, described, rate: make(
        container, codec=codec, description=described, width=rate, height=rate, sample_rate=rate
    ),
    st.sampled_from([audio_track, video_track]),
    st.sampled_from([Container.LEGACY, Container.LOC, Container.CMAF, Container.UNKNOWN]),
    st.sampled_from(["avc1.64000d", "avc3.42", "opus", "mp4a.40.2", "vp09.0.1.8", "flac", "x", ""]),
    st.one_of(st.none(), st.binary(max_size=40), st.just(b"\1\x64\0\x0d\xff\xe0\0")),
    st.integers(0, 1 << 17),
)
STREAMS = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from([b"\0\0\1", b"\0\0\0\1", b"\x67", b"\x68", b"\xff\xf1\x4c\x80", b"\0"]),
        st.just(bytes.fromhex("6764000dacd941414fb01100")),
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=300)
@given(TRACKS, st.lists(STREAMS, max_size=5), st.integers(-5, 5))
def test_any_frames_have_a_table_or_a_reason(
    track: CatalogTrack, frames: list[bytes], wrong: int
) -> None:
    payload = b"".join(frames)
    sizes = [len(frame) for frame in frames]
    if sizes:
        sizes[0] += wrong
    found = samples_of_group(payload, sizes, track=track)
    assert_sound(found, len(payload))


@given(STREAMS, st.integers(0, 10), st.integers(0, 40))
def test_nal_units_of_any_bytes_fill_them(data: bytes, start: int, end: int) -> None:
    has_idr(data, start, min(end, len(data)), 4)
    try:
        units = split_byte_stream(data, start, min(end, len(data)))
    except MalformedMediaError:
        return
    assert start <= units[0].begin
    assert units[-1].end == min(end, len(data))
    assert all(before.end == after.begin for before, after in pairwise(units))
    assert all(unit.size > 0 for unit in units)
    codes = {data[unit.begin : unit.start] for unit in units}
    assert codes <= {b"\0\0\1", b"\0\0\0\1"}


@given(st.binary(max_size=60))
def test_any_parameter_set_is_read_or_refused(data: bytes) -> None:
    try:
        parameters = read_sequence_parameters(b"\x67" + data)
    except MalformedMediaError:
        return
    assert 0 < parameters.width <= 1 << 14
    assert 0 < parameters.height <= 1 << 14


_KEYS = (
    *("video", "audio", "renditions", "tracks", "name", "codec", "container", "kind", "init"),
    *("description", "packaging", "role", "deltaUpdate", "op", "codedWidth", "framerate"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(
    st.lists(st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=20)))
)
def test_any_catalog_is_read(frames: list[bytes]) -> None:
    for parse in (parse_hang_catalog, parse_msf_catalog):
        for track in parse(frames).tracks:
            assert track.name
            assert 0 <= track.width <= 1 << 16
            assert 0 <= track.frame_rate <= 1000


# Tables that a publisher might have sent

UNITS = st.lists(st.tuples(st.sampled_from([3, 4]), st.integers(1, 9)), min_size=1, max_size=3)


@st.composite
def tables(draw: st.DrawFn, kind: Kind, payload: int = 4000, *, coded: bool = False) -> SampleTable:
    description = PICTURE if kind is Kind.VIDEO else SOUND
    timescale = draw(st.sampled_from([25, 1000, 48_000, 90_000, 10_000_000]))
    builder = TableBuilder(payload, 0, timescale)
    time = draw(st.integers(-5, 100)) * timescale
    offset = 0
    for _ in range(draw(st.integers(1, 12))):
        units = draw(UNITS) if coded else None
        size = draw(st.integers(1, 60)) if units is None else sum(map(sum, units))
        offset += draw(st.integers(0, 30))
        builder.add(
            description.digest,
            offset=offset,
            size=size,
            decode_time=time,
            duration=draw(st.integers(1, timescale)),
            composition_offset=draw(st.integers(-2 * timescale, 2 * timescale)),
            sync=draw(st.booleans()),
            nal_units=units,
        )
        time += draw(st.integers(1, timescale))
        offset += size
    (table,) = builder.finish()
    return table


@given(st.one_of(tables(Kind.VIDEO), tables(Kind.VIDEO, coded=True)))
def test_a_table_survives_its_stored_form(table: SampleTable) -> None:
    assert unpack_table(pack_table(table)) == table


@given(tables(Kind.VIDEO, coded=True), st.data())
def test_a_damaged_stored_table_is_refused_or_still_sound(
    table: SampleTable, data: st.DataObject
) -> None:
    damaged = data.draw(mutations(pack_table(table)))
    try:
        found = unpack_table(damaged)
    except MalformedMediaError:
        return
    assert min(found.sizes) > 0
    assert min(found.durations) > 0
    assert len(found.offsets) == len(found.sizes) == len(found.durations) == len(found.sync)


def stored(codes: StartCodes) -> bytes:
    return pack_table(
        SampleTable(
            track=0,
            description=PICTURE.digest,
            timescale=25,
            decode_time=0,
            offsets=array("I", [0]),
            sizes=array("I", [5]),
            durations=array("I", [1]),
            composition_offsets=array("i", [0]),
            sync=b"\1",
            start_codes=codes,
        )
    )


ONE_UNIT = stored(StartCodes(array("I", [1]), array("I", [1]), b"\4"))


@pytest.mark.parametrize(
    "damaged",
    [
        ONE_UNIT[:34] + ONE_UNIT[34:].replace(b"\x19\1", b"\x19\xff\xff\xff\xff\xff\x0f", 1),
        ONE_UNIT[:-1],
        ONE_UNIT + b"\0",
        b"\2" + ONE_UNIT[1:],
        b"",
        stored(StartCodes(array("I", [2]), array("I", [1]), b"\4")),
        stored(StartCodes(array("I", [1]), array("I", [2]), b"\4")),
        stored(StartCodes(array("I", [1]), array("I", [0]), b"\5")),
    ],
)
def test_a_stored_table_that_does_not_add_up_is_refused(damaged: bytes) -> None:
    assert len(unpack_table(ONE_UNIT)) == 1
    with pytest.raises(MalformedMediaError):
        unpack_table(damaged)


@given(st.sampled_from(Kind), st.binary(min_size=16, max_size=60), st.integers(0, 2**32 - 1))
def test_a_description_survives_its_stored_form(kind: Kind, entry: bytes, width: int) -> None:
    description = SampleDescription(kind, entry, width, width // 2)
    assert decode_description(encode_description(description)) == description


# Recordings


@st.composite
def recorded(draw: st.DrawFn) -> tuple[list[RecordedGroup], dict[Digest, bytes]]:
    groups = []
    objects: dict[Digest, bytes] = {}
    time = 0
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(Kind))
        coded = draw(st.booleans()) if kind is Kind.VIDEO else False
        table = draw(tables(kind, coded=coded))
        end = table.offsets[-1] + table.sizes[-1]
        offset = draw(st.integers(0, 9))
        stored = b"".join((offset + end + number).to_bytes(2, "big") for _ in range(offset + end))
        digest = digest_of(stored)
        objects[digest] = stored
        time += draw(st.integers(-(10**9), 10**11))
        groups.append(
            RecordedGroup(
                track=kind.value,
                epoch=draw(st.integers(1, 3)),
                received=time,
                digest=digest,
                offset=offset,
                size=end,
                tables=(table,),
            )
        )
    return groups, objects


def assemble(
    recording: Recording, objects: dict[Digest, bytes], position: int, length: int
) -> bytes:
    data = bytearray()
    for piece in recording.layout.pieces(position, length):
        if isinstance(piece, Literal):
            data += piece.data
        else:
            found = objects[piece.digest][piece.offset : piece.offset + piece.length]
            assert len(found) == piece.length
            data += found
    recording.layout.overlay(data, position)
    return bytes(data)


def expected_samples(group: RecordedGroup, stored: bytes) -> list[bytes]:
    (table,) = group.tables
    payload = stored[group.offset : group.offset + group.size]
    codes = table.start_codes
    samples = []
    unit = 0
    for number, (offset, size) in enumerate(zip(table.offsets, table.sizes, strict=True)):
        if codes is None:
            samples.append(payload[offset : offset + size])
            continue
        parts = []
        place = offset
        for _ in range(codes.counts[number]):
            length = codes.sizes[unit]
            place += codes.lengths[unit]
            parts.append(length.to_bytes(4, "big") + payload[place : place + length])
            place += length
            unit += 1
        samples.append(b"".join(parts))
    return samples


@settings(max_examples=200)
@given(recorded(), st.booleans(), st.integers(1, 500))
def test_a_player_finds_every_sample_at_rising_times(
    drawn: tuple[list[RecordedGroup], dict[Digest, bytes]], clip: bool, piece: int
) -> None:
    groups, objects = drawn
    end = 10**10 if clip else None
    recording = flat_recording(groups, DESCRIPTIONS, start=0, end=end)
    whole = assemble(recording, objects, 0, recording.layout.size)
    assert len(whole) == recording.layout.size
    pieces = [
        assemble(recording, objects, position, piece) for position in range(0, len(whole), piece)
    ]
    assert b"".join(pieces) == whole
    tracks, _ = read_flat(bytes(recording.layout.head))
    for track, key in zip(tracks, recording.tracks, strict=True):
        own = sorted((group for group in groups if group.track == key.name), key=lambda g: g.epoch)
        expected = [
            data for group in own for data in expected_samples(group, objects[group.digest])
        ]
        found = [whole[item.position : item.position + item.size] for item in track.samples]
        assert found == expected
        times = [item.decode_time for item in track.samples]
        assert times[0] == 0
        assert all(before < after for before, after in pairwise(times))
        assert 0 <= track.shown[0] <= track.shown[1] <= recording.duration + 1
        if not clip:
            first = min(own, key=lambda g: g.epoch)
            assert_relations(
                track.samples[: len(first.tables[0])], first.tables[0], track.timescale
            )


def assert_relations(found: list[FlatSample], table: SampleTable, timescale: int) -> None:
    """Check that samples are shown as far apart as their table says."""
    decode_times = accumulate(table.durations, initial=table.decode_time)
    shown = list(map(add, decode_times, table.composition_offsets))
    tick = 10**9 // min(timescale, table.timescale)
    for item, time in zip(found, shown, strict=True):
        apart = item.presentation_time - found[0].presentation_time
        assert abs(apart - (time - shown[0]) * 10**9 // table.timescale) <= 2 * tick + 2


@st.composite
def wild_tables(draw: st.DrawFn) -> tuple[SampleTable, ...]:
    timescale = draw(st.sampled_from([1, 25, 90_000, 10**7, 2**31 - 1]))
    builder = TableBuilder(1000, 0, timescale)
    time = draw(st.one_of(st.sampled_from([0, 2**62, -(2**62)]), st.integers(-(2**62), 2**62)))
    steps = st.sampled_from([0, 1, 59, 61, -1, -59, -61])
    offsets = st.sampled_from([0, 0, 1, -1, 59, -59])
    try:
        for number in range(draw(st.integers(1, 5))):
            builder.add(
                PICTURE.digest,
                offset=number,
                size=1,
                decode_time=time,
                duration=draw(st.sampled_from([0, 1, timescale, 2**32 - 1])),
                composition_offset=draw(offsets) * timescale,
            )
            time += draw(steps) * timescale
    except MalformedMediaError:
        pass
    return tuple(builder.finish())


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            wild_tables(),
            st.integers(1, 3),
            st.one_of(st.integers(0, 10**14), st.sampled_from([0, -(10**18), 10**18])),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([None, 10**12]),
)
def test_no_times_of_a_publisher_keep_a_recording_from_being_made(
    drawn: list[tuple[tuple[SampleTable, ...], int, int]], end: int | None
) -> None:
    groups = [
        RecordedGroup(
            track="v",
            epoch=epoch,
            received=received,
            digest=digest_of(str(number).encode()),
            size=1000,
            tables=found,
        )
        for number, (found, epoch, received) in enumerate(drawn)
    ]
    if not any(group.tables for group in groups):
        return
    recording = flat_recording(groups, DESCRIPTIONS, start=0, end=end)
    ((track,), _) = read_flat(bytes(recording.layout.head))
    assert len(track.samples) == recording.samples
