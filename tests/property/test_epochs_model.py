"""A model of publishers that restart and relays that redeliver, against the epoch rules.

Publishers begin again in two ways: announced, with their sequences from anywhere, and unnoticed,
going on with the sequences; then only media time tells. Media time is the time of day, or counts
from where a publisher began.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from casfs.digest import digest_of
from casfs.timestamps import NANOSECONDS
from ingest.epoch_memory import Seen
from ingest.epochs import EpochTracker, Verdict
from ingest.media_clock import Clock, MediaTime

if TYPE_CHECKING:
    from casfs.digest import Digest

TRACKS = ("video0.m4s", "audio0.m4s")
HELD = 60 * NANOSECONDS


class Sent:
    """A group that a publisher has sent."""

    def __repr__(self) -> str:
        return f"{self.track[0]}{self.sequence} of {self.publisher} at {self.at} time {self.time}"

    def __init__(
        self, publisher: int, track: str, sequence: int, payload: bytes, at: int, time: int
    ) -> None:
        self.time = time
        self.publisher = publisher
        self.track = track
        self.sequence = sequence
        self.payload = payload
        self.at = at


class World(RuleBasedStateMachine):
    """One publisher after the other, one relay, one recorder that loses its sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.publisher = 0
        self.generation = 1
        self.next: dict[str, int] = defaultdict(int)
        self.cache: list[Sent] = []
        self.flying: list[Sent] = []
        """Sent by a publisher that is gone, and not delivered yet."""
        self.base = 10**8 * NANOSECONDS
        """What media time is ahead of the clock."""
        self.takeovers: list[int] = []
        self.forgotten = 0
        """Takeovers across which a relay may still deliver to a recorder that has not seen them."""
        self.announced = False
        """Whether a publisher began again with an announcement."""
        self.placed: dict[tuple[str, int], set[int]] = defaultdict(set)
        """Epochs of each publisher's whole groups, by track, since the recorder began."""
        self.taken_over: set[int] = set()
        """Publishers whose sequences another one went on with, since the recorder began."""
        self.orderly: set[tuple[str, int]] = set()
        """Tracks of publishers that were heard before any later publisher was."""
        self.followed: set[tuple[str, int]] = set()
        """Those of them after which the next publisher was, too."""
        self.recorded: dict[tuple[str, int, int], Seen] = {}
        self.payloads: dict[Digest, bytes] = {}
        self.contents: dict[tuple[str, int, int], set[bytes]] = defaultdict(set)
        self.tracker = EpochTracker(self)
        self.delivered: set[tuple[str, int, bytes]] = set()
        self.order: list[tuple[str, int, int]] = []

    # ingest.epochs.History

    def find(self, track: str, epoch: int, sequence: int) -> Seen | None:
        return self.recorded.get((track, epoch, sequence))

    def prefix(self, track: str, epoch: int, sequence: int, size: int) -> Digest | None:
        seen = self.recorded[track, epoch, sequence]
        return digest_of(self.payloads[seen.digest][:size])

    # What happens

    @rule(seconds=st.integers(0, 200))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * NANOSECONDS

    @rule(
        track=st.sampled_from(TRACKS),
        skip=st.integers(0, 3),
        count=st.integers(1, 4),
        heard=st.booleans(),
        broken=st.booleans(),
    )
    def publish(self, track: str, skip: int, count: int, *, heard: bool, broken: bool) -> None:
        """Send groups; ``heard``: over a session that stands; ``broken``: each is cut short."""
        self.next[track] += skip
        for _ in range(count):
            sent = self.send(track)
            if heard:
                self.deliver(sent, len(sent.payload) // 2 if broken else None)

    def send(self, track: str) -> Sent:
        sequence = self.next[track]
        payload = b"%d/%s/%d" % (self.publisher, track.encode(), sequence)
        time = self.base + self.now
        sent = Sent(self.publisher, track, sequence, payload, self.now, time)
        self.next[track] += 1
        self.cache.append(sent)
        self.now += NANOSECONDS
        return sent

    @rule(first=st.integers(0, 50), back=st.booleans())
    def restart_publisher(self, first: int, *, back: bool) -> None:
        """Announce anew; ``back``: media time begins again too, or it is the time of day."""
        self.announced = True
        self.publisher += 1
        self.generation += 1
        self.cache.clear()
        self.flying.clear()
        self.next.clear()
        if back:
            self.base -= 10**6 * NANOSECONDS
        for track in TRACKS:
            self.next[track] = first

    @precondition(lambda self: sum(self.now - at < 700 * NANOSECONDS for at in self.takeovers) < 3)
    @rule(flying=st.lists(st.sampled_from(TRACKS), max_size=3))
    def take_over(self, flying: list[str]) -> None:
        """Go on with the sequences of a publisher of which some groups are still under way."""
        self.flying = [self.send(track) for track in flying]
        self.taken_over.add(self.publisher)
        self.publisher += 1
        self.base -= 10**6 * NANOSECONDS
        self.takeovers.append(self.now)

    @rule()
    def land(self) -> None:
        """Deliver what was still under way."""
        flying, self.flying = self.flying, []
        for sent in flying:
            if self.now - sent.at <= HELD:
                self.deliver(sent)

    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        """Subscribe again: what the relay still holds comes in any order, whole or cut."""
        self.generation += 1
        held = [sent for sent in self.cache if self.now - sent.at <= HELD]
        order = data.draw(st.permutations(held)) if len(held) <= 8 else held[::-1]
        lost = data.draw(st.integers(0, len(order)))
        for number, sent in enumerate(order):
            if number == lost:
                break
            cut = data.draw(st.integers(0, len(sent.payload)))
            if data.draw(st.booleans()):
                self.deliver(sent, cut)
            else:
                self.deliver(sent)

    @rule(remembering=st.integers(0, 5))
    def restart_recorder(self, remembering: int) -> None:
        self.generation = 1
        self.tracker = EpochTracker(self)
        self.forgotten += sum(self.now - at <= 2 * HELD for at in self.takeovers)
        self.placed.clear()
        self.followed.clear()
        self.orderly.clear()
        self.taken_over.clear()
        for track in TRACKS:
            mine = [identity for identity in self.order if identity[0] == track]
            for identity in mine[len(mine) - remembering :]:
                self.tracker.restore(*identity, self.recorded[identity])
            if mine:
                newest = max(mine, key=lambda identity: identity[1:])
                self.tracker.restore_highest(*newest)

    def deliver(self, sent: Sent, cut: int | None = None) -> None:
        payload = sent.payload if cut is None else sent.payload[:cut]
        time = MediaTime(Clock.PAYLOAD, sent.time)
        seen = Seen(digest_of(payload), len(payload), cut is None, self.now, time)
        decision = self.tracker.observe(
            sent.track, sent.sequence, (payload,), seen, generation=self.generation
        )
        if decision.verdict is Verdict.KNOWN:
            # Nothing new is dropped: what is recorded holds all that has come.
            assert any(
                self.payloads[recorded.digest].startswith(payload)
                and (recorded.complete or cut is not None)
                for (track, _, sequence), recorded in self.recorded.items()
                if (track, sequence) == (sent.track, sent.sequence)
            )
        else:
            identity = (sent.track, decision.epoch, sent.sequence)
            self.payloads[seen.digest] = payload
            self.recorded[identity] = seen
            self.order.append(identity)
            self.contents[identity].add(payload)
        mine = (sent.track, sent.publisher)
        before = (sent.track, sent.publisher - 1)
        later = any(of == sent.track and by > sent.publisher for of, by in self.placed)
        if mine not in self.placed and not later:
            self.orderly.add(mine)
            self.followed |= {before} & self.orderly
        self.placed[mine].add(decision.epoch)
        if cut is None:
            self.delivered.add((sent.track, sent.sequence, payload))

    @invariant()
    def an_identity_never_has_two_contents(self) -> None:
        for payloads in self.contents.values():
            longest = max(payloads, key=len)
            assert all(longest.startswith(payload) for payload in payloads)

    @invariant()
    def a_publisher_opens_one_epoch_at_most(self) -> None:
        assert self.tracker.epoch <= 1 + self.publisher + self.forgotten

    @invariant()
    def everything_that_came_whole_is_recorded(self) -> None:
        kept = {
            (track, sequence, self.payloads[seen.digest])
            for (track, _, sequence), seen in self.recorded.items()
            if seen.complete
        }
        assert self.delivered <= kept

    @invariant()
    def what_goes_on_with_the_sequences_shares_no_epoch_with_what_was_before(self) -> None:
        # Of one that was announced, and whose sequences lie between others', nothing is certain.
        for track, publisher in self.followed if not self.announced else ():
            if publisher in self.taken_over:
                before = self.placed[track, publisher]
                assert before.isdisjoint(self.placed[track, publisher + 1])


World.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestEpochs = World.TestCase
