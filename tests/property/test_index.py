"""An index that followed line by line and one that was made at once give the same answers."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.digest import digest_of
from casfs.expiries import ExpiryWriter, lock_expiries
from casfs.groups import runs_of
from casfs.index import ahead
from casfs.index.index import Index
from casfs.index.mirror import catch_up, catch_up_journal, rebuild
from casfs.index.reader import Reader
from casfs.index.rows import BroadcastRow
from casfs.manifests.expiry import NOTHING_EXPIRED, ExpiredHour
from casfs.manifests.layout import all_journals
from casfs.retention import Decision
from casfs.timestamps import HOUR
from tests.fakes.store import NOON, Clock, group, make_archive

if TYPE_CHECKING:
    from casfs.archive import Archive, Group, Run

groups = st.builds(
    group,
    st.integers(0, 6),
    st.sampled_from([b"", b"a", b"bb", b"ccc"]),
    track=st.sampled_from(["audio", "video"]),
    epoch=st.integers(1, 2),
    complete=st.booleans(),
    received=st.integers(0, 3).map(lambda hour: NOON + hour * HOUR),
    init=st.none() | st.just(digest_of(b"a")),
)
PAYLOADS = [digest_of(data) for data in (b"", b"a", b"bb", b"ccc")]


def answers(lookup: Index | Reader) -> list[object]:
    """Ask everything that there is to ask."""
    found: list[object] = []
    for broadcast in lookup.broadcasts():
        tracks = (
            lookup.tracks(broadcast)
            if isinstance(lookup, Reader)
            else lookup.tracks(broadcast.number)
        )
        for track in tracks:
            found += [track, lookup.summary(track), sorted(lookup.hours(track))]
            found += [lookup.find(track, epoch, number) for epoch in (1, 2) for number in range(7)]
            if isinstance(lookup, Reader):
                found += lookup.groups(track, 0, 1 << 62)
                found.append(lookup.newest(track))
            else:
                for hour in sorted(lookup.hours(track)):
                    found += lookup.groups(track, hour, 0, 1000)
                newest = lookup.newest(track, complete=True)
                found.append(newest or lookup.newest(track, complete=False))
        found += [lookup.group(broadcast.number, n) for n in range(60)]
    found += [list(lookup.referencing(digest)) for digest in PAYLOADS]
    return found


def items_of(batch: list[Group]) -> list[Group | Run]:
    """Return what a recorder commits of these if all of them are small."""
    items: list[Group | Run] = [item for item in batch if not item.complete]
    for track in ("audio", "video"):
        items += runs_of([item for item in batch if item.complete and item.track == track])
    return items


def expire_or_restore(archive: Archive, data: st.DataObject) -> None:
    """Record any decision about any hour, whether or not it would ever be taken."""
    hour = NOON // HOUR + data.draw(st.integers(0, 3), "hour")
    state = ExpiredHour(
        data.draw(st.integers(0, 40), "through"), data.draw(st.frozensets(st.integers(1, 40)))
    )
    decision = Decision(
        broadcast=BroadcastRow(1, "news"), hour=hour, expired=state, groups=0, bytes=0, reason=""
    )
    with lock_expiries(archive.roots):
        writer = ExpiryWriter(archive, clock=Clock())
        if data.draw(st.booleans(), "restore"):
            writer.restore(decision.broadcast, {hour: NOTHING_EXPIRED})
        writer.expire(decision.broadcast, [decision])


@settings(max_examples=40)
@given(
    batches=st.lists(st.lists(groups, min_size=1, max_size=4), min_size=1, max_size=6),
    data=st.data(),
)
def test_rebuilt_followed_and_overlaid_indexes_agree(
    batches: list[list[Group]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        archive = make_archive(Path(directory))
        root = archive.roots.manifests
        mirror = archive.mirror()
        stack.callback(mirror.close)
        following = stack.enter_context(contextlib.closing(Index.temporary(archive.store_id)))
        # A reader whose clock always moves is never behind; it lives through all of it.
        ticks = iter(range(10**9))
        reader = stack.enter_context(
            contextlib.closing(
                Reader(root, archive.index_path, archive.store_id, clock=lambda: next(ticks))
            )
        )
        with archive.writer("news", clock=Clock()) as writer:
            for batch in batches:
                together = data.draw(st.booleans(), "runs")
                writer.commit(items_of(batch) if together else batch)
                if data.draw(st.booleans(), "expire"):
                    expire_or_restore(archive, data)
                if data.draw(st.booleans(), "follow"):
                    catch_up(following, root)
                if data.draw(st.booleans(), "mirror"):
                    mirror.step(None)
                if data.draw(st.booleans(), "read"):
                    answers(reader)
        catch_up(following, root)
        mirror.step(None)
        at_once = stack.enter_context(contextlib.closing(Index.temporary(archive.store_id)))
        catch_up(at_once, root)
        expected = answers(at_once)
        assert answers(following) == expected
        assert answers(reader) == expected
        assert [row.position for row in following.journals()] == [
            row.position for row in at_once.journals()
        ]
        # Again, over a base that stands anywhere.
        overlay = stack.enter_context(contextlib.closing(Index.temporary(archive.store_id)))
        # What came before its expiry is as what came after it.
        for place in reversed(list(all_journals(root))):
            catch_up_journal(overlay, root, place, sync=False)
        assert answers(overlay) == expected
        # And by a process that reads ahead.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ahead, "_WORTHWHILE_BYTES", 0)
            patch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
            rebuild(archive.index_path, root, archive.store_id)
        rebuilt = Index.open_for_reading(archive.index_path, archive.store_id)
        assert answers(stack.enter_context(contextlib.closing(rebuilt))) == expected


@settings(max_examples=30)
@given(st.lists(groups, min_size=1, max_size=12))
def test_what_an_object_is_needed_for_is_found_by_shard(batch: list[Group]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        archive = make_archive(Path(directory))
        with archive.writer("news", clock=Clock()) as writer:
            writer.commit(batch)
        index = Index.temporary(archive.store_id)
        with contextlib.closing(index):
            catch_up(index, archive.roots.manifests)
            found = dict(pair for number in range(256) for pair in index.objects(f"{number:02x}"))
    sizes: dict[str, int | None] = {
        digest_of(b"".join(item.frames)): len(b"".join(item.frames)) for item in batch
    }
    for item in batch:
        if item.init is not None:
            sizes.setdefault(item.init, None)
    assert found == sizes
