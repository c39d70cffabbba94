"""Imports a tree of objects and JSONL manifests as ``ec-node wt-archive`` writes it.

The manifests are read twice: first to learn which broadcasts and tracks there are and to report
every line that cannot be read; then, broadcast by broadcast, all tracks merged by time, to put in
what the archive does not hold. So memory grows with the number of manifests, not with their length.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from casfs.adopt.epochs import Candidate, EpochRule, Verdict
from casfs.adopt.filing import Filing
from casfs.adopt.known import KnownGroups
from casfs.adopt.report import Totals
from casfs.adopt.source import ListedLine, Problem, SourceError, SourceTree, check_tree
from casfs.archive import Group
from casfs.digest import Digest, digest_of
from casfs.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from casfs.adopt.lines import ListedGroup
    from casfs.adopt.report import Tell
    from casfs.archive import Archive


class _Part(Struct, frozen=True, order=True):
    """A manifest that lists groups of a track."""

    first: int
    """When the first of them was received, nanoseconds UTC."""
    file: str


class _Timed(Struct, frozen=True):
    """A listed group with the time that it counts as received."""

    received: int
    listed: ListedLine


def import_tree(
    archive: Archive,
    objects: str,
    manifests: str,
    *,
    tell: Tell,
    broadcast: str | None = None,
    dry_run: bool = False,
    totals: Totals | None = None,
) -> Totals:
    """Put every group in that manifests below ``manifests`` list and ``objects`` holds.

    ``broadcast``: put all of it in under this name. ``tell`` is told what could not be put in,
    each as it is found. Raises NotFoundError if there is no manifest at all, ConfigError if
    several broadcasts are to get one name, and what the archive raises.
    """
    source = SourceTree(objects, manifests, broadcast)
    check_tree(source.objects)
    return _TreeImport(archive, source, tell, broadcast, totals or Totals(), dry_run=dry_run).run()


class _TreeImport:
    def __init__(
        self,
        archive: Archive,
        source: SourceTree,
        tell: Tell,
        broadcast: str | None,
        totals: Totals,
        *,
        dry_run: bool,
    ) -> None:
        self._archive = archive
        self._source = source
        self._tell = tell
        self._name = broadcast
        self._totals = totals
        self._dry_run = dry_run

    def run(self) -> Totals:
        broadcasts = self._survey()
        if self._name is not None and len(broadcasts) > 1:
            raise ConfigError(
                f"the manifests list {len(broadcasts)} broadcasts, which cannot all be "
                f"{self._name!r}",
                advice="leave out --name, or import the manifests of one broadcast",
            )
        for name in sorted(broadcasts):
            self._broadcast(name, broadcasts[name])
        return self._totals

    # First: what there is

    def _survey(self) -> dict[str, dict[str, list[_Part]]]:
        """Return the manifests of each track of each broadcast; report lines that are no good."""
        found: dict[str, dict[str, list[_Part]]] = {}
        files = 0
        for file in self._source.files():
            files += 1
            firsts: dict[tuple[str, str], int] = {}
            line = 0
            for item in self._source.lines(file):
                # The groups of a run stand on one line.
                of_run = isinstance(item, ListedLine) and item.group.run
                self._totals.lines += not (
                    isinstance(item, ListedLine) and of_run and item.line == line
                )
                line = item.line if isinstance(item, ListedLine) else 0
                if isinstance(item, Problem):
                    self._report(item)
                elif item is None:
                    self._totals.other_lines += 1
                else:
                    key = (item.broadcast, item.track)
                    if key not in firsts:
                        firsts[key] = self._received(item.group, 0)
            for (broadcast, track), first in firsts.items():
                parts = found.setdefault(broadcast, {}).setdefault(track, [])
                parts.append(_Part(first, file))
        if not files:
            raise NotFoundError(
                f"there are no manifests (*.jsonl) below {self._source.manifests}",
                advice="say where they are by --manifests",
            )
        return found

    # Then: put it in

    def _broadcast(self, source_name: str, tracks: dict[str, list[_Part]]) -> None:
        name = self._name if self._name is not None else source_name
        with (
            KnownGroups(self._archive, name, self._source.prefix) as known,
            Filing(self._archive, name, self._totals, dry_run=self._dry_run) as filing,
        ):
            one = _BroadcastImport(self._source, known, filing)
            streams = [
                self._track(source_name, track, sorted(parts)) for track, parts in tracks.items()
            ]
            for timed in heapq.merge(*streams, key=lambda timed: timed.received):
                try:
                    self._totals.known += not one.take(timed)
                except SourceError as error:
                    self._report(_problem(timed.listed, error))

    def _track(self, broadcast: str, track: str, parts: list[_Part]) -> Iterator[_Timed]:
        received = 0
        for part in parts:
            for item in self._source.lines(part.file):
                if isinstance(item, ListedLine) and (item.broadcast, item.track) == (
                    broadcast,
                    track,
                ):
                    received = self._received(item.group, received)
                    yield _Timed(received, item)

    def _received(self, group: ListedGroup, before: int) -> int:
        """Return when a group was received, as well as can be known.

        If its line does not say, when its object was written; without one, as the group before.
        """
        if group.received_start is not None:
            return group.received_start
        return self._source.modified(group) or before

    def _report(self, problem: Problem) -> None:
        self._totals.problems += 1
        self._tell(problem)


class _BroadcastImport:
    """Decides on the groups of one broadcast and puts them in."""

    def __init__(self, source: SourceTree, known: KnownGroups, filing: Filing) -> None:
        self._source = source
        self._known = known
        self._filing = filing
        self._rule = EpochRule(known, known.highest())

    def take(self, timed: _Timed) -> bool:
        """Take a group; False if the archive has it. Raises SourceError."""
        listed = timed.listed
        group = listed.group
        # A payload that is a part of its object has another hash, which the line may not tell.
        own = group.payload or (group.hash if not group.offset else None)
        if own is not None and self._is_known(timed, own, group.size):
            return False
        payload = self._source.read(group)
        digest = digest_of(payload) if group.offset is not None else group.hash
        if self._is_known(timed, digest, len(payload)):
            return False
        if self._filing.begin():
            # Until now another writer may have put groups in.
            self._known.renew()
            self._rule.highest = self._known.highest()
            if self._is_known(timed, digest, len(payload)):
                return False
        self._put(timed, payload, digest)
        return True

    def _is_known(self, timed: _Timed, digest: Digest, size: int | None) -> bool:
        placement = self._rule.place(timed.listed.track, _candidate(timed, digest, size))
        if placement.verdict is not Verdict.KNOWN:
            return False
        self._filing.note_init(timed.listed.track, digest)
        return True

    def _put(self, timed: _Timed, payload: bytes, digest: Digest) -> None:
        group, track, received = timed.listed.group, timed.listed.track, timed.received
        candidate = _candidate(timed, digest, len(payload))
        placement = self._rule.place(track, candidate)
        if placement.epoch > max(self._rule.highest, 1):
            self._filing.note_epoch(placement.epoch)
        held = msgspec.structs.replace(candidate, epoch=placement.epoch)
        self._rule.accept(track, held, placement)
        self._known.put(track, held)
        self._filing.note_init(track, digest)
        self._filing.put(
            Group(
                track=track,
                epoch=placement.epoch,
                sequence=group.sequence,
                frames=_frames(payload, group.frame_sizes),
                digest=digest,
                lacking=group.lacking,
                timestamps=group.timestamps,
                timescale=group.timescale,
                received_start=received,
                received_end=max(received, group.received_end or 0),
                complete=group.complete,
                reason=group.reason if not group.complete else "",
                init=group.init,
                relay=group.relay,
                protocol=group.protocol,
            ),
            run=group.hash if group.run else None,
        )


def _candidate(timed: _Timed, digest: Digest, size: int | None) -> Candidate:
    group = timed.listed.group
    return Candidate(0, group.sequence, digest, size, group.complete, timed.received)


def _frames(payload: bytes, sizes: tuple[int, ...] | None) -> tuple[bytes, ...]:
    """Split a payload; who lists no frame sizes has lost them, and it becomes one frame."""
    if sizes is None or sum(sizes) != len(payload):
        return (payload,)
    frames: list[bytes] = []
    at = 0
    for size in sizes:
        frames.append(payload[at : at + size])
        at += size
    return tuple(frames)


def _problem(listed: ListedLine, error: SourceError) -> Problem:
    return Problem(
        problem=error.problem,
        reason=error.reason,
        file=listed.file,
        line=listed.line,
        hash=listed.group.hash,
        broadcast=listed.broadcast,
        track=listed.track,
        sequence=str(listed.group.sequence),
    )
