"""What a sealed hour is made of never changes, whatever comes after the seal."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from casfs.archive import Group, Run
from casfs.index.rows import SealRow
from casfs.mount.sealing import sealed_hours
from casfs.timestamps import HOUR
from tests.fakes.store import NOON, Clock, group, make_archive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casfs.archive import Archive
    from casfs.index.rows import GroupRow

TRACK = "video0.m4s"


def cut_or_whole(sequence: int, payload: bytes, hour: int, *, complete: bool) -> Group:
    received = NOON + hour * HOUR + sequence
    return group(sequence, payload, track=TRACK, complete=complete, received=received)


groups = st.builds(
    cut_or_whole,
    st.integers(0, 4),
    st.sampled_from((b"one", b"another")),
    st.integers(0, 1),
    complete=st.booleans(),
)
runs = st.builds(
    lambda sequences, hour: Run(
        tuple(cut_or_whole(one, b"of a run", hour, complete=True) for one in sorted(sequences))
    ),
    st.sets(st.integers(0, 4), min_size=2),
    st.integers(0, 1),
)
batches = st.lists(st.lists(groups | runs, min_size=1, max_size=3), max_size=5)


def stood(archive: Archive, hour: int) -> list[GroupRow]:
    """Return what shows of an hour right now."""
    start = NOON + hour * HOUR
    with contextlib.closing(archive.reader()) as reader:
        track = reader.track("news", TRACK)
        return [] if track is None else list(reader.groups(track, start, start + HOUR))


def made_of(archive: Archive, seal: SealRow) -> list[GroupRow]:
    with contextlib.closing(archive.reader()) as reader:
        track = reader.track("news", TRACK)
        return [] if track is None else list(reader.sealed(track, seal))


@settings(max_examples=60)
@given(batches, batches, st.booleans())
def test_a_sealed_hour_is_what_it_was(
    before: Sequence[Sequence[Group | Run]], after: Sequence[Sequence[Group | Run]], lags: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        archive = make_archive(Path(directory))
        with (
            contextlib.closing(archive.mirror()) as mirror,
            archive.writer("news", clock=Clock()) as writer,
        ):
            through = 0
            for batch in before:
                through = writer.commit(batch)[-1].record.n
            was = [stood(archive, hour) for hour in (0, 1)]
            mirror.step(None)
            for batch in after:
                writer.commit(batch)
            if not lags:
                mirror.step(None)
            seals = [SealRow(NOON // HOUR + hour, through) for hour in (0, 1)]
            assert [made_of(archive, seal) for seal in seals] == was
        mirror.step(None)
        Path(archive.index_path).unlink()
        assert [made_of(archive, seal) for seal in seals] == was


def apart(sequence: int, payload: bytes, hour: int, *, complete: bool) -> Group:
    """Return a group whose sequence no group of another hour has."""
    return cut_or_whole(10 * hour + sequence, payload, hour, complete=complete)


CUT, WHOLE = (apart(0, b"one", 0, complete=complete) for complete in (False, True))
OTHERS = [apart(0, b"one", hour, complete=True) for hour in (1, 2)]

steps = st.lists(
    st.builds(
        apart,
        st.integers(0, 2),
        st.sampled_from((b"one", b"another")),
        st.integers(0, 3),
        complete=st.booleans(),
    )
    | st.just("seal"),
    min_size=2,
    max_size=10,
)


@settings(max_examples=30, deadline=None)
@example([OTHERS[0], "seal", CUT, OTHERS[1], "seal", WHOLE])
@given(steps)
def test_an_hour_that_was_sealed_stays_what_it_was_whatever_is_taken_in_later(
    steps: Sequence[Group | str],
) -> None:
    """Also one without a seal of its own: it came to an archive that had sealed later hours."""
    with tempfile.TemporaryDirectory() as directory:
        archive = make_archive(Path(directory))
        shown: dict[int, tuple[SealRow, list[GroupRow]]] = {}
        # Seals come while the newest hour has not ended.
        with archive.writer("news", clock=Clock(NOON + 3 * HOUR)) as writer:
            for step in steps:
                if isinstance(step, Group):
                    writer.commit([step])
                else:
                    writer.seal_hours(0)
                now = sealed_hours_of(archive)
                assert {hour: now.get(hour) for hour in shown} == shown
                shown = now
        Path(archive.index_path).unlink(missing_ok=True)
        assert sealed_hours_of(archive) == shown


def sealed_hours_of(archive: Archive) -> dict[int, tuple[SealRow, list[GroupRow]]]:
    """Return, for each hour that is sealed, by what, and what it is made of."""
    with contextlib.closing(archive.reader()) as reader:
        return {
            hour: (seal, made_of(archive, seal))
            for broadcast in reader.broadcasts()
            for hour, seal in sealed_hours(
                reader, broadcast, range(NOON // HOUR, NOON // HOUR + 4)
            ).items()
        }
