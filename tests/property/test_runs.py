"""Runs change how groups lie on disk, and no answer: the same with them as without.

Two archives are told the same deliveries, in the same batches; one commits small groups together.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from casfs.digest import digest_of
from casfs.index.index import Index
from casfs.index.mirror import catch_up
from casfs.index.reader import Reader
from casfs.manifests.layout import all_journals
from casfs.mount.broadcasts import BroadcastsView, GroupFile
from casfs.mount.tree import Directory
from casfs.timestamps import HOUR
from casfs.verify import verify
from ingest.keeper import Delivery, Keeper
from ingest.moq.events import GroupReceived
from ingest.state import RecorderState
from tests.fakes.store import NOON, Clock, crash, make_archive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.archive import Archive
    from casfs.index.rows import GroupRow
    from casfs.mount.tree import Listed

TV = "demo/tv"
TRACKS = ("audio", "video")


class Step(Struct, frozen=True):
    """Deliveries that are handed over at once; those at ``held`` wait for the next time."""

    deliveries: tuple[Delivery, ...]
    held: frozenset[int]
    crash: bool
    """The recorder is killed behind it."""


def delivery(
    track: str, sequence: int, version: int, cut: int | None, minute: int, generation: int
) -> Delivery:
    whole = b"%s %d %d" % (track.encode(), sequence, version)
    payload = whole if cut is None else whole[:cut]
    received = NOON + minute * HOUR // 60 + sequence * 10**6
    group = GroupReceived(
        subscription=0,
        sequence=sequence,
        frames=(payload[:3], payload[3:]),
        timestamps=(sequence, sequence + 1),
        complete=cut is None,
        reason="" if cut is None else "reset 1",
        received_start=received,
        received_end=received + 5,
    )
    return Delivery(track, group, 48_000, generation, "https://relay.example:443", "moq-lite-05")


deliveries = st.builds(
    delivery,
    st.sampled_from(TRACKS),
    st.integers(0, 12),
    st.sampled_from((0, 0, 0, 0, 1)),
    st.sampled_from((None, None, None, None, 0, 4)),
    st.sampled_from((0, 0, 0, 61)),
    st.just(1),
)
steps = st.builds(
    Step,
    st.lists(deliveries, min_size=1, max_size=14).map(tuple),
    st.frozensets(st.integers(0, 13), max_size=5),
    st.sampled_from((False, False, False, True)),
)


def record(archive: Archive, history: Sequence[Step], *, small: bool) -> None:
    """Be the recorders of a broadcast, one after the other, with an index that follows."""
    clock = Clock()
    at = 0
    while at < len(history):
        writer = archive.writer(TV, clock=clock)
        writer.__enter__()
        keeper = Keeper(writer, RecorderState(broadcast=TV))
        waiting: list[Delivery] = []
        ended = False
        while at < len(history) and not ended:
            step = history[at]
            at += 1
            # Only complete groups may be taken for small ones.
            waiting += [
                replace(item, small=small and item.group.complete) for item in step.deliveries
            ]
            held = {place for place in step.held if place < len(waiting)}
            if at == len(history) or step.crash:
                held = set()
            keeper.keep(waiting, held)
            waiting = [item for place, item in enumerate(waiting) if place in held]
            ended = step.crash
        if ended:
            crash(writer)
        else:
            writer.__exit__(None, None, None)


def told(archive: Archive, row: GroupRow) -> tuple[object, ...]:
    """Return what a group is, wherever it lies: all but its object, its place and its number."""
    with open(archive.objects.path(row.hash), "rb") as file:
        payload = file.read()[row.offset : row.offset + row.size]
    assert digest_of(payload) == row.digest
    who = (row.broadcast.name, row.track, row.epoch, row.sequence)
    return (*who, payload, row.received_start, row.received_end, row.complete, row.init)


def answers(archive: Archive, reader: Reader) -> list[object]:
    """Ask everything whose answer must not depend on runs."""
    found: list[object] = []
    for name in TRACKS:
        track = reader.track(TV, name)
        if track is None:
            continue
        summary = reader.summary(track)
        found += [name, summary.groups, summary.bytes, summary.first, summary.last]
        found += [*reader.hours(track), *reader.epochs(track)]
        rows = list(reader.groups(track, 0, 1 << 62))
        found.append(sorted(told(archive, row) for row in rows))
        middle = NOON + 5 * 10**6
        part = reader.groups(track, middle, middle + 4 * 10**6)
        found.append(sorted(told(archive, row) for row in part))
        newest = reader.newest(track)
        found.append(newest and told(archive, newest))
        for epoch in (1, 2, 3):
            for sequence in range(-1, 14):
                around = (*reader.neighbours(track, epoch, sequence),)
                for row in (reader.find(track, epoch, sequence), *around):
                    found.append(row and told(archive, row))
        for row in rows:
            assert reader.group(row.broadcast.number, row.n) == row
            later = reader.groups(track, 0, 1 << 62, after=row.n)
            assert list(later) == [other for other in rows if other.n > row.n]
        extents = list(reader.extents(track, 0, 1 << 62))
        assert [row for extent in extents for row in extent.group_rows()] == rows
        for extent in extents:
            assert reader.extent_of(track, extent.epoch, extent.sequence) == extent
    totals = reader.statistics()
    found += [totals.totals.groups, totals.totals.logical_bytes]
    found += [(day.day, day.groups, day.logical_bytes) for day in totals.days]
    return found


def listed(directory: Directory, most: int) -> list[Listed]:
    """Read a directory a page at a time."""
    found: list[Listed] = []
    while page := directory.listing(found[-1].cookie if found else 0, most):
        found += page
    return found


def check_listings(directory: Directory) -> int:
    """See to it that each directory below lists what its entries are; return how many files."""
    entries = list(directory.entries())
    for most in (1, 3, 100):
        assert [
            (entry.name, entry.cookie, entry.attributes) for entry in listed(directory, most)
        ] == [(entry.name, entry.cookie, entry.node.attributes()) for entry in entries]
    files = 0
    for entry in entries:
        found = directory.child(entry.name)
        assert found is not None
        assert found.attributes() == entry.node.attributes()
        if isinstance(entry.node, Directory):
            files += check_listings(entry.node)
        files += isinstance(entry.node, GroupFile)
    return files


@settings(max_examples=15)
@given(st.lists(steps, min_size=1, max_size=5))
def test_with_runs_every_answer_is_the_same_as_without(history: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        said: list[list[object]] = []
        for name in ("runs", "alone"):
            archive = make_archive(Path(directory) / name)
            record(archive, history, small=name == "runs")
            without = str(Path(directory) / "no-index")
            for path in (without, archive.index_path):
                reader = Reader(archive.roots.manifests, path, archive.store_id)
                stack.callback(reader.close)
                said.append(answers(archive, reader))
                extents = [
                    extent
                    for track in TRACKS
                    if (row := reader.track(TV, track)) is not None
                    for extent in reader.extents(row, 0, 1 << 62)
                ]
                root = BroadcastsView(reader, "/broadcasts").root
                assert check_listings(root) == len(extents)
                with contextlib.closing(archive.mirror()) as mirror:
                    mirror.step(None)
            assert not verify(archive, threads=1).damaged
        assert all(one == said[0] for one in said)


@settings(max_examples=15)
@given(st.lists(steps, min_size=1, max_size=4))
def test_an_index_that_follows_runs_is_the_one_that_is_rebuilt(history: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        archive = make_archive(Path(directory) / "archive")
        following = stack.enter_context(contextlib.closing(Index.temporary(archive.store_id)))
        for at in range(1, len(history) + 1):
            record(archive, history[at - 1 : at], small=True)
            catch_up(following, archive.roots.manifests)
        rebuilt = stack.enter_context(contextlib.closing(Index.temporary(archive.store_id)))
        catch_up(rebuilt, archive.roots.manifests, list(all_journals(archive.roots.manifests)))
        for query in _EVERYTHING:
            assert list(following.select(query)) == list(rebuilt.select(query))


# All but the ids of journals, which depend on the order in which they are found.
_GROUPS = (
    "select j.place, g.n, epoch, sequence, g.hash, g.offset, size, received_start, received_end,"
    " complete, init, current, expired, g.groups, last_sequence, last_start, members"
    " from groups g join journals j on j.id = g.journal order by 1, 2"
)
_HOURS = "select place, hour, h.groups from hours h join journals on id = h.journal order by 1, 2"
_JOURNALS = "select place, segment, offset, hash, groups, bytes, first, last, span from journals"
_EVERYTHING = (_GROUPS, _HOURS, f"{_JOURNALS} order by 1")
