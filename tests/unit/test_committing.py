"""The queue between network and disk: its order, its bound, and its patience with disks."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from casfs.errors import DiskFullError, StorageError
from ingest.committing import CommitQueue
from ingest.keeper import Delivery, Keeper
from ingest.moq.events import GroupReceived
from ingest.state import RecorderState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from trio.testing import MockClock

    from casfs.archive import BroadcastWriter
    from casfs.index.mirror import Mirror
    from casfs.manifests.layout import JournalPlace


class FakeKeeper:
    """Notes what it is handed; fails as often as it is told."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.batches: list[int] = []
        self.failures = 0

    def keep(self, deliveries: Sequence[Delivery], held: Collection[int] = ()) -> int:
        if self.failures:
            self.failures -= 1
            raise DiskFullError("disk full")
        kept = [item.group.sequence for at, item in enumerate(deliveries) if at not in held]
        self.kept += kept
        self.batches.append(len(kept))
        return len(kept)


class FakeMirror:
    """An index that may never work."""

    def __init__(self) -> None:
        self.trouble = ""
        self.steps = 0

    def step(self, places: Iterable[JournalPlace] | None) -> int:
        assert places is None or list(places) == []
        self.steps += 1
        return 0


class FakeWriter:
    places: tuple[JournalPlace, ...] = ()


class Desk:
    """A queue with its surroundings."""

    def __init__(self, most_bytes: int = 1000) -> None:
        self.keeper = FakeKeeper()
        self.mirror = FakeMirror()
        self.state = RecorderState(broadcast="demo/tv")
        self.queue = CommitQueue(
            cast("Keeper", self.keeper),
            cast("BroadcastWriter", FakeWriter()),
            cast("Mirror", self.mirror),
            self.state,
            most_bytes=most_bytes,
        )


@pytest.fixture(autouse=True)
def threads_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def inline(function: Callable[..., object], *arguments: object) -> object:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


def delivery(sequence: int, size: int = 10) -> Delivery:
    received = GroupReceived(
        subscription=0,
        sequence=sequence,
        frames=(bytes(size),),
        timestamps=None,
        complete=True,
        reason="",
        received_start=0,
        received_end=0,
    )
    return Delivery("video0.m4s", received, None, 1, "", "")


async def test_everything_is_kept_in_its_order_and_many_share_a_batch(
    autojump_clock: MockClock,
) -> None:
    desk = Desk()
    for number in range(150):
        desk.queue.put(delivery(number))
    desk.queue.close()
    await desk.queue.run()
    assert desk.keeper.kept == list(range(150))
    assert len(desk.keeper.batches) < 10
    assert desk.state.pending_groups == 0


async def test_what_comes_without_a_pause_shares_batches_and_waits_for_that_a_moment(
    autojump_clock: MockClock,
) -> None:
    desk = Desk(most_bytes=1 << 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.queue.run)
        for number in range(100):
            desk.queue.put(delivery(number))
            await trio.sleep(0.01)
            assert number - len(desk.keeper.kept) < 10
        assert len(desk.keeper.batches) < 20
        desk.queue.close()
    assert desk.keeper.kept == list(range(100))


async def test_what_comes_after_a_pause_is_kept_at_once(autojump_clock: MockClock) -> None:
    desk = Desk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.queue.run)
        for number in range(3):
            await trio.sleep(0.2)
            desk.queue.put(delivery(number))
            await trio.testing.wait_all_tasks_blocked()
            assert desk.keeper.kept == list(range(number + 1))
        desk.queue.close()


async def test_a_batch_that_is_full_waits_for_no_more(autojump_clock: MockClock) -> None:
    desk = Desk(most_bytes=100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.queue.run)
        for number in range(3):
            begun = trio.current_time()
            desk.queue.put(delivery(number, size=100))
            await trio.testing.wait_all_tasks_blocked()
            assert desk.keeper.kept == list(range(number + 1))
            assert trio.current_time() == begun
        desk.queue.close()


async def test_a_note_comes_after_what_was_queued_before_it_and_before_what_came_later(
    autojump_clock: MockClock,
) -> None:
    desk = Desk()
    seen: list[list[int]] = []
    desk.queue.put(delivery(0))
    desk.queue.call(lambda: seen.append(list(desk.keeper.kept)))
    desk.queue.put(delivery(1))
    desk.queue.close()
    await desk.queue.run()
    assert seen == [[0]]
    assert desk.keeper.kept == [0, 1]


async def test_who_delivers_waits_while_the_queue_is_full(autojump_clock: MockClock) -> None:
    desk = Desk(most_bytes=100)
    desk.queue.put(delivery(0, size=100))
    with trio.move_on_after(60) as patience:
        await desk.queue.room()
    assert patience.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.queue.run)
        await desk.queue.room()
        assert desk.keeper.kept == [0]
        desk.queue.close()


async def test_a_failing_disk_is_tried_again_with_patience_and_in_order(
    autojump_clock: MockClock,
) -> None:
    desk = Desk()
    desk.keeper.failures = 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.queue.run)
        for number in range(3):
            desk.queue.put(delivery(number))
            await trio.sleep(0.1)
        assert "disk full" in desk.state.trouble
        assert desk.state.pending_groups == 3
        await trio.sleep(20)
        assert desk.keeper.kept == [0, 1, 2]
        assert desk.state.trouble == ""
        desk.queue.close()


async def test_a_failing_note_is_tried_again(autojump_clock: MockClock) -> None:
    desk = Desk()
    tries: list[int] = []

    def note() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise DiskFullError("disk full")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.queue.run)
        desk.queue.call(note)
        desk.queue.put(delivery(0))
        await trio.sleep(20)
        desk.queue.close()
    assert len(tries) == 3
    assert desk.keeper.kept == [0]


async def test_a_disk_that_fails_at_the_end_is_tried_once_more_and_then_said(
    autojump_clock: MockClock,
) -> None:
    desk = Desk()
    desk.keeper.failures = 1000
    desk.queue.put(delivery(0))

    async def close_soon() -> None:
        await trio.sleep(0.2)
        desk.queue.close()

    with pytest.RaisesGroup(StorageError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_soon)
            await desk.queue.run()
    assert trio.current_time() < 1
    assert desk.state.pending_groups == 1


async def test_an_index_that_fails_delays_no_commit(autojump_clock: MockClock) -> None:
    desk = Desk()
    desk.mirror.trouble = "the index is on fire"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.queue.run)
        for number in range(5):
            desk.queue.put(delivery(number))
            await trio.sleep(0.1)
        assert desk.keeper.kept == list(range(5))
        assert desk.state.index_trouble == "the index is on fire"
        desk.mirror.trouble = ""
        await trio.sleep(120)
        assert desk.state.index_trouble == ""
        desk.queue.close()
