"""What becomes of deliveries: epochs, inits, counts and gaps, in a real archive."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

from casfs.archive import Archive, BroadcastWriter
from casfs.digest import digest_of
from casfs.errors import DiskFullError, StorageError
from casfs.manifests.record import EpochRecord, GapRecord, GroupRecord, Record
from casfs.names import encode_name
from ingest.keeper import Delivery, Keeper
from ingest.moq.events import GroupReceived
from ingest.state import RecorderState
from tests.fakes.fragments import Sample, fragment, init, trak, trex
from tests.fakes.store import (
    NOON,
    Clock,
    check,
    crash,
    journal_directory,
    make_archive,
    read_journal,
    segments,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from casfs.archive import Committed, Group

R = TypeVar("R", bound=Record)

TV = "demo/tv"
INIT, CATALOG, VIDEO = "init.mp4", "catalog.json", "video0.m4s"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


@contextmanager
def keeping(archive: Archive, *, crashing: bool = False) -> Iterator[Keeper]:
    """Be a recorder; ``crashing``: it ends as a killed process does."""
    writer = archive.writer(TV, clock=Clock())
    writer.__enter__()
    try:
        yield Keeper(writer, RecorderState(broadcast=TV))
    finally:
        if crashing:
            crash(writer)
        else:
            writer.__exit__(None, None, None)


def delivery(
    sequence: int,
    payload: bytes = b"payload",
    *,
    track: str = VIDEO,
    complete: bool = True,
    reason: str = "reset 7",
    generation: int = 1,
    time: int | None = None,
) -> Delivery:
    """``time``: of its frame, seconds."""
    received = GroupReceived(
        subscription=0,
        sequence=sequence,
        frames=(payload,),
        timestamps=None if time is None else (time,),
        complete=complete,
        reason="" if complete else reason,
        received_start=NOON + sequence,
        received_end=NOON + sequence + 1,
    )
    scale = None if time is None else 1
    return Delivery(track, received, scale, generation, "https://relay.example:443", "moq-lite-05")


def records(archive: Archive, kind: type[R], track: str = VIDEO) -> list[R]:
    name = track if track == "@broadcast" else encode_name(track)
    lines, _ = read_journal(journal_directory(archive, encode_name(TV), name))
    return [line.record for line in lines if isinstance(line.record, kind)]


def identities(archive: Archive, track: str = VIDEO) -> list[tuple[int, int]]:
    return [(record.epoch, int(record.sequence)) for record in records(archive, GroupRecord, track)]


def test_media_name_the_newest_init_also_when_it_comes_right_behind_them(archive: Archive) -> None:
    with keeping(archive) as keeper:
        keeper.keep([delivery(0), delivery(0, b"init", track=INIT), delivery(1)])
        keeper.keep([delivery(2)])
    assert {record.init for record in records(archive, GroupRecord)} == {digest_of(b"init")}
    assert records(archive, GroupRecord, INIT)[0].init is None


def test_an_older_init_that_is_delivered_after_a_newer_one_does_not_replace_it(
    archive: Archive,
) -> None:
    with keeping(archive) as keeper:
        # Relays deliver the newest group first.
        keeper.keep([delivery(number, b"init %d" % number, track=INIT) for number in (3, 2, 1)])
        keeper.keep([delivery(0)])
        keeper.keep([delivery(1, b"init 1", track=INIT, generation=2)])
        keeper.keep([delivery(1)])
    with keeping(archive) as keeper:
        keeper.keep([delivery(2)])
    assert {record.init for record in records(archive, GroupRecord)} == {digest_of(b"init 3")}


def test_an_init_that_was_cut_short_is_none_but_a_catalog_that_still_arrives_is(
    archive: Archive,
) -> None:
    with keeping(archive) as keeper:
        keeper.keep([delivery(0, b"in", track=INIT, complete=False), delivery(0)])
        keeper.keep(
            [
                delivery(0, b"{}", track=CATALOG, complete=False, reason="still open"),
                delivery(1),
            ]
        )
    named = [record.init for record in records(archive, GroupRecord)]
    assert named == [None, digest_of(b"{}")]


def test_a_restarted_recorder_knows_what_was_recorded(archive: Archive) -> None:
    with keeping(archive, crashing=True) as keeper:
        assert keeper.keep([delivery(number) for number in range(5)]) == 5
    with keeping(archive) as keeper:
        assert keeper.keep([delivery(number) for number in reversed(range(6))]) == 1
    assert sorted(identities(archive)) == [(1, number) for number in range(6)]


def test_an_epoch_and_its_groups_are_known_after_many_sessions_without_a_group(
    archive: Archive,
) -> None:
    with keeping(archive, crashing=True) as keeper:
        keeper.keep([delivery(0, b"first"), delivery(0, b"second", generation=2)])
        assert keeper.epoch == 2
    for _ in range(4):
        with keeping(archive, crashing=True) as keeper:
            interruption = keeper.interruption(VIDEO, "the recorder was not running")
            keeper.settle(interruption, None, NOON)
            keeper.dropped(VIDEO, 100, 101, 7, NOON)  # a line of this track, and no group
    assert len(segments(journal_directory(archive, encode_name(TV), VIDEO))) >= 4
    with keeping(archive) as keeper:
        assert keeper.epoch == 2
        assert keeper.keep([delivery(0, b"second")]) == 0
        keeper.keep([delivery(0, b"third", generation=2)])
    assert identities(archive) == [(1, 0), (2, 0), (3, 0)]
    assert [record.epoch for record in records(archive, EpochRecord, "@broadcast")] == [2, 3]
    assert check(archive).sound


def test_a_shorter_copy_of_a_group_whose_object_is_gone_is_taken_for_known(
    archive: Archive,
) -> None:
    with keeping(archive) as keeper:
        keeper.keep([delivery(0, b"whole payload")])
        os.unlink(archive.objects.path(digest_of(b"whole payload")))
        assert keeper.keep([delivery(0, b"whole", complete=False, generation=2)]) == 0
        assert keeper.epoch == 1


def test_a_failed_commit_is_decided_once(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, failures = BroadcastWriter.commit, iter([True, True])

    def sometimes(writer: BroadcastWriter, groups: Sequence[Group]) -> list[Committed]:
        if next(failures, False):
            raise DiskFullError("disk full")
        return commit(writer, groups)

    with keeping(archive) as keeper:
        keeper.keep([delivery(3), delivery(4)])
        monkeypatch.setattr(BroadcastWriter, "commit", sometimes)
        batch = [delivery(5), delivery(3, b"other", generation=2)]
        for _ in range(2):
            with pytest.raises(StorageError):
                keeper.keep(batch)
        batch.append(delivery(5, b"new", generation=2))
        assert keeper.keep(batch) == 3
    assert identities(archive) == [(1, 3), (1, 4), (1, 5), (2, 3), (2, 5)]
    assert len(records(archive, EpochRecord, "@broadcast")) == 1


def test_what_is_counted_is_what_is_kept(archive: Archive) -> None:
    with archive.writer(TV, clock=Clock()) as writer:
        state = RecorderState(broadcast=TV)
        keeper = Keeper(writer, state)
        keeper.keep(
            [delivery(0, b"be", complete=False), delivery(1, b"same"), delivery(2, b"same")]
        )
        track = state.track(VIDEO)
        assert (track.groups, track.bytes, track.incomplete) == (3, 10, 1)
        keeper.keep([delivery(0, b"begun", complete=False), delivery(1, b"same")])
        assert (track.groups, track.bytes, track.incomplete) == (3, 13, 1)
        assert track.redelivered == 1
        keeper.keep([delivery(0, b"begun, done")])
        assert (track.groups, track.bytes, track.incomplete) == (3, 19, 0)
        assert state.new_bytes == 2 + 4 + 5 + 11


def test_an_interruption_costs_what_is_missing_after_it(archive: Archive) -> None:
    with keeping(archive) as keeper:
        keeper.keep([delivery(number) for number in range(3)])
        interruption = keeper.interruption(VIDEO, "disconnected")
        assert keeper.settle(interruption, NOON + 100, NOON + 200) == 0
        keeper.keep([delivery(5), delivery(8)])
        assert keeper.settle(interruption, NOON + 100, NOON + 200) == 2
        assert keeper.settle(interruption, None, NOON + 200) == 3
        keeper.keep([delivery(0, b"a new publisher", generation=2)])
        assert keeper.settle(interruption, NOON + 100, NOON + 200) == 1
    gaps = [(gap.epoch, gap.first, gap.last) for gap in records(archive, GapRecord)]
    assert gaps == [
        *[(1, "3", "4"), (1, "6", "7")],
        *[(1, "3", "4"), (1, "6", "7"), (1, "9", None)],
        (1, "3", None),
    ]
    assert all(gap.start <= gap.end for gap in records(archive, GapRecord))


def test_of_a_track_that_begins_only_what_lacks_between_its_groups_is_missing(
    archive: Archive,
) -> None:
    with keeping(archive) as keeper:
        before = keeper.interruption(VIDEO, "the recorder was not running")
        assert keeper.missed(before, open_end=True) == []
        keeper.keep([delivery(number) for number in (50, 49, 46, 45, 7)])
        # So many in a row were meant by the publisher.
        assert keeper.missed(before) == [(47, 48)]
        # They may still have been skipped: it is worth a question, and no gap.
        assert keeper.settle(before, NOON + 100, NOON + 200) == 0
    assert records(archive, GapRecord) == []


def test_media_time_that_goes_back_is_an_epoch_also_across_a_restart_of_the_recorder(
    archive: Archive,
) -> None:
    media = [fragment(1, 12800 * second, Sample(b"sample")) for second in (1000, 1001, 0, 1)]
    with keeping(archive) as keeper:
        keeper.keep([delivery(0, init(trak(1), defaults=(trex(1),)), track=INIT)])
        keeper.keep([delivery(0, media[0]), delivery(1, media[1])])
        keeper.keep([delivery(0, b"sound", track="audio0.m4s", time=1000)])
    with keeping(archive) as keeper:
        keeper.keep([delivery(2, media[2]), delivery(3, media[3])])
        keeper.keep([delivery(1, b"more sound", track="audio0.m4s", time=1)])
    assert identities(archive) == [(1, 0), (1, 1), (2, 2), (2, 3)]
    assert identities(archive, "audio0.m4s") == [(1, 0), (2, 1)]
    (epoch,) = records(archive, EpochRecord, "@broadcast")
    assert (epoch.epoch, epoch.reason) == (2, "media time went back")
