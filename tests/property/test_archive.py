"""A real archive against a model, through commits, crashes, broken indexes and odd clocks."""

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
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from casfs.errors import StorageError
from casfs.index.mirror import rebuild
from casfs.index.reader import Reader
from casfs.timestamps import DAY, HOUR
from tests.fakes.store import (
    Clock,
    Known,
    check,
    contents,
    crash,
    group,
    known,
    make_archive,
    row_known,
    rows,
    write_unacknowledged,
)

if TYPE_CHECKING:
    from casfs.archive import BroadcastWriter, Group

BROADCASTS = ("news", "sport/live")
TRACKS = ("video0.m4s", "audio/0", "init.mp4")

commits = st.lists(
    st.tuples(
        st.sampled_from(TRACKS),
        st.integers(0, 4),
        st.sampled_from([b"", b"same", b"other", b"x" * 700]),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)
damage = st.sampled_from(["nothing", "cut", "nuls", "nuls before", "garbage"])

Identity = tuple[str, str, int]


class ArchiveMachine(RuleBasedStateMachine):
    """What was acknowledged is there after every step, whatever the step was."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="casfs-machine-")
        self.archive = make_archive(Path(self.directory))
        self.clock = Clock()
        self.mirror = self.archive.mirror()
        self.writers: dict[str, BroadcastWriter] = {}
        self.kept: dict[Identity, Known] = {}
        self.perhaps: set[Known] = set()
        self.fresh = itertools.count(1000)
        self.ticks = itertools.count()
        self.reader = Reader(
            self.archive.roots.manifests,
            self.archive.index_path,
            self.archive.store_id,
            clock=lambda: float(next(self.ticks)),
        )

    def teardown(self) -> None:
        for writer in self.writers.values():
            crash(writer)
        self.reader.close()
        self.mirror.close()
        shutil.rmtree(self.directory)

    def writer(self, broadcast: str) -> BroadcastWriter:
        if broadcast not in self.writers:
            writer = self.archive.writer(broadcast, clock=self.clock)
            writer.__enter__()
            self.writers[broadcast] = writer
        return self.writers[broadcast]

    def keep(self, broadcast: str, item: Group) -> None:
        identity = (broadcast, item.track, item.sequence)
        before = self.kept.get(identity)
        if before is None or not before.complete:
            self.kept[identity] = known(item)

    @initialize(broadcast=st.sampled_from(BROADCASTS))
    def first_group(self, broadcast: str) -> None:
        self.commit(broadcast, [("init.mp4", 0, b"init", True)])

    @rule(broadcast=st.sampled_from(BROADCASTS), batch=commits)
    def commit(self, broadcast: str, batch: list[tuple[str, int, bytes, bool]]) -> None:
        groups = [
            group(n, payload, track=track, complete=complete, received=self.clock.now)
            for track, n, payload, complete in batch
        ]
        self.writer(broadcast).commit(groups)
        for item in groups:
            self.keep(broadcast, item)

    @rule(
        broadcast=st.sampled_from(BROADCASTS), tracks=st.sets(st.sampled_from(TRACKS), min_size=1)
    )
    def commit_with_a_failing_sync(self, broadcast: str, tracks: set[str]) -> None:
        writer = self.writer(broadcast)
        groups = [group(next(self.fresh), track=track) for track in sorted(tracks)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fdatasync", _fail)
            with pytest.raises(StorageError):
                writer.commit(groups)
        self.perhaps.update(map(known, groups))

    @rule(broadcast=st.sampled_from(BROADCASTS))
    def note_a_gap(self, broadcast: str) -> None:
        now = self.clock.now
        self.writer(broadcast).note_gap(TRACKS[0], epoch=1, start=now, end=now, reason="lost")

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        broadcast = data.draw(st.sampled_from(sorted(self.writers)))
        self.writers.pop(broadcast).__exit__(None, None, None)

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), kind=damage, at=st.floats(0, 1), tracks=st.sets(st.sampled_from(TRACKS)))
    def crash(self, data: st.DataObject, kind: str, at: float, tracks: set[str]) -> None:
        broadcast = data.draw(st.sampled_from(sorted(self.writers)))
        writer = self.writers.pop(broadcast)
        groups = [group(next(self.fresh), track=track) for track in sorted(tracks)] * 2
        sizes = write_unacknowledged(writer, groups)
        crash(writer)
        self.perhaps.update(map(known, groups))
        for path, synced in sizes.items():
            _damage(path, synced, kind, at)

    @rule(hours=st.integers(-20, 50))
    def step_the_clock(self, hours: int) -> None:
        # At most a day behind the newest record: more is refused, and tested elsewhere.
        self.clock.now = max(self.clock.now + hours * HOUR, self.newest - DAY + HOUR)

    @property
    def newest(self) -> int:
        return self._newest

    _newest = 0

    @invariant()
    def remember_the_newest_time(self) -> None:
        self._newest = max(self._newest, self.clock.now)

    @rule()
    def mirror_step(self) -> None:
        self.mirror.step(None)
        assert self.mirror.trouble == ""

    @rule()
    def delete_the_index(self) -> None:
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.archive.index_path + ending)

    @rule()
    def rebuild_the_index(self) -> None:
        rebuild(self.archive.index_path, self.archive.roots.manifests, self.archive.store_id)

    @invariant()
    def everything_acknowledged_is_there(self) -> None:
        expected = sorted(self.kept.values(), key=repr)
        for found in (
            contents(self.archive),
            contents(self.archive, index=False),
            list(map(row_known, rows(self.reader))),
        ):
            certain = [item for item in found if item not in self.perhaps]
            assert sorted(certain, key=repr) == expected
            assert len(set(found) & self.perhaps) == len(found) - len(certain)

    @invariant()
    def the_archive_is_sound(self) -> None:
        report = check(self.archive)
        assert report.sound, report


def _fail(descriptor: int) -> None:
    raise OSError(5, "Input/output error")


def _damage(path: str, synced: int, kind: str, at: float) -> None:
    """Do to the unsynced suffix of a segment what a power cut can do."""
    if not os.path.exists(path):
        return
    size = os.path.getsize(path)
    place = synced + int((size - synced) * at)
    if kind == "cut":
        os.truncate(path, place)
    elif kind != "nothing":
        start, end = (synced, place) if kind == "nuls before" else (place, size)
        with open(path, "r+b") as file:
            file.seek(start)
            file.write(os.urandom(end - start) if kind == "garbage" else b"\0" * (end - start))


TestArchive = ArchiveMachine.TestCase
TestArchive.settings = settings(max_examples=15, stateful_step_count=20)
