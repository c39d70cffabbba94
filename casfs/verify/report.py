"""What a verification finds, as it is told to programs: the members of ``casfs verify --json``."""

from __future__ import annotations

from msgspec import Struct

from casfs.digest import Digest


class GroupName(Struct, frozen=True):
    """A group that needs a damaged or missing object."""

    broadcast: str
    track: str
    epoch: int
    sequence: str
    """Decimal."""
    n: int


class DamagedObject(Struct, frozen=True):
    """An object whose content is not what its name says, or that cannot be read."""

    hash: Digest
    reason: str
    path: str
    """Relative to the CAS root."""
    groups: list[GroupName]
    """The first hundred groups that need it."""
    groups_total: int
    quarantined: str | None
    """Where it was moved to, relative to the CAS root; None if it lies where it was."""


class MissingObject(Struct, frozen=True):
    """An object that records need and that is not there."""

    hash: Digest
    path: str
    groups: list[GroupName]
    groups_total: int


class ManifestError(Struct, frozen=True):
    """A place where a manifest is not what was written."""

    journal: str
    """Its directory below the manifest root."""
    segment: str
    offset: int
    end: int
    reason: str


class RepairedObject(Struct, frozen=True):
    """A damaged or missing object that is whole again."""

    hash: Digest
    source: str
    """The CAS root that the copy came from."""


class UnmendedObject(Struct, frozen=True):
    """A damaged or missing object for which a repair, or a quarantine, did not work."""

    hash: Digest
    reason: str


class Report(Struct, frozen=True, kw_only=True):
    """What a verification found, and did about it."""

    sound: bool
    """Nothing is damaged, missing or broken, or all of it was repaired."""
    complete: bool
    """Everything was looked at that was asked for; false if the time was over before."""
    level: str
    """``quick``, ``full`` or ``manifests``."""
    objects: int
    """Objects that records need and that were looked at."""
    skipped: int
    """Objects that were asked for and not looked at: found sound lately, or the time was over."""
    bytes: int
    """Bytes read and hashed."""
    damaged: list[DamagedObject]
    missing: list[MissingObject]
    repaired: list[RepairedObject]
    """Those of the two before that are whole again."""
    unmended: list[UnmendedObject]
    unreferenced: int | None
    """Objects that no record needs. Not damage: a crash leaves some, expired hours leave theirs
    until they are collected. None if not counted."""
    manifest_errors: list[ManifestError]
    seconds: float

    @property
    def findings(self) -> int:
        """How much is damaged, missing or broken still."""
        found = len(self.damaged) + len(self.missing) + len(self.manifest_errors)
        return found - len(self.repaired)


class Progress(Struct):
    """How far a verification has come; read it at any time from another thread."""

    stage: str = "manifests"
    """``manifests``, then ``objects``."""
    lines: int = 0
    objects: int = 0
    bytes: int = 0
    skipped: int = 0
    shards: int = 0
    """Of 256, while in the stage ``objects``."""
    due: int = 256
    """Shards that come first because something in them is due; the others pass quickly."""
    findings: int = 0
