"""In what the drafts of MoQ transport differ, as data; draft-ietf-moq-transport-14, -16 and -18.

Where a message's layout differs, its codec (`ingest.moq.moqt_messages`) asks these fields, never
the number.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from ingest.moq.integers import LEADING_ONES, QUIC_INTEGERS, Integers


class Draft(Struct, frozen=True):
    """One draft, as far as a subscriber notices."""

    number: int
    protocol: str
    """The negotiated name."""
    integers: Integers
    """How integers are written."""
    typed_replies: bool
    """14: each request has replies of its own kinds, and SUBSCRIBE fixed fields. Since 15 there is
    one OK and one ERROR, and what a request wants stands in parameters."""
    delta_keys: bool
    """Since 16: the keys of key-value pairs are differences."""
    namespace_streams: bool
    """Since 16: SUBSCRIBE_NAMESPACE has a stream of its own, and NAMESPACE comes on it."""
    request_streams: bool
    """Since 17: each request has a stream of its own, and replies name no request."""

    @property
    def version(self) -> int:
        """The number by which SETUP of draft 14 names the draft."""
        return 0xFF00_0000 | self.number


DRAFT_14: Final = Draft(
    number=14,
    protocol="moqt-14",
    integers=QUIC_INTEGERS,
    typed_replies=True,
    delta_keys=False,
    namespace_streams=False,
    request_streams=False,
)
DRAFT_16: Final = Draft(
    number=16,
    protocol="moqt-16",
    integers=QUIC_INTEGERS,
    typed_replies=False,
    delta_keys=True,
    namespace_streams=True,
    request_streams=False,
)
DRAFT_18: Final = Draft(
    number=18,
    protocol="moqt-18",
    integers=LEADING_ONES,
    typed_replies=False,
    delta_keys=True,
    namespace_streams=True,
    request_streams=True,
)
