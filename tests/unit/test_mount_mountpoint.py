"""Where a mount can be, and what the kernel says is mounted."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from casfs.errors import MountPointError
from casfs.mount import mountpoint
from casfs.mount.mountpoint import (
    Mount,
    check_fuse,
    mounts_at,
    parse_mountinfo_line,
    prepare_mountpoint,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def _fuse_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", os.devnull)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


def prepare(path: Path, *, allow_nonempty: bool = False) -> str:
    return prepare_mountpoint(str(path), allow_other=False, allow_nonempty=allow_nonempty)


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        (
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n",
            Mount("/mnt2", "ext3", "98:0", "master:1"),
        ),
        (
            "40 35 0:39 / /mnt/my\\040tv ro,nosuid - fuse.casfs casfs ro,user_id=0\n",
            Mount("/mnt/my tv", "fuse.casfs", "0:39"),
        ),
    ],
)
def test_a_line_of_mountinfo_names_path_and_type(line: str, mount: Mount) -> None:
    assert parse_mountinfo_line(line) == mount


def test_the_root_directory_is_a_mount() -> None:
    assert mounts_at("/")


@pytest.mark.usefixtures("_fuse_works")
def test_an_empty_directory_is_a_mount_point_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "link").symlink_to("m")
    assert prepare(tmp_path / "link") == os.path.realpath(tmp_path / "m")


def test_a_mount_point_must_exist(tmp_path: Path) -> None:
    with pytest.raises(MountPointError, match="does not exist; create it: mkdir -p"):
        prepare(tmp_path / "nowhere")


def test_a_mount_point_must_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MountPointError, match="is not a directory"):
        prepare(tmp_path / "file")
    with pytest.raises(MountPointError, match="is not a directory"):
        prepare(tmp_path / "file" / "beneath")


@pytest.mark.usefixtures("_fuse_works")
def test_a_mount_point_must_be_empty_unless_allowed(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(MountPointError, match="not empty: a mount would hide 'precious'"):
        prepare(tmp_path)
    assert prepare(tmp_path, allow_nonempty=True) == os.path.realpath(tmp_path)


@pytest.mark.usefixtures("_fuse_works")
def test_a_mount_point_that_is_in_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoint, "mounts_at", lambda path: [Mount(path, "fuse.sshfs")])
    with pytest.raises(MountPointError, match=r"in use: a fuse\.sshfs filesystem is mounted"):
        prepare(tmp_path)


@pytest.mark.usefixtures("_fuse_works")
def test_a_dead_mount_of_another_program_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoint, "_is_stale", lambda _path: True)
    monkeypatch.setattr(mountpoint, "mounts_at", lambda path: [Mount(path, "fuse.sshfs")])
    with pytest.raises(MountPointError, match=r"dead mount that is not ours \(fuse\.sshfs\)"):
        prepare(tmp_path)


def test_a_machine_without_fuse_is_told_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", str(tmp_path / "fuse"))
    with pytest.raises(MountPointError, match=r"there is no .*fuse; load the kernel module"):
        check_fuse(allow_other=False)


def test_a_user_without_fusermount_is_told_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountpoint, "FUSE_DEVICE", os.devnull)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(MountPointError, match=r"fusermount3 is not installed.*package fuse3"):
        check_fuse(allow_other=False)


@pytest.mark.parametrize(
    ("configuration", "allowed"),
    [("#user_allow_other\n", False), ("mount_max = 3\n user_allow_other # yes\n", True)],
)
@pytest.mark.usefixtures("_fuse_works")
def test_only_the_machines_owner_lets_users_share_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: str, allowed: bool
) -> None:
    (tmp_path / "fuse.conf").write_text(configuration)
    monkeypatch.setattr(mountpoint, "_FUSE_CONFIGURATION", str(tmp_path / "fuse.conf"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if allowed:
        check_fuse(allow_other=True)
    else:
        with pytest.raises(MountPointError, match="user_allow_other"):
            check_fuse(allow_other=True)
