"""A process is killed before its syncs, the next one goes by what it left, and the power goes.

What was written and not synced is seen by everybody until then, and by nobody afterwards.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NoReturn

import pytest

from casfs import collect as collecting
from casfs import expiries
from casfs.archive import Archive
from casfs.manifests.journal import Journal
from casfs.roots import Roots, create
from tests.fakes.hours import collect_all, expire_all, hour_group, record_hours, restore_all
from tests.fakes.store import check, contents, known
from tools.crashes.disk import FILESYSTEMS, Disk, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GROUPS = [hour_group(0, b"an hour of it"), hour_group(1, b"and another one")]


class KilledError(BaseException):
    """Nothing handles it, as nothing handles SIGKILL."""


@contextlib.contextmanager
def killed_at(place: object, name: str, *, after: bool = False) -> Iterator[None]:
    """Kill whoever calls this, before the call does anything, or ``after`` it."""
    real = getattr(place, name)

    def die(*arguments: object) -> NoReturn:
        if after:
            real(*arguments)
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, die)
        with pytest.raises(KilledError):
            yield


def make_disk(directory: Path, filesystem: str) -> Disk:
    try:
        return Disk(directory, filesystem)
    except UnavailableError as error:
        pytest.skip(str(error))


def make_archive(cas: Path, manifests: Path) -> Archive:
    roots = Roots.of(str(cas), str(manifests))
    create(roots)
    archive = Archive(roots)
    record_hours(archive, [[group] for group in GROUPS])
    return archive


def cut(disk: Disk) -> None:
    disk.cut()
    disk.unmount()
    disk.mount()


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_objects_go_only_by_an_expiry_that_is_durable(tmp_path: Path, filesystem: str) -> None:
    with make_disk(tmp_path / "disk", filesystem) as disk:
        archive = make_archive(tmp_path / "cas", disk.path / "manifests")
        with killed_at(Journal, "sync"):
            expire_all(archive)
        # Whoever keeps the index syncs what it applies.
        with killed_at(collecting, "refresh_index"):
            collect_all(archive)
        cut(disk)
        assert contents(archive, index=False) == []
        assert check(archive).sound


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_an_hour_is_restored_only_by_objects_whose_names_are_durable(
    tmp_path: Path, filesystem: str
) -> None:
    with make_disk(tmp_path / "disk", filesystem) as disk:
        archive = make_archive(disk.path / "cas", tmp_path / "manifests")
        expire_all(archive)
        collect_all(archive)
        for _ in GROUPS:
            with killed_at(os, "rename", after=True):
                restore_all(archive)
        # To write them makes durable whatever else waits on that filesystem.
        with killed_at(expiries, "write_expiry_heads"):
            restore_all(archive)
        cut(disk)
        assert contents(archive, index=False) == [known(group) for group in GROUPS]
        assert check(archive).sound
