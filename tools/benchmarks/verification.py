"""How fast everything is read and proven: beside b3sum, and beside what backup programs offer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from casfs.archive import Archive
from casfs.roots import Roots
from casfs.verify import verify
from tools.benchmarks.material import OBJECT_BYTES
from tools.benchmarks.measuring import (
    Contender,
    Measurement,
    run_command,
    run_task,
    stopwatch,
    take_turns,
)
from tools.benchmarks.peers import BorgRepository, ResticRepository
from tools.benchmarks.reporting import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.benchmarks.bench import Bench

_THREADS = 2


def against_hashing(bench: Bench) -> Iterator[Row]:
    """Compare with hashing the same files, which are in the page cache.

    What the Python interpreter takes to start is not counted: it is the same for any archive.
    """
    count = bench.scaled(4000)
    subject, other = "verify", f"b3sum --num-threads {_THREADS}"
    reason = bench.peers.missing("b3sum")
    runs: dict[str, tuple[Measurement, ...]] = {}
    if not reason:
        roots = bench.stored(count)
        contenders = [
            Contender(subject, lambda: run_task(verify_archive, roots.cas, roots.manifests)),
            Contender(other, lambda: _b3sum(roots)),
        ]
        for contender in contenders:
            contender.run()  # the first one finds some pages missing
        runs = take_turns(contenders, bench.rounds(7))
    yield Row(
        what=f"full verify, warm, without start-up, {count} x {OBJECT_BYTES // 1000} kB",
        subject=subject,
        against=other,
        aim=0.9,
        subject_runs=runs.get(subject, ()),
        against_runs=runs.get(other, ()),
        skipped=reason,
    )


def against_backups(bench: Bench) -> Iterator[Row]:
    """Compare with what restic and borg offer over the same data."""
    count = bench.scaled(4000)
    repositories = {
        "restic check --read-data": ("restic", ResticRepository(bench.directory / "restic")),
        "borg check --verify-data": ("borg", BorgRepository(bench.directory / "borg")),
    }
    subject = "casfs verify"
    present = {
        name: bench.backed_up(repository, count)
        for name, (program, repository) in repositories.items()
        if not bench.peers.missing(program)
    }
    runs: dict[str, tuple[Measurement, ...]] = {}
    if present:
        roots = bench.stored(count)
        contenders = [
            Contender(subject, lambda: _verify(roots)),
            *(Contender(name, repository.check) for name, repository in present.items()),
        ]
        runs = take_turns(contenders, bench.rounds(3))
    for name, (program, _) in repositories.items():
        yield Row(
            what=f"full verify, whole process, {count} x {OBJECT_BYTES // 1000} kB",
            subject=subject,
            against=name,
            aim=1.0,
            subject_runs=runs.get(subject, ()) if name in present else (),
            against_runs=runs.get(name, ()),
            skipped=bench.peers.missing(program),
        )


def verify_archive(cas_root: str, manifest_root: str) -> float:
    """Verify the archive and return the seconds."""
    archive = Archive(Roots.of(cas_root, manifest_root))
    with stopwatch() as seconds:
        report = verify(archive, threads=_THREADS)
    assert report.sound
    return seconds()


def _verify(roots: Roots) -> Measurement:
    casfs = str(Path(sys.executable).with_name("casfs"))
    return run_command(
        [
            *(casfs, "--cas-root", roots.cas, "--manifest-root", roots.manifests),
            *("verify", "--json", "--threads", str(_THREADS)),
        ],
        environment={"XDG_STATE_HOME": str(Path(roots.cas).with_name("state"))},
    )


def _b3sum(roots: Roots) -> Measurement:
    root = Path(roots.cas)
    paths = sorted(str(path.relative_to(root)) for path in root.glob("objects/blake3/*/*.bin"))
    return run_command(["b3sum", "--num-threads", str(_THREADS), *paths], directory=root)
