"""What dead processes leave half made is swept by the next writer; what the living make is not."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from casfs import durable
from casfs.durable import create_locked, replace_file, sweep_unfinished
from casfs.index import mirror as mirror_module
from casfs.index.mirror import rebuild
from casfs.index.replacement import sweep_unfinished_indexes
from tests.fakes.store import Clock, contents, group, known, make_archive, python

if TYPE_CHECKING:
    from pathlib import Path

    from casfs.archive import Archive


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return make_archive(tmp_path)


def leave(*parts: str) -> str:
    path = os.path.join(*parts)
    with open(path, "wb") as file:
        file.write(b"half")
    return path


def test_the_next_writer_sweeps_what_the_dead_left(archive: Archive) -> None:
    roots = archive.roots
    cas, manifests = (os.path.join(root, ".casfs") for root in (roots.cas, roots.manifests))
    left = [
        leave(cas, ".new-1-00112233"),
        leave(cas, "heads", f".new-{os.getpid()}-00112233"),
        leave(manifests, ".new-1-00112233"),
        leave(f"{archive.index_path}.1.new"),
        leave(f"{archive.index_path}.1.new-wal"),
        leave(f"{archive.index_path}.{os.getpid()}-00112233.new"),
    ]
    others = [leave(manifests, "notes.new"), leave(f"{archive.index_path}.old.new")]
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit([group(0)])
    assert not any(map(os.path.exists, left))
    assert all(map(os.path.exists, others))
    assert contents(archive) == [known(group(0))]


def test_a_file_that_somebody_is_replacing_is_never_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[int] = []
    write = durable.write_fully

    def write_while_others_sweep(descriptor: int, parts: list[bytes]) -> int:
        swept.append(sweep_unfinished(str(tmp_path)))
        return write(descriptor, parts)

    monkeypatch.setattr(durable, "write_fully", write_while_others_sweep)
    replace_file(str(tmp_path / "heads.json"), b"new")
    assert swept == [0]
    assert os.listdir(tmp_path) == ["heads.json"]


def test_a_file_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[int] = []
    open_file = os.open

    def open_and_sweep(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = open_file(path, flags, mode)
        if flags & os.O_CREAT and len(swept) < 2:
            swept.append(sweep_unfinished(str(tmp_path)))
        return descriptor

    monkeypatch.setattr(os, "open", open_and_sweep)
    replace_file(str(tmp_path / "heads.json"), b"new")
    assert swept == [1, 1]
    assert (tmp_path / "heads.json").read_bytes() == b"new"


def test_an_index_that_somebody_rebuilds_is_never_swept(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with archive.writer("news", clock=Clock()) as writer:
        writer.commit([group(0)])
    swept: list[int] = []
    catch_up = mirror_module.catch_up_journal

    def catch_up_while_others_sweep(*arguments: object, **more: object) -> int:
        done = catch_up(*arguments, **more)  # type: ignore[arg-type]
        script = (
            "import sys\nfrom casfs.index.replacement import sweep_unfinished_indexes\n"
            "print(sweep_unfinished_indexes(sys.argv[1]))"
        )
        told = subprocess.run(
            python("-c", script, archive.index_path), capture_output=True, check=True
        )
        swept.append(int(told.stdout))
        return done

    monkeypatch.setattr(mirror_module, "catch_up_journal", catch_up_while_others_sweep)
    rebuild(archive.index_path, archive.roots.manifests, archive.store_id)
    assert swept
    assert set(swept) == {0}
    monkeypatch.undo()
    assert contents(archive) == [known(group(0))]
    assert sweep_unfinished_indexes(archive.index_path) == 0


def test_a_lock_is_given_back_when_its_process_dies(tmp_path: Path) -> None:
    path = str(tmp_path / ".new-1-00112233")
    script = (
        "import sys\nfrom casfs.durable import create_locked\n"
        "create_locked(sys.argv[1])\nprint(flush=True)\nsys.stdin.read()"
    )
    child = subprocess.Popen(
        python("-c", script, path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert sweep_unfinished(str(tmp_path)) == 0
        child.kill()
    assert sweep_unfinished(str(tmp_path)) == 1
    os.close(create_locked(path))
