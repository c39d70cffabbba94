"""The streams of a moq-lite session that carry control messages, and what each is for."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ingest.moq.lite_messages import BidiStream, UniStream
from ingest.moq.reading import StreamReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ingest.moq.interface import Limits
    from ingest.moq.lite_announcing import AnnounceReader


class Kind(Enum):
    """What a stream is for; the first four are ours."""

    ANNOUNCE = auto()
    SUBSCRIBE = auto()
    TRACK = auto()
    FETCH = auto()
    """Nothing has come yet; with its first byte it goes to the open groups."""
    UNI = auto()
    """The relay's, its kind not known yet."""
    BIDI = auto()
    """The relay's, its kind not known yet."""
    GROUP = auto()
    """A group whose header is not whole; with its header it goes to the open groups."""
    SETUP = auto()
    GOAWAY = auto()
    DONE = auto()
    """The relay's, and nothing on it concerns us any more; it ends by itself."""


class ControlStream:
    """A stream in use that carries control messages to us."""

    __slots__ = (
        "announcements",
        "ended",
        "greeted",
        "kind",
        "number",
        "opened",
        "prefix",
        "reader",
        "sequence",
        "subscription",
        "waiting",
    )

    def __init__(self, number: int, kind: Kind, limits: Limits) -> None:
        self.number = number
        self.kind = kind
        self.reader = StreamReader(limits.message_bytes)
        self.ended = False
        """The relay has ended its direction."""
        self.waiting = kind is not Kind.UNI
        """Our direction is open: the relay waits for its end."""
        self.opened = 0
        """When the first byte came, nanoseconds UTC."""
        self.prefix = ""
        """ANNOUNCE: what was asked for."""
        self.greeted = False
        """ANNOUNCE: ANNOUNCE_OK has come, or does not exist."""
        self.announcements: AnnounceReader | None = None
        """ANNOUNCE: reads them."""
        self.subscription = -1
        """SUBSCRIBE, TRACK and FETCH: whose."""
        self.sequence = -1
        """FETCH: of which group."""


UNI_KINDS: Final[Mapping[int, Kind]] = {
    UniStream.GROUP: Kind.GROUP,
    UniStream.SETUP: Kind.SETUP,
}
"""What the relay may open in one direction."""

BIDI_KINDS: Final[Mapping[int, Kind]] = {
    BidiStream.ANNOUNCE: Kind.DONE,
    BidiStream.PROBE: Kind.DONE,
    BidiStream.GOAWAY: Kind.GOAWAY,
}
"""What the relay may open in both directions. It asks what we publish before it knows that we only
subscribe, and how fast we are: neither is answered nor turned away, for relays of moq-dev take the
end or the reset of their ANNOUNCE for an error and close the session."""


class LiteStatistics(Struct, frozen=True):
    """What a session holds and what it has turned away, for status and tests."""

    subscriptions: int
    broadcasts: int
    open_groups: int
    open_streams: int
    """Streams in use beside those of groups."""
    stopped_streams: int
    """Streams turned away of which the relay has not confirmed the end."""
    ignored_announcements: int
    """Announcements of names that cannot be, or beyond the limit."""
    fetches: int
    """Groups that are being fetched."""
    violations: int
    """Streams and datagrams turned away for what they say; groups tell their own."""
