"""Whatever directories, workers and disks do: what the supervisor promises holds at each step."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest.directory import Listed
from ingest.supervision import Phase, Policy, Room, Start, Stop, Supervision

NAMES = ("a", "b", "c", "d")
SOURCES = ("one", "two")
RELAY = "https://relay.example/"
GRACE = 100.0
MOST = 3

names = st.sampled_from(NAMES)


class SupervisionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.room = Room.AMPLE
        self.shed = 0
        self.running: set[str] = set()
        self.stopping: set[str] = set()
        self.lists: dict[str, set[str]] = {source: set() for source in SOURCES}
        self.last_listed: dict[str, float] = {}
        self.last_data: dict[str, float] = {}
        self.begun: dict[str, float] = {}
        self.supervision = Supervision(Policy(grace=GRACE, max_workers=MOST), chance=lambda: 0.5)

    def listed(self, name: str) -> bool:
        return any(name in there for there in self.lists.values())

    def note_listed(self) -> None:
        self.last_listed |= {name: self.now for name in NAMES if self.listed(name)}

    @rule(seconds=st.floats(0.1, 80))
    def time_passes(self, seconds: float) -> None:
        self.note_listed()
        self.now += seconds
        self.note_listed()
        self.decide()

    @rule(source=st.sampled_from(SOURCES), there=st.sets(names))
    def a_directory_answers(self, source: str, there: set[str]) -> None:
        self.note_listed()
        self.lists[source] = there
        self.supervision.take_listing(
            source, [Listed(name, (RELAY,)) for name in sorted(there)], self.now
        )
        self.decide()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def data_comes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.last_data[name] = self.now
        self.supervision.worker_received(name, self.now)
        self.decide()

    @precondition(lambda self: self.running | self.stopping)
    @rule(data=st.data(), code=st.sampled_from([0, 1, 2, 5, 6, -9]))
    def a_worker_ends(self, data: st.DataObject, code: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.running | self.stopping)))
        self.running.discard(name)
        self.stopping.discard(name)
        self.supervision.worker_ended(name, code, self.now)
        self.decide()

    @rule(room=st.sampled_from(Room))
    def the_disk_is_looked_at(self, room: Room) -> None:
        self.room = room
        self.shed = room is Room.CRITICAL
        self.supervision.take_room(room)
        self.decide()

    def decide(self) -> None:
        for action in self.supervision.decide(self.now):
            match action:
                case Start(broadcast=name, relay=relay):
                    assert self.room is Room.AMPLE
                    assert name not in self.running | self.stopping
                    assert relay == RELAY
                    self.running.add(name)
                    self.begun[name] = self.now
                case Stop(broadcast=name, reason=reason):
                    assert name in self.running
                    if "disk" in reason:
                        assert self.shed
                        self.shed = 0
                    else:
                        assert self.silence(name) >= GRACE
                        assert not self.listed(name) or "another" in reason
                    self.running.discard(name)
                    self.stopping.add(name)

    def silence(self, name: str) -> float:
        return self.now - max(self.last_data.get(name, 0.0), self.begun[name])

    @invariant()
    def never_more_workers_than_allowed(self) -> None:
        assert len(self.running | self.stopping) <= MOST

    @invariant()
    def it_knows_its_workers(self) -> None:
        phases = {item.name: item.phase for item in self.supervision.supervised()}
        assert {name for name, phase in phases.items() if phase is Phase.RECORDING} == self.running
        assert {name for name, phase in phases.items() if phase is Phase.STOPPING} == self.stopping

    def teardown(self) -> None:
        """Once disks and workers behave, all that is listed is recorded in the end."""
        for name in sorted(self.running | self.stopping):
            self.running.discard(name)
            self.stopping.discard(name)
            self.supervision.worker_ended(name, 0, self.now)
        self.room = Room.AMPLE
        self.supervision.take_room(self.room)
        self.now += 10 * GRACE
        self.decide()
        wanted = {name for name in NAMES if self.listed(name)}
        assert len(self.running & wanted) == min(MOST, len(wanted))


TestSupervision = SupervisionMachine.TestCase
TestSupervision.settings = settings(max_examples=60, stateful_step_count=30)
