"""What is remembered of sample tables and recordings goes with what it is of."""

from __future__ import annotations

import contextlib
from array import array
from typing import TYPE_CHECKING

from casfs.digest import digest_of
from casfs.index.payload_names import PayloadName
from casfs.index.samples import RecordingSizes, RememberedSpan, SampleIndex
from casfs.media.codecs import aac_description
from casfs.media.samples import GroupSamples, SampleTable
from casfs.timestamps import DAY, HOUR
from tests.fakes.hours import LATER, collect_all, expire_all, hour_group, record_hours
from tests.fakes.store import Clock, make_archive

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.media.descriptions import SampleDescription

STEREO = aac_description(b"\x11\x90", 48_000, 2)
MONO = aac_description(b"\x11\x88", 48_000, 1)


def samples(*descriptions: SampleDescription) -> GroupSamples:
    return GroupSamples(
        tuple(
            SampleTable(
                track=number,
                description=item.digest,
                timescale=1000,
                decode_time=0,
                offsets=array("I", [0]),
                sizes=array("I", [10]),
                durations=array("I", [500]),
                composition_offsets=array("i", [0]),
                sync=b"\1",
            )
            for number, item in enumerate(descriptions)
        ),
        descriptions,
    )


def payload(name: bytes) -> PayloadName:
    return PayloadName(digest_of(name), 0, 10, "audio", None)


def test_descriptions_go_with_the_last_table_that_names_them() -> None:
    with contextlib.closing(SampleIndex.temporary()) as index:
        index.put([(payload(b"1"), samples(STEREO, MONO)), (payload(b"2"), samples(STEREO))])
        index.forget([payload(b"1").object])
        assert described(index) == {STEREO.digest}
        assert index.get(payload(b"1")) is None
        assert index.get(payload(b"2")) == samples(STEREO)
        index.put([(payload(b"3"), samples(MONO))])
        assert index.get(payload(b"3")) == samples(MONO)


def described(index: SampleIndex) -> set[str]:
    rows = index._connection.execute("select digest from descriptions").fetchall()
    return {row[0].hex() for row in rows}


def test_recordings_of_hours_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    record_hours(archive, [[hour_group(0, b"old")]])
    with archive.writer("other", clock=Clock(LATER)) as writer:
        writer.commit([hour_group(0, b"kept")])
    with contextlib.closing(archive.reader()) as reader:
        hours = {
            broadcast.name: (broadcast.number, hour)
            for broadcast in reader.broadcasts()
            for track in reader.tracks(broadcast)
            for hour in reader.hours(track)
        }
    other = hours.pop("other")
    ((number, gone),) = hours.values()
    kept = {
        RememberedSpan(other[0], other[1] * HOUR, (other[1] + 1) * HOUR),
        RememberedSpan(other[0], other[1] * HOUR // DAY * DAY, other[1] * HOUR // DAY * DAY + DAY),
    }
    spans = {
        *kept,
        RememberedSpan(number, gone * HOUR, (gone + 1) * HOUR),
        RememberedSpan(number, gone * HOUR // DAY * DAY, gone * HOUR // DAY * DAY + DAY),
        RememberedSpan(number + 1_000, gone * HOUR, (gone + 1) * HOUR),
    }
    with contextlib.closing(SampleIndex.open(archive.index_path)) as index:
        for span in spans:
            name = digest_of(str(span).encode())
            index.remember(name, span, RecordingSizes((1,)))
        expire_all(archive, act=False)
        collect_all(archive)
        there = {span for span in spans if span.broadcast != number + 1_000}
        assert set(index.spans()) == there
        expire_all(archive)
        collect_all(archive)
        assert set(index.spans()) == kept
        assert index.counts().recordings == 2
