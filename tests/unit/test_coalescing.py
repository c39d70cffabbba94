"""Which groups wait for each other, how long, and what becomes of them in the queue."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
from msgspec.structs import replace

from casfs.archive import Archive, Run
from casfs.errors import DiskFullError, UsageError
from casfs.groups import MOST_BYTES, runs_of
from casfs.manifests.record import GapRecord, GroupRecord, Record, RunRecord
from casfs.manifests.runs import kept_groups
from casfs.names import encode_name
from casfs.timestamps import HOUR
from ingest.coalescing import FAST, SMALL_BYTES, Pace, Queued, waiting
from ingest.committing import CommitQueue
from ingest.keeper import Delivery, Keeper
from ingest.moq.events import GroupReceived
from ingest.state import RecorderState
from tests.fakes.store import (
    NOON,
    Clock,
    check,
    crash,
    group,
    journal_directory,
    make_archive,
    read_journal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from casfs.archive import BroadcastWriter
    from casfs.index.mirror import Mirror

TV, AUDIO, VIDEO = "demo/tv", "audio0.m4s", "video0.m4s"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


def delivery(
    sequence: int,
    payload: bytes | None = None,
    *,
    track: str = AUDIO,
    complete: bool = True,
    received: int | None = None,
    small: bool = False,
) -> Delivery:
    start = NOON + sequence if received is None else received
    received_group = GroupReceived(
        subscription=0,
        sequence=sequence,
        frames=(payload if payload is not None else b"frame %d" % sequence,),
        timestamps=(sequence,),
        complete=complete,
        reason="" if complete else "reset 7",
        received_start=start,
        received_end=start + 1,
    )
    relay = "https://relay.example:443"
    return Delivery(track, received_group, None, 1, relay, "moq-lite-05", small=small)


def records(archive: Archive, track: str = AUDIO) -> list[Record]:
    lines, _ = read_journal(journal_directory(archive, encode_name(TV), encode_name(track)))
    return [line.record for line in lines if isinstance(line.record, Record)]


def shape(archive: Archive, track: str = AUDIO) -> list[object]:
    """Return the sequences of each group record and (as a list) of each run, and gaps as 'gap'."""
    found: list[object] = []
    for record in records(archive, track):
        if isinstance(record, RunRecord):
            found.append([int(kept.record.sequence) for kept in kept_groups(record)])
        elif isinstance(record, GroupRecord):
            found.append(int(record.sequence))
        elif isinstance(record, GapRecord):
            found.append("gap")
    return found


# The pace


def test_small_groups_wait_once_more_than_ten_a_second_have_come() -> None:
    pace = Pace()
    slow = [pace.may_wait(delivery(number), number / (FAST - 0.1)) for number in range(40)]
    assert not any(slow)
    fast = [pace.may_wait(delivery(number), 10 + number / 47) for number in range(40)]
    assert fast[-1]
    assert not pace.may_wait(delivery(99), 100.0)


@pytest.mark.parametrize(
    "odd",
    [
        delivery(99, bytes(SMALL_BYTES)),
        delivery(99, complete=False),
        delivery(99, track="catalog.json"),
    ],
    ids=["large", "incomplete", "catalog"],
)
def test_what_is_not_small_complete_media_never_waits(odd: Delivery) -> None:
    pace = Pace()
    for number in range(60):
        pace.may_wait(replace(odd, group=delivery(number).group), number / 47)
    assert not pace.may_wait(odd, 60 / 47)


# Waiting


def queued(*items: tuple[Delivery, float]) -> list[Queued]:
    return [Queued(item, since) for item, since in items]


def test_groups_wait_two_seconds_and_not_longer() -> None:
    queue = queued((delivery(0, small=True), 5.0), (delivery(1, small=True), 6.5))
    assert waiting(queue, 6.9) == {0, 1}
    assert waiting(queue, 7.0) == set()


def test_a_mebibyte_is_enough() -> None:
    part = bytes(SMALL_BYTES - 1)
    enough = MOST_BYTES // len(part) + 1
    queue = queued(*((delivery(number, part, small=True), 0.0) for number in range(enough)))
    assert waiting(queue, 0.1) == set()
    assert len(waiting(queue[:-1], 0.1)) == enough - 1


def test_nothing_overtakes_groups_of_its_own_track_and_others_do() -> None:
    queue = queued(
        (delivery(0, small=True), 0.0),
        (delivery(0, track=VIDEO), 0.0),
        (delivery(1, complete=False), 0.1),
        (delivery(2, small=True), 0.1),
    )
    assert waiting(queue, 0.2) == {3}


# Runs


def test_a_run_holds_what_is_alike_by_sequence() -> None:
    late = group(5, received=NOON + HOUR)
    items = list(runs_of([group(3), group(1), late, group(2), group(7, epoch=2)]))
    sequences = [
        [one.sequence for one in item.groups] if isinstance(item, Run) else item.sequence
        for item in items
    ]
    assert sequences == [[1, 2, 3], 5, 7]


def test_a_run_does_not_reach_over_a_leap_of_the_sequences() -> None:
    leap = 1 << 60
    runs = list(runs_of([group(number) for number in (0, 1, 2, leap, leap + 1)]))
    assert [len(run.groups) for run in runs if isinstance(run, Run)] == [3, 2]
    (sparse,) = runs_of([group(number * 21_333) for number in range(5)])
    assert isinstance(sparse, Run)


def test_groups_that_make_no_run_are_refused_and_nothing_is_kept(archive: Archive) -> None:
    with archive.writer(TV, clock=Clock()) as writer:
        for groups in (
            (group(1), group(1)),
            (group(2), group(1)),
            (group(1), group(2, epoch=2)),
            (group(1), group(2, received=NOON + HOUR)),
            (group(1, complete=False), group(2, complete=False)),
        ):
            with pytest.raises(UsageError, match="make no run"):
                writer.commit([Run(groups)])
    assert shape(archive, VIDEO) == []


def test_the_first_run_makes_the_archive_require_that_readers_know_of_runs(
    archive: Archive,
) -> None:
    with archive.writer(TV, clock=Clock()) as writer:
        writer.commit([group(0)])
        assert Archive(archive.roots).format.requires == ()
        writer.commit([Run((group(1), group(2)))])
    assert Archive(archive.roots).format.requires == ("runs",)


# The keeper


@contextmanager
def keeping(archive: Archive, *, crashing: bool = False) -> Iterator[Keeper]:
    writer = archive.writer(TV, clock=Clock())
    writer.__enter__()
    try:
        yield Keeper(writer, RecorderState(broadcast=TV))
    finally:
        if crashing:
            crash(writer)
        else:
            writer.__exit__(None, None, None)


def small(*sequences: int, payload: bytes | None = None) -> list[Delivery]:
    return [delivery(number, payload, small=True) for number in sequences]


def test_a_group_of_a_run_that_comes_again_is_known(archive: Archive) -> None:
    with keeping(archive, crashing=True) as keeper:
        assert keeper.keep(small(0, 1, 2)) == 3
        assert keeper.keep(small(1)) == 0
    with keeping(archive) as keeper:
        assert keeper.keep([*small(2, 1, 3), delivery(0)]) == 1
        assert keeper.epoch == 1
    assert shape(archive) == [[0, 1, 2], 3]


def test_a_sequence_of_a_run_with_other_bytes_opens_an_epoch(archive: Archive) -> None:
    with keeping(archive, crashing=True) as keeper:
        keeper.keep(small(0, 1, 2))
    with keeping(archive) as keeper:
        keeper.keep(small(1, 2, payload=b"other"))
        assert keeper.epoch == 2
    assert shape(archive) == [[0, 1, 2], [1, 2]]


def test_the_beginning_of_a_group_of_a_run_is_known_and_another_beginning_is_not(
    archive: Archive,
) -> None:
    with keeping(archive) as keeper:
        keeper.keep(small(0, 1, 2))
        assert keeper.keep([delivery(1, b"fra", complete=False)]) == 0
        assert keeper.keep([delivery(1, b"xyz", complete=False)]) == 1
        assert keeper.epoch == 2


def test_a_run_supersedes_what_was_cut_short(archive: Archive) -> None:
    with keeping(archive) as keeper:
        keeper.keep([delivery(1, b"fra", complete=False)])
        assert keeper.keep(small(0, 1, 2)) == 3
    with closing(archive.reader()) as reader:
        track = reader.track(TV, AUDIO)
        assert track is not None
        rows = list(reader.groups(track, 0, 1 << 62))
    assert [(row.sequence, row.complete) for row in rows] == [(0, True), (1, True), (2, True)]
    assert shape(archive) == [1, [0, 1, 2]]


def test_what_waits_is_decided_about_in_its_turn(archive: Archive) -> None:
    with keeping(archive) as keeper:
        first, old, new = small(0)[0], delivery(0, track=VIDEO), delivery(0, b"new", track=VIDEO)
        # The epoch that the video opens is not that of audio which came before.
        keeper.keep([first, old, new], {0})
        keeper.keep([first, *small(1)])
    assert [(record.epoch) for record in records(archive) if isinstance(record, GroupRecord)] == [
        1,
        2,
    ]


def test_groups_stay_alone_where_the_archive_cannot_be_told(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Archive) -> None:
        raise DiskFullError("no")

    monkeypatch.setattr(Archive, "require_runs", refuse)
    with keeping(archive) as keeper:
        assert keeper.keep(small(0, 1)) == 2
    assert shape(archive) == [0, 1]


# The queue


class FakeMirror:
    trouble = ""

    def step(self, places: object) -> int:
        del places
        return 0


@pytest.fixture
def threads_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def inline(function: Callable[..., object], *arguments: object) -> object:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


async def feed(queue: CommitQueue, sequences: range, rate: float) -> None:
    for number in sequences:
        await queue.room()
        queue.put(delivery(number))
        await trio.sleep(1 / rate)


def queue_of(writer: BroadcastWriter, *, coalesce: bool = True) -> CommitQueue:
    state = RecorderState(broadcast=TV)
    return CommitQueue(
        Keeper(writer, state),
        writer,
        cast("Mirror", FakeMirror()),
        state,
        coalesce=coalesce,
    )


@pytest.mark.usefixtures("threads_take_no_time")
async def test_a_fast_track_is_kept_two_seconds_at_a_time_and_a_slow_one_group_by_group(
    archive: Archive, autojump_clock: MockClock
) -> None:
    with archive.writer(TV, clock=Clock()) as writer:
        queue = queue_of(writer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.run)
            await feed(queue, range(47 * 10), 47)
            await feed(queue, range(470, 530), 5)
            queue.close()
    found = shape(archive)
    runs = [item for item in found if isinstance(item, list)]
    assert 4 <= len(runs) <= 6
    assert all(80 <= len(run) <= 95 for run in runs[:4])
    alone = [item for item in found if isinstance(item, int)]
    assert len([number for number in alone if number < 470]) <= 21
    assert len([number for number in alone if number >= 470]) >= 50
    everything = sorted(alone + [number for run in runs for number in run])
    assert everything == [*range(530)]
    assert check(archive).sound


@pytest.mark.usefixtures("threads_take_no_time")
async def test_never_keeps_each_group_by_itself(
    archive: Archive, autojump_clock: MockClock
) -> None:
    with archive.writer(TV, clock=Clock()) as writer:
        queue = queue_of(writer, coalesce=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.run)
            await feed(queue, range(100), 47)
            queue.close()
    assert shape(archive) == list(range(100))


@pytest.mark.usefixtures("threads_take_no_time")
async def test_a_note_stands_behind_the_groups_that_came_before_it(
    archive: Archive, autojump_clock: MockClock
) -> None:
    with archive.writer(TV, clock=Clock()) as writer:
        queue = queue_of(writer)

        def note() -> None:
            writer.note_gap(AUDIO, epoch=1, start=NOON, end=NOON, reason="lost")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.run)
            await feed(queue, range(50), 47)
            queue.call(note)
            await feed(queue, range(50, 60), 47)
            queue.close()
    found = shape(archive)
    at = found.index("gap")
    before: list[object] = []
    for item in found[:at]:
        before += item if isinstance(item, list) else [item]
    assert set(before) == set(range(50))
