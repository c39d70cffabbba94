"""The recorder against a scripted relay, in trio's own time, into a real archive."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, TypeVar

import msgspec
import pytest
import trio
from msgspec.structs import replace

from casfs.archive import Archive, BroadcastWriter
from casfs.errors import (
    CertificateError,
    ConnectError,
    ConnectionLostError,
    DiskFullError,
    RefusedError,
    StorageError,
)
from casfs.manifests.record import AliveRecord, EpochRecord, GapRecord, GroupRecord, Record
from casfs.manifests.runs import kept_groups
from casfs.names import encode_name
from ingest.moq.events import (
    AnnouncementsEnded,
    BroadcastAnnounced,
    BroadcastEnded,
    FetchFailed,
    GoawayReceived,
    GroupReceived,
    GroupsDropped,
    TrackAccepted,
    TrackEnded,
    TrackRefused,
)
from ingest.recorder import MAX_LATENCY, Recorder, RecordOptions
from ingest.state import RecorderState
from tests.fakes.session import FakeRelay, FakeSession
from tests.fakes.store import NOON, check, journal_directory, make_archive, read_journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from casfs.archive import Committed, Group

R = TypeVar("R", bound=Record)

TV = "demo/tv"
CATALOG = "catalog.json"
VIDEO, AUDIO = "video0.m4s", "audio0.m4s"
LOST = ConnectionLostError("the relay is gone")
FULL = DiskFullError("disk full while storing")


def utc() -> int:
    return NOON + int(trio.current_time() * 1e9)


@pytest.fixture(autouse=True)
def threads_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what belongs into threads in line: the clock would jump while they are at work."""

    async def inline(function: Callable[..., object], *arguments: object) -> object:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


class Studio:
    """A recorder at work."""

    def __init__(
        self, archive: Archive, recorder: Recorder, state: RecorderState, writer: BroadcastWriter
    ) -> None:
        self.archive = archive
        self.recorder = recorder
        self.state = state
        self.writer = writer
        self.done = trio.Event()

    def records(self, kind: type[R], track: str = "@broadcast") -> list[R]:
        name = track if track == "@broadcast" else encode_name(track)
        lines, _ = read_journal(journal_directory(self.archive, encode_name(TV), name))
        return [line.record for line in lines if isinstance(line.record, kind)]

    def sequences(self, track: str = VIDEO) -> list[int]:
        records = self.records(Record, track)
        return [int(kept.record.sequence) for record in records for kept in kept_groups(record)]

    def gaps(self, track: str = VIDEO) -> list[tuple[str | None, str | None]]:
        return [(gap.first, gap.last) for gap in self.records(GapRecord, track)]

    async def recorded(self, *sequences: int, track: str = VIDEO) -> None:
        """Wait until exactly these groups are recorded, in any order."""
        while sorted(self.sequences(track)) != sorted(sequences):
            assert len(self.sequences(track)) <= len(sequences), self.sequences(track)
            await trio.sleep(0.01)


async def until(condition: Callable[[], object]) -> None:
    """Wait, in trio's own time, until ``condition`` holds."""
    while not condition():  # noqa: ASYNC110  what it looks at has no event
        await trio.sleep(0.01)


@asynccontextmanager
async def recording(
    archive: Archive,
    relay: FakeRelay,
    *tracks: str,
    fail: bool = False,
    choose: bool = False,
    slept: Callable[[], float] = lambda: 0.0,
) -> AsyncIterator[Studio]:
    """Record until the block ends; with ``fail`` the test looks at how it ends itself."""
    named = tracks or (() if choose else (VIDEO,))
    options = RecordOptions(url="https://relay.example/secret", broadcast=TV, tracks=named)
    state = RecorderState(broadcast=TV)
    with closing(archive.mirror()) as mirror, archive.writer(TV, clock=utc) as writer:
        recorder = Recorder(
            options,
            writer,
            mirror,
            state,
            clock=utc,
            connect=relay,  # type: ignore[arg-type]  # a fake
            slept=slept,
        )
        studio = Studio(archive, recorder, state, writer)
        if fail:
            yield studio
            return
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await recorder.run()
                studio.done.set()

            nursery.start_soon(run)
            yield studio
            recorder.stop()
    assert check(archive).sound


def group(
    session: FakeSession,
    sequence: int,
    payload: bytes | None = None,
    *,
    track: str = VIDEO,
    complete: bool = True,
    subscription: int | None = None,
) -> GroupReceived:
    data = b"%s %d" % (track.encode(), sequence) if payload is None else payload
    return GroupReceived(
        subscription=session.number(track) if subscription is None else subscription,
        sequence=sequence,
        frames=(data,),
        timestamps=(sequence,),
        complete=complete,
        reason="" if complete else "reset 7",
        received_start=utc(),
        received_end=utc(),
    )


async def on_air(relay: FakeRelay, tracks: int = 1, *, before: int = 0) -> FakeSession:
    """Wait for a session, announce the broadcast in it, and wait for the subscriptions."""
    session = await relay.session()
    session.tell(BroadcastAnnounced(TV, 1))
    await session.subscriptions(before + tracks)
    return session


# Subscribing


async def test_it_waits_for_the_broadcast_and_asks_for_all_that_the_relay_still_has(
    autojump_clock: MockClock,
    archive: Archive,
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay, "init.mp4", VIDEO, AUDIO) as studio:
        session = await relay.session()
        assert session.announced == [TV]
        session.tell(BroadcastAnnounced("demo/tv/other", 1))
        await trio.sleep(1)
        assert session.asked == []
        assert studio.state.status == "waiting for the broadcast"
        session.tell(BroadcastAnnounced(TV, 1))
        asked = await session.subscriptions(3)
        assert {item.broadcast for item in asked} == {TV}
        assert {item.max_latency for item in asked} == {MAX_LATENCY}
        priority = {item.track: item.priority for item in asked}
        assert priority["init.mp4"] > priority[AUDIO] > priority[VIDEO]
        session.tell(TrackAccepted(session.number(VIDEO), 90_000), group(session, 4))
        await studio.recorded(4)
        (record,) = studio.records(GroupRecord, VIDEO)
        assert (record.timescale, record.frame_timestamps) == ("90000", ["4"])
        assert (record.relay, record.protocol) == (session.origin, session.protocol)
        assert "secret" not in repr(record)


async def test_a_relay_that_announces_nothing_is_asked_all_the_same(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await relay.session()
        await session.subscriptions(1)
        session.tell(group(session, 0), group(session, 1))
        await studio.recorded(0, 1)
        # And it is not waited for for ever once it has been heard and falls silent.
        await session.closed.wait()
        assert (await relay.session()).announced == [TV]


async def test_a_relay_that_has_nothing_is_waited_for_in_the_same_session(
    autojump_clock: MockClock,
    archive: Archive,
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await relay.session()
        await trio.sleep(600)
        assert not session.closed.is_set()
        assert studio.state.connections == 1
        assert not studio.state.announced


async def test_a_refused_track_is_information_and_is_asked_for_again(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay, VIDEO, AUDIO) as studio:
        session = await on_air(relay, 2)
        refused = session.number(AUDIO)
        session.tell(TrackRefused(refused, 51), group(session, 0))
        await studio.recorded(0)
        assert studio.state.track(AUDIO).status == "refused"
        assert studio.state.track(VIDEO).status == "subscribed"
        asked = await session.subscriptions(3)
        assert asked[2].track == AUDIO
        session.tell(group(session, 0, track=AUDIO))
        await studio.recorded(0, track=AUDIO)
        assert studio.state.track(AUDIO).status == "subscribed"


async def test_groups_that_come_behind_the_end_of_their_track_are_kept(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        number = session.number(VIDEO)
        session.tell(group(session, 0), TrackEnded(number))
        await studio.recorded(0)
        session.tell(group(session, 1, subscription=number))
        await studio.recorded(0, 1)
        assert studio.state.track(VIDEO).status == "ended"


async def test_a_new_announcement_is_a_new_subscription_and_the_old_one_is_given_up_later(
    autojump_clock: MockClock,
    archive: Archive,
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        old = session.number(VIDEO)
        session.tell(group(session, 7))
        session.open.append(group(session, 8, b"cut", complete=False))
        session.tell(BroadcastAnnounced(TV, 2))
        await session.subscriptions(2)
        session.tell(group(session, 7, b"another publisher"))
        session.tell(group(session, 9, subscription=old))
        while not session.given_up:
            session.tell(group(session, 7, b"another publisher"))
            await trio.sleep(1)
        assert session.given_up == [old]
        await studio.recorded(7, 7, 8, 9)
        found = {
            (record.epoch, record.sequence): record for record in studio.records(GroupRecord, VIDEO)
        }
        # What the old publisher still had belongs to its own epoch.
        assert found.keys() == {(1, "7"), (2, "7"), (1, "8"), (1, "9")}
        assert not found[1, "8"].complete
        assert [record.epoch for record in studio.records(EpochRecord)] == [2]


# Losing the relay


async def test_the_relay_is_tried_again_and_again_less_and_less_often(
    autojump_clock: MockClock, archive: Archive
) -> None:
    failures = [ConnectError("nothing listens there") for _ in range(8)]
    relay = FakeRelay(*failures)
    async with recording(archive, relay) as studio:
        await on_air(relay)
        assert studio.recorder.last_error is None
    pauses = [later - earlier for earlier, later in itertools.pairwise(relay.tries)]
    for pause, base in zip(pauses, (1, 2, 4, 8, 16, 30, 30, 30), strict=True):
        assert 0.75 * base <= pause <= 1.25 * base


async def test_a_session_that_brought_groups_ends_the_patience(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay(*[ConnectError("nothing listens there")] * 5)
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.tell(group(session, 0))
        await studio.recorded(0)
        lost = trio.current_time()
        session.lose(LOST)
        await relay.session()
        assert relay.tries[-1] - lost < 1.3


async def test_a_certificate_that_is_not_accepted_ends_it_at_once_but_not_later(
    autojump_clock: MockClock,
    archive: Archive,
) -> None:
    relay = FakeRelay(CertificateError("not accepted"))
    async with recording(archive, relay, fail=True) as studio:
        with pytest.raises(CertificateError):
            await studio.recorder.run()
    relay = FakeRelay(None, CertificateError("expired"))
    async with recording(archive, relay) as studio:
        (await relay.session()).lose(LOST)
        session = await on_air(relay)
        session.tell(group(session, 0))
        await studio.recorded(0)


async def test_silence_in_spite_of_an_announcement_is_a_lost_session(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        first = await on_air(relay)
        first.tell(group(first, 0))
        await studio.recorded(0)
        begun = trio.current_time()
        await first.closed.wait()
        assert 60 <= trio.current_time() - begun < 63
        second = await on_air(relay)
        second.tell(BroadcastEnded(TV))
        await trio.sleep(600)  # nothing to wait for: silence is in order
        assert not second.closed.is_set()


async def test_all_that_a_lost_session_still_held_is_kept(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay, VIDEO, AUDIO) as studio:
        session = await on_air(relay, 2)
        session.tell(
            *(group(session, number) for number in range(200)),
            TrackAccepted(session.number(AUDIO), 48_000),
            group(session, 0, track=AUDIO),
            group(session, 200, b"cut", complete=False),
        )
        session.lose(LOST)
        await studio.recorded(*range(201))
        await studio.recorded(0, track=AUDIO)
        (sound,) = studio.records(GroupRecord, AUDIO)
        assert sound.timescale == "48000"


async def test_stop_keeps_what_waits_in_the_session_and_what_is_open(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.open.append(group(session, 3, b"begun"))
        session.tell(*(group(session, number) for number in range(3)))
        studio.recorder.stop()
        await studio.done.wait()
        assert sorted(studio.sequences()) == [0, 1, 2, 3]
        records = {record.sequence: record for record in studio.records(GroupRecord, VIDEO)}
        assert not records["3"].complete
        assert records["3"].reason == "the recorder stopped"
        assert studio.state.pending_groups == 0


async def test_a_failure_of_our_own_loses_nothing_that_had_come(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()

    async def script() -> None:
        session = await on_air(relay)
        session.tell(*(group(session, number) for number in range(5)))
        session.lose(ZeroDivisionError("a bug"))

    async with recording(archive, relay, fail=True) as studio, trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(ZeroDivisionError):
            await studio.recorder.run()
        assert studio.sequences() == [0, 1, 2, 3, 4]


# Gaps


async def test_what_was_missed_while_disconnected_is_a_gap_once_redelivery_is_over(
    autojump_clock: MockClock,
    archive: Archive,
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.tell(*(group(session, number) for number in range(5)))
        await studio.recorded(*range(5))
        session.lose(LOST)
        session = await on_air(relay)
        session.tell(group(session, 9), group(session, 8))
        await trio.sleep(3)
        assert studio.gaps() == []
        session.tell(group(session, 5), group(session, 4), group(session, 3))
        await trio.sleep(5)
        assert studio.gaps() == [("6", "7")]
        assert sorted(studio.sequences()) == [0, 1, 2, 3, 4, 5, 8, 9]
        assert studio.state.track(VIDEO).redelivered == 2
        assert studio.state.gaps == 1
        # Sequences that are skipped while we listen are the publisher's own affair.
        session.tell(group(session, 20))
        await trio.sleep(30)
        assert len(studio.gaps()) == 1


async def test_two_losses_in_a_row_hide_no_gap(autojump_clock: MockClock, archive: Archive) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.tell(group(session, 0))
        await studio.recorded(0)
        for sequence in (5, 10):
            session.lose(LOST)
            session = await on_air(relay)
            session.tell(group(session, sequence))
        await trio.sleep(10)
        assert studio.gaps() == [("1", "4"), ("6", "9")]


async def test_a_track_that_never_came_back_is_missed_from_its_last_group_on(
    autojump_clock: MockClock,
    archive: Archive,
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.tell(group(session, 0))
        await studio.recorded(0)
        session.lose(LOST)
        await relay.session()
    assert studio.gaps() == [("1", None)]


async def test_a_clean_recording_has_no_gaps(autojump_clock: MockClock, archive: Archive) -> None:
    for first in (0, 3):
        relay = FakeRelay()
        async with recording(archive, relay) as studio:
            session = await on_air(relay)
            session.tell(*(group(session, number) for number in range(first + 3)))
            await studio.recorded(*range(first + 3))
        assert studio.gaps() == []
        assert studio.state.gaps == 0


async def test_what_came_while_no_recorder_ran_is_a_gap(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.tell(group(session, 0))
        await studio.recorded(0)
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.tell(group(session, 4))
        await studio.recorded(0, 4)
    assert studio.gaps() == [("1", "3")]
    (gap,) = studio.records(GapRecord, VIDEO)
    assert gap.reason == "the recorder was not running"


async def test_groups_that_the_relay_drops_are_a_gap(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.tell(group(session, 0), group(session, 2))
        session.tell(GroupsDropped(session.number(VIDEO), 0, 4, 7))
        await trio.sleep(1)
        assert studio.gaps() == [("1", "1"), ("3", "4")]


# Silence and long groups


async def test_silence_is_written_down(autojump_clock: MockClock, archive: Archive) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        await trio.sleep(59)
        session.tell(BroadcastEnded(TV))
        await trio.sleep(130)
        alive = studio.records(AliveRecord)
        assert len(alive) >= 2
        assert all(record.connected for record in alive)


async def test_a_group_that_stays_open_is_kept_as_far_as_it_came_and_superseded(
    autojump_clock: MockClock,
    archive: Archive,
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        opened = group(session, 0, b"begun")
        session.open.append(opened)
        for _ in range(70):
            session.tell(group(session, 1))
            await trio.sleep(1)
        (so_far,) = (r for r in studio.records(GroupRecord, VIDEO) if r.sequence == "0")
        assert not so_far.complete
        assert so_far.reason == "still open"
        assert (studio.state.groups, studio.state.track(VIDEO).incomplete) == (2, 1)
        session.open.clear()
        session.tell(replace(opened, frames=(b"begun", b" and done"), timestamps=(0, 1)))
        await trio.sleep(1)
        records = [r for r in studio.records(GroupRecord, VIDEO) if r.sequence == "0"]
        assert [r.complete for r in records] == [False, True]
        assert (studio.state.groups, studio.state.track(VIDEO).incomplete) == (2, 0)
        assert studio.state.track(VIDEO).bytes == len(b"begun and done") + records_size(studio)


def records_size(studio: Studio) -> int:
    return sum(r.size for r in studio.records(GroupRecord, VIDEO) if r.sequence == "1")


# Disks


class FailingCommits:
    """Lets the next commits of a writer fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.tries = 0
        commit = BroadcastWriter.commit

        def sometimes(writer: BroadcastWriter, groups: Sequence[Group]) -> list[Committed]:
            self.tries += 1
            if self.left:
                self.left -= 1
                raise FULL
            return commit(writer, groups)

        monkeypatch.setattr(BroadcastWriter, "commit", sometimes)


async def test_a_full_disk_is_waited_for_and_nothing_is_lost_nor_taken_for_something_else(
    autojump_clock: MockClock, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = FakeRelay()
    disk = FailingCommits(monkeypatch)
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.tell(group(session, 3), group(session, 4))
        await studio.recorded(3, 4)
        disk.left = 4
        # The end of one publisher and the beginning of the next, all in one batch.
        session.tell(group(session, 5), group(session, 3, b"other"), group(session, 5, b"new"))
        await until(lambda: studio.state.trouble)
        assert studio.state.pending_groups == 3
        session.tell(group(session, 6))
        await studio.recorded(3, 4, 5, 3, 5, 6)
        assert studio.state.trouble == ""
        assert studio.state.pending_groups == 0
    kept = [(r.epoch, int(r.sequence)) for r in studio.records(GroupRecord, VIDEO)]
    assert kept == [(1, 3), (1, 4), (1, 5), (2, 3), (2, 5), (2, 6)]
    assert [record.epoch for record in studio.records(EpochRecord)] == [2]


async def test_a_disk_that_is_still_full_at_the_end_is_an_error(
    autojump_clock: MockClock, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = FakeRelay()
    disk = FailingCommits(monkeypatch)
    async with recording(archive, relay, fail=True) as studio, trio.open_nursery() as nursery:

        async def script() -> None:
            session = await on_air(relay)
            disk.left = 1000
            session.tell(group(session, 0))
            await until(lambda: disk.tries >= 3)
            studio.recorder.stop()

        nursery.start_soon(script)
        with pytest.raises(StorageError):
            await studio.recorder.run()
    assert studio.state.pending_groups == 1


# Tracks that a catalog names


async def test_tracks_are_added_as_the_catalog_names_them_also_while_it_is_open(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay, choose=True) as studio:
        session = await on_air(relay, 4)
        session.open.append(group(session, 0, named("0.avc3"), track=CATALOG, complete=False))
        await session.subscriptions(5)
        assert session.asked[-1].track == "0.avc3"
        session.tell(group(session, 5, track="0.avc3"))
        await studio.recorded(5, track="0.avc3")
        session.open[0] = replace(
            session.open[0], frames=(named("0.avc3"), named("1.aac", kind="audio"))
        )
        await session.subscriptions(6)
        session.tell(group(session, 0, named("0.avc3"), track=CATALOG))
        await studio.recorded(0, track=CATALOG)
        # Another session asks for all of them from the start.
        session.lose(LOST)
        asked = (await (await on_air(relay, 6)).subscriptions(6))[-6:]
        assert {item.track for item in asked} >= {CATALOG, "0.avc3", "1.aac"}


async def test_a_track_that_was_asked_for_too_early_is_asked_for_when_the_catalog_names_it(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay, choose=True) as studio:
        session = await on_air(relay, 4)
        session.tell(group(session, 0, named("0.avc3"), track=CATALOG))
        await session.subscriptions(5)
        session.tell(group(session, 0, track="0.avc3"))
        await studio.recorded(0, track="0.avc3")
        # The publisher begins anew, and makes its tracks only as media comes.
        session.tell(TrackEnded(session.number("0.avc3")))
        session.tell(BroadcastAnnounced(TV, 2))
        asked = await session.subscriptions(10)
        early = next(item for item in reversed(asked) if item.track == "0.avc3")
        session.tell(TrackRefused(early.number, 51))
        session.tell(group(session, 1, named("0.avc3"), track=CATALOG))
        began = trio.current_time()
        asked = await session.subscriptions(11)
        assert trio.current_time() - began < 3
        assert asked[10].track == "0.avc3"
        # Once: a relay that names and refuses it for ever does not keep us busy.
        session.tell(TrackRefused(asked[10].number, 51))
        session.tell(group(session, 2, named("0.avc3"), track=CATALOG))
        await studio.recorded(0, 1, 2, track=CATALOG)
        await trio.sleep(5)
        assert len(session.asked) == 11


async def test_defaults_that_were_refused_are_left_alone_once_a_catalog_names_tracks(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay, choose=True) as studio:
        session = await on_air(relay, 4)
        session.tell(TrackRefused(session.number(VIDEO), 51))
        session.tell(group(session, 0, named("0.avc3"), track=CATALOG))
        await studio.recorded(0, track=CATALOG)
        await trio.sleep(25)
        assert [item.track for item in session.asked[4:]] == ["0.avc3"]


async def test_other_catalogs_are_asked_for_where_the_usual_one_is_refused_or_silent(
    autojump_clock: MockClock, archive: Archive
) -> None:
    for refuses in (True, False):
        relay = FakeRelay()
        async with recording(archive, relay, choose=True) as studio:
            session = await on_air(relay, 4)
            if refuses:
                session.tell(TrackRefused(session.number(CATALOG), 51))
            await session.subscriptions(6)
            assert {item.track for item in session.asked[4:6]} == {"catalog", ".catalog"}
            track = {"name": f"1.m4s{refuses}", "initTrack": "0.mp4"}
            catalog = msgspec.json.encode({"tracks": [track]})
            session.tell(group(session, 0, catalog, track=".catalog"))
            await until(lambda: {"0.mp4", track["name"]} <= {a.track for a in session.asked})  # noqa: B023
            assert studio.state.track(".catalog").status == "subscribed"


# Asking once more


async def test_a_group_that_was_cut_is_fetched_before_it_is_recorded_as_such(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.can_fetch = True
        number = session.number(VIDEO)
        session.tell(group(session, 4, b"da", complete=False))
        session.tell(group(session, 5, b"da", complete=False))
        await until(lambda: session.fetched == [(number, 4), (number, 5)])
        session.tell(replace(group(session, 4, b"data"), fetched=True))
        while len(studio.sequences()) < 2:
            session.tell(FetchFailed(number, 5, 1))
            await trio.sleep(1)
        records = {record.sequence: record for record in studio.records(GroupRecord, VIDEO)}
        assert records["4"].complete
        assert (records["5"].complete, records["5"].size) == (False, 2)


@pytest.mark.parametrize("end", ["stopped", "lost", "left"])
async def test_a_cut_group_that_waits_for_its_fetch_is_kept_whatever_ends_the_session(
    end: str, autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.can_fetch = True
        session.tell(group(session, 4, b"begun", complete=False))
        await until(lambda: session.fetched)
        assert studio.sequences() == []  # it is held back, and no answer comes
        if end == "stopped":
            studio.recorder.stop()
            await studio.done.wait()
        elif end == "lost":
            session.lose(LOST)
        else:
            session.tell(GoawayReceived("", timeout=1))
        await studio.recorded(4)
        (kept,) = studio.records(GroupRecord, VIDEO)
        assert (kept.complete, kept.size) == (False, 5)


async def test_what_a_first_backlog_left_out_is_asked_for_once_and_no_gap(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.can_fetch = True
        session.tell(*(group(session, sequence) for sequence in (9, 8, 7, 4, 3)))
        number = session.number(VIDEO)
        await until(lambda: len(session.fetched) == 2)
        assert session.fetched == [(number, sequence) for sequence in (6, 5)]
        session.tell(replace(group(session, 6), fetched=True))
        session.tell(FetchFailed(number, 5, 1))
        await studio.recorded(3, 4, 6, 7, 8, 9)
        await trio.sleep(40)
        assert len(session.fetched) == 2
    assert studio.gaps() == []


async def test_what_redelivery_left_out_is_fetched_before_it_is_a_gap(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.tell(group(session, 0))
        await studio.recorded(0)
        session.lose(LOST)
        session = await on_air(relay)
        session.can_fetch = True
        number = session.number(VIDEO)
        session.tell(group(session, 5))
        await until(lambda: len(session.fetched) == 4)
        assert session.fetched == [(number, sequence) for sequence in (4, 3, 2, 1)]
        session.tell(replace(group(session, 3), fetched=True))
        session.tell(*(FetchFailed(number, sequence, 1) for sequence in (4, 2, 1)))
        await until(studio.gaps)
        assert studio.gaps() == [("1", "2"), ("4", "4")]
        assert sorted(studio.sequences()) == [0, 3, 5]


# Being asked to leave


async def test_a_relay_that_asks_us_to_leave_is_left_without_a_gap(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        old = await on_air(relay)
        old.tell(group(old, 0))
        await studio.recorded(0)
        old.tell(GoawayReceived("https://other.example/?jwt=theirs"))
        new = await on_air(relay)
        old.tell(group(old, 1))
        new.tell(group(new, 1), group(new, 2))
        await studio.recorded(0, 1, 2)
        await old.closed.wait()
        new.tell(group(new, 3))
        await studio.recorded(0, 1, 2, 3)
        await trio.sleep(20)
        assert not new.closed.is_set()
        assert studio.gaps() == []
        assert relay.urls == ["https://relay.example/secret", "https://other.example/?jwt=theirs"]
        assert len(old.asked) == 1
        # Once that one is lost, the first one is where to begin.
        new.lose(LOST)
        await on_air(relay)
        assert relay.urls[2] == "https://relay.example/secret"


async def test_a_relay_that_leads_nowhere_is_left_for_the_first_one(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay(None, ConnectError("nothing listens there"))
    async with recording(archive, relay) as studio:
        old = await on_air(relay)
        old.tell(group(old, 0), GoawayReceived("https://other.example/"))
        await until(lambda: len(relay.urls) == 3)
        assert relay.urls[2] == relay.urls[0] != relay.urls[1]
        assert not old.closed.is_set()
        new = await on_air(relay)
        new.tell(group(new, 1))
        await studio.recorded(0, 1)


async def test_a_relay_that_sends_us_round_and_round_does_not_keep_us_busy(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay):
        began = trio.current_time()
        for _ in range(30):
            session = await relay.session()
            session.tell(GoawayReceived("https://relay.example/again"))
        assert trio.current_time() - began > 10


# Survival


async def test_a_relay_that_refuses_us_is_tried_slowly(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay(*(RefusedError("unauthorized") for _ in range(6)))
    async with recording(archive, relay) as studio:
        await until(lambda: len(relay.tries) == 2)
        assert "unauthorized" in studio.state.relay_trouble
        await on_air(relay)
        assert relay.tries[-1] > 0.75 * (10 + 20 + 40 + 80 + 160 + 300)


async def test_announcements_that_end_alone_are_asked_for_again(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay):
        session = await relay.session()
        session.tell(AnnouncementsEnded(TV))
        await until(lambda: session.announced == [TV, TV])
        await trio.sleep(30)
        assert session.announced == [TV, TV]


async def test_a_stalled_publisher_is_asked_for_anew_before_the_session_is_given_up(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay) as studio:
        session = await on_air(relay)
        session.tell(group(session, 0))
        await session.subscriptions(2)
        session.tell(group(session, 1))
        await studio.recorded(0, 1)
        assert studio.state.connections == 1
        assert studio.gaps() == []


async def test_a_duplicate_subscription_gives_up_the_older_one_and_asks_soon(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    async with recording(archive, relay):
        session = await on_air(relay)
        first = session.number(VIDEO)
        session.tell(group(session, 0), BroadcastAnnounced(TV, 2))
        await session.subscriptions(2)
        before = trio.current_time()
        session.tell(TrackRefused(session.number(VIDEO), 0x19))
        await session.subscriptions(3)
        assert session.given_up[0] == first
        assert trio.current_time() - before < 4


async def test_a_machine_that_slept_connects_again_and_the_gap_says_so(
    autojump_clock: MockClock, archive: Archive
) -> None:
    relay = FakeRelay()
    naps = [0.0]
    async with recording(archive, relay, slept=lambda: naps.pop() if naps else 0.0) as studio:
        session = await on_air(relay)
        session.tell(group(session, 0))
        await studio.recorded(0)
        naps.append(3600.0)
        await session.closed.wait()
        session = await on_air(relay)
        session.tell(group(session, 9))
        await until(studio.gaps)
        assert studio.gaps() == [("1", "8")]
        (gap,) = studio.records(GapRecord, VIDEO)
        assert gap.reason == "the machine slept"


def named(*tracks: str, kind: str = "video") -> bytes:
    return msgspec.json.encode({kind: {"renditions": {track: {} for track in tracks}}})
