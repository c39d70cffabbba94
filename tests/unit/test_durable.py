from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.durable import (
    make_directory,
    open_directory,
    replace_file,
    sync_directory,
    write_fully,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_writev, _fsync = os.writev, os.fsync


@given(parts=st.lists(st.binary(max_size=30), max_size=40), most=st.integers(1, 50))
def test_everything_is_written_however_little_a_write_takes(parts: list[bytes], most: int) -> None:
    written = bytearray()

    def writev(_: int, buffers: Sequence[memoryview]) -> int:
        taken = b"".join(buffers)[:most]
        written.extend(taken)
        return len(taken)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "writev", writev)
        assert write_fully(0, parts) == len(b"".join(parts))
    assert bytes(written) == b"".join(parts)


def test_more_buffers_than_one_call_takes_are_written(tmp_path: Path) -> None:
    parts = [bytes([number % 251]) for number in range(5000)]
    with open(tmp_path / "file", "wb") as file:
        assert write_fully(file.fileno(), parts) == 5000
    assert (tmp_path / "file").read_bytes() == b"".join(parts)


def test_a_directory_is_made_once_and_synced_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        _fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = str(tmp_path / "new")
    assert make_directory(path) is True
    # Whoever made it may not have come to sync it.
    assert make_directory(path) is False
    assert synced == [str(tmp_path)] * 2


def test_only_the_last_component_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_directory(str(tmp_path / "missing" / "new"))


def test_a_descriptor_of_a_directory_is_closed_again(tmp_path: Path) -> None:
    with open_directory(str(tmp_path)) as descriptor:
        os.fstat(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_file_is_no_directory_to_sync(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_directory(str(tmp_path / "file"))


def test_a_file_is_replaced_in_the_durable_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done: list[str] = []
    rename = os.rename

    def fsync(descriptor: int) -> None:
        done.append(f"sync {'directory' if os.path.isdir(f'/proc/self/fd/{descriptor}') else ''}")
        _fsync(descriptor)

    def renamed(source: str, target: str) -> None:
        assert path.read_bytes() == b"old"
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    replace_file(str(path), b"new")
    assert done == ["sync ", "rename", "sync directory"]
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["writev", "fsync", "rename"])
def test_a_file_that_cannot_be_replaced_stays_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(str(path), b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
