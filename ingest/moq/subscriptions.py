"""What is known of one subscription, and when to tell of it.

Three sources speak independently and in any order: the answer to the subscription, the track's
properties where the protocol has a request for them, and the groups. The rules:

- *Accepted* is told once: with the properties; or with the answer, where no properties can come
  any more. Groups are never held back for it: they may come before.
- *Refused* is told once, and only of a subscription that has not been answered and has had no
  group. A refusal of the properties alone is told too, but ends nothing: where the answer comes
  all the same, *accepted* (with no timescale) follows.
- *Ended* is told once, after the answer's stream has ended and, as far as that can be known, all
  groups are over and the properties are there; at the latest `PATIENCE` after that. A group whose
  stream the network held up for longer is still delivered, so give up a subscription, and its
  connection, some seconds after its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ingest.moq.events import TrackAccepted, TrackEnded, TrackRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.moq.events import Event

PATIENCE: Final = 10 * 10**9
"""How long the end of a subscription waits for its last groups, nanoseconds."""


class Subscription:
    """The state of one subscription; each method returns what it newly tells."""

    __slots__ = (
        "_accepted",
        "_answered",
        "_end",
        "_groups",
        "_highest",
        "_info_expected",
        "_over",
        "_refused",
        "_silent",
        "number",
    )

    def __init__(self, number: int, *, info_expected: bool) -> None:
        """``info_expected``: whether the track's properties have been asked for."""
        self.number = number
        self._info_expected = info_expected
        self._answered = False
        self._accepted = False
        self._refused = False
        self._groups = False
        self._silent = False
        """Told all: refused or ended."""
        self._highest = -1
        """The highest group that came or was dropped."""
        self._end = 0
        """The number behind the last group, where the relay told."""
        self._over: int | None = None
        """Since when the answer's stream has ended."""

    def properties(self, timescale: int) -> Sequence[Event]:
        """Take the track's properties. A timescale of 0 is none."""
        self._info_expected = False
        return self._accept(timescale or None)

    def no_properties(self) -> Sequence[Event]:
        """Take that the properties will not come, for whatever reason."""
        self._info_expected = False
        return self._accept(None) if self._answered else ()

    def properties_refused(self, code: int) -> Sequence[Event]:
        """Take that the request for the properties was refused."""
        self._info_expected = False
        if self._answered:
            return self._accept(None)
        return () if self._groups else self._refuse(code)

    def answered(self) -> Sequence[Event]:
        """Take that the relay delivers."""
        self._answered = True
        return () if self._info_expected else self._accept(None)

    def group(self, sequence: int) -> None:
        """Take that a group has begun."""
        self._groups = True
        self._highest = max(self._highest, sequence)

    def dropped(self, last: int) -> None:
        """Take that groups up to ``last`` will not come."""
        self._highest = max(self._highest, last)

    def bounded(self, end: int) -> None:
        """Take the number behind the track's last group."""
        self._end = end

    def over(self, refusal: int | None, now: int) -> Sequence[Event]:
        """Take the end of the answer's stream; ``refusal`` is the code of its reset, if any."""
        self._over = now
        if refusal is not None and not (self._answered or self._groups):
            told = self._refuse(refusal)
            self._silent = True
            return told
        return ()

    def conclude(self, now: int, *, arriving: bool) -> Sequence[Event]:
        """Tell the end when it is time; ``arriving``: whether a group is not over yet."""
        if self._over is None or self._silent:
            return ()
        waits = arriving or self._info_expected or self._highest < self._end - 1
        if waits and 0 <= now - self._over < PATIENCE:
            return ()
        self._silent = True
        # Refused by the properties, and then nothing came: that has been told.
        told = self._refused and not (self._answered or self._groups)
        return () if told else (TrackEnded(self.number),)

    @property
    def concluded(self) -> bool:
        """Whether nothing is left to tell but late groups."""
        return self._silent

    def _accept(self, timescale: int | None) -> Sequence[Event]:
        if self._accepted or self._silent:
            return ()
        self._accepted = True
        return (TrackAccepted(self.number, timescale),)

    def _refuse(self, code: int) -> Sequence[Event]:
        if self._refused or self._silent:
            return ()
        self._refused = True
        return (TrackRefused(self.number, code),)
