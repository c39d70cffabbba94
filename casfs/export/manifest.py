"""What is to be exported, and what was: the values of ``export.json``."""

from __future__ import annotations

from msgspec import Struct

from casfs.digest import Digest

FORMAT = 1
"""The layout that this version writes."""


class Span(Struct, frozen=True):
    """What of a broadcast is exported."""

    broadcast: str
    tracks: tuple[str, ...] = ()
    """By full name; none: all."""
    since: int | None = None
    """Groups received at this instant (ns UTC) or later."""
    until: int | None = None
    """Groups received before this instant."""

    def holds(self, instant: int) -> bool:
        """Say whether a group that began to come then belongs to it."""
        return (self.since is None or self.since <= instant) and (
            self.until is None or instant < self.until
        )


class Lacking(Struct, frozen=True):
    """A group that lacks, or whose player will lack what it needs first."""

    track: str
    epoch: int
    sequence: str
    hash: Digest
    """The object that is not there."""
    reason: str


class PassedOver(Struct, frozen=True):
    """A manifest line that cannot mean what it says: nothing is made of it."""

    track: str
    n: str
    """Its commit number; text, because nothing bounds it."""
    reason: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What ``export.json`` says."""

    format: int = FORMAT
    store: str
    """The archive that it comes from."""
    broadcast: str
    tracks: list[str]
    since: str | None
    until: str | None
    writer: str
    groups: int
    """Lines of groups, without those in ``@first.jsonl``."""
    objects: int
    bytes: int
    """Of the objects."""
    reflinked: int
    """Objects that share their blocks with the archive's."""
    hard_linked: int
    """Objects that are the archive's own files under a further name."""
    copied: int
    complete: bool
    """Nothing lacks, and no line was passed over."""
    lacking: list[Lacking]
    passed_over: list[PassedOver]


class Exported(Manifest, frozen=True, kw_only=True):
    """What was exported, and to where."""

    target: str
    """The name that the directory got, absolute."""


class Progress(Struct):
    """How far an export has come; read it at any time from another thread."""

    groups: int = 0
    groups_total: int = 0
    bytes: int = 0
