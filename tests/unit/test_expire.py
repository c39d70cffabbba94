"""Hours expire as they were asked to, every reader sees it, and it costs a recorder nothing."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING

import click
import msgspec
import pytest

from casfs import collect as collecting
from casfs import expire as expiring
from casfs.cli.expire import HoursOfDay, Room
from casfs.cli.program import run
from casfs.collect import collect
from casfs.digest import digest_of
from casfs.expire import DiskSpace, expire
from casfs.index.mirror import rebuild
from casfs.index.reader import Reader
from casfs.retention import Policy
from casfs.timestamps import DAY, HOUR
from casfs.trash import bag_name, bag_time, trashed
from tests.fakes.hours import (
    FIRST,
    LATER,
    LONG_AGO,
    collect_all,
    expire_all,
    hour_group,
    in_trash,
    record_hours,
    restore_all,
)
from tests.fakes.store import NOON, Clock, check, contents, group, make_archive

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = make_archive(tmp_path)
    record_hours(archive, [[hour_group(hour, bytes([hour]) * 10)] for hour in range(5)])
    return archive


def hours(archive: Archive, policy: Policy, *, now: int = LATER) -> list[int]:
    decisions = expire(archive, policy, act=False, clock=Clock(now))
    return [decision.hour - FIRST for decision in decisions]


def test_by_age(archive: Archive) -> None:
    now = NOON + 30 * HOUR
    assert hours(archive, Policy(older_than=DAY), now=now) == [0, 1, 2, 3, 4]
    assert hours(archive, Policy(older_than=27 * HOUR), now=now) == [0, 1, 2]
    assert hours(archive, Policy(older_than=30 * HOUR), now=now) == []


def test_by_size_the_oldest_go_until_it_fits(archive: Archive) -> None:
    assert hours(archive, Policy(keep_bytes=50)) == []
    assert hours(archive, Policy(keep_bytes=49)) == [0]
    assert hours(archive, Policy(keep_bytes=20)) == [0, 1, 2]


def test_by_free_space_what_will_go_anyway_counts_as_free(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiring, "disk_space", lambda _: DiskSpace(1000, 100))
    policy = Policy(min_free=115)
    assert hours(archive, policy) == [0, 1]
    expire(archive, policy, act=True, clock=Clock(LATER))
    assert hours(archive, policy) == [], "what has expired will be collected"
    collect_all(archive)
    assert hours(archive, policy) == [], "and what is in the trash will be deleted"
    collect_all(archive, now=LATER + 2 * DAY)
    assert in_trash(archive) == set()
    assert hours(archive, policy) == [2, 3]


def test_of_two_copies_in_the_trash_the_sound_one_is_restored(archive: Archive) -> None:
    expire_all(archive)
    collect_all(archive)
    (first, *_) = trashed(archive.roots.cas)
    later = os.path.join(os.path.dirname(os.path.dirname(first.path)), bag_name(LATER + HOUR))
    os.mkdir(later)
    with open(os.path.join(later, os.path.basename(first.path)), "wb") as file:
        file.write(b"damaged")
    assert not any(hour.lost for hour in restore_all(archive).hours)
    assert len(contents(archive)) == 5
    assert check(archive).sound


def test_by_free_space_what_will_come_counts_as_taken(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiring, "disk_space", lambda _: DiskSpace(1000, 100))
    now = NOON + 5 * HOUR
    # Fifty bytes in five hours, less the millisecond before the first group.
    for ahead, expected in ((0, []), (1, [0]), (2, [0, 1]), (1000, [0, 1, 2, 3, 4])):
        policy = Policy(min_free=100, ahead=ahead * HOUR)
        assert hours(archive, policy, now=now) == expected
    # Who recorded nothing lately does not grow.
    assert hours(archive, Policy(min_free=100, ahead=1000 * HOUR), now=LATER) == []


def test_what_rules_keep_stays(archive: Archive) -> None:
    assert hours(archive, Policy(older_than=0, keep_last=2)) == [0, 1, 2]
    assert hours(archive, Policy(older_than=0, keep_daily=frozenset({13, 15}))) == [0, 2, 4]
    assert hours(archive, Policy(older_than=0, broadcasts=("radio/*",))) == []


def test_only_what_is_sealed_expires(archive: Archive) -> None:
    clock = Clock(NOON + 5 * HOUR)
    with archive.writer("tv", clock=clock) as writer:
        writer.commit([hour_group(5, b"open"), hour_group(4, b"late", sequence=41)])
        assert hours(archive, Policy(older_than=0)) == [0, 1, 2, 3, 4]
        expire_all(archive)
        assert [item.sequence for item in contents(archive)] == [41, 50]
        clock.now += HOUR
        writer.seal_hours(0)
    expire_all(archive)
    assert contents(archive) == []


def ask(reader: Reader) -> list[object]:
    """Ask for all that tells of groups; the summary has no place for what has expired."""
    track = reader.track("tv", "video0.m4s")
    assert track is not None
    summary = reader.summary(track)
    totals = reader.statistics().totals
    return [
        (summary.groups, summary.bytes, summary.first, summary.last),
        (totals.groups, totals.objects, totals.stored_bytes, totals.first),
        list(reader.hours(track)),
        [row.sequence for row in reader.groups(track, 0, 1 << 62)],
        [reader.find(track, 1, number) is not None for number in (0, 10, 20, 30, 40)],
        reader.references(digest_of(b"\0" * 10), 5).groups,
    ]


def test_every_reader_sees_it_a_living_one_and_one_without_an_index(archive: Archive) -> None:
    root, ticks = archive.roots.manifests, itertools.count()
    rebuild(archive.index_path, root, archive.store_id)
    with contextlib.ExitStack() as opened:
        readers = [
            opened.enter_context(
                contextlib.closing(Reader(root, path, archive.store_id, clock=lambda: next(ticks)))
            )
            for path in (archive.index_path, os.path.join(root, "no-index"))
        ]
        before = ask(readers[0])
        assert ask(readers[1]) == before
        expire(archive, Policy(keep_bytes=20), act=True, clock=Clock(LATER))
        first, last = (NOON + hour * HOUR + 1_000_000 for hour in (3, 4))
        expected = [
            (2, 20, first, last),
            (2, 2, 20, first),
            [FIRST + 3, FIRST + 4],
            [30, 40],
            [False, False, False, True, True],
            0,
        ]
        assert [ask(reader) for reader in readers] == [expected, expected]
        rebuild(archive.index_path, root, archive.store_id)
        assert ask(readers[0]) == expected
        restore_all(archive)
        assert [ask(reader) for reader in readers] == [before, before]


def test_a_group_that_comes_again_after_it_expired_does_not_bring_it_back(
    archive: Archive,
) -> None:
    expire_all(archive)
    with archive.writer("tv", clock=Clock(LATER)) as writer:
        writer.commit([group(0, b"\0" * 10, received=LATER)])
    assert contents(archive) == contents(archive, index=False) == []
    collect_all(archive)
    assert check(archive).sound, "but its object is needed by the new record"
    assert in_trash(archive) == {str(digest_of(bytes([hour]) * 10)) for hour in range(1, 5)}


def test_a_recorder_at_work_is_not_disturbed(archive: Archive) -> None:
    with archive.writer("tv", clock=Clock(LATER)) as writer:
        expire_all(archive)
        writer.commit([group(900, b"on air", received=LATER)])
        collect_all(archive)
        writer.commit([group(901, b"on air", received=LATER)])
    assert [item.sequence for item in contents(archive)] == [900, 901]
    assert check(archive).sound


def test_a_damaged_object_does_not_come_back_from_the_trash(archive: Archive) -> None:
    expire_all(archive)
    collect_all(archive)
    (bag,) = [
        entry.path
        for entry in os.scandir(os.path.join(archive.roots.cas, ".casfs", "trash"))
        if entry.is_dir()
    ]
    path = os.path.join(bag, f"{digest_of(bytes([2]) * 10)}.bin")
    os.chmod(path, 0o600)
    with open(path, "wb") as file:
        file.write(b"rotten")
    lost = {hour.hour - FIRST: hour.lost for hour in restore_all(archive).hours}
    assert lost == {0: 0, 1: 0, 2: 1, 3: 0, 4: 0}
    assert len(contents(archive)) == 4
    assert check(archive).sound


def test_with_room_enough_the_trash_is_emptied_no_further_oldest_first(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at, most in enumerate((40, 30, 20)):
        expire(archive, Policy(keep_bytes=most), act=True, clock=Clock(LATER))
        collect_all(archive, now=LATER + at * HOUR)
    monkeypatch.setattr(collecting, "disk_space", lambda _: DiskSpace(1000, 100))
    later = Clock(LATER + 9 * DAY)
    for needed, left in ((100, [0, 1, 2]), (115, [2]), (500, [])):
        collect(archive, grace=DAY, act=True, min_free=needed, clock=later)
        assert in_trash(archive) == {str(digest_of(bytes([hour]) * 10)) for hour in left}
    assert len(contents(archive)) == 2


def test_the_commands_ask_before_they_act(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = make_archive(tmp_path)
    record_hours(archive, [[hour_group(LONG_AGO, b"old", sequence=1)]])
    roots = ("--cas-root", archive.roots.cas, "--manifest-root", archive.roots.manifests)
    assert run([*roots, "expire"]) == 2
    assert "--older-than" in capsys.readouterr().err
    assert run([*roots, "restore"]) == 2
    assert run([*roots, "restore", "--object", "xyz"]) == 2
    assert run([*roots, "restore", "--all"]) == 4
    assert run([*roots, "expire", "--older-than", "30d"]) == 0
    assert run([*roots, "collect"]) == 0
    assert capsys.readouterr().out.count("give --yes") == 2
    assert len(contents(archive)) == 1
    assert run([*roots, "expire", "--older-than", "30d", "--yes"]) == 0
    assert run([*roots, "collect", "--yes"]) == 0
    assert contents(archive) == []
    capsys.readouterr()
    assert run([*roots, "restore", "--object", str(digest_of(b"old")), "--yes", "--json"]) == 0
    said = msgspec.json.decode(capsys.readouterr().out)
    assert [hour["lost_objects"] for hour in said["hours"]] == [0]
    assert len(contents(archive)) == 1


def test_hours_of_the_day_and_room() -> None:
    hours_of = HoursOfDay().convert
    assert hours_of("18-23", None, None) == {18, 19, 20, 21, 22}
    assert hours_of("22-02", None, None) == {22, 23, 0, 1}
    assert hours_of("0-24", None, None) == set(range(24))
    assert Room().convert("500G", None, None) == 500 * 10**9
    assert Room().convert("10%", None, None) == -10
    for text in ("", "18", "25-26", "1-25", "a-b"):
        with pytest.raises(click.UsageError):
            hours_of(text, None, None)


def test_a_bag_says_since_when() -> None:
    assert bag_name(NOON) == "20261122T120000Z"
    assert bag_time(bag_name(NOON)) == NOON
    assert bag_time("20261322T120000Z") is None
    assert bag_time("heads.json") is None
