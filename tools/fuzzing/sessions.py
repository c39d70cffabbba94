"""A MoQ session of any protocol, and what the recorder makes of its groups, fed with anything."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from msgspec import Struct

from casfs.errors import NegotiationError, ProtocolError
from ingest.moq.events import FetchFailed, GroupReceived
from ingest.moq.interface import Limits
from ingest.moq.negotiation import create_session
from ingest.refetching import HELD_BYTES, Refetching
from ingest.track_choice import MAX_TRACKS, TrackChoice
from tools.fuzzing.corpus import pieces

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ingest.moq.events import Event
    from ingest.moq.interface import MoqSession

LIMITS = Limits(
    frame_bytes=200,
    group_bytes=400,
    group_frames=20,
    message_bytes=100,
    name_bytes=40,
    announcements=5,
    buffered_bytes=1000,
    early_bytes=300,
    fetches=3,
)
_SLACK = 4096
"""What one piece may add before a limit is looked at."""


class Step(Struct, frozen=True):
    """Something that happens to a session."""

    action: str
    stream: int
    data: bytes
    end: bool
    seconds: float


def scripts(protocol: str) -> st.SearchStrategy[list[Step]]:
    """Return what may happen in a session of the protocol."""
    step = st.builds(
        Step,
        action=st.sampled_from(["data"] * 8 + ["reset", "stopped", "datagram", "settle", "ours"]),
        # Streams that we opened, then the relay's in both kinds.
        stream=st.sampled_from([2, 4, 6, 8, 12, 16, 20, 1, 5, 3, 7, 11, 15, 19]),
        data=pieces(protocol),
        end=st.booleans(),
        seconds=st.sampled_from([0.0, 0.5, 2.0, 30.0]),
    )
    return st.lists(step, max_size=25)


class _Streams:
    """A transport that takes everything."""

    def __init__(self) -> None:
        self._uni, self._bidi = 2, 4

    def open_uni(self) -> int:
        self._uni += 4
        return self._uni - 4

    def open_bidi(self) -> int:
        self._bidi += 4
        return self._bidi - 4

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        pass

    def reset(self, stream: int, code: int) -> None:
        pass

    def stop(self, stream: int, code: int) -> None:
        pass


class _Consumer:
    """What a recorder does with the events, without a disk."""

    def __init__(self, session: MoqSession) -> None:
        self._refetching = Refetching(session.fetch)
        self._choice = TrackChoice()

    def take(self, events: Iterable[Event], now: float) -> None:
        for event in events:
            if isinstance(event, GroupReceived):
                size = sum(map(len, event.frames))
                assert size <= LIMITS.group_bytes + LIMITS.frame_bytes
                assert len(event.frames) <= LIMITS.group_frames + 1
                assert event.complete == (not event.reason)
                for group in self._refetching.received(event, now):
                    self._choice.take("catalog.json", group.sequence, group.frames)
            elif isinstance(event, FetchFailed):
                self._refetching.failed(event.subscription, event.sequence, now)
        self._refetching.tick(now)
        held = self._refetching.give_up(99)
        assert sum(len(frame) for group in held for frame in group.frames) <= HELD_BYTES
        assert len(self._choice.tracks) <= MAX_TRACKS


def check_session(protocol: str, script: list[Step]) -> None:
    """Run a script; whatever it says, nothing but our own errors comes of it."""
    session = create_session(protocol, _Streams(), LIMITS)
    session.start()
    session.announce("demo")
    for track in ("video0.m4s", "catalog.json"):
        session.subscribe("demo/tv", track, priority=9, max_latency=60_000)
    consumer = _Consumer(session)
    now = 10**18
    used: set[int] = set()
    with contextlib.suppress(ProtocolError, NegotiationError):
        for step in script:
            now += int(step.seconds * 1e9)
            if step.stream in used and step.action in {"data", "reset"}:
                continue
            if step.action == "reset" or (step.action == "data" and step.end):
                used.add(step.stream)
            consumer.take(_do(session, step, now), now / 1e9)
            assert session.buffered <= LIMITS.buffered_bytes + _SLACK
            consumer.take(session.open_groups(now, now), now / 1e9)
    consumer.take(session.abandon("over", now), now / 1e9)
    assert session.buffered == 0
    assert not session.stream_data(3, b"late", now, end=False)


def _do(session: MoqSession, step: Step, now: int) -> Iterable[Event]:
    match step.action:
        case "data":
            return session.stream_data(step.stream, step.data, now, end=step.end)
        case "reset":
            return session.stream_reset(step.stream, len(step.data), now)
        case "stopped":
            return session.stream_stopped(step.stream, 7, now)
        case "datagram":
            return session.datagram(step.data, now)
        case "settle":
            return session.settle(now)
    if step.end:
        session.unsubscribe(step.stream % 3)
    else:
        session.fetch(step.stream % 3, len(step.data))
        session.subscribe("demo/tv", "more", priority=1, max_latency=0)
    return ()
