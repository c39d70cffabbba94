"""A day is put together by a process of its own, and is what it would have been here."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

import pytest

from casfs.digest import digest_of
from casfs.recordings.opening import open_recordings
from casfs.recordings.source import RecordingSpan
from casfs.timestamps import DAY, HOUR
from tests.fakes.fragments import Sample, fragment, init, trak, trex
from tests.fakes.store import NOON, Clock, group, make_archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from casfs.archive import Archive
    from casfs.recordings.source import Recordings

INIT = init(trak(1), defaults=(trex(1),))
RATE = 12_800
GROUPS = 5


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return recorded(tmp_path)


def recorded(directory: Path) -> Archive:
    """Record an hour of which one group is no media."""
    made = make_archive(directory)
    clock = Clock()
    with made.writer("tv", clock=clock) as writer:
        writer.commit([group(0, INIT, track="init.mp4", received=NOON)])
        for number in range(GROUPS):
            payload = fragment(1, number * RATE, Sample(b"a" * 100), Sample(b"b" * (number + 1)))
            received = NOON + number * 10**9
            writer.commit(
                [group(number, payload, received=received, init=digest_of(INIT), track="0.m4s")]
            )
        writer.commit([group(0, b"\0\0\0\x10free no media", track="odd", received=NOON)])
        clock.now = NOON + 2 * HOUR
        writer.seal_hours(0)
    return made


@contextlib.contextmanager
def opened(
    archive: Archive, spool: Path | None = None
) -> Iterator[tuple[Recordings, RecordingSpan]]:
    with (
        contextlib.closing(archive.reader()) as reader,
        contextlib.closing(
            open_recordings(archive, None if spool is None else str(spool))
        ) as recordings,
    ):
        (broadcast,) = reader.broadcasts()
        (seal,) = reader.seals(broadcast)
        start = NOON // DAY * DAY
        yield recordings, RecordingSpan(broadcast, start, start + DAY, (seal,))


def test_a_day_put_together_elsewhere_is_the_same(archive: Archive, tmp_path: Path) -> None:
    with opened(archive) as (recordings, span):
        sizes = recordings.build(span)
        layout = recordings.layout(span, 0)
        apart = (sizes, bytes(layout.head), list(layout.pieces()))
        assert recordings.known(span) == sizes
        assert list(recordings.notes) == [f"{span}: {sizes.reason}"]
    with opened(archive, tmp_path / "here") as (recordings, span):
        sizes = recordings.build_here(span)
        layout = recordings.layout(span, 0)
        assert (sizes, bytes(layout.head), list(layout.pieces())) == apart
    assert len(sizes.sizes) == 1
    assert "odd: 1 groups left out" in sizes.reason


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere"])
def test_where_that_process_fails_the_day_is_put_together_here(
    archive: Archive,
    program: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr("casfs.children.sys.executable", program)
    with opened(archive) as (recordings, span):
        sizes = recordings.build(span).sizes
        assert len(sizes) == 1
        assert recordings.layout(span, 0).size == sizes[0]


def test_a_day_of_an_archive_whose_path_is_no_text_is_put_together_here(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    archive = recorded(odd)
    with opened(archive) as (recordings, span):
        sizes = recordings.build(span).sizes
        assert recordings.layout(span, 0).size == sizes[0]
