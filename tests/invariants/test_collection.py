"""The invariants that deleting must keep, each under its own name of what must always hold."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs import collect as collecting
from casfs.archive import Archive
from casfs.collect import collect
from casfs.digest import digest_of
from casfs.errors import (
    CasfsError,
    CollectorLockedError,
    DamageError,
    ForeignRootError,
    NotInitialisedError,
    UnsupportedFormatError,
    UsageError,
)
from casfs.expiries import lock_expiries
from casfs.index.payload_names import PayloadName
from casfs.index.samples import SUFFIX, SampleIndex
from casfs.manifests.record import StopRecord
from casfs.media.samples import GroupSamples
from casfs.objects.local import LocalStore, exclusive_shard
from casfs.restore import Selection, restore
from casfs.roots import Roots
from casfs.survey import Survey
from casfs.timestamps import DAY, HOUR
from tests.fakes.hours import (
    LATER,
    collect_all,
    everything_below,
    expire_all,
    hour_group,
    in_trash,
    record_hours,
    restore_all,
    stored,
)
from tests.fakes.store import (
    Clock,
    check,
    contents,
    flip_bit,
    journal_directory,
    make_archive,
    python,
    segments,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SHARED, OLD, NEW = b"in two broadcasts", b"only old", b"only new"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = make_archive(tmp_path)
    record_hours(archive, [[hour_group(0, OLD), hour_group(0, SHARED, sequence=1)]])
    with archive.writer("other", clock=Clock(LATER)) as writer:
        writer.commit([hour_group(0, SHARED), hour_group(0, NEW, sequence=1)])
    return archive


def names(*payloads: bytes) -> set[str]:
    return {str(digest_of(data)) for data in payloads}


# no-silent-delete


def test_no_silent_delete_but_of_what_expired_and_lay_in_the_trash(archive: Archive) -> None:
    before = contents(archive)
    collect_all(archive, grace=1)
    assert stored(archive) == names(SHARED, OLD, NEW), "nothing has expired"
    expire_all(archive)
    assert contents(archive) != before
    assert stored(archive) == names(SHARED, OLD, NEW), "expiry touches no object"
    assert check(archive).sound
    outcome = collect_all(archive)
    assert outcome.trashed.objects == 1
    assert stored(archive) == names(SHARED, NEW), "what a living record needs stays"
    assert in_trash(archive) == names(OLD)
    assert check(archive).sound
    collect_all(archive, now=LATER + DAY - 10**10)
    assert in_trash(archive) == names(OLD), "the grace period is not over"
    outcome = collect_all(archive, now=LATER + DAY + 10**10)
    assert outcome.deleted.objects == 1
    assert in_trash(archive) == set()
    assert stored(archive) == names(SHARED, NEW)
    assert check(archive).sound


def test_no_silent_delete_without_a_word(archive: Archive) -> None:
    roots = archive.roots
    before = [everything_below(root) for root in (roots.cas, roots.manifests)]
    assert expire_all(archive, act=False)
    assert [everything_below(root) for root in (roots.cas, roots.manifests)] == before
    expire_all(archive)
    before = [everything_below(root) for root in (roots.cas, roots.manifests)]
    assert collect_all(archive, act=False, orphans=True).trashed.objects == 1
    assert restore_all(archive, act=False).hours
    assert [everything_below(root) for root in (roots.cas, roots.manifests)] == before


def test_no_silent_delete_of_what_is_merely_unreferenced(archive: Archive) -> None:
    orphan = archive.objects.path(digest_of(b"orphan"))
    with open(orphan, "wb") as file:
        file.write(b"orphan")
    status = os.stat(orphan)
    young = max(status.st_mtime_ns, status.st_ctime_ns) + DAY - HOUR
    collect_all(archive, now=young + 2 * HOUR)
    assert os.path.exists(orphan), "nobody asked for orphans"
    collect_all(archive, now=young, orphans=True)
    assert os.path.exists(orphan), "it is younger than the grace period"
    collect_all(archive, now=young + 2 * HOUR, orphans=True)
    assert in_trash(archive) == names(b"orphan")
    assert stored(archive) == names(SHARED, OLD, NEW)


def test_no_silent_delete_of_what_a_record_needs_even_from_the_trash(archive: Archive) -> None:
    expire_all(archive)
    collect_all(archive)
    shutil.rmtree(os.path.join(archive.roots.manifests, ".casfs", "expired"))
    os.unlink(os.path.join(archive.roots.cas, ".casfs", "heads", ".expired.json"))
    outcome = collect_all(archive, now=LATER + 30 * DAY)
    assert outcome.needed == 1
    assert in_trash(archive) == names(OLD)
    assert restore_all(archive, act=False).objects == 1
    assert in_trash(archive) == names(OLD)
    restored = restore_all(archive)
    assert (restored.objects, restored.hours) == (1, [])
    assert in_trash(archive) == set()
    assert check(archive).sound


def test_no_silent_delete_of_the_last_good_copy(archive: Archive) -> None:
    expire_all(archive)
    collect_all(archive)
    with archive.writer("late", clock=Clock(LATER)) as writer:
        writer.commit([hour_group(0, OLD)])
    damage(archive, OLD)
    assert collect_all(archive, now=LATER + 30 * DAY).needed == 1
    assert in_trash(archive) == names(OLD)
    nothing_expired = Selection(broadcasts=("late",))
    assert restore(archive, nothing_expired, act=True).objects == 1
    assert in_trash(archive) == set()
    assert check(archive).sound


def damage(archive: Archive, data: bytes) -> None:
    path = archive.objects.path(digest_of(data))
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.write(bytes([data[0] ^ 1]))


def test_no_silent_delete_of_an_init_that_media_needs(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    init, other = b"init", b"other init"
    record_hours(
        archive,
        [
            [hour_group(0, init, track="init.mp4"), hour_group(0, OLD, init=digest_of(init))],
            [hour_group(1, NEW, init=digest_of(init))],
            [hour_group(2, other, track="init.mp4", epoch=2)],
        ],
    )
    expire_all(archive, now=Clock().now + HOUR + 1)
    collect_all(archive)
    assert stored(archive) == names(init, NEW, other)
    assert [item.track for item in contents(archive)] == ["init.mp4", "init.mp4", "video0.m4s"]
    expire_all(archive)
    collect_all(archive)
    assert stored(archive) == names(other), "the newest stays for whoever goes on"
    assert [hour.lost for hour in restore_all(archive).hours] == [0, 0]
    assert stored(archive) == names(init, OLD, NEW, other)
    assert len(contents(archive)) == 4
    assert check(archive).sound


def lose_a_track(archive: Archive) -> None:
    shutil.rmtree(journal_directory(archive, "other", "video0.m4s"))


def lose_a_broadcast(archive: Archive) -> None:
    shutil.rmtree(os.path.join(archive.roots.manifests, "other"))


def lose_all_manifests(archive: Archive) -> None:
    for name in os.listdir(archive.roots.manifests):
        if name != ".casfs":
            shutil.rmtree(os.path.join(archive.roots.manifests, name))


def go_back_in_time(archive: Archive) -> None:
    (path,) = segments(journal_directory(archive, "other", "video0.m4s"))
    lines = _lines(path)
    with open(path, "wb") as file:
        file.write(b"".join(lines[:-1]))


def lose_the_decisions(archive: Archive) -> None:
    shutil.rmtree(os.path.join(archive.roots.manifests, ".casfs", "expired"))


def damage_a_line(archive: Archive) -> None:
    (path,) = segments(journal_directory(archive, "other", "video0.m4s"))
    flip_bit(path, len(_lines(path)[0]) + 40)


def damage_a_decision(archive: Archive) -> None:
    (path,) = segments(os.path.join(archive.roots.manifests, ".casfs", "expired", "tv"))
    flip_bit(path, len(_lines(path)[0]) + 40)


def write_what_only_a_newer_version_knows(archive: Archive) -> None:
    class LaterStop(StopRecord, frozen=True, kw_only=True, tag="shredded"):
        """A kind that nobody knows."""

    with archive.writer("other", clock=Clock(LATER)) as writer:
        writer._note(LaterStop, reason="")


def _lines(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        return file.readlines()


@pytest.mark.parametrize(
    ("spoil", "refusal"),
    [
        (lose_a_track, ForeignRootError),
        (lose_a_broadcast, ForeignRootError),
        (lose_all_manifests, ForeignRootError),
        (go_back_in_time, ForeignRootError),
        (lose_the_decisions, ForeignRootError),
        (damage_a_line, DamageError),
        (damage_a_decision, DamageError),
        (write_what_only_a_newer_version_knows, UnsupportedFormatError),
    ],
)
def test_no_silent_delete_where_a_record_may_be_lost(
    archive: Archive, spoil: Callable[[Archive], None], refusal: type[CasfsError]
) -> None:
    expire_all(archive)
    collect_all(archive)
    record_hours(archive, [[hour_group(0, b"more")]], broadcast="more")
    expire_all(archive)
    spoil(archive)
    before = everything_below(archive.roots.cas)
    with pytest.raises(refusal) as raised:
        collect_all(archive, now=LATER + 30 * DAY, orphans=True)
    assert raised.value.advice
    assert everything_below(archive.roots.cas) == before


def test_damage_that_is_accepted_by_its_name_protects_what_it_may_concern(
    archive: Archive,
) -> None:
    record_hours(
        archive, [[hour_group(hour, bytes([hour]) * 9)] for hour in range(6)], broadcast="more"
    )
    (path,) = segments(journal_directory(archive, "more", "video0.m4s"))
    flip_bit(path, sum(map(len, _lines(path)[:2])) + 40)
    expire_all(archive)
    with pytest.raises(DamageError) as raised:
        collect_all(archive)
    assert raised.value.advice is not None
    name = raised.value.advice.split()[-1].strip("'")
    assert name.startswith("more/video0.m4s/2026-11-22.000.jsonl@")
    for names, orphans in (([name, f"{name}0"], False), ([name], True)):
        with pytest.raises(UsageError):
            collect(archive, grace=DAY, act=True, clock=Clock(LATER), accept=names, orphans=orphans)
    before = stored(archive)
    outcome = collect(archive, grace=DAY, act=True, clock=Clock(LATER), accept=[name])
    # The line of hour 1 is lost; those beside it, and an hour more, stay.
    gone = {str(digest_of(bytes([hour]) * 9)) for hour in (4, 5)}
    near = {str(digest_of(bytes([hour]) * 9)) for hour in range(4)}
    assert near <= stored(archive)
    assert gone <= in_trash(archive)
    assert before == stored(archive) | in_trash(archive)
    assert outcome.protected == 3, "the object of the lost line is named by none"
    with pytest.raises(DamageError):
        collect_all(archive, now=LATER + 30 * DAY)


def test_damage_before_the_first_group_protects_all_that_was_received_before_the_next(
    archive: Archive,
) -> None:
    """As in an import: what was received long ago is recorded now."""
    record_hours(
        archive,
        [[hour_group(hour - 5000, bytes([hour]) * 9, sequence=hour)] for hour in range(6)],
        broadcast="more",
    )
    (path,) = segments(journal_directory(archive, "more", "video0.m4s"))
    offset = len(_lines(path)[0])
    flip_bit(path, offset + 40)
    expire_all(archive)
    name = f"more/video0.m4s/{os.path.basename(path)}@{offset}"
    collect(archive, grace=DAY, act=True, clock=Clock(LATER), accept=[name])
    left = {str(digest_of(bytes([hour]) * 9)) for hour in range(3)}
    gone = {str(digest_of(bytes([hour]) * 9)) for hour in range(3, 6)}
    assert left <= stored(archive)
    assert gone <= in_trash(archive)


def test_damage_to_what_was_decided_cannot_be_accepted(archive: Archive) -> None:
    expire_all(archive)
    damage_a_decision(archive)
    (path,) = segments(os.path.join(archive.roots.manifests, ".casfs", "expired", "tv"))
    name = f".casfs/expired/tv/{os.path.basename(path)}@{len(_lines(path)[0])}"
    with pytest.raises(DamageError) as raised:
        collect(archive, grace=DAY, act=True, clock=Clock(LATER), accept=[name])
    assert "accept" not in str(raised.value)


# wrong-disk-refused


def test_wrong_disk_refused_for_deleters(archive: Archive, tmp_path: Path) -> None:
    expire_all(archive)
    other = make_archive(tmp_path / "other")
    with pytest.raises(ForeignRootError):
        Archive(Roots(archive.roots.cas, other.roots.manifests))
    with pytest.raises(NotInitialisedError):
        Archive(Roots(archive.roots.cas, str(tmp_path)))
    # The same id, for the disk was copied empty: the heads tell.
    hollow = tmp_path / "hollow"
    for name in (".casfs", ".casfs/expired"):
        (hollow / name).mkdir(parents=True)
    shutil.copy(os.path.join(archive.roots.manifests, ".casfs", "format.json"), hollow / ".casfs")
    before = everything_below(archive.roots.cas)
    mounted = Archive(Roots(archive.roots.cas, str(hollow)))
    for act in (expire_all, collect_all, restore_all):
        with pytest.raises(ForeignRootError):
            act(mounted)
    # Nor without heads: then all would be orphans.
    shutil.rmtree(os.path.join(archive.roots.cas, ".casfs", "heads"))
    os.mkdir(os.path.join(archive.roots.cas, ".casfs", "heads"))
    with pytest.raises(ForeignRootError):
        collect_all(mounted, now=LATER + 9999 * DAY, orphans=True)
    after = everything_below(archive.roots.cas)
    assert {path: before[path] for path in after} == after


def test_one_deleter_at_a_time(archive: Archive) -> None:
    with lock_expiries(archive.roots):
        for act in (expire_all, collect_all, restore_all):
            with pytest.raises(CollectorLockedError):
                act(archive)
        assert expire_all(archive, act=False), "who only asks may"


# record-implies-object


@contextlib.contextmanager
def committed_before_the_lock(
    archive: Archive, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Have another recorder commit the payload between the survey and the shard's lock."""
    real = exclusive_shard

    @contextlib.contextmanager
    def late(store: LocalStore, shard: str) -> Iterator[int]:
        with archive.writer("late", clock=Clock(LATER)) as writer:
            writer.commit([hour_group(0, data)])
        with real(store, shard) as descriptor:
            yield descriptor

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "exclusive_shard", late)
        yield


def test_record_implies_object_that_is_committed_just_before_its_shard_is_locked(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    expire_all(archive)
    with committed_before_the_lock(archive, OLD, monkeypatch):
        assert collect_all(archive).trashed.objects == 0
    assert stored(archive) == names(SHARED, OLD, NEW)
    assert check(archive).sound


def test_a_collector_that_did_not_read_the_tails_would_be_found_out(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    expire_all(archive)
    with committed_before_the_lock(archive, OLD, monkeypatch), monkeypatch.context() as patch:
        survey = Survey(archive, strict=True).__enter__()
        patch.setattr(collecting, "Survey", lambda *_, **__: contextlib.nullcontext(survey))
        patch.setattr(survey, "refresh", lambda: None)
        collect_all(archive)
        survey.__exit__()
    assert [missing.hash for missing in check(archive).missing] == [digest_of(OLD)]


ROUNDS = 12
PAYLOADS = 12
WRITER = """
import sys
from casfs.archive import Archive, Group
from casfs.objects.local import LocalStore, exclusive_shard
from casfs.restore import Selection, restore
from casfs.roots import Roots
from casfs.survey import Survey

cas, manifests, broadcast, step = sys.argv[1:]
with Archive(Roots.of(cas, manifests)).writer(broadcast) as writer:
    print("ready", flush=True)
    for line in sys.stdin:
        start, *payloads = line.split()
        for number, data in enumerate(payloads[:: int(step)]):
            writer.commit([
                Group(
                    track="t", epoch=1, sequence=int(start) + number, frames=(data.encode(),),
                    received_start=0, received_end=0,
                )
            ])
        print("done", flush=True)
"""


def test_record_implies_object_while_writers_put_what_is_being_collected(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    roots = archive.roots
    spared = 0
    with contextlib.ExitStack() as running:
        writers = [
            running.enter_context(
                subprocess.Popen(
                    python("-c", WRITER, roots.cas, roots.manifests, f"writer-{step}", str(step)),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for step in (1, -1)
        ]
        for number in range(ROUNDS):
            payloads = [f"{number}-{at}".encode() for at in range(PAYLOADS + 1)]
            batch = [hour_group(0, data, sequence=at) for at, data in enumerate(payloads)]
            record_hours(archive, [batch], broadcast=f"old-{number}")
            expire_all(archive)
            text = " ".join(data.decode() for data in payloads[:-1])
            for writer in writers:
                if number == 0:
                    assert answer(writer) == "ready"
                tell(writer, f"{number * PAYLOADS} {text}")
            outcome = collect_all(archive, now=LATER + number * HOUR)
            for writer in writers:
                assert answer(writer) == "done"
            assert outcome.trashed.objects >= 1, "nobody puts the last one"
            spared += PAYLOADS + 1 - outcome.trashed.objects
            assert names(*payloads[:-1]) <= stored(archive)
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.close()
            assert writer.wait() == 0
    report = check(archive)
    assert report.sound
    assert report.objects == ROUNDS * PAYLOADS
    assert spared >= 1, "the writers never came first"


def tell(writer: subprocess.Popen[str], line: str) -> None:
    assert writer.stdin is not None
    writer.stdin.write(line + "\n")
    writer.stdin.flush()


def answer(writer: subprocess.Popen[str]) -> str:
    assert writer.stdout is not None
    return writer.stdout.readline().strip()


# what is derived from objects goes with them, and its trouble is nobody's


def test_sample_tables_are_forgotten_with_their_objects(archive: Archive) -> None:
    names_of = [PayloadName(digest_of(data), 0, len(data), "v", None) for data in (OLD, SHARED)]
    with contextlib.closing(SampleIndex.open(archive.index_path)) as samples:
        samples.put([(name, GroupSamples((), ())) for name in names_of])
    expire_all(archive)
    collect_all(archive)
    assert known_samples(archive, names_of) == [True, True], "what waits can be restored"
    collect_all(archive, now=LATER + 2 * DAY)
    assert in_trash(archive) == set()
    assert known_samples(archive, names_of) == [False, True]


def test_sample_tables_that_cannot_be_read_fail_no_collection(archive: Archive) -> None:
    os.mkdir(archive.index_path + SUFFIX)
    expire_all(archive)
    collect_all(archive)
    assert collect_all(archive, now=LATER + 2 * DAY).deleted.objects == 1


def known_samples(archive: Archive, names_of: Sequence[PayloadName]) -> list[bool]:
    with contextlib.closing(SampleIndex.open_for_reading(archive.index_path)) as samples:
        return [samples.get(name) is not None for name in names_of]
