"""Sample tables of fragments: each flag of `tfhd` and `trun`, several tracks, what is amiss."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from casfs.media import samples as samples_module
from casfs.media.boxes import MalformedMediaError, box, full_box
from casfs.media.descriptions import Kind
from casfs.media.fragments import samples_of_fragments
from casfs.media.movie import Movie, read_movie
from tests.fakes.fragments import (
    AUDIO,
    NON_SYNC,
    SYNC,
    VIDEO,
    Sample,
    fragment,
    init,
    inner_samples,
    sample_entry,
    trak,
    trex,
)

if TYPE_CHECKING:
    from casfs.media.samples import SampleTable

SAMPLES = (
    Sample(b"key", 500, SYNC, 1024),
    Sample(b"second", 512, NON_SYNC, 2048),
    Sample(b"3", 524, NON_SYNC, -512),
)


def movie(*traks: bytes, defaults: tuple[bytes, ...] = ()) -> Movie:
    return read_movie(init(*(traks or (trak(1),)), defaults=defaults))


def only_table(payload: bytes, given: Movie) -> SampleTable:
    found = samples_of_fragments(payload, given)
    assert found.reason == ""
    (table,) = found.tables
    return table


def data_of(payload: bytes, table: SampleTable) -> list[bytes]:
    return inner_samples(payload, list(table.offsets), list(table.sizes))


def test_a_run_with_all_its_fields() -> None:
    payload = fragment(1, 10_000, *SAMPLES)
    table = only_table(payload, movie())
    assert data_of(payload, table) == [b"key", b"second", b"3"]
    assert (table.decode_time, table.timescale) == (10_000, 12800)
    assert list(table.durations) == [500, 512, 524]
    assert list(table.composition_offsets) == [1024, 2048, -512]
    assert table.sync == b"\1\0\0"


def test_composition_offsets_of_version_0_are_unsigned() -> None:
    payload = fragment(1, 0, Sample(b"a", composition_offset=70_000), version=0)
    assert list(only_table(payload, movie()).composition_offsets) == [70_000]


def test_defaults_of_the_init_stand_in_for_fields() -> None:
    given = movie(trak(1), defaults=(trex(1, duration=640, size=4, flags=NON_SYNC),))
    payload = fragment(1, 7, Sample(b"four"), Sample(b"more"), trun_flags=0x1)
    table = only_table(payload, given)
    assert data_of(payload, table) == [b"four", b"more"]
    assert list(table.durations) == [640, 640]
    assert table.sync == b"\0\0"


def test_defaults_of_the_fragment_come_before_those_of_the_init() -> None:
    given = movie(trak(1), defaults=(trex(1, duration=640, size=4, flags=NON_SYNC),))
    fields = struct.pack(">III", 100, 2, SYNC)
    payload = fragment(
        1, 7, Sample(b"aa"), Sample(b"bb"), tfhd_flags=0x02_0038, tfhd_fields=fields, trun_flags=0x1
    )
    table = only_table(payload, given)
    assert data_of(payload, table) == [b"aa", b"bb"]
    assert list(table.durations) == [100, 100]
    assert table.sync == b"\1\1"


def test_the_first_sample_may_have_flags_of_its_own() -> None:
    given = movie(trak(1), defaults=(trex(1, flags=NON_SYNC),))
    payload = fragment(1, 0, Sample(b"a"), Sample(b"b"), trun_flags=0x305)
    assert only_table(payload, given).sync == b"\1\0"


@pytest.mark.parametrize("flags", [0x1, 0x0])
def test_a_base_of_the_publishers_file_is_the_moof(flags: int) -> None:
    payload = box(b"styp", b"msdh") + fragment(
        1, 0, *SAMPLES, tfhd_flags=0x1, tfhd_fields=bytes(8), trun_flags=0xF00 | flags
    )
    assert data_of(payload, only_table(payload, movie())) == [b"key", b"second", b"3"]


def test_a_decode_time_of_32_bits() -> None:
    assert only_table(fragment(1, 99, *SAMPLES, wide=False), movie()).decode_time == 99


def test_several_fragments_are_one_table() -> None:
    parts = [fragment(1, 512 * number, Sample(b"%d" % number)) for number in range(5)]
    payload = b"".join([box(b"styp", b"msdh"), *parts, box(b"free")])
    table = only_table(payload, movie())
    assert data_of(payload, table) == [b"0", b"1", b"2", b"3", b"4"]
    assert list(table.durations) == [512] * 5


def test_a_decode_time_that_is_told_corrects_the_duration_before_it() -> None:
    payload = fragment(1, 0, Sample(b"a", 700)) + fragment(1, 512, Sample(b"b"))
    assert list(only_table(payload, movie()).durations) == [512, 512]


def test_a_decode_time_that_is_repeated_keeps_the_time_of_presentation() -> None:
    """The first two fragments of ffmpeg's frag_every_frame do this."""
    payload = fragment(1, 0, Sample(b"a")) + fragment(1, 0, Sample(b"b", composition_offset=512))
    table = only_table(payload, movie())
    assert list(table.durations) == [1, 512]
    assert list(table.composition_offsets) == [0, 511]


@pytest.mark.parametrize("time", [0, 10**9])
def test_a_jump_in_time_begins_a_table(time: int) -> None:
    payload = fragment(1, 5 * 10**8, Sample(b"a")) + fragment(1, time, Sample(b"b"))
    first, second = samples_of_fragments(payload, movie()).tables
    assert (first.decode_time, second.decode_time) == (5 * 10**8, time)


def test_an_edit_list_moves_the_track() -> None:
    edits = ((250, -1), (0, 1024))
    for version in (0, 1):
        given = movie(trak(1, edits=edits, version=version))
        table = only_table(fragment(1, 0, Sample(b"a", composition_offset=1024)), given)
        assert table.decode_time == 12800 // 4 - 1024
        assert table.presentation_time == 12800 // 4


def test_tracks_of_one_payload_have_tables_of_their_own() -> None:
    given = movie(
        trak(3, AUDIO, timescale=48000, entries=(sample_entry(b"mp4a"),)),
        trak(7, VIDEO),
        trak(9, b"text"),
        trak(8, AUDIO, entries=(sample_entry(b"Opus"),)),
    )
    assert [(track.id, track.position) for track in given.tracks] == [(3, 0), (7, 0), (8, 1)]
    payload = b"".join(
        [
            fragment(7, 0, Sample(b"picture")),
            fragment(3, 0, Sample(b"sound")),
            fragment(8, 0, Sample(b"other")),
            fragment(9, 0, Sample(b"words")),
        ]
    )
    found = samples_of_fragments(payload, given)
    described = {item.digest: item for item in found.descriptions}
    kinds = [(described[table.description].kind, table.track) for table in found.tables]
    assert sorted(kinds) == [(Kind.AUDIO, 0), (Kind.AUDIO, 1), (Kind.VIDEO, 0)]
    data = {described[table.description].codec: data_of(payload, table) for table in found.tables}
    assert data == {b"mp4a": [b"sound"], b"avc1": [b"picture"], b"Opus": [b"other"]}


def test_data_of_a_second_track_may_follow_that_of_the_first() -> None:
    """Without any base, a track's data begins where that of the track before it ended."""

    def traf(number: int, size: int, *data_offset: int) -> bytes:
        fields = struct.pack(f">I{len(data_offset)}iI", 1, *data_offset, size)
        tfhd = full_box(b"tfhd", struct.pack(">I", number))
        return box(b"traf", tfhd, full_box(b"trun", fields, flags=0x200 | len(data_offset)))

    given = movie(trak(1), trak(2, AUDIO))
    for second in ((), (0,)):
        size = len(box(b"moof", traf(1, 7, 0), traf(2, 5, *second)))
        moof = box(b"moof", traf(1, 7, size + 8), traf(2, 5, *second))
        payload = moof + box(b"mdat", b"picturesound")
        tables = samples_of_fragments(payload, given).tables
        assert [data_of(payload, found) for found in tables] == [[b"picture"], [b"sound"]]


def test_another_sample_description_begins_a_table() -> None:
    entries = (sample_entry(body=b"one"), sample_entry(body=b"two"))
    given = movie(trak(1, entries=entries))
    second = fragment(1, 512, Sample(b"b"), tfhd_flags=0x02_0002, tfhd_fields=struct.pack(">I", 2))
    found = samples_of_fragments(fragment(1, 0, Sample(b"a")) + second, given)
    described = {item.digest: item.entry for item in found.descriptions}
    assert [described[table.description] for table in found.tables] == list(entries)


def test_an_init_within_the_payload_takes_over() -> None:
    payload = init(trak(5, timescale=90_000)) + fragment(5, 0, Sample(b"a"))
    assert only_table(payload, movie(trak(1))).timescale == 90_000
    found = samples_of_fragments(payload, None)
    assert len(found.tables) == 1


def test_what_was_cut_off_is_left_out_and_told() -> None:
    whole = fragment(1, 0, *SAMPLES) + fragment(1, 1536, *SAMPLES)
    second = len(fragment(1, 0, *SAMPLES))
    for end, count, reason in (
        (len(whole) - 2, 4, "2 samples do not lie within the payload"),
        (len(whole) - 10, 3, "3 samples do not lie within the payload"),
        (second + 30, 3, "the last fragment is cut short"),
        (len(whole) - 18, 3, "the last fragment has no media data"),
    ):
        found = samples_of_fragments(whole[:end], movie())
        assert sum(map(len, found.tables)) == count
        assert found.reason == reason


def test_samples_before_the_payload_and_without_bytes_are_left_out() -> None:
    payload = bytearray(fragment(1, 0, Sample(b""), Sample(b"b")))
    assert data_of(bytes(payload), only_table(bytes(payload), movie())) == [b"b"]
    place = payload.index(b"trun") + 12
    payload[place : place + 4] = struct.pack(">i", -1000)
    found = samples_of_fragments(bytes(payload), movie())
    assert (found.tables, found.reason) == ((), "2 samples do not lie within the payload")


def test_a_run_that_claims_millions_of_samples_is_refused() -> None:
    payload = bytearray(fragment(1, 0, trun_flags=0x1))
    place = payload.index(b"trun") + 8
    payload[place : place + 4] = b"\xff\xff\xff\xff"
    assert samples_of_fragments(bytes(payload), movie()).reason == "a run of 4294967295 samples"


def test_runs_that_claim_many_samples_together_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(samples_module, "MAX_SAMPLES", 3)
    payload = fragment(1, 0, *SAMPLES) + fragment(1, 1536, *SAMPLES)
    found = samples_of_fragments(payload, movie())
    assert found.reason == "more than 3 samples"
    assert len(found.tables[0]) == 3


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "no fragments of video or audio"),
        (box(b"free", b"something"), "no fragments of video or audio"),
        (fragment(2, 0, Sample(b"a")), "no fragments of video or audio"),
        (fragment(1, 1 << 63, Sample(b"a")), "a decode time of 9223372036854775808"),
        (box(b"moof", b"1234567") + box(b"mdat"), "7 bytes where a box should begin"),
        (box(b"moof", box(b"traf")) + box(b"mdat"), "no b'tfhd' in b'traf'"),
    ],
)
def test_a_payload_without_a_table_says_why(payload: bytes, reason: str) -> None:
    found = samples_of_fragments(payload, movie())
    assert found.tables == ()
    assert reason in found.reason


def test_fragments_without_an_init_say_so() -> None:
    found = samples_of_fragments(fragment(1, 0, Sample(b"a")), None)
    assert found.reason == "fragments without an init segment"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no moov"),
        (init(trak(1))[:-4], "the moov is cut short"),
        (init(trak(1, timescale=0)), "a timescale of 0"),
        (init(trak(1, entries=())), "0 sample entries"),
        (init(*[trak(number) for number in range(65)]), "more than 64 tracks"),
        (init(box(b"trak")), "no b'mdia/hdlr'"),
    ],
)
def test_an_init_that_does_not_hold_together_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedMediaError, match=message):
        read_movie(data)
