"""One subscription of a MoQ transport session, and what is needed to go on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ingest.moq.subscriptions import Subscription

if TYPE_CHECKING:
    from ingest.moq.moqt_messages import Subscribe
    from ingest.moq.moqt_parameters import Location

_BACKLOG: Final = 256
"""How many groups are fetched back from where a subscription begins."""


class Track:
    """A track that we have asked for, or have taken because the relay offered it."""

    def __init__(self, wish: Subscribe, number: int, *, backlog: bool) -> None:
        """``backlog``: whether groups older than the newest are wanted."""
        self.subscription = Subscription(number, info_expected=True)
        self.number = number
        self.wish = wish
        """Its request may be one that was refused, or the relay's offer."""
        self.over = False
        """The relay brings no more."""
        self.largest: Location | None = None
        self.answered_at = 0
        """When the relay said that it delivers, nanoseconds UTC; 0: not yet."""
        self.head_due = False
        """The beginning of the newest group may have to be fetched."""
        self.backlog = _BACKLOG if backlog else 0
        """How many older groups may still be fetched."""
        self.gaps = 0
        """How many in a row of those were not there."""
        self.streams = 0
        """How many have come."""
        self.streams_due = 0
        """How many there are, by PUBLISH_DONE."""

    @property
    def name(self) -> tuple[tuple[bytes, ...], bytes]:
        """Namespace and track name."""
        return self.wish.namespace, self.wish.track

    @property
    def live(self) -> bool:
        """Whether the relay delivers it."""
        return bool(self.answered_at) and not self.over
