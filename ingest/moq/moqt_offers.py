"""Tracks that a relay offers unasked (PUBLISH): held until somebody wants them, or refused.

An offer says that the broadcast is there, and what its streams are called. One of a broadcast that
was asked for by its whole name is held for `PATIENCE`, objects that overtake our answer included;
others are noted as long as they stand, and nothing of them is kept.

A track never has two subscriptions: what is delivered already is refused as a duplicate, and while
our own SUBSCRIBE is not answered the offer waits for that answer, because each side takes the other
one's request for the duplicate. Where the relay refuses SUBSCRIBE, the offer is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ingest.moq.moqt_control import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.moq.events import Event
    from ingest.moq.interface import Limits
    from ingest.moq.moqt_control import Control
    from ingest.moq.moqt_data import DataStreams
    from ingest.moq.moqt_publishing import Publish
    from ingest.moq.moqt_requests import Request

PATIENCE: Final = 30 * 10**9
"""How long an offer waits for somebody who wants it, nanoseconds."""


class Offer:
    """A track that the relay would deliver."""

    __slots__ = ("expected", "publish", "request", "since")

    def __init__(self, request: Request, publish: Publish, since: int, *, expected: bool) -> None:
        self.request = request
        self.publish = publish
        self.since = since
        self.expected = expected
        """Whether it is of a broadcast that we record: its objects are kept for now."""

    @property
    def name(self) -> tuple[tuple[bytes, ...], bytes]:
        """Namespace and track name."""
        return self.publish.namespace, self.publish.track


class Offers:
    """The offers of one session that are neither taken nor refused."""

    def __init__(self, control: Control, data: DataStreams, limits: Limits) -> None:
        self._control = control
        self._data = data
        self._limits = limits
        self._offers: dict[int, Offer] = {}

    def __len__(self) -> int:
        return len(self._offers)

    @property
    def waiting(self) -> bool:
        """Whether time alone may decide about one."""
        return any(offer.expected for offer in self._offers.values())

    def hold(
        self, request: Request, publish: Publish, now: int, *, wanted: bool
    ) -> Sequence[Event]:
        """Take an offer; ``wanted``: its track is subscribed to. Return what is to be told."""
        names = self._control.names
        size = sum(map(len, publish.namespace)) + len(publish.track)
        if len(self._offers) >= self._limits.offers or size > self._limits.name_bytes:
            self._control.turn_down(request, Refusal.TOO_MANY)
            return ()
        expected = wanted or names.asked_for(publish.namespace)
        if not expected and not names.wanted(publish.namespace):
            self._control.turn_down(request, Refusal.UNINTERESTED)
            return ()
        self._offers[request.number] = Offer(request, publish, now, expected=expected)
        if expected:
            self._data.expect(request)
        return names.offered(request.number, publish.namespace)

    def take(self, name: tuple[tuple[bytes, ...], bytes]) -> Offer | None:
        """Return the newest offer of a track, which is an offer no more."""
        offer = next((item for item in reversed(self._offers.values()) if item.name == name), None)
        if offer is not None:
            del self._offers[offer.request.number]
        return offer

    def turn_down(self, name: tuple[tuple[bytes, ...], bytes], refusal: Refusal, now: int) -> None:
        """Refuse the offers of a track, if there are any."""
        while (offer := self.take(name)) is not None:
            self._refuse(offer, refusal, now)

    def withdrawn(self, request: Request) -> None:
        """Take that an offer stands no more."""
        self._offers.pop(request.number, None)

    def settle(self, now: int) -> None:
        """Refuse what nobody has wanted for long."""
        for offer in list(self._offers.values()):
            if offer.expected and not 0 <= now - offer.since < PATIENCE:
                del self._offers[offer.request.number]
                self._refuse(offer, Refusal.UNINTERESTED, now)

    def clear(self) -> None:
        """Forget all."""
        self._offers.clear()

    def _refuse(self, offer: Offer, refusal: Refusal, now: int) -> None:
        self._control.turn_down(offer.request, refusal)
        # Streams that waited for it alone are turned away.
        self._data.answered(offer.request, None, now)
