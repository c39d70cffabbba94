"""Quarantine, expiry, collection and restoration, ended at each step: by SIGKILL or by a power cut.

Afterwards every living record has its object, byte for byte; what was thrown away and not deleted
can be restored; what is damaged is named; and the same command, run again, ends where it would have
ended undisturbed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msgspec import Struct
from msgspec.structs import replace

from casfs.archive import Archive
from casfs.digest import Digest, digest_of
from casfs.errors import CasfsError, NotFoundError
from casfs.roots import Roots
from casfs.trash import trashed
from casfs.verify import verify
from casfs.verify.quarantine import QUARANTINE
from tools.crashes.disk import Disk, UnavailableError
from tools.crashes.evidence import Evidence
from tools.crashes.keeper import ACTIONS, BEFORE, DAMAGED, EVERYTHING, LIVING, make_archive
from tools.crashes.promises import (
    FAILS_CLEANLY,
    GOES_ON,
    SOUND,
    UNFINISHED,
    Violation,
    found_groups,
    violations,
)
from tools.crashes.recording import ROOT
from tools.crashes.results import Found, Row, found_in, judged, say
from tools.crashes.traced import Strace
from tools.crashes.writer import make_group, payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RESTORABLE = "trash-can-be-restored"
NAMED = "damage-is-named"

CALLS = ("rename", "unlink", "rmdir", "mkdir", "fsync", "fdatasync", "writev", "pwrite64")
"""The system calls at which they are killed: those that change a disk."""

_MOST_POINTS = 1000
_SECONDS = 240
"""An action that takes longer is ended, and what was tried proves nothing."""
_IO_ERROR = 7  # the exit code of StorageError


class _State(Struct, frozen=True):
    """What an archive holds, and where."""

    shown: frozenset[int]
    stored: frozenset[Digest]
    trashed: frozenset[Digest]
    aside: frozenset[str]


class Scene:
    """An archive just before an action, to be copied for each end; a context manager."""

    def __init__(self, action: str) -> None:
        self.action = action
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        name = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="casfs-crash-"))
        self._directory = Path(name)
        self._before = self._directory / "before"
        self._before.mkdir()
        archive = make_archive(self._before)
        for step in BEFORE[self.action]:
            step(archive)
        undisturbed = self.copy(self._directory / "undisturbed")
        ACTIONS[self.action](undisturbed)
        self._wanted = _state(undisturbed)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def copy(self, target: Path, manifests: Path | None = None) -> Archive:
        """Put the archive as it was below ``target`` (and its manifests elsewhere)."""
        manifests = manifests or target
        target.mkdir(exist_ok=True)
        manifests.mkdir(exist_ok=True)
        shutil.copytree(self._before / "cas", target / "cas")
        shutil.copytree(self._before / "manifests", manifests / "manifests")
        return Archive(Roots.of(str(target / "cas"), str(manifests / "manifests")))

    def fresh(self) -> Archive:
        """Return a copy on the machine's own disk, in place of the one before."""
        target = self._directory / "copy"
        shutil.rmtree(target, ignore_errors=True)
        return self.copy(target)

    @property
    def left(self) -> Path:
        """Where `leave` copies to."""
        return self._directory / "left"

    def leave(self, archive: Archive) -> None:
        """Copy an archive as it was left, before anybody looks after it again."""
        shutil.rmtree(self.left, ignore_errors=True)
        shutil.copytree(archive.roots.cas, self.left / "cas")
        shutil.copytree(archive.roots.manifests, self.left / "manifests")

    @property
    def log(self) -> str:
        """Where strace writes."""
        return str(self._directory / "strace.log")

    def broken(self, archive: Archive) -> list[Violation]:
        """Return what is wrong after an end, and after the action was done again."""
        try:
            if self.action == "quarantine":
                return [*self._unnamed(archive), *self._again(archive), *_healed(archive)]
            problems = violations(archive, {"news": set(LIVING)})
            if self.action != "delete":
                problems += self._unrestorable(archive)
            return [*problems, *self._again(archive)]
        except CasfsError as error:
            return [Violation(GOES_ON, str(error))]

    def _again(self, archive: Archive) -> Iterator[Violation]:
        with contextlib.suppress(NotFoundError):
            # All was restored already.
            ACTIONS[self.action](archive)
        if _state(archive) != self._wanted:
            yield Violation(GOES_ON, f"another end than undisturbed: {_state(archive)}")

    def _unrestorable(self, archive: Archive) -> list[Violation]:
        target = self._directory / "restored"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(archive.roots.cas, target / "cas")
        shutil.copytree(archive.roots.manifests, target / "manifests")
        copy = Archive(Roots.of(str(target / "cas"), str(target / "manifests")))
        with contextlib.suppress(NotFoundError):
            # Nothing had expired yet.
            ACTIONS["restore"](copy)
        return [
            Violation(RESTORABLE, item.what) for item in violations(copy, {"news": set(EVERYTHING)})
        ]

    def _unnamed(self, archive: Archive) -> Iterator[Violation]:
        report = verify(archive, threads=1)
        spoiled = {digest_of(payload(number)) for number in DAMAGED}
        named = {item.hash for item in report.damaged} | {item.hash for item in report.missing}
        if named != spoiled or report.manifest_errors:
            yield Violation(NAMED, f"verify names {sorted(named)}, {report.manifest_errors}")
        aside = {name.partition(".")[0] for name in _aside(archive)}
        lost = [one for one in spoiled if not (one in aside or _is_stored(archive, one))]
        if lost:
            yield Violation(SOUND, f"neither in the store nor aside: {lost}")


def upkeep(
    filesystems: Sequence[str],
    rounds: int,
    actions: Sequence[str] = (),
    calls: Sequence[str] = CALLS,
    every: int = 1,
    evidence: Evidence | None = None,
) -> Iterator[Row]:
    """End each action (or those named) at every so-manieth step.

    ``rounds``: 1 kills, and cuts with nothing more on the disk; 2 also cuts that write the journal.
    Raises UnavailableError, HeldError.
    """
    evidence = evidence or Evidence()
    for action in actions or ACTIONS:
        with Scene(action) as scene:
            if calls:
                yield _killed(scene, calls, evidence)
            for filesystem in filesystems:
                for journal_first in (False, True)[:rounds]:
                    yield _cut(scene, filesystem, every, evidence, journal_first=journal_first)


def _killed(scene: Scene, calls: Sequence[str], evidence: Evidence) -> Row:
    if shutil.which("strace") is None:
        raise UnavailableError("strace is not installed")
    begun = time.monotonic()
    found: list[Found] = []
    counts: dict[str, int] = {}
    for call in calls:
        for nth in range(1, _MOST_POINTS):
            archive = scene.fresh()
            options = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}")
            with (
                _keeper(scene.action, archive) as process,
                Strace(process.pid, scene.log, *options),
            ):
                answers, end = _go(process)
            scene.leave(archive)
            broken = [*_late(end, answers), *scene.broken(archive)]
            found += found_in(nth, broken)
            if broken:
                told = f"ended with {end}, said {answers}"
                files: dict[str, Path | str] = {"left": scene.left, "strace.log": scene.log}
                evidence.keep(f"{scene.action} killed at {call} {nth}", broken, [told], files)
            if end == 0:
                break
            counts[call] = nth
    return _row(f"{scene.action}, killed", counts, found, begun)


def _cut(
    scene: Scene, filesystem: str, every: int, evidence: Evidence, *, journal_first: bool
) -> Row:
    begun = time.monotonic()
    found: list[Found] = []
    points = 0
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="casfs-crash-"))
        disks = [stack.enter_context(Disk(Path(name) / disk, filesystem)) for disk in ("a", "b")]
        for at in range(1, _MOST_POINTS, every):
            one, other = (disk.path / str(at) for disk in disks)
            archive = scene.copy(one, other)
            for disk in disks:
                disk.unmount()
                disk.mount()
            options = ["--cut-at", str(at), "--disks", *(str(disk.path) for disk in disks)]
            with _keeper(
                scene.action, archive, *options, *(["--journal-first"] if journal_first else [])
            ) as process:
                answers, end = _go(process)
            was_cut = "cut\n" in answers
            broken = _late(end, answers)
            if not broken and end not in ((0, _IO_ERROR) if was_cut else (0,)):
                broken = [Violation(FAILS_CLEANLY, f"it ended with {end}: {answers}")]
            for disk in disks:
                disk.unmount()
                disk.keep_left()
                disk.mount()
            broken += scene.broken(archive)
            found += found_in(at, broken)
            if broken:
                how = "the journal last" if journal_first else "at once"
                evidence.keep(
                    f"{scene.action} {filesystem} cut {how} at step {at}",
                    broken,
                    [f"ended with {end}, said {answers}"],
                    {f"{disk.path.parent.name}.left": disk.left for disk in disks},
                )
            shutil.rmtree(one)
            shutil.rmtree(other)
            if not was_cut:
                break
            points += 1
    how = ", the journal last" if journal_first else ""
    return _row(f"{scene.action}, {filesystem} cut{how}", {"steps": points}, found, begun)


@contextlib.contextmanager
def _keeper(action: str, archive: Archive, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a keeper up to its action."""
    roots = archive.roots
    command = [sys.executable, "-P", "-m", "tools.crashes.keeper", action, roots.cas]
    with subprocess.Popen(
        [*command, roots.manifests, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def _go(process: subprocess.Popen[str]) -> tuple[list[str], int | None]:
    """Let it do what it is for; return what it says, and its exit code (None: it took too long)."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("go\n")
        process.stdin.flush()
    timer = threading.Timer(_SECONDS, process.kill)
    timer.start()
    try:
        answers = process.stdout.readlines()
        end = process.wait()
    finally:
        in_time = timer.is_alive()
        timer.cancel()
        timer.join()
    return answers, end if in_time else None


def _late(end: int | None, answers: Sequence[str]) -> list[Violation]:
    if end is not None:
        return []
    return [Violation(UNFINISHED, f"it did not end within {_SECONDS} s: {answers}")]


def _state(archive: Archive) -> _State:
    return _State(
        frozenset(sequence for _, sequence, _ in found_groups(archive, by_index=False)),
        frozenset(digest for shard in archive.objects.shards()
                  for digest in archive.objects.shard(shard)),
        frozenset(item.digest for item in trashed(archive.roots.cas)),
        frozenset(name.partition(".")[0] for name in _aside(archive)),
    )  # fmt: skip


def _aside(archive: Archive) -> list[str]:
    try:
        return os.listdir(os.path.join(archive.roots.cas, QUARANTINE))
    except FileNotFoundError:
        return []


def _is_stored(archive: Archive, digest: Digest) -> bool:
    return os.path.exists(archive.objects.path(digest))


def _healed(archive: Archive) -> list[Violation]:
    """Put the same bytes once more, which makes it whole; return what is broken after all."""
    with archive.writer("news") as writer:
        writer.commit(
            [replace(make_group("again", number), sequence=1000 + number) for number in DAMAGED]
        )
    return violations(archive, {"news": set(EVERYTHING)})


def _row(subject: str, counts: dict[str, int], found: Sequence[Found], begun: float) -> Row:
    points = sum(counts.values())
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    say(f"upkeep, {subject}: {told}, {len(found)} broken promises")
    return Row(
        campaign="upkeep",
        subject=subject,
        rounds=1,
        events=points,
        kept=len(EVERYTHING),
        found=tuple(found),
        passed=not found and points > 0,
        verdict=judged(found, told or "no step met"),
        seconds=time.monotonic() - begun,
    )
