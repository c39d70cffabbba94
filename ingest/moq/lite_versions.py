"""In what the versions of moq-lite differ, as data: `ingest.moq.lite` holds no version number.

A further version is one more `LiteVersion` (and the messages that are new in it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ingest.moq.groups import Framing
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
    framing: Framing
    """How groups are framed."""
    subscribe_replies: Mapping[int, Callable[[bytes], SubscribeReply]]
    """What the relay may say on a subscribe stream: the decoders by kind."""

    def decode_subscribe_reply(self, message: TypedMessage) -> SubscribeReply | None:
        """Parse a reply; None for a kind that this version does not know."""
        decode = self.subscribe_replies.get(message.kind)
        return None if decode is None else decode(message.body)


LITE_04: Final = LiteVersion(
    protocol="moq-lite-04",
    setup=False,
    track_requests=False,
    announce_ok=False,
    framing=PLAIN,
    subscribe_replies={0: SubscribeOk.decode, 1: SubscribeDrop.decode},
)

LITE_05: Final = LiteVersion(
    protocol="moq-lite-05",
    setup=True,
    track_requests=True,
    announce_ok=True,
    framing=TIMED,
    subscribe_replies={
        0: SubscribeStart.decode,
        1: SubscribeEnd.decode,
        2: SubscribeDrop.decode,
    },
)
