"""The supervisor's parts that touch the world: workers, disks, clocks, logs, metrics."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
from msgspec.structs import replace

from casfs.cli.logs import JsonFormatter, TextFormatter
from casfs.config import ExpireWhenShort, load
from casfs.errors import ConfigError
from casfs.quantities import Room as Wanted
from casfs.quantities import parse_room
from casfs.recorders import (
    Remembered,
    read_supervisor_report,
    write_remembered,
    write_report,
)
from ingest import timesync
from ingest.credentials import Credentials
from ingest.directory import Listed, Listing
from ingest.metrics import Metrics
from ingest.plan import loopback_address, plan_of
from ingest.room import Disk, judge
from ingest.sources import SourceState
from ingest.supervision import Phase, Room
from ingest.supervisor import Supervisor
from ingest.timesync import wait_for_clock
from ingest.watching import Watch
from ingest.worker import TrustedRelays, WorkerOptions, credentials_for, worker_environment
from tests.fakes.hours import LONG_AGO, hour_group, record_hours
from tests.fakes.reports import report
from tests.fakes.store import make_archive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from trio.testing import MockClock

T = TypeVar("T")

RELAY = "https://relay.example/anon"


class FakeWorker:
    """A process that does what the test says."""

    started: list[FakeWorker] = []  # noqa: RUF012  one list for all, emptied for each test

    def __init__(
        self, options: WorkerOptions, broadcast: str, relay: str, tracks: Sequence[str]
    ) -> None:
        self.broadcast, self.relay, self.tracks, self.options = broadcast, relay, tracks, options
        self.pid = os.getpid()
        self.ended = trio.Event()
        self.code = 0
        self.deaf = False
        FakeWorker.started.append(self)
        FakeWorker.births.set()

    births = trio.Event()

    @classmethod
    async def count(cls, number: int) -> None:
        """Wait until so many were started."""
        while len(cls.started) < number:
            cls.births = trio.Event()
            await cls.births.wait()

    async def wait(self) -> int:
        await self.ended.wait()
        return self.code

    def stop(self) -> None:
        if not self.deaf:
            self.ended.set()

    def kill(self) -> None:
        self.code = -9
        self.ended.set()


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """Return one whose workers are fakes; what it does in threads is done at once.

    A clock that jumps does not wait for threads.
    """

    async def at_once(function: Callable[..., T], *arguments: object, **_: object) -> T:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    FakeWorker.started.clear()
    archive = make_archive(tmp_path)
    roots = archive.roots
    given = {
        "auto-archive.relay-url": RELAY,
        "auto-archive.broadcast": ("a", "b"),
        "auto-archive.time-sync-wait": "0",
        "auto-archive.min-free": "1",
    }
    loaded = load(
        {"cas-root": roots.cas, "manifest-root": roots.manifests, **given},
        {"CASFS_CONFIG": os.devnull},
    )
    return Supervisor(archive, plan_of(loaded), lambda: loaded, start=FakeWorker)  # type: ignore[arg-type]


async def test_workers_are_started_restarted_and_ended(
    supervisor: Supervisor, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await supervisor._begin(nursery)
        await FakeWorker.count(2)
        first, second = FakeWorker.started
        assert {first.broadcast, second.broadcast} == {"a", "b"}
        first.kill()
        await FakeWorker.count(3)
        assert FakeWorker.started[2].broadcast == first.broadcast
        assert supervisor.summary() == "running: 2 recording"
        second.deaf = True
        with trio.fail_after(100):
            await supervisor._end()
        assert [worker.code for worker in FakeWorker.started] == [-9, -9, 0]
        await trio.sleep(5)
        assert not supervisor.workers
        assert len(FakeWorker.started) == 3
        nursery.cancel_scope.cancel()


async def test_a_reload_says_what_only_a_new_start_changes(
    supervisor: Supervisor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = supervisor.plan
    given = {
        "cas-root": before.roots.cas,
        "manifest-root": before.roots.manifests,
        "auto-archive.relay-url": RELAY,
        "auto-archive.broadcast": ("c",),
    }
    caplog.set_level(logging.INFO)

    def reload(**more: object) -> list[str]:
        caplog.clear()
        changed = {**given, **{name.replace("_", "-"): value for name, value in more.items()}}
        supervisor._load = lambda: load(changed, {"CASFS_CONFIG": os.devnull})
        supervisor._reload(nursery)
        return [record.getMessage() for record in caplog.records]

    async with trio.open_nursery() as nursery:
        (said,) = reload(cas_root=str(tmp_path / "elsewhere"))
        assert "cas-root and manifest-root change only with a new start" in said
        assert supervisor.plan is before
        for _ in range(2):  # it stays true, so it is said each time
            said, done = reload(**{"auto-archive.metrics": "127.0.0.1:9464"})
            assert said.startswith("metrics: ")
            assert "after a new start" in said
            assert done == "the settings were read again"
            assert supervisor.plan.broadcasts == ("c",)
        assert reload() == ["the settings were read again"]


async def test_what_was_recorded_before_goes_on_until_every_source_has_answered(
    supervisor: Supervisor, autojump_clock: MockClock
) -> None:
    write_remembered(supervisor.archive.roots, [Remembered("old", RELAY)])
    supervisor.plan = replace(supervisor.plan, directories=("file:///nowhere",), broadcasts=())
    async with trio.open_nursery() as nursery:
        await supervisor._begin(nursery)
        await FakeWorker.count(1)
        assert [worker.broadcast for worker in FakeWorker.started] == ["old"]
        supervisor.sources["file:///nowhere"].asked = 1
        supervisor._take_listing("file:///nowhere", Listing((Listed("new", (RELAY,)),)))
        wanted = {item.name: item.wanted for item in supervisor.supervision.supervised()}
        assert wanted == {"old": False, "new": True}
        nursery.cancel_scope.cancel()


async def test_it_looks_at_reports_and_disks_and_tells(
    supervisor: Supervisor, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    roots = supervisor.archive.roots
    watch = Watch(supervisor)
    async with trio.open_nursery() as nursery:
        await supervisor._begin(nursery)
        await FakeWorker.count(2)
        write_report(roots, "a", report("a", groups=3))
        await watch._look()
        data = {item.name: item.last_data for item in supervisor.supervision.supervised()}
        assert data["a"] is not None
        assert data["b"] is None
        told = read_supervisor_report(roots)
        assert told is not None
        assert [item.broadcast for item in told.broadcasts] == ["a", "b"]
        supervisor.plan = replace(supervisor.plan, min_free=Wanted(1e18))
        await watch._look()
        assert supervisor.supervision.room is Room.CRITICAL
        assert "VERY short" in caplog.text
        await trio.sleep(2)
        phases = [item.phase for item in supervisor.supervision.supervised()]
        assert phases.count(Phase.RECORDING) == 1
        nursery.cancel_scope.cancel()


async def test_what_is_old_expires_by_the_public_commands(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    archive = supervisor.archive
    hours = [[hour_group(LONG_AGO + at, b"%d" % at, sequence=at)] for at in range(3)]
    record_hours(archive, hours)
    supervisor.plan = replace(
        supervisor.plan, min_free=Wanted(1e17), expiry=ExpireWhenShort(enable=True, keep_last=1)
    )
    watch = Watch(supervisor)
    await watch._look()
    assert watch._wants_expiry()
    await watch._expire()
    with contextlib.closing(archive.reader()) as reader:
        track = reader.track("tv", "video0.m4s")
        assert track is not None
        assert len(reader.hours(track)) == 1
    assert not [record for record in caplog.records if "exit code" in record.message]


def test_room_is_that_of_the_fuller_disk_and_comes_back_a_little_later() -> None:
    large, small = Disk(10**12, 10**11), Disk(10**10, 10**9)
    assert judge((large, small), parse_room("1G"), Room.AMPLE) is Room.AMPLE
    assert judge((large, small), parse_room("1G"), Room.LOW) is Room.LOW
    assert judge((large, small), parse_room("1100M"), Room.AMPLE) is Room.LOW
    assert judge((large, small), parse_room("2100M"), Room.AMPLE) is Room.CRITICAL
    assert judge((large, small), parse_room("10%"), Room.AMPLE) is Room.AMPLE
    assert judge((large, small), parse_room("11%"), Room.AMPLE) is Room.LOW


async def test_the_clock_is_waited_for_but_not_for_ever(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = trio.current_time()
    monkeypatch.setattr(timesync, "clock_is_synchronised", lambda: trio.current_time() > begun + 10)
    await wait_for_clock(60)
    assert 10 < trio.current_time() - begun < 12
    assert not caplog.records
    monkeypatch.setattr(timesync, "clock_is_synchronised", lambda: False)
    begun = trio.current_time()
    await wait_for_clock(5)
    assert trio.current_time() - begun == 5
    assert "not synchronised" in caplog.text


def test_the_clock_can_be_asked() -> None:
    assert timesync.clock_is_synchronised() in (True, False)


def log_record(**about: object) -> logging.LogRecord:
    record = logging.LogRecord("ingest", logging.WARNING, "", 0, "it %s\nso", ("is",), None)
    vars(record).update(about)
    return record


def test_a_line_of_the_log_is_an_object_with_what_it_is_about() -> None:
    said = json.loads(JsonFormatter("demo").format(log_record(track="video0.m4s")))
    assert said.pop("time").endswith("Z")
    assert said == {
        "level": "warning",
        "message": "it is\nso",
        "broadcast": "demo",
        "track": "video0.m4s",
    }
    said = json.loads(JsonFormatter().format(log_record(broadcast="a", report=report("a"))))
    assert said["state"]["broadcast"] == said["broadcast"] == "a"
    assert TextFormatter().format(log_record(broadcast="\x1b")) == (
        "casfs: WARNING: \\x1b: it is\nso"
    )


def test_metrics_are_written_whole(tmp_path: Path, supervisor: Supervisor) -> None:
    file = tmp_path / "casfs.prom"
    metrics = Metrics(None, str(file))
    supervisor.sources["x"] = SourceState("https://x/", listed=2, trouble="gone")
    own = Watch(supervisor)._report(0.0)
    metrics.update(own, [report('de"mo', groups=3)], (Disk(100, 50), Disk(10, 5)))
    text = file.read_text()
    for line in (
        'casfs_recorder_groups_total{broadcast="de\\"mo"} 3.0',
        'casfs_disk_free_bytes{root="manifests"} 5.0',
        'casfs_source_up{source="https://x/"} 0.0',
        "casfs_room 2.0",
    ):
        assert line in text.splitlines()
    metrics.close()


def test_a_token_goes_over_no_open_network(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    given = {"auto-archive.directory-token-file": str(tmp_path / "token")}
    given |= {"cas-root": "/c", "manifest-root": "/m"}
    for url, fits in (
        ("https://tv.example/list", True),
        ("http://127.0.0.1:8080/list", True),
        ("file:///list", True),
        ("http://tv.example/list", False),
    ):
        loaded = load({**given, "auto-archive.directory": (url,)}, {"CASFS_CONFIG": os.devnull})
        if fits:
            assert plan_of(loaded).fetching.token == "s3cret"
            continue
        with pytest.raises(ConfigError, match="in the clear"):
            plan_of(loaded)


def test_metrics_are_served_on_loopback_alone() -> None:
    assert loopback_address("127.0.0.1:9464") == ("127.0.0.1", 9464)
    assert loopback_address("[::1]:9464") == ("::1", 9464)
    assert loopback_address("localhost:1") == ("127.0.0.1", 1)
    for text in ("0.0.0.0:1", ":1", "192.0.2.1:1", "127.0.0.1", "127.0.0.1:x", "[::1]:65536"):
        with pytest.raises(ConfigError):
            loopback_address(text)


def test_a_worker_gets_its_url_unseen_and_nothing_of_the_supervisors_own() -> None:
    environment = worker_environment(
        {"PATH": "/bin", "NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "CASFS_CONFIG": "/c"}
        | {"CASFS_AUTO_ARCHIVE_INCLUDE": "a"},
        WorkerOptions("/cas", "/manifests"),
        RELAY,
    )
    assert environment == {
        "PATH": "/bin",
        "CASFS_URL": RELAY,
        "CASFS_CAS_ROOT": "/cas",
        "CASFS_MANIFEST_ROOT": "/manifests",
        "CASFS_SYNC_STRATEGY": "auto",
        "CASFS_CONFIG": os.devnull,
    }


def test_a_token_goes_to_relays_that_a_person_named_and_to_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CASFS_TOKEN", "s3cret")
    named, hosted = "https://named.example/anon", "https://a.ours.example:4443/"
    options = WorkerOptions(
        "/cas",
        "/manifests",
        token_file="relay-token",
        trusted=TrustedRelays(("https://named.example:443",), ("*.ours.example",)),
    )
    for relay in (named, hosted):
        assert credentials_for(options, relay).token_file == "relay-token"
        assert worker_environment(os.environ, options, relay)["CASFS_TOKEN"] == "s3cret"
    listed = ("https://listed.example/", "http://named.example/anon", "https://named.example:444/")
    for relay in listed:
        assert credentials_for(options, relay) == Credentials()
        assert "CASFS_TOKEN" not in worker_environment(os.environ, options, relay)
    assert credentials_for(options, f"{named}?jwt=its-own") == Credentials()
