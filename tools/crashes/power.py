"""The power goes while writers commit, at a random instant; round after round on the same archive.

A cut comes in the two forms that a journalling filesystem knows: nothing more reaches the disk, or
the journal was written last, which makes names durable whose data is not. The same campaign over
writers that are broken on purpose (`tools.crashes.sabotage`) shows what it would catch.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from casfs.archive import Archive
from casfs.roots import Roots, create
from tools.crashes.disk import Disk, Instant
from tools.crashes.promises import (
    CONTENT,
    DURABLE,
    FAILS_CLEANLY,
    GOES_ON,
    RECORD,
    SOUND,
    Violation,
    found_groups,
    violations,
    written_since,
)
from tools.crashes.recording import Recording
from tools.crashes.results import Row, found_in, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from casfs.objects.syncing import StrategyName

_WRITING_SECONDS = 0.4
"""The most that writers have before the cut."""
_APART_SECONDS = 0.03
"""The most that lies between the cuts of two disks."""
_ROUNDS_EACH = 8
"""Rounds on one archive: what was acknowledged before the first cut outlives them all."""
_BATCHES = (1, 6, 24)
_LEAST_FREE = 0.6
_IO_ERROR = 7  # the exit code of StorageError


class Variant(Struct, frozen=True):
    """Who writes, and where to."""

    name: str
    what: str
    writers: int = 1
    """Each of a broadcast of its own, all with the same bytes in the same order."""
    disks: int = 1
    """2: CAS root and manifests each on its own filesystem, cut at different instants."""


VARIANTS = (
    Variant("one-writer", "one writer"),
    Variant("two-writers", "two writers of the same objects", writers=2),
    Variant("two-disks", "CAS and manifests on two disks", disks=2),
)


class Site:
    """An archive on disks that can be cut; a context manager.

    Raises UnavailableError.
    """

    def __init__(self, filesystem: str, variant: Variant, strategy: StrategyName = "auto") -> None:
        self._strategy = strategy
        self.kept: dict[str, set[int]] = {
            f"news{number}": set() for number in range(variant.writers)
        }
        self.late = 0
        """Groups acknowledged after the cut began: by syncs that were under way."""
        self.late_lost = 0
        """How many of these are not there. That breaks no promise: see `Disk.cut`."""
        self.bus_errors = 0
        """Writers that ended by SIGBUS instead of an error."""
        self.misled: set[tuple[str, int]] = set()
        """Groups whose records were made after a cut began, for the same reason."""
        self._filesystem = filesystem
        self._variant = variant
        self._next = 0
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="casfs-crash-"))
            )
            self.disks = [
                stack.enter_context(Disk(directory / f"disk{number}", self._filesystem))
                for number in range(self._variant.disks)
            ]
            roots = Roots.of(
                str(self.disks[0].path / "cas"), str(self.disks[-1].path / "manifests")
            )
            create(roots)
            self.archive = Archive(roots)
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def used_up(self) -> bool:
        """Whether another round could fill a disk."""
        return any(disk.free < _LEAST_FREE for disk in self.disks)

    def round(self, chance: random.Random, broken: str | None = None) -> list[Violation]:
        """Write, cut the power, mount again; return what was promised and is not so."""
        options = ["--first", str(self._next), "--batch", str(chance.choice(_BATCHES))]
        options += ["--sync-strategy", self._strategy]
        if broken is not None:
            options += ["--broken", broken]
        with contextlib.ExitStack() as stack:
            recordings = [
                stack.enter_context(Recording(self.archive.roots, *options, broadcast=name))
                for name in self.kept
            ]
            begun = [recording.read() == "recording" for recording in recordings]
            time.sleep(chance.uniform(0, _WRITING_SECONDS))
            instant = self._cut(chance)
            ends = [recording.finish() for recording in recordings]
            problems: list[Violation] = []
            late: set[tuple[str, int]] = set()
            for recording, recorded, end in zip(recordings, begun, ends, strict=True):
                before = recording.kept_before(instant.monotonic)
                self.kept[recording.broadcast] |= before
                late |= {(recording.broadcast, number) for number in recording.kept - before}
                self._next = max([self._next, *(number + 1 for number in recording.kept)])
                told = recording.account()
                if not recorded:
                    problems.append(Violation(GOES_ON, f"it does not begin: {told}"))
                elif end == -signal.SIGBUS:
                    # SQLite maps its shared memory, and the disk under it is gone.
                    self.bus_errors += 1
                elif end != _IO_ERROR or "Traceback" in recording.complaints:
                    problems.append(Violation(FAILS_CLEANLY, f"it ended with {end}: {told}"))
        for disk in self.disks:
            disk.unmount()
            disk.mount()
        # With one disk of two gone the writer goes on for a moment, by what it was told.
        self.misled |= written_since(self.archive, instant.utc)
        problems = [*violations(self.archive, self.kept, self.misled), *problems]
        if late:
            self.late += len(late)
            found = {group[:2] for group in found_groups(self.archive, by_index=False)}
            self.late_lost += len(late - found)
        return problems

    def go_on(self) -> list[Violation]:
        """Record in peace, after all that happened, and stop."""
        problems: list[Violation] = []
        for name in self.kept:
            options = ["--first", str(self._next), "--count", "6"]
            options += ["--sync-strategy", self._strategy]
            with Recording(self.archive.roots, *options, broadcast=name) as recording:
                recording.finish()
                self.kept[name].update(recording.kept)
                if not (recording.stopped and recording.kept):
                    told = recording.account()
                    problems.append(Violation(GOES_ON, told))
        return [*violations(self.archive, self.kept, self.misled), *problems]

    def _cut(self, chance: random.Random) -> Instant:
        """Cut all disks, in any order; return the instant of the first cut."""
        instants: list[Instant] = []
        for disk in chance.sample(self.disks, len(self.disks)):
            if instants:
                time.sleep(chance.uniform(0, _APART_SECONDS))
            instants.append(disk.cut(journal_first=chance.random() < 0.5))
        return instants[0]


def power(
    filesystems: Sequence[str],
    rounds: int,
    seed: int,
    variants: Sequence[Variant] = VARIANTS,
    strategy: StrategyName = "auto",
) -> Iterator[Row]:
    """Cut ``rounds`` times in each variant on each filesystem; raises UnavailableError."""
    for filesystem, variant in itertools.product(filesystems, variants):
        chance = random.Random(seed)
        begun = time.monotonic()
        found, done, kept, late, lost, bus_errors = [], 0, 0, 0, 0, 0
        while done < rounds:
            with Site(filesystem, variant, strategy) as site:
                if not done:
                    say(f"{filesystem}, {variant.what}, sync {strategy}: {rounds} rounds")
                broken: list[Violation] = []
                for _ in range(min(_ROUNDS_EACH, rounds - done)):
                    done += 1
                    broken = site.round(chance)
                    found += found_in(done, broken)
                    if broken or site.used_up:
                        break
                if not broken:
                    found += found_in(done, site.go_on())
                kept += sum(map(len, site.kept.values()))
                late, lost = late + site.late, lost + site.late_lost
                bus_errors += site.bus_errors
            say(f"{filesystem}, {variant.what}: {done} of {rounds}, {len(found)} broken promises")
        yield Row(
            campaign="power",
            subject=f"{filesystem}, {variant.what}"
            + ("" if strategy == "auto" else f", by {strategy}"),
            rounds=done,
            events=done * variant.disks,
            kept=kept,
            found=tuple(found),
            passed=not found,
            verdict=(f"{len(found)} promises broken" if found else "all there, byte for byte")
            + (f"; {lost} of {late} told after the cut began are lost" if late else "")
            + (f"; {bus_errors} writers ended by SIGBUS" if bus_errors else ""),
            seconds=time.monotonic() - begun,
        )


CAUGHT = frozenset({DURABLE, CONTENT, RECORD, SOUND})
"""What a broken writer must be caught at: not at being killed in an odd way."""


def broken(
    filesystems: Sequence[str],
    rounds: int,
    seed: int,
    writers: Sequence[str],
    variants: Sequence[Variant] = VARIANTS,
) -> Iterator[Row]:
    """Cut broken writers until each is caught, ``rounds`` times at most, variants in turn."""
    for filesystem, name in itertools.product(filesystems, writers):
        chance = random.Random(seed)
        begun = time.monotonic()
        found, done, kept, events, verdict = [], 0, 0, 0, ""
        for done, variant in zip(range(1, rounds + 1), itertools.cycle(variants), strict=False):
            with Site(filesystem, variant) as site:
                problems = [item for item in site.round(chance, name) if item.promise in CAUGHT]
                kept += sum(map(len, site.kept.values()))
                events += variant.disks
            if problems:
                found += found_in(done, problems)
                promises = dict.fromkeys(item.promise for item in problems)
                verdict = f"caught in round {done} ({variant.what}): {', '.join(promises)}"
                break
        verdict = verdict or f"not caught in {done} rounds"
        say(f"{filesystem}, {name}: {verdict}")
        yield Row(
            campaign="broken",
            subject=f"{filesystem}, {name}",
            rounds=done,
            events=events,
            kept=kept,
            found=tuple(found),
            passed=bool(found),
            verdict=verdict,
            seconds=time.monotonic() - begun,
        )
