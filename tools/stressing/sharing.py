"""Many writers, a rebuild, readers and a deleter share one index: nobody is locked out or delayed.

The commits' latencies are compared with those of the same writers without any index, in one run.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.archive import Archive
from casfs.roots import Roots, create
from casfs.verify import verify
from tools.stressing.worker import Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROOT = Path(__file__).parents[2]
_GRACE_SECONDS = 120
_LOOK_SECONDS = 0.05


class Sharing(Struct, frozen=True, kw_only=True):
    """What came of it."""

    writers: int
    seconds: float
    groups: int
    """Kept, with the index."""
    requests: int
    """Listings of a track that were answered."""
    rebuilt: int
    deleted: int
    commit_alone: float
    """Median latency of a commit without any index, seconds."""
    commit: float
    """The same with an index that follows, and nobody else."""
    ratio: float
    """How many times as long."""
    commit_among_all: float
    """The same among readers, rebuilds and deletions, where the machine may be what is short."""
    largest_log: int
    """The most bytes that the write-ahead log ever had."""
    locked: tuple[str, ...]
    """Whatever spoke of a lock."""
    complaints: tuple[str, ...]
    """All else that was complained of: that the index is gone or replaced is no fault."""
    lost: tuple[str, ...]
    """Broadcasts of which a group is not found, by the index or by the manifests."""

    @property
    def passed(self) -> bool:
        """Whether nothing was lost and nobody locked out."""
        return not self.locked and not self.lost and self.groups > 0


def share_index(writers: int, seconds: float, *, readers: int = 2, delete: bool = True) -> Sharing:
    """Run the writers without the index, with it, and with all others, for ``seconds`` each."""
    with tempfile.TemporaryDirectory(prefix="casfs-stress-") as directory:
        archive = _make(Path(directory) / "alone")
        alone = _run(archive, [("write-alone", f"tv{n}") for n in range(writers)], seconds)[0]
        roles = [("write", f"tv{n}") for n in range(writers)]
        followed = _run(_make(Path(directory) / "followed"), roles, seconds)[0]
        archive = _make(Path(directory) / "shared")
        roles += [("read", f"reader{n}") for n in range(readers)]
        roles += [("rebuild", "")] + ([("delete", "")] if delete else [])
        seen, largest = _run(archive, roles, seconds)
        told = dict.fromkeys(text for one in seen for text in one.complaints)
        before, after = _median(alone), _median(followed)
        return Sharing(
            writers=writers,
            seconds=seconds,
            groups=_count(seen, "write"),
            requests=_count(seen, "read"),
            rebuilt=_count(seen, "rebuild"),
            deleted=_count(seen, "delete"),
            commit_alone=before,
            commit=after,
            ratio=after / before,
            commit_among_all=_median(seen),
            largest_log=largest,
            locked=tuple(text for text in told if "locked" in text or "busy" in text),
            complaints=tuple(told),
            lost=tuple(_lost(archive, seen)),
        )


def _make(directory: Path) -> Archive:
    directory.mkdir()
    roots = Roots.of(str(directory / "cas"), str(directory / "manifests"))
    create(roots)
    return Archive(roots)


def _run(
    archive: Archive, roles: Sequence[tuple[str, str]], seconds: float
) -> tuple[list[Seen], int]:
    """Run these roles at once; return what they saw, and the largest log."""
    roots = archive.roots
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-m", "tools.stressing.worker"),
                        *(role, roots.cas, roots.manifests, str(seconds), name),
                    ],
                    env={**os.environ, "PYTHONPATH": str(_ROOT)},
                    stdout=subprocess.PIPE,
                    process_group=0,
                )
            )
            for role, name in roles
        ]
        for process in processes:
            stack.callback(process.kill)
        largest = 0
        deadline = time.monotonic() + seconds + _GRACE_SECONDS
        while any(process.poll() is None for process in processes):
            with contextlib.suppress(FileNotFoundError):
                largest = max(largest, os.stat(f"{archive.index_path}-wal").st_size)
            if time.monotonic() > deadline:
                raise TimeoutError(f"a worker does not end: {[one.args for one in processes]}")
            time.sleep(_LOOK_SECONDS)
        outputs = [process.stdout.read() for process in processes if process.stdout is not None]
    for (role, name), process in zip(roles, processes, strict=True):
        if process.returncode:
            raise ChildProcessError(f"{role} {name} ended with {process.returncode}")
    return [msgspec.json.decode(output, type=Seen) for output in outputs], largest


def _lost(archive: Archive, seen: Sequence[Seen]) -> list[str]:
    """Return the broadcasts that lack a group, and what verify finds."""
    with contextlib.closing(archive.mirror()) as mirror:
        mirror.step(None)
        lost = [f"the index does not heal: {mirror.trouble}"] if mirror.trouble else []
    bare = Archive(archive.roots, index_path=os.path.join(archive.roots.manifests, "no-index"))
    for opened in (archive, bare):
        with contextlib.closing(opened.reader()) as reader:
            for one in seen:
                if one.role != "write":
                    continue
                found = {
                    row.sequence
                    for broadcast in reader.broadcasts()
                    if broadcast.name == one.name
                    for track in reader.tracks(broadcast)
                    for row in reader.groups(track, 0, 1 << 62)
                }
                if found != set(range(one.done)):
                    lost.append(f"{one.name}: {len(found)} of {one.done}")
    report = verify(archive)
    return lost if report.sound else [*lost, f"verify: {report}"]


def _median(seen: Sequence[Seen]) -> float:
    return statistics.median(latency for one in seen for latency in one.latencies)


def _count(seen: Sequence[Seen], role: str) -> int:
    return sum(one.done for one in seen if one.role == role)
