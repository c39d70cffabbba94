"""In what the versions of moq-lite differ, as data: `ingest.moq.lite` holds no version number.

A further version is one more `LiteVersion` (and the messages that are new in it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from ingest.moq import lite_messages, lite_messages_06
from ingest.moq.groups import Framing
from ingest.moq.interface import Limits
from ingest.moq.lite_announcing import AnnounceReader, NamedAnnouncements, NumberedAnnouncements
from ingest.moq.lite_frames import PLAIN, TIMED
from ingest.moq.lite_messages import (
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeReply,
    SubscribeStart,
)

if TYPE_CHECKING:
    from ingest.moq.reading import TypedMessage

GroupHeader = lite_messages.GroupHeader | lite_messages_06.GroupHeader
TrackInfo = lite_messages.TrackInfo | lite_messages_06.TrackInfo

_OLDEST_FIRST: Final = 1
_FIRST_GROUP: Final = 0
"""Where a subscription starts. From "the latest", relays of moq-dev send one group alone of a track
that somebody watches already, whatever the latency; from the first, all that they still have within
the latency. What a reconnect missed depends on it."""


class Wish(Struct, frozen=True):
    """A subscription to everything that the relay still has of a track, and to what comes."""

    subscription: int
    broadcast: str
    track: str
    priority: int
    """0 to 255, higher first."""
    max_latency: int
    """Milliseconds."""


def _announce(prefix: str) -> bytes:
    return lite_messages.AnnounceRequest(prefix).encode()


def _announce_06(prefix: str) -> bytes:
    return lite_messages_06.AnnounceRequest(prefix).encode()


def _subscribe(wish: Wish) -> bytes:
    delivery = lite_messages.Delivery(
        wish.priority, _OLDEST_FIRST, wish.max_latency, start=_FIRST_GROUP
    )
    return lite_messages.Subscribe(wish.subscription, wish.broadcast, wish.track, delivery).encode()


def _subscribe_06(wish: Wish) -> bytes:
    delivery = lite_messages_06.Delivery(wish.priority, wish.max_latency, start=_FIRST_GROUP)
    return lite_messages_06.Subscribe(
        wish.subscription, wish.broadcast, wish.track, delivery
    ).encode()


def _fetch(wish: Wish, sequence: int) -> bytes:
    return lite_messages.Fetch(wish.broadcast, wish.track, wish.priority, sequence).encode()


def _fetch_06(wish: Wish, sequence: int) -> bytes:
    return lite_messages_06.Fetch(wish.broadcast, wish.track, wish.priority, sequence).encode()


class LiteVersion(Struct, frozen=True):
    """One version of moq-lite, as far as a subscriber notices."""

    protocol: str
    """The negotiated name."""
    setup: bool
    """Whether each side opens a SETUP stream."""
    track_requests: bool
    """Whether TRACK tells the timescale of a track."""
    announce_ok: bool
    """Whether ANNOUNCE_OK stands before the announcements."""
    fetches: bool
    """Whether relays answer FETCH: 04 has it, and none does."""
    datagrams: bool
    """Whether groups may come as datagrams."""
    framing: Framing
    """How groups are framed."""
    subscribe_replies: Mapping[int, Callable[[bytes], SubscribeReply]]
    """What the relay may say on a subscribe stream: the decoders by kind."""
    announce: Callable[[str], bytes] = _announce
    """Encodes the request for the broadcasts below a prefix."""
    announcements: Callable[[Limits], AnnounceReader] = NamedAnnouncements
    """Makes what reads one stream of announcements."""
    subscribe: Callable[[Wish], bytes] = _subscribe
    """Encodes SUBSCRIBE."""
    fetch: Callable[[Wish, int], bytes] = _fetch
    """Encodes FETCH of one whole group."""
    decode_track_info: Callable[[bytes], TrackInfo] = lite_messages.TrackInfo.decode
    decode_group_header: Callable[[bytes], GroupHeader] = lite_messages.GroupHeader.decode

    def decode_subscribe_reply(self, message: TypedMessage) -> SubscribeReply | None:
        """Parse a reply; None for a kind that this version does not know."""
        decode = self.subscribe_replies.get(message.kind)
        return None if decode is None else decode(message.body)


LITE_04: Final = LiteVersion(
    protocol="moq-lite-04",
    setup=False,
    track_requests=False,
    announce_ok=False,
    fetches=False,
    datagrams=False,
    framing=PLAIN,
    subscribe_replies={0: SubscribeOk.decode, 1: SubscribeDrop.decode},
)

LITE_05: Final = LiteVersion(
    protocol="moq-lite-05",
    setup=True,
    track_requests=True,
    announce_ok=True,
    fetches=True,
    datagrams=True,
    framing=TIMED,
    subscribe_replies={
        0: SubscribeStart.decode,
        1: SubscribeEnd.decode,
        2: SubscribeDrop.decode,
    },
)

LITE_06: Final = replace(
    LITE_05,
    protocol="moq-lite-06",
    announce=_announce_06,
    announcements=NumberedAnnouncements,
    subscribe=_subscribe_06,
    fetch=_fetch_06,
    decode_track_info=lite_messages_06.TrackInfo.decode,
    decode_group_header=lite_messages_06.GroupHeader.decode,
)
"""Announcements by number, frame ranges (of which we make no use), and no ``ordered``."""
