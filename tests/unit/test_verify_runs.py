"""What a run looks at: levels, ages, budgets, samples, selections; and what it remembers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from casfs.errors import NotFoundError, StorageError, UsageError, WriterLockedError
from casfs.expiries import ExpiryWriter, lock_expiries
from casfs.index.rows import BroadcastRow
from casfs.manifests.expiry import ExpiredHour
from casfs.objects.local import LocalStore
from casfs.retention import Decision
from casfs.timestamps import HOUR
from casfs.verify import Level, Plan, VerifyState, default_directory, open_state, verify
from casfs.verify.pace import Throttle
from tests.fakes.store import (
    NOON,
    Clock,
    flip_bit,
    group,
    journal_directory,
    make_archive,
    object_file,
    segments,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from casfs.archive import Archive
    from casfs.digest import Digest
    from casfs.verify import Report

COUNT = 100
LEVELS: tuple[Level, ...] = ("quick", "full", "manifests")
DAY = 86400.0


class Reads:
    """Which objects are opened; a clock that stands at how many were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Digest] = []
        real = LocalStore.open

        def note(store: LocalStore, digest: Digest) -> int:
            self.seen.append(digest)
            return real(store, digest)

        monkeypatch.setattr(LocalStore, "open", note)

    def clock(self) -> float:
        return float(len(self.seen))

    def take(self) -> list[Digest]:
        seen, self.seen[:] = list(self.seen), []
        return seen


class Place:
    """An archive, a state directory, and a wall clock that passes only when told."""

    def __init__(self, directory: Path, reads: Reads) -> None:
        self.archive = make_archive(directory / "archive")
        self.directory = directory / "state"
        self.reads = reads
        self.now = 2e9

    def run(self, plan: Plan, threads: int = 1) -> Report:
        with open_state(
            str(self.directory), self.archive.roots, self.archive.store_id, needed=True
        ) as state:
            return verify(
                self.archive,
                plan,
                state=state,
                threads=threads,
                clock=lambda: self.now,
                monotonic=self.reads.clock,
            )

    def files(self) -> list[Path]:
        return sorted(path for path in self.directory.rglob("*") if path.is_file())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def place(tmp_path: Path, reads: Reads) -> Place:
    place = Place(tmp_path, reads)
    with place.archive.writer("news", clock=Clock()) as writer:
        writer.commit([group(number) for number in range(COUNT)])
    return place


def digests(numbers: range = range(COUNT)) -> set[Digest]:
    return {digest_of(b"".join(group(number).frames)) for number in numbers}


# Levels


def test_quick_reads_nothing_and_finds_what_is_missing_or_cut(place: Place) -> None:
    archive = place.archive
    os.unlink(object_file(archive, group(1)))
    os.truncate(object_file(archive, group(2)), 3)
    flip_bit(object_file(archive, group(3)), 1)
    report = place.run(Plan(level="quick"))
    assert [found.groups[0].sequence for found in report.missing] == ["1"]
    assert [found.groups[0].sequence for found in report.damaged] == ["2"]
    assert (report.level, report.objects, report.bytes) == ("quick", COUNT, 0)
    assert place.reads.take() == []
    assert place.files() == []


def test_manifests_alone_are_read_without_the_objects(place: Place) -> None:
    archive = place.archive
    os.unlink(object_file(archive, group(1)))
    assert place.run(Plan(level="manifests")).sound
    (path,) = segments(journal_directory(archive, "news", "video0.m4s"))
    flip_bit(path, 50)
    report = place.run(Plan(level="manifests"))
    assert {error.journal for error in report.manifest_errors} == {"news/video0.m4s"}
    assert (report.level, report.objects, report.unreferenced) == ("manifests", 0, None)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(level="quick", from_disk=True),
        Plan(level="quick", bandwidth=1e6),
        Plan(level="quick", max_age=1),
        Plan(level="quick", max_duration=1),
        Plan(level="manifests", sample=0.5),
        Plan(level="manifests", broadcast="news"),
        Plan(level="manifests", quarantine=True),
        Plan(level="manifests", repair_from=("/other",)),
        Plan(since=2, until=2),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(place: Place, plan: Plan) -> None:
    with pytest.raises(UsageError):
        place.run(plan)


# Age


def test_what_was_found_sound_lately_is_left_out(place: Place) -> None:
    place.run(Plan())
    place.reads.take()
    place.now += 29 * DAY
    report = place.run(Plan(max_age=30 * DAY))
    assert (report.objects, report.skipped, report.complete) == (0, COUNT, True)
    assert report.unreferenced == 0
    assert place.reads.take() == []
    place.now += 2 * DAY
    report = place.run(Plan(max_age=30 * DAY))
    assert (report.objects, report.skipped) == (COUNT, 0)


def test_without_an_age_everything_is_read_again(place: Place) -> None:
    place.run(Plan())
    place.reads.take()
    assert place.run(Plan()).objects == COUNT


def test_what_came_since_is_looked_at(place: Place) -> None:
    place.run(Plan())
    with place.archive.writer("news", clock=Clock(NOON + HOUR)) as writer:
        writer.commit([group(COUNT)])
    place.reads.take()
    assert place.run(Plan(max_age=DAY)).objects == 1
    assert set(place.reads.take()) == digests(range(COUNT, COUNT + 1))


def test_what_is_missing_is_found_at_any_age(place: Place) -> None:
    place.run(Plan())
    os.unlink(object_file(place.archive, group(5)))
    report = place.run(Plan(max_age=DAY))
    assert [found.groups[0].sequence for found in report.missing] == ["5"]


def test_what_was_damaged_is_due_again(place: Place) -> None:
    flip_bit(object_file(place.archive, group(5)), 1)
    reports = [place.run(Plan(max_age=DAY)) for _ in range(2)]
    for report in reports:
        assert [found.groups[0].sequence for found in report.damaged] == ["5"]
    assert [report.objects for report in reports] == [COUNT, 1]


def test_a_clock_that_was_set_back_makes_everything_due(place: Place) -> None:
    place.run(Plan())
    place.now -= DAY
    assert place.run(Plan(max_age=365 * DAY)).objects == COUNT


def test_the_shards_that_were_not_read_for_longest_come_first(place: Place) -> None:
    place.run(Plan(max_duration=30))
    first = place.reads.take()
    place.now += DAY
    place.run(Plan(max_duration=70))
    place.now += DAY
    place.reads.take()
    place.run(Plan(max_age=DAY / 2, max_duration=20))
    again = {digest[:2] for digest in place.reads.take()}
    assert again <= {digest[:2] for digest in first}


# Budget


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("pause", [0.0, DAY])
def test_runs_that_stop_cover_everything_exactly_once(
    place: Place, threads: int, pause: float
) -> None:
    seen: list[Digest] = []
    while True:
        assert len(seen) < COUNT
        place.reads.take()
        report = place.run(Plan(max_duration=7), threads)
        seen += place.reads.take()
        place.now += pause
        assert report.sound
        assert report.objects + report.skipped == COUNT
        if report.complete:
            break
        assert report.unreferenced is None
    assert sorted(seen) == sorted(digests())
    assert report.unreferenced == 0
    # The next one begins anew.
    place.now += 1
    assert place.run(Plan(max_duration=7)).objects > 0


def test_a_run_stops_when_its_time_is_over(place: Place) -> None:
    report = place.run(Plan(max_duration=7))
    assert (report.objects, report.skipped) == (7, COUNT - 7)
    assert not report.complete
    assert report.sound


def test_a_run_without_any_time_still_comes_forward(place: Place) -> None:
    with open_state(
        str(place.directory), place.archive.roots, place.archive.store_id, needed=True
    ) as state:
        late = iter(range(0, 10**9, 1000))
        report = verify(
            place.archive,
            Plan(max_duration=1),
            state=state,
            threads=1,
            monotonic=lambda: float(next(late)),
        )
    assert report.objects == 1


def test_age_and_budget_together_come_round(place: Place) -> None:
    seen: list[Digest] = []
    for _ in range(5):
        place.reads.take()
        place.run(Plan(max_age=10 * DAY, max_duration=25))
        seen += place.reads.take()
        place.now += DAY
    assert sorted(seen) == sorted(digests())


def test_damage_is_found_by_the_run_that_comes_to_it(place: Place) -> None:
    flip_bit(object_file(place.archive, group(42)), 1)
    found = 0
    for _ in range(10):
        place.reads.take()
        report = place.run(Plan(max_duration=30))
        found += len(report.damaged)
        if report.complete:
            break
    assert found >= 1


def test_damaged_objects_do_not_keep_the_rest_from_being_read(place: Place) -> None:
    """Also if there are more of them than a run can look at."""
    bad = range(0, COUNT, 4)
    for number in bad:
        flip_bit(object_file(place.archive, group(number)), 1)
    seen: list[Digest] = []
    found: set[Digest] = set()
    complete = False
    while not complete:
        assert len(seen) < 2 * COUNT
        place.reads.take()
        report = place.run(Plan(max_duration=10))
        complete = report.complete
        seen += place.reads.take()
        found |= {item.hash for item in report.damaged}
        place.now += 1
    assert set(seen) == digests()
    assert found == {digest_of(b"".join(group(number).frames)) for number in bad}


# Samples


def test_samples_of_a_twentieth_cover_everything_in_twenty_runs(place: Place) -> None:
    seen: list[Digest] = []
    sizes: list[int] = []
    for _ in range(20):
        place.reads.take()
        report = place.run(Plan(sample=0.05))
        sizes.append(report.objects)
        seen += place.reads.take()
        assert report.unreferenced is None
    assert sorted(seen) == sorted(digests())
    assert max(sizes) < COUNT / 4


def test_a_sample_that_was_stopped_goes_on_with_the_same_objects(place: Place) -> None:
    seen: list[Digest] = []
    while True:
        assert len(seen) < COUNT
        place.reads.take()
        report = place.run(Plan(sample=0.5, max_duration=9))
        seen += place.reads.take()
        if report.complete:
            break
    assert len(set(seen)) == len(seen)
    assert 20 < len(seen) < 80


def test_samples_without_a_memory_differ_by_the_time(place: Place) -> None:
    seen: set[Digest] = set()
    for second in range(3):
        place.reads.take()
        verify(place.archive, Plan(sample=0.2), clock=lambda: 2e9 + second)  # noqa: B023  used at once
        seen |= set(place.reads.take())
    assert len(seen) > 30


# Selection


@pytest.fixture
def mixed(place: Place) -> Place:
    with place.archive.writer("sport/live", clock=Clock()) as writer:
        init = group(0, b"sport init", track="init.mp4", received=NOON - HOUR)
        writer.commit([init])
        writer.commit([group(1, b"goal", init=digest_of(b"sport init"))])
        writer.commit([group(2, b"late goal", received=NOON + HOUR)])
    return place


def looked_at(place: Place, plan: Plan) -> set[Digest]:
    place.reads.take()
    report = place.run(plan)
    assert report.unreferenced is None
    return set(place.reads.take())


@pytest.mark.parametrize("pattern", ["sport/live", "sport/*", "s*"])
def test_only_what_a_broadcast_needs(mixed: Place, pattern: str) -> None:
    expected = {digest_of(data) for data in (b"sport init", b"goal", b"late goal")}
    assert looked_at(mixed, Plan(broadcast=pattern)) == expected


def test_only_what_groups_of_a_time_need_with_their_inits(mixed: Place) -> None:
    late = {digest_of(b"late goal")}
    assert looked_at(mixed, Plan(since=NOON + HOUR)) == late
    plan = Plan(broadcast="sport/live", since=NOON, until=NOON + HOUR)
    assert looked_at(mixed, plan) == {digest_of(b"goal"), digest_of(b"sport init")}


def test_a_broadcast_that_is_not_there_is_an_error(place: Place) -> None:
    with pytest.raises(NotFoundError):
        place.run(Plan(broadcast="nobody"))


def test_what_a_selection_found_sound_counts_for_the_next_run(mixed: Place) -> None:
    looked_at(mixed, Plan(broadcast="sport/live"))
    report = mixed.run(Plan(max_age=DAY))
    assert (report.objects, report.skipped) == (COUNT, 3)


# State


def test_a_state_that_is_lost_costs_reading_again(place: Place) -> None:
    place.run(Plan())
    for path in place.files():
        path.unlink()
    report = place.run(Plan(max_age=DAY))
    assert report.objects == COUNT
    assert place.run(Plan(max_age=DAY)).objects == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
        lambda data: bytes(len(data)),
        lambda data: data + b"more",
    ],
)
def test_a_state_that_is_damaged_costs_reading_again(
    place: Place, damage: Callable[[bytes], bytes]
) -> None:
    place.run(Plan())
    place.run(Plan(max_duration=3))
    for path in place.files():
        path.write_bytes(damage(path.read_bytes()))
    report = place.run(Plan(max_age=DAY))
    assert (report.objects, report.sound) == (COUNT, True)


def test_the_state_of_one_copy_says_nothing_of_another(place: Place, tmp_path: Path) -> None:
    place.run(Plan())
    cas = Path(place.archive.roots.cas)
    cas.rename(tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", cas)
    assert place.run(Plan(max_age=DAY)).objects == COUNT


def test_two_verifications_do_not_share_a_state(place: Place) -> None:
    directory, archive = str(place.directory), place.archive
    with open_state(directory, archive.roots, archive.store_id, needed=True):
        with pytest.raises(WriterLockedError):
            open_state(directory, archive.roots, archive.store_id, needed=True)
        with open_state(directory, archive.roots, archive.store_id, needed=False) as other:
            assert other.directory == ""


def test_a_state_that_cannot_be_kept_is_an_error_only_where_it_is_needed(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.directory.write_text("a file is in the way")
    roots, store = place.archive.roots, place.archive.store_id
    with pytest.raises(StorageError):
        open_state(str(place.directory), roots, store, needed=True)
    state = open_state(str(place.directory), roots, store, needed=False)
    assert "will not be remembered" in caplog.text
    assert verify(place.archive, state=state).sound


def test_entries_of_objects_that_nobody_needs_any_more_go(place: Place) -> None:
    place.run(Plan())
    shard = digest_of(b"nobody")[:2]
    archive = place.archive
    with open_state(str(place.directory), archive.roots, archive.store_id, needed=True) as state:
        times = state.load(shard) | {bytes.fromhex(digest_of(b"nobody")): int(place.now)}
        state.save(shard, times, 0)
    place.run(Plan(max_age=DAY))
    with open_state(str(place.directory), archive.roots, archive.store_id, needed=True) as state:
        assert bytes.fromhex(digest_of(b"nobody")) not in state.load(shard)


def test_a_state_without_a_directory_remembers_nothing() -> None:
    state = VerifyState()
    state.save("00", {b"\0" * 32: 1}, 1)
    assert (state.load("00"), state.oldest("00")) == ({}, 0)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"STATE_DIRECTORY": "/s/one:/s/two", "XDG_STATE_HOME": "/x"}, "/s/one"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/casfs"),
        ({"HOME": "/h"}, "/h/.local/state/casfs"),
    ],
)
def test_where_the_state_lies(environment: dict[str, str], expected: str) -> None:
    assert default_directory(environment) == expected


# How


def test_from_disk_drops_each_object_before_and_after(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []
    fadvise, pread = os.posix_fadvise, os.pread

    def note_advice(descriptor: int, start: int, length: int, advice: int) -> None:
        assert (start, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        calls.append(("drop", os.fstat(descriptor).st_ino))
        fadvise(descriptor, start, length, advice)

    def note_read(descriptor: int, size: int, offset: int) -> bytes:
        calls.append(("read", os.fstat(descriptor).st_ino))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "posix_fadvise", note_advice)
    monkeypatch.setattr(os, "pread", note_read)
    assert place.run(Plan(from_disk=True)).objects == COUNT
    kinds = [kind for kind, _ in calls]
    assert kinds == ["drop", "read", "read", "drop"] * COUNT
    calls.clear()
    place.run(Plan())
    assert {kind for kind, _ in calls} == {"read"}


def test_a_limit_of_bytes_a_second_is_kept_over_all_threads() -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    throttle = Throttle(50_000.0, lambda: now, sleep)
    assert throttle.read_bytes == 12_500
    for _ in range(20):
        throttle.wait(throttle.read_bytes)
    assert now == pytest.approx(5.0)
    now += 100
    before = now
    throttle.wait(50_000)
    # Time in which nothing was read is not saved up.
    assert now - before == pytest.approx(1.0)


def test_a_verification_keeps_to_the_limit(place: Place) -> None:
    slept: list[float] = []
    report = verify(
        place.archive,
        Plan(bandwidth=1000.0),
        threads=1,
        monotonic=lambda: sum(slept),
        sleep=slept.append,
    )
    assert sum(slept) == pytest.approx(report.bytes / 1000)


def test_a_recorder_may_record_while_it_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that come between any two reads are neither damage nor unreferenced."""
    archive: Archive = place.archive
    with archive.writer("news", clock=Clock(NOON + HOUR)) as writer:

        def commits() -> Iterator[None]:
            for number in range(COUNT, 2 * COUNT):
                writer.commit([group(number)])
                yield

        coming = commits()
        real = LocalStore.open

        def record_and_open(store: LocalStore, digest: Digest) -> int:
            next(coming, None)
            return real(store, digest)

        monkeypatch.setattr(LocalStore, "open", record_and_open)
        report = verify(archive, threads=1)
        assert (report.sound, report.objects, report.unreferenced) == (True, COUNT, 0)
        assert verify(archive, threads=1).objects == 2 * COUNT


def expire_everything(archive: Archive) -> None:
    decision = Decision(
        broadcast=BroadcastRow(1, "news"),
        hour=NOON // HOUR,
        expired=ExpiredHour(1 << 40),
        groups=COUNT,
        bytes=0,
        reason="older than a day",
    )
    with lock_expiries(archive.roots):
        ExpiryWriter(archive, clock=Clock()).expire(decision.broadcast, [decision])


def test_what_expired_is_not_needed(place: Place) -> None:
    expire_everything(place.archive)
    for number in range(5):
        os.unlink(object_file(place.archive, group(number)))
    report = place.run(Plan())
    assert (report.sound, report.objects, report.unreferenced) == (True, 0, COUNT - 5)
    assert place.run(Plan(broadcast="news")).objects == 0


def test_a_journal_of_expiries_that_is_lost_is_a_finding(place: Place) -> None:
    expire_everything(place.archive)
    shutil.rmtree(os.path.join(place.archive.roots.manifests, ".casfs", "expired"))
    (error,) = verify(place.archive, threads=1).manifest_errors
    assert error.journal == ".casfs/expired/news"
    assert error.reason == "records that were acknowledged up to here are gone"
    heads = os.path.join(place.archive.roots.cas, ".casfs", "heads", ".expired.json")
    with open(heads, "wb") as file:
        file.write(b"garbage")
    (error,) = verify(place.archive, threads=1).manifest_errors
    assert error.journal == ".casfs/expired"
    assert "cannot be understood" in error.reason


def test_a_journal_of_expiries_that_is_damaged_is_a_finding(place: Place) -> None:
    for _ in range(2):
        expire_everything(place.archive)
    path = segments(journal_directory(place.archive, ".casfs/expired", "news"))[0]
    flip_bit(path, 50)
    for level in LEVELS:
        errors = place.run(Plan(level=level)).manifest_errors
        assert {error.journal for error in errors} == {".casfs/expired/news"}


def test_what_is_expired_and_collected_while_it_runs_is_not_missing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalStore.open
    collected: list[str] = []

    def collect_and_open(store: LocalStore, digest: Digest) -> int:
        if not collected:
            collected.append(digest)
            expire_everything(place.archive)
            for number in range(COUNT):
                os.unlink(object_file(place.archive, group(number)))
        return real(store, digest)

    monkeypatch.setattr(LocalStore, "open", collect_and_open)
    report = place.run(Plan())
    assert collected
    assert (report.sound, report.missing) == (True, [])
