"""What a MoQ transport session asks for by FETCH, and what becomes of it.

Three things: a group that is asked for from above (`Fetching.ask`); the beginning of the group in
whose middle a subscription began; and the groups before that one, newest first, until two in a row
are not there. Groups of the first and the third come as ``fetched``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ingest.moq.events import FetchFailed
from ingest.moq.moqt_groups import LINGER
from ingest.moq.moqt_messages import Fetch, Kind
from ingest.moq.moqt_parameters import Location
from ingest.moq.moqt_requests import Ask
from ingest.moq.subscriptions import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ingest.moq.events import Event, GroupReceived
    from ingest.moq.interface import Limits
    from ingest.moq.moqt_control import Control
    from ingest.moq.moqt_data import DataStreams
    from ingest.moq.moqt_drafts import Draft
    from ingest.moq.moqt_messages import FetchOk
    from ingest.moq.moqt_requests import Request
    from ingest.moq.moqt_track import Track

_BACKLOG_GAPS: Final = 2
"""After how many groups that are not there, one behind the other, nothing older is expected."""
_GONE: Final = 0
"""The code of a request that just ended."""


class Fetching:
    """The fetches of one session, of the subscriptions in ``tracks``."""

    def __init__(
        self,
        draft: Draft,
        control: Control,
        data: DataStreams,
        tracks: Mapping[int, Track],
        limits: Limits,
    ) -> None:
        self._draft = draft
        self._control = control
        self._requests = control.requests
        self._data = data
        self._tracks = tracks
        self._limits = limits
        self._asked = False
        self._answered = False

    @property
    def ignored(self) -> bool:
        """Whether FETCH was sent and never answered."""
        return self._asked and not self._answered

    @property
    def possible(self) -> bool:
        """Whether the relay can be asked."""
        return self._control.can_fetch and self._limits.fetches > 0

    @property
    def waiting(self) -> bool:
        """Whether time alone may decide something."""
        heads = any(track.head_due for track in self._tracks.values())
        return heads or any(request.ask is Ask.FETCH for request in self._requests)

    def answered(self) -> None:
        """Take that the relay has answered one, be it with no."""
        self._answered = True

    def ask(self, subscription: int, sequence: int) -> bool:
        """Ask for all of a group, as `MoqSession.fetch` promises."""
        track = self._tracks.get(subscription)
        fetches = [request for request in self._requests if request.ask is Ask.FETCH]
        if (
            track is None
            or not self.possible
            or len(fetches) >= self._limits.fetches
            or any((item.subscription, item.group) == (subscription, sequence) for item in fetches)
        ):
            return False
        self._send(Ask.FETCH, track, Location(sequence, 0), Location(sequence, 0))
        return True

    def accepted(self, track: Track, largest: Location) -> None:
        """Take the newest object that a subscription has when it begins: fetch what is before."""
        track.largest = largest
        track.head_due = self.possible
        self._send_older(track, largest.group)

    def confirmed(self, request: Request, answer: FetchOk, now: int) -> Sequence[GroupReceived]:
        """Take what the relay says of a fetch: how far it goes."""
        end = answer.end
        whole = end.object == 0 or end.group > request.group or answer.end_of_track
        return self._data.groups.confirm(request.subscription, request.group, now, whole=whole)

    def fail(self, request: Request, code: int) -> Sequence[Event]:
        """Take that a group does not come."""
        self._data.groups.drop_fetch(request.subscription, request.group)
        self.drop(request)
        track = self._tracks.get(request.subscription)
        if not request.backlog:
            return (FetchFailed(request.subscription, request.group, code),)
        if track is not None:
            track.gaps += 1
            if track.gaps < _BACKLOG_GAPS:
                self._send_older(track, request.group)
        return ()

    def received(self, group: GroupReceived) -> Sequence[Event]:
        """Take a group that is ``fetched``; return what is to be told."""
        wanted = (group.subscription, group.sequence)
        fetches = (request for request in self._requests if request.ask is Ask.FETCH)
        request = next(
            (item for item in fetches if (item.subscription, item.group) == wanted), None
        )
        if request is None:
            return ()
        if not group.complete and not group.frames:
            return self.fail(request, _GONE)
        self._requests.done(request)
        self._data.done(request)
        track = self._tracks.get(group.subscription)
        if request.backlog and track is not None:
            track.gaps = 0
            self._send_older(track, group.sequence)
        return (group,)

    def drop(self, request: Request) -> None:
        """Take a request of any kind back."""
        self._control.cancel(request)
        self._data.done(request)

    def settle(self, now: int) -> list[Event]:
        """Fetch beginnings that did not come by themselves; give up what is not answered."""
        for track in self._tracks.values():
            largest = track.largest
            if track.head_due and largest is not None and now - track.answered_at >= LINGER:
                if self._data.groups.known(track.number, largest.group):
                    track.head_due = False
                else:
                    self._send_head(track, largest)
        events: list[Event] = []
        for request in self._requests:
            if request.ask is Ask.FETCH and self._expired(request, now):
                events.extend(self.fail(request, _GONE))
        return events

    def look_at_heads(self) -> None:
        """Fetch beginnings that are missing from groups that have begun to come."""
        for track in self._due_heads():
            assert track.largest is not None
            group = self._data.groups.find(track.number, track.largest.group, fetched=False)
            if group is not None and group.begins_late:
                self._send_head(track, track.largest)

    def _due_heads(self) -> Iterable[Track]:
        return (track for track in self._tracks.values() if track.head_due and track.largest)

    def _send(self, ask: Ask, track: Track, start: Location, end: Location) -> Request:
        request = self._requests.new(ask)
        request.subscription, request.group = track.number, start.group
        wish = track.wish
        message = Fetch(request.number, wish.namespace, wish.track, wish.priority, start, end)
        self._data.fetching(request)
        self._asked = True
        self._control.send(request, Kind.FETCH, message.encode(self._draft))
        return request

    def _send_head(self, track: Track, largest: Location) -> None:
        track.head_due = False
        # An end of 0 is that of the whole group.
        behind = largest.object + 1 if largest.object < self._draft.integers.largest else 0
        start, end = Location(largest.group, 0), Location(largest.group, behind)
        self._send(Ask.HEAD, track, start, end)

    def _send_older(self, track: Track, than: int) -> None:
        """Fetch the group before one, if it may be there and has not come."""
        while than > 0 and track.backlog > 0 and self.possible:
            than -= 1
            track.backlog -= 1
            if not self._data.groups.known(track.number, than):
                start = Location(than, 0)
                self._send(Ask.FETCH, track, start, start).backlog = True
                return

    def _expired(self, request: Request, now: int) -> bool:
        """Whether a fetch has been answered by nothing for too long."""
        begun = self._data.groups.find(request.subscription, request.group, fetched=True)
        if request.since is None or (begun is not None and begun.sources):
            request.since = now
        return not 0 <= now - request.since < PATIENCE
