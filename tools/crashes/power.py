"""The power goes while writers commit, at a random instant; round after round on the same archive.

A cut comes in the two forms that a journalling filesystem knows: nothing more reaches the disk, or
the journal was written last, which makes names durable whose data is not. The same campaign over
writers that are broken on purpose (`tools.crashes.sabotage`) shows what it would catch.

A round is cut in the middle of everything, or **at rest**: right after an acknowledgement, with a
writer that waits, and the journal is not written. Then nothing but the writer's own syncs can have
made the last groups durable, so whoever omits one is caught. Or **at a rename**, with the journal
written: then whatever gave an object its name before its data was durable is caught.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from casfs.archive import Archive
from casfs.roots import Roots, create
from tools.crashes.disk import Disk
from tools.crashes.evidence import Evidence
from tools.crashes.promises import (
    CONTENT,
    DURABLE,
    FAILS_CLEANLY,
    GOES_ON,
    RECORD,
    SOUND,
    UNFINISHED,
    Violation,
    violations,
)
from tools.crashes.recording import MOST_SECONDS, Recording
from tools.crashes.results import Row, found_in, judged, say
from tools.crashes.sabotage import AT_RENAME, SHOWN_BY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from casfs.objects.syncing import StrategyName

_WRITING_SECONDS = 0.4
"""The most that writers have before the cut."""
_APART_SECONDS = 0.03
"""The most that lies between the cuts of two disks."""
_ROUNDS_EACH = 8
"""Rounds on one archive: what was acknowledged before the first cut outlives them all."""
_STEPS = 2
"""The most commits before a cut at rest. A third would end with a duplicate in a batch of one, and
the sync of what it finds makes the renames before it durable, whoever is broken."""
_BATCHES = (1, 6, 24)
_AT_REST_EACH = 4
"""Every so-manieth round is cut at rest."""
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
    Variant("two-disks-two-writers", "two writers, two disks", writers=2, disks=2),
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
        """Groups acknowledged after a cut began: by syncs that had ended, or were under way."""
        self._filesystem = filesystem
        self._variant = variant
        self._next = 0
        self._accounts: list[str] = []
        """What is known of the last round, to be kept if it went wrong."""
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

    def round(
        self,
        chance: random.Random,
        broken: str | None = None,
        *,
        at_rest: bool = False,
        at_rename: bool = False,
    ) -> list[Violation]:
        """Write, cut the power, mount again; return what was promised and is not so."""
        options = ["--first", str(self._next), "--batch", str(chance.choice(_BATCHES))]
        options += ["--sync-strategy", self._strategy]
        if at_rename:
            options += ["--cut-at-rename", *(str(disk.path) for disk in self.disks)]
        elif at_rest:
            options.append("--stepwise")
        if broken is not None:
            options += ["--broken", broken]
        with contextlib.ExitStack() as stack:
            recordings = [
                stack.enter_context(Recording(self.archive.roots, *options, broadcast=name))
                for name in self.kept
            ]
            begun = [recording.read() == "recording" for recording in recordings]
            if at_rest:
                for recording in recordings * chance.randint(1, _STEPS):
                    recording.step()
            elif not at_rename:
                time.sleep(chance.uniform(0, _WRITING_SECONDS))
            how = "at rest" if at_rest else "at a rename" if at_rename else "at a random instant"
            self._accounts = [f"{self._filesystem}, {self._variant.what}, cut {how}"]
            instant = time.monotonic_ns() if at_rename else self._cut(chance, at_rest=at_rest)
            ends = [recording.finish() for recording in recordings]
            self._accounts += [recording.whole_account() for recording in recordings]
            problems: list[Violation] = []
            for recording, recorded, end in zip(recordings, begun, ends, strict=True):
                self.kept[recording.broadcast] |= recording.kept
                self.late += len(recording.kept - recording.kept_before(instant))
                self._next = max([self._next, *(number + 1 for number in recording.kept)])
                told = recording.account()
                if recording.late:
                    problems.append(_unfinished(recording))
                elif not recorded:
                    problems.append(Violation(GOES_ON, f"it does not begin: {told}"))
                elif end != _IO_ERROR or "Traceback" in recording.complaints:
                    problems.append(Violation(FAILS_CLEANLY, f"it ended with {end}: {told}"))
        for disk in self.disks:
            disk.unmount()
            disk.keep_left()
            disk.mount()
        return [*violations(self.archive, self.kept), *problems]

    def go_on(self) -> list[Violation]:
        """Record in peace, after all that happened, and stop."""
        problems: list[Violation] = []
        for name in self.kept:
            options = ["--first", str(self._next), "--count", "6"]
            options += ["--sync-strategy", self._strategy]
            with Recording(self.archive.roots, *options, broadcast=name) as recording:
                recording.finish()
                self.kept[name].update(recording.kept)
                self._accounts.append(recording.whole_account())
                if recording.late:
                    problems.append(_unfinished(recording))
                elif not (recording.stopped and recording.kept):
                    told = recording.account()
                    problems.append(Violation(GOES_ON, told))
        return [*violations(self.archive, self.kept), *problems]

    def keep(self, evidence: Evidence, subject: str, found: Sequence[Violation]) -> None:
        """Keep all that is left of the last round."""
        acknowledged = (f"{name}: {sorted(numbers)}" for name, numbers in self.kept.items())
        files: dict[str, Path | str] = {}
        for number, disk in enumerate(self.disks):
            files |= {f"disk{number}.left": disk.left, f"disk{number}.found": disk.path}
        evidence.keep(
            subject, found, [*self._accounts, "acknowledged on this archive", *acknowledged], files
        )

    def _cut(self, chance: random.Random, *, at_rest: bool) -> int:
        """Cut all disks, in any order; return when the first cut began (nanoseconds, monotonic)."""
        instants: list[int] = []
        for disk in chance.sample(self.disks, len(self.disks)):
            if instants:
                time.sleep(chance.uniform(0, _APART_SECONDS))
            journal_first = not at_rest and chance.random() < 0.5
            instants.append(disk.cut(journal_first=journal_first))
            self._accounts.append(
                f"disk {self.disks.index(disk)} was cut from {instants[-1]} to "
                f"{time.monotonic_ns()}" + (", the journal last" if journal_first else "")
            )
        return instants[0]


def _unfinished(recording: Recording) -> Violation:
    told = f"{recording.broadcast} did not end within {MOST_SECONDS:.0f} s: {recording.account()}"
    return Violation(UNFINISHED, told)


def power(
    filesystems: Sequence[str],
    rounds: int,
    seed: int,
    variants: Sequence[Variant] = VARIANTS,
    strategy: StrategyName = "auto",
    evidence: Evidence | None = None,
) -> Iterator[Row]:
    """Cut ``rounds`` times in each variant on each filesystem; raises UnavailableError, HeldError.

    What is left of a round that went wrong is kept as ``evidence``, by default below TMPDIR.
    """
    evidence = evidence or Evidence()
    for filesystem, variant in itertools.product(filesystems, variants):
        chance = random.Random(seed)
        begun = time.monotonic()
        found, done, kept, late = [], 0, 0, 0
        while done < rounds:
            with Site(filesystem, variant, strategy) as site:
                if not done:
                    say(f"{filesystem}, {variant.what}, sync {strategy}: {rounds} rounds")
                broken: list[Violation] = []
                for _ in range(min(_ROUNDS_EACH, rounds - done)):
                    done += 1
                    broken = site.round(chance, at_rest=done % _AT_REST_EACH == 0)
                    found += found_in(done, broken)
                    if broken or site.used_up:
                        break
                if not broken:
                    broken = site.go_on()
                    found += found_in(done, broken)
                if broken:
                    site.keep(evidence, f"{filesystem} {variant.name} round {done}", broken)
                kept += sum(map(len, site.kept.values()))
                late += site.late
            said = judged(found, "nothing broken")
            say(f"{filesystem}, {variant.what}: {done} of {rounds}, {said}")
        yield Row(
            campaign="power",
            subject=f"{filesystem}, {variant.what}"
            + ("" if strategy == "auto" else f", by {strategy}"),
            rounds=done,
            events=done * variant.disks,
            kept=kept,
            found=tuple(found),
            passed=not found,
            verdict=judged(found, "all there, byte for byte")
            + (f"; {late} of them were told after a cut began" if late else ""),
            seconds=time.monotonic() - begun,
        )


CAUGHT = frozenset({DURABLE, CONTENT, RECORD, SOUND})
"""What a broken writer must be caught at: not at being killed in an odd way."""


def broken(
    filesystems: Sequence[str],
    rounds: int,
    seed: int,
    writers: Sequence[str],
    variants: Sequence[Variant] | None = None,
) -> Iterator[Row]:
    """Cut broken writers until each is caught, ``rounds`` times at most, variants in turn.

    Without ``variants`` each is cut in those that can show what it does. Every other round, the
    first one too, is cut at rest, or at a rename for whoever that shows.
    """
    for filesystem, name in itertools.product(filesystems, writers):
        chance = random.Random(seed)
        begun = time.monotonic()
        found, done, kept, events, verdict = [], 0, 0, 0, ""
        shown_by = variants or [one for one in VARIANTS if one.name in SHOWN_BY.get(name, one.name)]
        for done, variant in zip(range(1, rounds + 1), itertools.cycle(shown_by), strict=False):
            with Site(filesystem, variant) as site:
                at_rename = name in AT_RENAME and done % 2 == 1
                violated = site.round(
                    chance, name, at_rest=done % 2 == 1 and not at_rename, at_rename=at_rename
                )
                problems = [item for item in violated if item.promise in CAUGHT]
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
