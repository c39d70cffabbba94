"""What `casfs stats` counts, compared with counting the records one by one."""

from __future__ import annotations

import contextlib
import json
import random
import tracemalloc
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from casfs.archive import Group
from casfs.cli.program import run
from casfs.cli.stats import bar
from casfs.digest import Digest, digest_of
from casfs.index.index import Index
from casfs.index.statistics import Totals, gather
from casfs.manifests import record
from casfs.timestamps import DAY
from tests.fakes.store import NOON, Clock, check, group, make_archive

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from casfs.archive import Archive
    from casfs.index.statistics import ArchiveTotals


class Put(Struct, frozen=True):
    """A group as it was committed."""

    broadcast: str
    group: Group

    @property
    def payload(self) -> bytes:
        return b"".join(self.group.frames)


def totals_of(puts: list[Put], *, superseded: tuple[Put, ...] = ()) -> Totals:
    objects = {digest_of(put.payload): len(put.payload) for put in [*puts, *superseded]}
    times = [put.group.received_start for put in [*puts, *superseded]]
    return Totals(
        groups=len(puts),
        objects=len(objects),
        logical_bytes=sum(len(put.payload) for put in puts),
        stored_bytes=sum(objects.values()),
        first=min(times, default=None),
        last=max(times, default=None),
    )


def put_all(archive: Archive, puts: list[Put]) -> None:
    for broadcast in sorted({put.broadcast for put in puts}):
        with archive.writer(broadcast, clock=Clock(NOON + 9 * DAY)) as writer:
            writer.commit([put.group for put in puts if put.broadcast == broadcast])


def some_puts(count: int, *, first: int = 0) -> list[Put]:
    """Return groups of two broadcasts over nine days; many share their payloads."""
    choose = random.Random(count)
    return [
        Put(
            choose.choice(["one", "two"]),
            group(
                first + number,
                b"payload " + b"x" * choose.randrange(20),
                track=choose.choice(["video0.m4s", "audio0.m4s"]),
                received=NOON + choose.randrange(9 * DAY),
            ),
        )
        for number in range(count)
    ]


def statistics(archive: Archive) -> ArchiveTotals:
    with contextlib.closing(archive.reader()) as reader:
        return reader.statistics()


def check_against(found: ArchiveTotals, puts: list[Put]) -> None:
    assert found.totals == totals_of(puts)
    for broadcast in found.broadcasts:
        own = [put for put in puts if put.broadcast == broadcast.broadcast.name]
        assert broadcast.totals == totals_of(own)
        for track in broadcast.tracks:
            assert track.totals == totals_of([p for p in own if p.group.track == track.track.name])
    for day in found.days:
        own = [put for put in puts if put.group.received_start // DAY == day.day]
        assert (day.groups, day.logical_bytes) == (len(own), sum(len(p.payload) for p in own))
    first_days: dict[Digest, int] = {}
    for put in sorted(puts, key=lambda put: put.group.received_start):
        first_days.setdefault(digest_of(put.payload), put.group.received_start // DAY)
    sizes = {digest_of(put.payload): len(put.payload) for put in puts}
    for day in found.days:
        new = [sizes[digest] for digest, first in first_days.items() if first == day.day]
        assert day.stored_bytes == sum(new)
    assert sum(day.groups for day in found.days) == len(puts)


def test_the_counts_are_those_of_the_records(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    puts = some_puts(200)
    put_all(archive, puts)
    check_against(statistics(archive), puts)


def test_an_index_that_lags_gives_the_same_counts(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    before, after = some_puts(100), some_puts(60, first=1000)
    put_all(archive, before)
    archive.mirror().step(None)
    put_all(archive, after)
    check_against(statistics(archive), before + after)
    archive.mirror().step(None)
    check_against(statistics(archive), before + after)


def test_a_superseded_record_counts_as_an_object_and_not_as_a_group(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    cut = Put("tv", group(1, b"begun", complete=False))
    whole = Put("tv", group(1, b"begun and ended"))
    with archive.writer("tv", clock=Clock()) as writer:
        writer.commit([cut.group])
        archive.mirror().step(None)
        writer.commit([whole.group])
    expected = totals_of([whole], superseded=(cut,))
    found = statistics(archive)
    assert found.totals == expected
    assert sum(day.groups for day in found.days) == 1
    archive.mirror().step(None)
    assert statistics(archive).totals == expected


def test_an_index_that_is_up_to_date_spares_the_manifests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_archive(tmp_path / "archive")
    puts = some_puts(300)
    put_all(archive, puts)
    archive.mirror().step(None)
    parsed = 0
    parse_line = record.parse_line

    def counting(text: bytes, offset: int) -> record.Line | None:
        nonlocal parsed
        parsed += 1
        return parse_line(text, offset)

    for module in ("chain", "segment"):
        monkeypatch.setattr(f"casfs.manifests.{module}.parse_line", counting)
    check_against(statistics(archive), puts)
    # The first lines of six journals, some of them twice.
    assert parsed <= 20


def test_objects_agree_with_what_verify_counts(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    archive = make_archive(tmp_path / "archive")
    init = digest_of(b"an init that was recorded once")
    with open(archive.objects.path(init), "xb") as file:
        file.write(b"an init that was recorded once")
    with archive.writer("tv", clock=Clock()) as writer:
        writer.commit([group(number, init=init) for number in range(5)])
    report = check(archive)
    found = statistics(archive)
    assert found.unsized == (init,)
    assert found.totals.objects + len(found.unsized) == report.objects
    printed = json_of(archive, capfdbinary, "stats")
    assert (printed["objects"], printed["stored_bytes"]) == (report.objects, report.bytes)


def test_a_pattern_picks_broadcasts(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    archive = make_archive(tmp_path / "archive")
    puts = some_puts(50)
    put_all(archive, puts)
    printed = json_of(archive, capfdbinary, "stats", "o*")
    own = totals_of([put for put in puts if put.broadcast == "one"])
    assert printed["groups"] == own.groups
    assert printed["objects"] == own.objects
    assert [part["broadcast"] for part in printed["broadcasts"]] == ["one"]
    assert run(["stats", "three", *roots(archive)]) == 4


def test_an_empty_archive_has_nothing(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    archive = make_archive(tmp_path / "archive")
    assert run(["stats", *roots(archive)]) == 0
    assert capfdbinary.readouterr().out == b"the archive is empty\n"


def test_the_growth_is_shown_day_by_day_also_where_nothing_came(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    archive = make_archive(tmp_path / "archive")
    with archive.writer("tv", clock=Clock(NOON + 9 * DAY)) as writer:
        writer.commit([group(0, received=NOON), group(1, received=NOON + 3 * DAY)])
    assert run(["stats", "--days", "3", *roots(archive)]) == 0
    days = capfdbinary.readouterr().out.decode().split("day (UTC)")[1].splitlines()[1:]
    assert [line.split()[:2] for line in days] == [
        ["2026-11-23", "0"],
        ["2026-11-24", "0"],
        ["2026-11-25", "1"],
    ]


def test_a_damaged_index_is_done_without(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    puts = some_puts(40)
    put_all(archive, puts)
    archive.mirror().step(None)
    with open(archive.index_path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    check_against(statistics(archive), puts)


def test_a_bar_is_as_long_as_its_share_and_never_nothing() -> None:
    assert bar(100, 100) == "█" * 30
    assert bar(50, 100) == "█" * 15
    assert bar(1, 10_000) == "▏"
    assert bar(0, 100) == ""
    assert bar(0, 0) == ""


def test_a_hundred_times_the_groups_need_no_more_memory() -> None:
    peaks = [peak_of_gathering(count) for count in (500, 50_000)]
    assert peaks[1] < 2 * peaks[0] + (1 << 20)


def peak_of_gathering(count: int) -> int:
    """Return the most bytes that Python holds while an index of so many groups is counted."""
    with contextlib.closing(Index.temporary("store")) as index:
        fill(index, count)
        tracemalloc.start()
        try:
            found = gather([index])
            assert found.totals.objects == found.totals.groups == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def fill(index: Index, count: int) -> None:
    connection = index._connection
    connection.execute("begin")
    connection.execute(
        "insert into journals (id, place, number, broadcast, track, first_n, segment, offset, hash)"
        " values (1, 'tv/video', 1, 'tv', 'video', 1, '', 0, '')"
    )
    connection.executemany(
        "insert into groups (number, n, journal, epoch, sequence, hash, offset, size,"
        " received_start, received_end, complete, current) values (1, ?, 1, 1, ?, ?, 0, 9, ?, 0,"
        " 1, 1)",
        ((n, n, n.to_bytes(32, "little"), NOON + n) for n in range(count)),
    )
    connection.execute("commit")


def roots(archive: Archive) -> list[str]:
    return ["--cas-root", archive.roots.cas, "--manifest-root", archive.roots.manifests]


def json_of(
    archive: Archive, captured: pytest.CaptureFixture[bytes], *arguments: str
) -> dict[str, Any]:
    captured.readouterr()
    assert run([*arguments, "--json", *roots(archive)]) == 0
    value: dict[str, Any] = json.loads(captured.readouterr().out)
    return value
