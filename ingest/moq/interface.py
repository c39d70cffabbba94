"""The two borders of a MoQ session: the streams below it, and the recorder above it.

Nothing here does I/O or reads a clock: bytes and times come in by calls, events and bytes go out.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.moq.events import Event, GroupReceived


class Limits(Struct, frozen=True):
    """What a relay may make us hold. Whatever it declares is hostile until checked."""

    frame_bytes: int = 64 << 20
    """The largest frame payload, bytes."""
    group_bytes: int = 256 << 20
    """The largest group payload, bytes; a longer group is cut and reported as incomplete."""
    group_frames: int = 1 << 20
    """The most frames in a group."""
    message_bytes: int = 64 << 10
    """The largest control message, bytes."""
    name_bytes: int = 4 << 10
    """The longest broadcast or track name, bytes."""
    announcements: int = 100_000
    """The most broadcasts announced at a time."""
    buffered_bytes: int = 512 << 20
    """The most payload held in open groups of one session, bytes; beyond it the largest open
    group is cut."""
    early_bytes: int = 16 << 20
    """The most that is held of groups that overtake the answer to their subscription, bytes."""
    fetches: int = 64
    """The most groups that are fetched at a time; 0: nothing is fetched at all."""
    offers: int = 512
    """The most tracks that a relay may offer unasked at a time and that we have neither taken nor
    refused."""
    offer_requests: int = 64
    """The most broadcasts whose tracks we ask to be offered, where the relay refuses what we ask
    for; 0: none."""


class Locator(Struct, frozen=True):
    """Where a session on raw QUIC is, for its SETUP; WebTransport says it in HTTP."""

    authority: str
    """Host and port."""
    path: str
    """Path and query. Secret: they may hold a token."""

    def __repr__(self) -> str:
        return f"Locator({self.authority})"


class Extra(Enum):
    """What not every relay knows, and what can be done without."""

    FETCH = auto()
    OFFERS = auto()
    """Tracks that are offered by the relay, at our request."""


class Streams(Protocol):
    """What a MoQ session needs of the transport. Calls queue bytes and never block.

    Stream numbers are QUIC stream ids (RFC 9000, section 2.1). Codes are MoQ's, not HTTP/3's.
    """

    def open_uni(self) -> int:
        """Open a stream to the relay and return its id."""

    def open_bidi(self) -> int:
        """Open a stream in both directions and return its id."""

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Queue ``data``; ``end`` closes our direction."""

    def reset(self, stream: int, code: int) -> None:
        """Abandon our direction (RESET_STREAM)."""

    def stop(self, stream: int, code: int) -> None:
        """Ask the relay to abandon its direction (STOP_SENDING)."""


class MoqSession(Protocol):
    """A subscriber's side of one MoQ session over streams that exist.

    ``now`` is nanoseconds UTC throughout. Every call returns the events that it caused, in order.
    A violation that concerns the whole session raises `casfs.errors.ProtocolError`; one that
    concerns a stream ends that stream alone.
    """

    protocol: str
    """The negotiated name, for instance ``moq-lite-05``."""

    @property
    def buffered(self) -> int:
        """Payload bytes held in open groups."""

    def start(self) -> None:
        """Send what a client sends first."""

    def announce(self, prefix: str) -> None:
        """Ask for the broadcasts whose names begin with ``prefix``, now and as they change."""

    def subscribe(self, broadcast: str, track: str, *, priority: int, max_latency: int) -> int:
        """Ask for a track and return the subscription's number.

        ``priority`` 0 to 255, higher first; ``max_latency`` milliseconds: how old the groups may
        be that the relay still delivers (0: the newest alone).
        """

    def unsubscribe(self, subscription: int) -> None:
        """Give up a subscription; its open groups and its fetches are forgotten."""

    def fetch(self, subscription: int, sequence: int) -> bool:
        """Ask once more for one whole group of a subscription that is not given up.

        Returns False where that cannot be done: the protocol or the relay has no FETCH, the
        subscription is not known, the same group is being fetched, or too many are. Otherwise
        exactly one answer comes, a `GroupReceived` that is ``fetched`` or a `FetchFailed`, unless
        the subscription is given up before. Relays have only what they or the publisher still
        keep: some seconds, mostly. The subscription may have ended.
        """

    def stream_data(self, stream: int, data: bytes, now: int, *, end: bool) -> Sequence[Event]:
        """Take bytes of a stream, the transport's prefix removed."""

    def datagram(self, data: bytes, now: int) -> Sequence[Event]:
        """Take a datagram, the transport's prefix removed: a group of one frame, or nothing."""

    @property
    def ignored(self) -> frozenset[Extra]:
        """What was asked of the relay and it has not answered at all, not even with no."""

    @property
    def waiting(self) -> bool:
        """Whether time alone may cause events: then call `settle` a few times each second."""

    def settle(self, now: int) -> Sequence[Event]:
        """Tell what has become certain by waiting: that nothing more comes."""

    def stream_reset(self, stream: int, code: int, now: int) -> Sequence[Event]:
        """Take the relay's RESET_STREAM."""

    def stream_stopped(self, stream: int, code: int, now: int) -> Sequence[Event]:
        """Take the relay's STOP_SENDING."""

    def open_groups(
        self, opened_before: int, now: int, subscription: int | None = None
    ) -> Sequence[GroupReceived]:
        """Return what has come so far of each group opened before that time (ns UTC).

        ``subscription``: of that one alone.

        They stay open; each is reported as incomplete with the reason ``still open``, and again
        only when it has grown.
        """

    def abandon(self, reason: str, now: int) -> Sequence[GroupReceived]:
        """End the session: return every open group as incomplete for ``reason``."""
