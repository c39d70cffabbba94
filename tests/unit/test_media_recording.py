"""Recordings: where groups lie in time, and what a file consists of."""

from __future__ import annotations

from array import array
from itertools import pairwise

import pytest

from casfs.digest import Digest, digest_of
from casfs.media.descriptions import Kind, SampleDescription
from casfs.media.layout import Extent, Literal
from casfs.media.recording import Recording, flat_recording
from casfs.media.samples import SampleTable, TableBuilder
from casfs.media.timeline import RecordedGroup, split_by_codec
from tests.fakes.flat_reader import FlatTrack, read_flat
from tests.fakes.fragments import sample_entry

SECOND = 10**9
START = 1_790_000_000 * SECOND
PICTURE = SampleDescription(Kind.VIDEO, sample_entry(b"avc1"), 320 << 16, 180 << 16)
LARGER = SampleDescription(Kind.VIDEO, sample_entry(b"avc1", b"another"), 640 << 16, 360 << 16)
OTHER_CODEC = SampleDescription(Kind.VIDEO, sample_entry(b"hvc1"), 640 << 16, 360 << 16)
SOUND = SampleDescription(Kind.AUDIO, sample_entry(b"mp4a"))
DESCRIPTIONS = {item.digest: item for item in (PICTURE, LARGER, OTHER_CODEC, SOUND)}


def table(
    seconds: float,
    *,
    count: int = 25,
    description: SampleDescription = PICTURE,
    timescale: int = 25_000,
    composition: tuple[int, ...] = (0,),
    size: int = 10,
) -> SampleTable:
    """Return a second of samples that begins at a media time, ten bytes of header before each."""
    builder = TableBuilder((1 << 32) - 1, 0, timescale)
    step = timescale // 25
    for number in range(count):
        builder.add(
            description.digest,
            offset=10 + number * (size + 10),
            size=size,
            decode_time=int(seconds * timescale) + number * step,
            duration=step,
            composition_offset=composition[number % len(composition)] * step,
            sync=number == 0,
        )
    (found,) = builder.finish()
    return found


def group(
    received: float, *tables: SampleTable, epoch: int = 1, track: str = "v", size: int = 500
) -> RecordedGroup:
    return RecordedGroup(
        track=track,
        epoch=epoch,
        received=START + int(received * SECOND),
        digest=digest_of(f"{track} {epoch} {received}".encode()),
        size=size,
        tables=tables,
    )


def read(*groups: RecordedGroup, end: float | None = None) -> tuple[Recording, list[FlatTrack]]:
    limit = None if end is None else START + int(end * SECOND)
    recording = flat_recording(groups, DESCRIPTIONS, start=START, end=limit)
    tracks, media = read_flat(bytes(recording.layout.head))
    assert media == len(recording.layout.head)
    return recording, tracks


def shown(track: FlatTrack) -> list[float]:
    return [sample.presentation_time / SECOND for sample in track.samples]


def test_an_epoch_is_placed_by_when_it_was_received() -> None:
    _, (track,) = read(group(10, table(5000)), group(11, table(5001)))
    assert shown(track)[0] == 10
    assert shown(track)[25] == 11
    assert track.shown == (10 * SECOND, 12 * SECOND)


def test_tracks_of_an_epoch_keep_their_relation() -> None:
    sound = table(99.5, description=SOUND, timescale=48_000)
    _, (video, audio) = read(group(10, table(100)), group(10.7, sound, track="a"))
    assert (video.handler, audio.handler) == (b"vide", b"soun")
    assert shown(video)[0] - shown(audio)[0] == pytest.approx(0.5, abs=1e-6)


def test_a_gap_is_a_long_duration() -> None:
    _, (track,) = read(group(0, table(0)), group(60, table(60)))
    assert shown(track)[24:26] == [0.96, 60]


def test_an_epoch_does_not_begin_before_the_end_of_the_one_before() -> None:
    first = [group(number, table(number)) for number in range(5)]
    _, (track,) = read(*first, group(3, table(0), epoch=2))
    assert shown(track)[125] == 5
    assert shown(track) == sorted(shown(track))


def test_an_epoch_that_comes_late_leaves_a_gap() -> None:
    _, (track,) = read(group(0, table(1000)), group(8, table(0), epoch=2))
    assert shown(track)[24:26] == [0.96, 8]


def test_whole_recordings_begin_no_earlier_than_time_0() -> None:
    sound = table(99.5, description=SOUND, timescale=48_000)
    _, (video, audio) = read(group(0, table(100)), group(0.1, sound, track="a"))
    assert (shown(audio)[0], shown(video)[0]) == (0, 0.5)


def test_a_clip_shows_what_lies_within_it_alone() -> None:
    recording, (track,) = read(group(-1.5, table(0, count=100)), end=1.25)
    assert shown(track)[0] == -1.5
    assert track.shown == (0, 1.25 * SECOND)
    assert recording.duration == 1.25 * SECOND


@pytest.mark.parametrize("wild", [1e9, -1e9, 3600])
def test_a_wild_timestamp_does_not_lengthen_a_recording(wild: float) -> None:
    groups = [group(0, table(0)), group(1, table(wild)), group(2, table(wild + 1))]
    recording, (track,) = read(*groups)
    assert recording.duration == 3 * SECOND
    assert shown(track)[25] == pytest.approx(1, abs=1e-4)


def test_media_and_receive_times_that_both_go_back_are_placed_one_after_the_other() -> None:
    recording, (track,) = read(group(0, table(10**6)), group(-(10**6), table(0)))
    assert recording.duration == 2 * SECOND
    assert shown(track) == sorted(shown(track))


def test_a_track_with_a_clock_of_its_own_is_placed_by_when_it_was_received() -> None:
    sound = table(1_000_000, description=SOUND)
    _, (_, audio) = read(group(1, table(0)), group(1.25, sound, track="a"))
    assert shown(audio)[0] == 1.25


def test_many_small_jumps_do_not_lengthen_a_recording_for_ever() -> None:
    groups = [group(number, table(30 * number)) for number in range(100)]
    recording, _ = read(*groups)
    assert recording.duration < 180 * SECOND


def test_media_published_faster_than_it_plays_is_not_cut() -> None:
    groups = [group(number / 100, table(number)) for number in range(100)]
    recording, _ = read(*groups)
    assert recording.duration == 100 * SECOND


def test_what_came_late_lies_where_its_media_time_says() -> None:
    groups = [group(0, table(0)), group(9000, table(1)), group(2, table(2))]
    _, (track,) = read(*groups)
    assert shown(track) == [number / 25 for number in range(75)]


def test_groups_that_overlap_are_decoded_in_order_and_shown_when_due() -> None:
    _, (track,) = read(group(0, table(0)), group(1, table(0.9)))
    decoded = [sample.decode_time for sample in track.samples]
    assert all(before < after for before, after in pairwise(decoded))
    assert shown(track)[25:] == pytest.approx([0.9 + number / 25 for number in range(25)])


def test_frames_are_shown_when_their_composition_says() -> None:
    order = (2, 5, 2, 0, 1)
    for moved in (0, -2):
        composition = tuple(value + moved for value in order)
        _, (track,) = read(group(5, table(7, composition=composition)))
        expected = [5 + (number + order[number % 5] - 2) / 25 for number in range(25)]
        first = min(range(25), key=lambda number: number + order[number % 5])
        assert shown(track) == pytest.approx(expected, abs=1e-6)
        assert first in (0, 3)


def test_a_gap_beyond_32_bits_coarsens_the_timescale() -> None:
    day = 86_400
    late = table(day, timescale=90_000)
    recording, (track,) = read(group(0, table(0, timescale=90_000)), group(day, late))
    assert track.timescale < 90_000
    assert shown(track)[25] == pytest.approx(day, abs=1e-3)
    assert recording.duration == pytest.approx((day + 1) * SECOND, abs=1e6)
    decoded = [sample.decode_time for sample in track.samples]
    assert max(b - a for a, b in pairwise(decoded)) < 1 << 31


def test_timescales_of_two_epochs_become_one() -> None:
    _, (track,) = read(
        group(0, table(0, timescale=25_000)), group(5, table(0, timescale=90_000), epoch=2)
    )
    assert track.timescale == 90_000
    assert shown(track) == pytest.approx(
        [n / 25 for n in range(25)] + [5 + n / 25 for n in range(25)]
    )


def test_new_parameters_are_a_further_sample_description() -> None:
    second = group(1, table(0, description=LARGER), epoch=2)
    recording, (track,) = read(
        group(0, table(0)), second, group(2, table(1, description=LARGER), epoch=2)
    )
    assert [sample.description for sample in track.samples] == [PICTURE.entry] * 25 + [
        LARGER.entry
    ] * 50
    assert recording.left_out == 0


def test_another_codec_in_a_track_is_left_out_and_counted() -> None:
    recording, (track,) = read(group(0, table(0)), group(1, table(1, description=OTHER_CODEC)))
    assert len(track.samples) == 25
    assert recording.left_out == 25


def test_a_recording_is_cut_where_an_epoch_begins_with_another_codec() -> None:
    sound = table(0, description=SOUND)
    first = [group(0, table(0)), group(0.5, sound, track="a")]
    second = [
        group(1, sound, track="a", epoch=2),
        group(1.5, table(0, description=OTHER_CODEC), epoch=2),
    ]
    assert split_by_codec([*first, *second], DESCRIPTIONS) == [first, second]


def test_a_recording_is_cut_within_an_epoch_where_the_codec_changes() -> None:
    first = [group(0, table(0)), group(1, table(0), epoch=2)]
    second = [group(2, table(1, description=OTHER_CODEC), epoch=2)]
    assert split_by_codec([*first, *second], DESCRIPTIONS) == [first, second]


def test_new_parameters_do_not_cut_a_recording() -> None:
    groups = [group(0, table(0)), group(1, table(0, description=LARGER), epoch=2)]
    assert split_by_codec(groups, DESCRIPTIONS) == [groups]


def test_only_groups_with_tables_are_in_the_file() -> None:
    recording, _ = read(group(0, table(0)), group(1), group(2, table(2)))
    extents = [piece for piece in recording.layout.pieces() if isinstance(piece, Extent)]
    assert [extent.length for extent in extents] == [500, 500]
    assert recording.layout.size == len(recording.layout.head) + 1000


def test_nothing_to_record_is_an_error() -> None:
    with pytest.raises(ValueError, match="no group with a sample table"):
        flat_recording([group(0)], DESCRIPTIONS, start=START)


def test_samples_lie_where_the_stored_payload_has_them() -> None:
    recording, (track,) = read(group(0, table(0)), group(1, table(1)))
    base = len(recording.layout.head)
    assert [sample.position - base for sample in track.samples[:2]] == [10, 30]
    assert track.samples[25].position - base == 510
    assert [sample.sync for sample in track.samples] == ([True] + [False] * 24) * 2
    assert track.offset_bits == 32


def test_offsets_have_64_bits_where_32_do_not_suffice() -> None:
    size = (1 << 32) - 1
    groups = [group(0, table(0), size=size), group(1, table(1), size=size)]
    recording, (track,) = read(*groups)
    assert track.offset_bits == 64
    assert track.samples[25].position == len(recording.layout.head) + size + 10


def test_a_file_without_a_byte_to_spare_has_32_bits() -> None:
    recording, _ = read(group(0, table(0)))
    size = (1 << 32) - 1 - len(recording.layout.head)
    for more, bits in ((0, 32), (1, 64)):
        _, (track,) = read(group(0, table(0), size=size + more))
        assert track.offset_bits == bits


def test_the_same_groups_give_the_same_bytes() -> None:
    groups = [group(0, table(0)), group(1, table(0, description=SOUND), track="a")]
    assert read(*groups)[0] == read(*groups)[0]


# Layout

CODED = b"\0\0\0\1one" + b"\0\0\1two!" + b"\0\0\1x" + b"headr" + b"\0\0\1again"
READ = b"\0\0\0\3one" + b"\0\0\0\4two!" + b"\0\0\0\1x" + b"headr" + b"\0\0\0\5again"


def coded() -> RecordedGroup:
    builder = TableBuilder(len(CODED), 0, 25)
    for number, (offset, size, units) in enumerate(
        ((0, 18, [(4, 3), (3, 4), (3, 1)]), (23, 8, [(3, 5)]))
    ):
        builder.add(
            PICTURE.digest,
            offset=offset,
            size=size,
            decode_time=number,
            duration=1,
            nal_units=units,
        )
    digest = Digest("c0" * 32)
    tables = tuple(builder.finish())
    return RecordedGroup(
        track="v", epoch=1, received=START, digest=digest, offset=7, size=len(CODED), tables=tables
    )


def assemble(recording: Recording, position: int, length: int) -> bytes:
    stored = b"before!" + CODED + b"behind"
    data = bytearray()
    for piece in recording.layout.pieces(position, length):
        if isinstance(piece, Literal):
            data += piece.data
        else:
            data += stored[piece.offset : piece.offset + piece.length]
    recording.layout.overlay(data, position)
    return bytes(data)


def test_start_codes_are_read_as_lengths() -> None:
    recording, (track,) = read(coded())
    base = len(recording.layout.head)
    assert assemble(recording, base, 1000) == READ
    assert [(sample.position - base, sample.size) for sample in track.samples] == [(0, 20), (25, 9)]


def test_any_range_reads_as_the_whole_file_does() -> None:
    recording, _ = read(coded())
    base = len(recording.layout.head)
    whole = assemble(recording, 0, recording.layout.size)
    assert whole == bytes(recording.layout.head) + READ
    for position in range(base - 3, len(whole)):
        for length in (1, 2, 3, 5, 9, 100):
            assert assemble(recording, position, length) == whole[position : position + length]


def test_beyond_the_end_there_is_nothing() -> None:
    recording, _ = read(coded())
    assert list(recording.layout.pieces(recording.layout.size)) == []
    assert list(recording.layout.pieces(recording.layout.size + 5, 10)) == []


def test_columns_have_the_widths_that_files_need() -> None:
    assert (array("I").itemsize, array("Q").itemsize, array("i").itemsize) == (4, 8, 4)
