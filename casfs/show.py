"""Everything that the archive knows of one group or one object, gathered in one value.

A description says what the records say, where the line stands that says it, who else needs the
object, and what the disk has. What does not fit together is a finding; nothing is changed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.digest import Digest
from casfs.errors import NotFoundError, ObjectNotFoundError
from casfs.manifests.layout import JournalPlace
from casfs.manifests.locate import find_line
from casfs.manifests.runs import kept_groups
from casfs.names import encode_name
from casfs.objects.local import object_path
from casfs.timestamps import format_time

if TYPE_CHECKING:
    from casfs.archive import Archive
    from casfs.index.extents import ExtentRow
    from casfs.index.references import References
    from casfs.index.rows import GroupRow, TrackRow
    from casfs.manifests.record import GroupRecord

LISTED = 100
"""How many records are listed of those that need an object, unless more are asked for."""


class ObjectState(Struct, frozen=True):
    """What the disk has of an object."""

    hash: Digest
    path: str
    """Absolute."""
    present: bool
    size: int | None
    """Bytes; None if it is not there."""
    mtime: str | None
    sound: bool | None
    """Whether its content hashes to its name; None if it was not read."""
    finding: str | None
    """What is wrong with it, as far as it was looked at."""


class RecordPlace(Struct, frozen=True):
    """The manifest line of a group."""

    journal: str
    """Its directory below the manifest root."""
    segment: str
    """The file in it."""
    offset: int
    """Where the line begins, bytes."""
    end: int
    """Behind its newline."""
    sum: str


class GroupReference(Struct, frozen=True):
    """A record whose payload lies in the object."""

    broadcast: str
    track: str
    epoch: int
    sequence: str
    n: int
    offset: int
    size: int
    received_start: str
    current: bool
    """False if a later record of the same group stands for it."""


class InitReference(Struct, frozen=True):
    """Groups of one track and epoch that a player can only decode after the object."""

    broadcast: str
    track: str
    epoch: int
    groups: int
    first_sequence: str
    last_sequence: str


class ObjectReferences(Struct, frozen=True):
    """Who needs an object."""

    groups_total: int
    groups: list[GroupReference]
    """The first of them, in the order of their commits."""
    init_groups_total: int
    init_groups: list[InitReference]


class RunDescription(Struct, frozen=True):
    """The groups that lie in one object with a group, one behind another."""

    groups: int
    first_sequence: str
    last_sequence: str
    offset: int
    """Where the first of them begins in the object, bytes."""
    size: int
    """Of all of them."""


class GroupDescription(Struct, frozen=True, kw_only=True, tag_field="kind", tag="group"):
    """One group. Members named as in its record mean the same."""

    broadcast: str
    number: int
    """The broadcast's number in this archive."""
    track: str
    epoch: int
    sequence: str
    other_epochs: list[int]
    """Those in which the track has another group of this sequence."""
    n: int
    hash: Digest
    path: str
    """The object, relative to the CAS root."""
    offset: int
    size: int
    payload: Digest
    """BLAKE3 of the payload alone; that of the object where the group is all that it holds."""
    run: RunDescription | None
    """Null unless the group was committed together with others."""
    frames: int | None
    """How many; None where the line cannot be read."""
    frame_sizes: list[int] | None
    lacking: int | None
    frame_timestamps: list[str] | None
    timescale: str | None
    init: Digest | None
    received_start: str
    received_end: str
    committed: str | None
    """When the record was made."""
    complete: bool
    reason: str | None
    relay: str | None
    protocol: str | None
    recorder: str | None
    writer: str | None
    record: RecordPlace | None
    """None if no sound line holds the record any more."""
    object: ObjectState
    init_object: ObjectState | None
    references: ObjectReferences
    findings: list[str]
    """What is wrong, one sentence each."""


class ObjectDescription(Struct, frozen=True, kw_only=True, tag_field="kind", tag="object"):
    """One object."""

    hash: Digest
    path: str
    """Relative to the CAS root."""
    object: ObjectState
    references: ObjectReferences
    findings: list[str]


def describe_group(
    archive: Archive,
    broadcast: str,
    track: str,
    sequence: int,
    *,
    epoch: int | None = None,
    check: bool = False,
    most: int = LISTED,
) -> GroupDescription:
    """Return what is known of a group; of several epochs the newest, unless one is given.

    ``check`` reads and hashes its object and its init. Raises NotFoundError, StorageError.
    """
    with contextlib.closing(archive.reader()) as reader:
        found = reader.track(broadcast, track)
        if found is None:
            raise NotFoundError(
                f"the archive holds no track {track!r} of broadcast {broadcast!r}",
                advice="casfs ls lists what it holds",
            )
        epochs = [number for number in reader.epochs(found) if reader.find(found, number, sequence)]
        wanted = epoch if epoch is not None else max(epochs, default=0)
        extent = reader.extent_of(found, wanted, sequence)
        row = extent.group_of(sequence) if extent is not None else None
        if extent is None or row is None:
            raise _no_such_group(found, sequence, epoch, epochs)
        references = _references(reader.references(row.hash, most))
    place, record = _line(archive, row)
    findings: list[str] = []
    if place is None:
        findings.append("no sound manifest line holds the record of this group")
    state = _look(archive, row.hash, row.offset + row.size, check=check, findings=findings)
    init = row.init
    init_state = (
        _look(archive, init, None, check=check, findings=findings) if init is not None else None
    )
    return GroupDescription(
        broadcast=broadcast,
        number=row.broadcast.number,
        track=track,
        epoch=row.epoch,
        sequence=str(row.sequence),
        other_epochs=[number for number in epochs if number != row.epoch],
        n=row.n,
        hash=row.hash,
        path=object_path(row.hash),
        offset=row.offset,
        size=row.size,
        payload=row.digest,
        run=_run(extent),
        frames=len(record.frame_sizes) if record is not None else None,
        frame_sizes=record.frame_sizes if record is not None else None,
        lacking=record.lacking if record is not None else None,
        frame_timestamps=record.frame_timestamps if record is not None else None,
        timescale=record.timescale if record is not None else None,
        init=init,
        received_start=format_time(row.received_start),
        received_end=format_time(row.received_end),
        committed=record.time if record is not None else None,
        complete=row.complete,
        reason=record.reason if record is not None else None,
        relay=record.relay if record is not None else None,
        protocol=record.protocol if record is not None else None,
        recorder=record.recorder if record is not None else None,
        writer=record.writer if record is not None else None,
        record=place,
        object=state,
        init_object=init_state,
        references=references,
        findings=findings,
    )


def describe_object(
    archive: Archive, digest: Digest, *, check: bool = False, most: int = LISTED
) -> ObjectDescription:
    """Return what is known of an object; ``check`` reads and hashes it.

    Raises ObjectNotFoundError if neither the disk nor any record knows of it, StorageError.
    """
    with contextlib.closing(archive.reader()) as reader:
        needed = reader.references(digest, most)
    findings: list[str] = []
    size = max((group.offset + group.size for group in needed.listed), default=None)
    state = _look(archive, digest, size, check=check, findings=findings)
    if not state.present and not needed.groups and not needed.init_uses:
        raise ObjectNotFoundError(
            f"object {digest} is not in the store, and no record names it",
            advice="is the hash complete and of this archive?",
        )
    return ObjectDescription(
        hash=digest,
        path=object_path(digest),
        object=state,
        references=_references(needed),
        findings=findings,
    )


def _no_such_group(
    track: TrackRow, sequence: int, epoch: int | None, epochs: list[int]
) -> NotFoundError:
    name = f"{track.broadcast.name!r} {track.name!r}"
    if epoch is not None and epochs:
        known = ", ".join(map(str, epochs))
        return NotFoundError(
            f"{name} has no group {sequence} in epoch {epoch}",
            advice=f"it is in epoch {known}",
        )
    where = f" in epoch {epoch}" if epoch is not None else ""
    return NotFoundError(
        f"{name} has no group {sequence}{where}",
        advice="casfs ls --json tells from when to when there are groups",
    )


def _run(extent: ExtentRow) -> RunDescription | None:
    if extent.members is None:
        return None
    first, last = str(extent.sequence), str(extent.last_sequence)
    return RunDescription(extent.groups, first, last, extent.offset, extent.size)


def _line(archive: Archive, row: GroupRow) -> tuple[RecordPlace | None, GroupRecord | None]:
    place = JournalPlace(
        archive.directory_of(row.broadcast.name),
        encode_name(row.track, fold_case=archive.format.fold_case),
    )
    placed = find_line(place.directory(archive.roots.manifests), row.n)
    if placed is None:
        return None, None
    line = placed.line
    kept = [kept.record for kept in kept_groups(line.record) if kept.record.n == row.n]
    record = kept[0] if kept else None
    return RecordPlace(str(place), placed.segment, line.offset, line.end, line.sum), record


def _look(
    archive: Archive, digest: Digest, needed: int | None, *, check: bool, findings: list[str]
) -> ObjectState:
    """Look at an object on disk; ``needed``: the bytes that it must have at least."""
    path = archive.objects.path(digest)
    try:
        status = archive.objects.stat(digest)
        finding = archive.objects.check(digest) if check else None
    except ObjectNotFoundError:
        findings.append(f"object {digest} is missing")
        return ObjectState(
            digest, path, present=False, size=None, mtime=None, sound=None, finding="missing"
        )
    sound = finding is None if check else None
    if finding is None and needed is not None and status.st_size < needed:
        finding = f"has {status.st_size} bytes, but records need {needed}"
    if finding is not None:
        findings.append(f"object {digest} {finding}")
    return ObjectState(
        digest,
        path,
        present=True,
        size=status.st_size,
        mtime=format_time(status.st_mtime_ns),
        sound=sound,
        finding=finding,
    )


def _references(references: References) -> ObjectReferences:
    return ObjectReferences(
        groups_total=references.groups,
        groups=[
            GroupReference(
                broadcast=group.broadcast,
                track=group.track,
                epoch=group.epoch,
                sequence=str(group.sequence),
                n=group.n,
                offset=group.offset,
                size=group.size,
                received_start=format_time(group.received_start),
                current=group.current,
            )
            for group in references.listed
        ],
        init_groups_total=references.init_groups,
        init_groups=[
            InitReference(
                use.broadcast, use.track, use.epoch, use.groups, str(use.first), str(use.last)
            )
            for use in references.init_uses
        ],
    )
