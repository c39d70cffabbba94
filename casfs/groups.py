"""What is handed to `casfs.archive` to be kept, and what comes of it. Pure."""

from __future__ import annotations

from msgspec import Struct

from casfs.digest import Digest, block_digests
from casfs.manifests.record import GroupRecord
from casfs.objects.store import Payload, Staged


class Group(Struct, frozen=True, kw_only=True):
    """A group to be kept."""

    track: str
    epoch: int
    sequence: int
    frames: tuple[bytes, ...]
    """The payload, frame by frame; none if it is staged."""
    digest: Digest | None = None
    """Of the payload, where the caller has computed it."""
    staged: Staged | None = None
    """The payload where memory does not hold it, from `BroadcastWriter.stage`."""
    staged_sizes: tuple[int, ...] | None = None
    """Bytes of each frame of what is staged; None: it is one frame."""
    lacking: int = 0
    """Bytes of the last frame that did not come."""
    timestamps: tuple[int, ...] | None = None
    """One for each frame, in units of ``timescale``."""
    timescale: int | None = None
    """Units a second."""
    received_start: int
    """Nanoseconds UTC of the first byte's arrival."""
    received_end: int
    complete: bool = True
    reason: str = ""
    """Why it is not complete; empty if it is."""
    init: Digest | None = None
    """The init or catalog object that a player needs first."""
    relay: str = ""
    """Scheme, host and port."""
    protocol: str = ""

    @property
    def payload(self) -> Payload | Staged:
        """The bytes of its object."""
        return self.staged or Payload(self.frames, self.digest)

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return self.staged.size if self.staged is not None else sum(map(len, self.frames))

    @property
    def frame_sizes(self) -> list[int]:
        """Bytes of each frame."""
        if self.staged is not None:
            return list(self.staged_sizes or (self.staged.size,))
        return [len(frame) for frame in self.frames]

    @property
    def blocks(self) -> list[Digest] | None:
        """The digest of each block of a large payload."""
        return block_digests(self.frames) if self.staged is None else self.staged.blocks


class Committed(Struct, frozen=True):
    """A group that is kept."""

    record: GroupRecord
    new: bool
    """False if an object of the same bytes was there already."""
    healed: bool
    """True if a damaged object was replaced."""
