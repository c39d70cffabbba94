"""The whole store against a model, killed anywhere.

Commits and duplicates, seals, expiries, collections and restores, damage, quarantine and repair, an
index that is lost or made anew. After every step each living record has its object, or verify names
it (and what it names was spoiled), index and manifests tell the same, and nothing but what expired
has gone out of sight.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from casfs.collect import collect
from casfs.digest import digest_of
from casfs.errors import NotFoundError
from casfs.expire import expire, refresh_index
from casfs.restore import Selection, restore
from casfs.retention import Policy
from casfs.timestamps import DAY, HOUR
from casfs.trash import trashed
from casfs.verify import Plan, verify
from casfs.verify.quarantine import QUARANTINE
from tests.fakes.hours import in_trash, stored
from tests.fakes.store import (
    NOON,
    Clock,
    Known,
    check,
    contents,
    crash,
    group,
    known,
    make_archive,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from casfs.archive import BroadcastWriter

BROADCASTS = ("news", "sport/live")
PAYLOADS = [b"", b"one", b"two", b"three", b"four"]
GRACE = 2 * DAY


class KilledError(BaseException):
    """The process is gone at this very call."""


@contextlib.contextmanager
def killed_at(calls: int | None) -> Iterator[None]:
    """Die at the so-manieth call that changes a disk; None: live on."""
    with pytest.MonkeyPatch.context() as patch:
        count = itertools.count()

        def mortal(real: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                if next(count) == calls:
                    raise KilledError
                return real(*arguments, **options)

            return call

        if calls is not None:
            for name in ("rename", "unlink", "fsync", "fdatasync", "writev", "mkdir"):
                patch.setattr(os, name, mortal(getattr(os, name)))
        with contextlib.suppress(KilledError):
            yield


deaths = st.none() | st.integers(0, 40)


class CollectionMachine(RuleBasedStateMachine):
    """What a living record needs is there after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="casfs-machine-")
        self.archive = make_archive(Path(self.directory))
        self.clock = Clock()
        self.writers: dict[str, BroadcastWriter] = {}
        self.kept: dict[Known, tuple[str, int]] = {}
        """Every group that was committed, with its broadcast and hour."""
        self.expired: set[tuple[str, int]] = set()
        """Hours that may be expired."""
        self.sequences = itertools.count(1)
        self.deleted = False
        self.spoiled: set[str] = set()
        """Objects that are not good in the store, nor good in the trash for all that we know."""
        backup = make_archive(Path(self.directory) / "backup")
        with backup.writer("backup", clock=self.clock) as writer:
            writer.commit([group(at, data) for at, data in enumerate([*PAYLOADS, b"init"])])
        self.backup = backup.roots.cas

    def teardown(self) -> None:
        for writer in self.writers.values():
            crash(writer)
        shutil.rmtree(self.directory)

    def writer(self, broadcast: str) -> BroadcastWriter:
        if broadcast not in self.writers:
            writer = self.archive.writer(broadcast, clock=self.clock)
            writer.__enter__()
            self.writers[broadcast] = writer
        return self.writers[broadcast]

    @initialize()
    def begin(self) -> None:
        self.commit("news", PAYLOADS[:2], 1, late=False)

    @rule(
        broadcast=st.sampled_from(BROADCASTS),
        payloads=st.lists(st.sampled_from(PAYLOADS), min_size=1, max_size=3),
        epoch=st.integers(1, 2),
        late=st.booleans(),
    )
    def commit(self, broadcast: str, payloads: list[bytes], epoch: int, *, late: bool) -> None:
        received = self.clock.now - (30 * HOUR if late else 0)
        first = group(
            next(self.sequences), b"init", track="init.mp4", epoch=epoch, received=received
        )
        (init,) = self.writer(broadcast).commit([first])
        groups = [
            group(
                next(self.sequences),
                data,
                epoch=epoch,
                received=received,
                init=init.record.hash,
            )
            for data in payloads
        ]
        self.writer(broadcast).commit(groups)
        for item in (first, *groups):
            self.kept[known(item)] = (broadcast, received // HOUR)
            # Dedup reads what is there, and replaces what is not good.
            self.spoiled.discard(str(known(item).hash))

    @rule(hours=st.integers(1, 30), seal=st.booleans())
    def pass_time(self, hours: int, *, seal: bool) -> None:
        self.clock.now += hours * HOUR
        if seal:
            for writer in self.writers.values():
                writer.seal_hours(0)

    @rule(broadcast=st.sampled_from(BROADCASTS), clean=st.booleans())
    def stop(self, broadcast: str, *, clean: bool) -> None:
        writer = self.writers.pop(broadcast, None)
        if writer is not None and clean:
            writer.__exit__(None, None, None)
        elif writer is not None:
            crash(writer)

    @rule(
        older=st.none() | st.integers(0, 40),
        most=st.none() | st.integers(0, 30),
        keep=st.integers(0, 2),
        pattern=st.sampled_from([(), ("news",)]),
        death=deaths,
    )
    def expire(
        self,
        older: int | None,
        most: int | None,
        keep: int,
        pattern: tuple[str, ...],
        death: int | None,
    ) -> None:
        policy = Policy(
            older_than=None if older is None else older * HOUR,
            keep_bytes=most,
            broadcasts=pattern,
            keep_last=keep,
        )
        # What may come of it is what would: also if it dies halfway.
        for decision in expire(self.archive, policy, act=False, clock=self.clock):
            assert (decision.hour + 1) * HOUR <= self.clock.now
            self.expired.add((decision.broadcast.name, decision.hour))
        with killed_at(death):
            expire(self.archive, policy, act=True, clock=self.clock)

    @rule(days=st.integers(0, 3), orphans=st.booleans(), death=deaths)
    def collect(self, days: int, death: int | None, *, orphans: bool) -> None:
        self.clock.now += days * DAY
        before = in_trash(self.archive)
        with killed_at(death):
            collect(self.archive, grace=GRACE, act=True, orphans=orphans, clock=self.clock)
        self.deleted |= bool(before - in_trash(self.archive))

    @rule(broadcasts=st.sampled_from([(), ("news",)]), death=deaths)
    def restore(self, broadcasts: tuple[str, ...], death: int | None) -> None:
        with killed_at(death), contextlib.suppress(NotFoundError):
            hours = restore(
                self.archive, Selection(broadcasts=broadcasts), act=True, clock=self.clock
            ).hours
            assert self.deleted or self.spoiled or not any(hour.lost for hour in hours)
            back = {(hour.broadcast, hour.hour) for hour in hours if not hour.lost}
            self.expired -= back
            shown = set(contents(self.archive))
            assert {item for item, place in self.kept.items() if place in back} <= shown

    @rule(data=st.sampled_from([*PAYLOADS, b"init"]), place=st.sampled_from(["store", "trash"]))
    def spoil(self, data: bytes, place: str) -> None:
        digest = digest_of(data)
        paths = [self.archive.objects.path(digest)]
        if place == "trash":
            paths = [item.path for item in trashed(self.archive.roots.cas) if item.digest == digest]
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(path, 0o600)
                with open(path, "ab") as file:
                    file.write(b"more")
                self.spoiled.add(str(digest))

    @rule(death=deaths)
    def quarantine(self, death: int | None) -> None:
        with killed_at(death):
            verify(self.archive, Plan(quarantine=True), threads=1)

    @rule(death=deaths)
    def repair(self, death: int | None) -> None:
        mended = False
        with killed_at(death):
            verify(self.archive, Plan(repair_from=(self.backup,)), threads=1)
            mended = True
        if mended:
            assert check(self.archive).sound

    @rule(again=st.booleans())
    def lose_the_index(self, *, again: bool) -> None:
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.archive.index_path + ending)
        if again:
            refresh_index(self.archive)
        assert contents(self.archive) == contents(self.archive, index=False)

    @invariant()
    def verify_names_what_is_not_good_and_nothing_else(self) -> None:
        report = check(self.archive)
        assert not report.manifest_errors
        named = {str(item.hash) for item in report.damaged}
        named |= {str(item.hash) for item in report.missing}
        assert named <= self.spoiled
        for item in contents(self.archive, index=False):
            if item.hash not in named:
                assert self.archive.objects.check(item.hash) is None

    @invariant()
    def what_lives_is_there(self) -> None:
        shown = contents(self.archive, index=False)
        assert set(shown) <= set(self.kept)
        assert {item for item, place in self.kept.items() if place not in self.expired} <= set(
            shown
        ), "only what expired is out of sight"
        assert {str(item.hash) for item in shown} <= stored(self.archive) | self.spoiled

    @invariant()
    def nothing_is_in_neither_place_before_its_time(self) -> None:
        if not self.deleted:
            named = {str(item.hash) for item in self.kept}
            aside = os.path.join(self.archive.roots.cas, QUARANTINE)
            moved = {name[:64] for name in os.listdir(aside)} if os.path.isdir(aside) else set()
            assert named <= stored(self.archive) | in_trash(self.archive) | moved


CollectionMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=14)
test_collection_machine = CollectionMachine.TestCase


def test_every_death_of_a_collector_leaves_what_lives(tmp_path: Path) -> None:
    for death in range(60):
        archive = make_archive(tmp_path / str(death))
        clock = Clock()
        with archive.writer("news", clock=clock) as writer:
            writer.commit([group(1, b"old"), group(2, b"older")])
            clock.now += HOUR
            writer.seal_hours(0)
            writer.commit([group(3, b"new", received=clock.now)])
        clock.now = NOON + DAY
        with killed_at(death):
            expire(archive, Policy(older_than=0, keep_last=1), act=True, clock=clock)
            collect(archive, grace=GRACE, act=True, clock=clock)
            restore(archive, Selection(), act=True, clock=clock)
            break
        assert check(archive).sound
        expire(archive, Policy(older_than=0, keep_last=1), act=True, clock=clock)
        collect(archive, grace=GRACE, act=True, clock=clock)
        assert [item.sequence for item in contents(archive)] == [3]
        restore(archive, Selection(), act=True, clock=clock)
        assert len(contents(archive)) == 3
        assert check(archive).sound
    else:
        pytest.fail("it dies of more than is tried")
    assert death > 10
