"""The power goes while recorders write, on real filesystems: tools/crash, a few rounds of it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from casfs.archive import Archive
from casfs.errors import StorageError
from casfs.roots import Roots, create
from tests.fakes.store import Clock, check, contents, crash, group, known
from tools.crashes.disk import FILESYSTEMS, Disk, UnavailableError
from tools.crashes.power import VARIANTS, Variant, broken, power

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tools.crashes.results import Row


def run(campaign: Iterator[Row]) -> Row:
    try:
        (row,) = campaign
    except UnavailableError as error:
        pytest.skip(str(error))
    return row


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_what_was_acknowledged_survives_a_power_cut(filesystem: str, variant: Variant) -> None:
    row = run(power([filesystem], rounds=2, seed=7, variants=[variant]))
    assert row.found == ()
    assert row.passed
    assert row.rounds == 2
    assert row.kept >= 6 * variant.writers


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_what_was_acknowledged_by_syncfs_survives_a_power_cut(filesystem: str) -> None:
    row = run(power([filesystem], rounds=2, seed=7, variants=VARIANTS[:1], strategy="syncfs"))
    assert row.found == ()
    assert row.rounds == 2
    assert row.kept >= 6


@pytest.mark.parametrize("writer", ["no-sync", "no-directory-sync", "rename-first"])
@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_a_writer_that_is_broken_does_not_survive_it(filesystem: str, writer: str) -> None:
    """So the cut is one, and the test above could fail."""
    row = run(broken([filesystem], rounds=3, seed=7, writers=[writer]))
    assert row.passed, row.verdict
    assert row.found


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_a_sync_that_a_dying_filesystem_calls_done_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filesystem: str, call: str
) -> None:
    """The kernel says so to a sync that was under way."""
    with make_disk(tmp_path / "disk", filesystem) as disk:
        on_disk, elsewhere = str(disk.path / "root"), str(tmp_path / "other")
        roots = Roots.of(*((on_disk, elsewhere) if call == "fsync" else (elsewhere, on_disk)))
        create(roots)
        archive = Archive(roots)
        writer = archive.writer("news", clock=Clock())
        writer.__enter__()
        writer.commit([group(1)])
        last = {"fsync": stat.S_ISDIR, "fdatasync": stat.S_ISREG}[call]
        real = getattr(os, call)

        def die_and_call_it_done(descriptor: int) -> None:
            if last(os.fstat(descriptor).st_mode):
                disk.cut()
            else:
                real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, die_and_call_it_done)
            with pytest.raises(StorageError, match="Input/output"):
                writer.commit([group(2)])
        crash(writer, whole=False)
        disk.unmount()
        disk.mount()
        assert contents(archive) == [known(group(1))]
        assert check(archive).sound


def make_disk(directory: Path, filesystem: str) -> Disk:
    try:
        return Disk(directory, filesystem)
    except UnavailableError as error:
        pytest.skip(str(error))
