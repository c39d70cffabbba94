"""What a subscriber session tells its recorder, the same for every MoQ protocol."""

from __future__ import annotations

from msgspec import Struct


class BroadcastAnnounced(Struct, frozen=True):
    """A broadcast is there; one that was there already has been replaced by a new publisher."""

    path: str
    """Full name, relative to the URL's path."""
    generation: int
    """Rises with each announcement of the same path in this session, from 1."""


class BroadcastEnded(Struct, frozen=True):
    """The relay has withdrawn the announcement."""

    path: str


class TrackAccepted(Struct, frozen=True):
    """The relay will deliver this subscription."""

    subscription: int
    timescale: int | None
    """Units a second of the frame timestamps; None where the protocol does not tell."""


class TrackRefused(Struct, frozen=True):
    """The relay will not deliver this subscription. Information, not failure."""

    subscription: int
    code: int
    """The protocol's error code. Relays disagree on codes; do not branch on it."""


class TrackEnded(Struct, frozen=True):
    """The subscription is over and all that belongs to it has been told."""

    subscription: int


class GroupsDropped(Struct, frozen=True):
    """The relay says that it will not deliver these groups."""

    subscription: int
    first: int
    last: int
    """Inclusive."""
    code: int


class GroupReceived(Struct, frozen=True):
    """A group, whole or as far as it came."""

    subscription: int
    sequence: int
    """The publisher's group number, 0 to 2**62 - 1."""
    frames: tuple[bytes, ...]
    """The frame payloads in order; the group's payload is their concatenation. May be empty."""
    timestamps: tuple[int, ...] | None
    """One for each frame, in units of the track's timescale; None where the protocol has none."""
    complete: bool
    """Whether the publisher ended the group."""
    reason: str
    """Why the group is not complete ("reset 64", "still open", "session lost"); else empty."""
    received_start: int
    """Nanoseconds UTC of the group's first byte."""
    received_end: int
    """Nanoseconds UTC of its last."""
    lacking: int = 0
    """How many bytes of the last frame did not come; 0 when every frame is whole."""
    fetched: bool = False
    """Whether it answers `MoqSession.fetch`, rather than the subscription."""


class FetchFailed(Struct, frozen=True):
    """A group that was asked for by `MoqSession.fetch` does not come. Information, not failure."""

    subscription: int
    sequence: int
    code: int
    """The protocol's error code. Relays disagree on codes; do not branch on it."""


class GoawayReceived(Struct, frozen=True):
    """The relay asks us to leave: finish what is open, ask for nothing new, connect elsewhere."""

    uri: str
    """Where to go, as the relay wrote it (it may hold a token); empty: the same place."""
    timeout: int | None = None
    """Milliseconds until it ends the session; None where it did not say."""


Event = (
    BroadcastAnnounced
    | BroadcastEnded
    | TrackAccepted
    | TrackRefused
    | TrackEnded
    | GroupsDropped
    | GroupReceived
    | FetchFailed
    | GoawayReceived
)
