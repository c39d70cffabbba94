"""The rule by which adopted groups get their epochs, against a model that holds everything."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from casfs.adopt.epochs import NEAR, SLACK, Candidate, EpochRule, Verdict
from casfs.digest import digest_of

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND = 1_000_000_000
MINUTE = 60 * SECOND


class Heard(Struct, frozen=True):
    """A group as some recorder received it."""

    track: str
    sequence: int
    payload: bytes
    received: int
    complete: bool = True

    def candidate(self) -> Candidate:
        size = len(self.payload)
        return Candidate(
            0, self.sequence, digest_of(self.payload), size, self.complete, self.received
        )


class Model:
    """Holds groups in memory, as `casfs.adopt.epochs.Held` wants it."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, int, int], Candidate] = {}
        self.payloads: dict[str, bytes] = {}

    def epochs(self, track: str) -> Sequence[int]:
        return sorted({epoch for name, epoch, _ in self.groups if name == track})

    def latest(self, track: str) -> int:
        return max(
            (g.received for (name, _, _), g in self.groups.items() if name == track), default=-1
        )

    def find(self, track: str, epoch: int, sequence: int) -> Candidate | None:
        return self.groups.get((track, epoch, sequence))

    def neighbours(
        self, track: str, epoch: int, sequence: int
    ) -> tuple[Candidate | None, Candidate | None]:
        own = {s: g for (name, e, s), g in self.groups.items() if (name, e) == (track, epoch)}
        below = max((s for s in own if s < sequence), default=None)
        above = min((s for s in own if s > sequence), default=None)
        return (
            own[below] if below is not None else None,
            own[above] if above is not None else None,
        )

    def begins(self, shorter: Candidate, longer: Candidate) -> bool:
        return self.payloads[longer.digest].startswith(self.payloads[shorter.digest])

    def highest(self) -> int:
        return max((epoch for _, epoch, _ in self.groups), default=0)


def adopt(model: Model, history: Sequence[Heard]) -> list[Verdict]:
    """Put a history in as an import does; return what was decided about each group."""
    rule = EpochRule(model, model.highest())
    verdicts = []
    for heard in history:
        candidate = heard.candidate()
        model.payloads[candidate.digest] = heard.payload
        placement = rule.place(heard.track, candidate)
        verdicts.append(placement.verdict)
        if placement.verdict is Verdict.KNOWN:
            continue
        before = model.find(heard.track, placement.epoch, heard.sequence)
        if before is not None:
            assert placement.verdict is Verdict.BETTER
            assert not before.complete
        held = Candidate(
            placement.epoch,
            candidate.sequence,
            candidate.digest,
            candidate.size,
            candidate.complete,
            candidate.received,
        )
        rule.accept(heard.track, held, placement)
        model.groups[heard.track, placement.epoch, heard.sequence] = held
    return verdicts


@st.composite
def histories(draw: st.DrawFn) -> list[Heard]:
    """Return what a recorder heard of a publisher that restarts, and of relays that repeat."""
    heard: list[Heard] = []
    now = 1_000_000 * MINUTE
    for run in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, 6))
        for sequence in range(first, first + draw(st.integers(1, 8))):
            now += draw(st.sampled_from([SECOND, 10 * SECOND, MINUTE]))
            for track in draw(st.sampled_from([["video"], ["video", "audio"], ["audio"]])):
                payload = f"{track} {run} {sequence}".encode()
                heard.append(Heard(track, sequence, payload, now))
            heard.append(Heard("init", 0, b"always the same", now))
            if draw(st.booleans()):
                again = draw(st.sampled_from(heard))
                heard.append(Heard(again.track, again.sequence, again.payload, now))
        now += draw(st.sampled_from([SECOND, 5 * MINUTE, 600 * MINUTE]))
    return heard


@given(histories())
def test_adopting_a_history_again_adds_nothing(history: list[Heard]) -> None:
    model = Model()
    adopt(model, history)
    before = dict(model.groups)
    assert set(adopt(model, history)) == {Verdict.KNOWN}
    assert model.groups == before


@given(histories(), st.data())
def test_an_import_that_was_interrupted_goes_on_where_it_stopped(
    history: list[Heard], data: st.DataObject
) -> None:
    model = Model()
    adopt(model, history[: data.draw(st.integers(0, len(history)))])
    adopt(model, history)
    assert set(adopt(model, history)) == {Verdict.KNOWN}


@given(histories())
def test_no_payload_is_lost_and_no_identity_has_two(history: list[Heard]) -> None:
    model = Model()
    adopt(model, history)
    held = {(track, g.sequence, g.digest) for (track, _, _), g in model.groups.items()}
    assert held == {(h.track, h.sequence, digest_of(h.payload)) for h in history}


@given(histories())
def test_time_rises_with_epoch_and_sequence(history: list[Heard]) -> None:
    model = Model()
    adopt(model, history)
    for track in ("video", "audio", "init"):
        keys = sorted(key for key in model.groups if key[0] == track)
        times = [model.groups[key].received for key in keys]
        for before, after in itertools.pairwise(times):
            assert before <= after + SLACK


@given(histories(), st.data())
def test_a_second_recorder_fills_what_the_first_missed_and_repeats_nothing(
    history: list[Heard], data: st.DataObject
) -> None:
    distinct = list({(h.track, h.sequence, h.payload): h for h in reversed(history)}.values())
    distinct.sort(key=lambda heard: heard.received)
    missed = data.draw(st.sets(st.sampled_from(range(len(distinct)))))
    model = Model()
    adopt(model, [heard for at, heard in enumerate(distinct) if at not in missed])
    late = [
        Heard(h.track, h.sequence, h.payload, h.received + data.draw(st.integers(0, SECOND)))
        for h in distinct
    ]
    late.sort(key=lambda heard: heard.received)
    adopt(model, late)
    wanted = {(h.track, h.sequence, digest_of(h.payload)) for h in distinct}
    assert {(t, g.sequence, g.digest) for (t, _, _), g in model.groups.items()} == wanted


def video(sequence: int, payload: str, received: int, *, complete: bool = True) -> Heard:
    return Heard("video", sequence, payload.encode(), received, complete)


def epochs_of(*history: Heard) -> list[int]:
    model = Model()
    adopt(model, history)
    return [epoch for _, epoch, _ in sorted(model.groups, key=lambda k: model.groups[k].received)]


def test_a_sequence_that_comes_again_with_other_bytes_opens_an_epoch() -> None:
    assert epochs_of(video(0, "a", 0), video(1, "b", 1), video(0, "c", 2)) == [1, 1, 2]


def test_a_sequence_far_below_opens_one_too_though_it_is_free() -> None:
    assert epochs_of(video(100, "a", 0), video(3, "b", 10 * MINUTE)) == [1, 2]


def test_what_relays_reorder_opens_none() -> None:
    assert epochs_of(video(5, "a", 0), video(4, "b", SECOND), video(6, "c", 2 * SECOND)) == [
        1,
        1,
        1,
    ]


def test_a_new_epoch_holds_for_all_tracks() -> None:
    assert epochs_of(
        video(0, "a", 0),
        Heard("audio", 0, b"b", 1),
        video(0, "c", 10 * MINUTE),
        Heard("audio", 9, b"d", 10 * MINUTE + 1),
    ) == [1, 1, 2, 2]


def test_what_is_older_than_everything_held_goes_before_it_where_it_can() -> None:
    model = Model()
    adopt(model, [video(50, "a", 60 * MINUTE), video(51, "b", 61 * MINUTE)])
    adopt(model, [video(10, "c", 0), video(11, "d", MINUTE)])
    assert {epoch for _, epoch, _ in model.groups} == {1}
    adopt(model, [video(90, "e", 10 * MINUTE)])
    assert ("video", 2, 90) in model.groups


def test_a_cut_group_gives_way_to_the_whole_one_and_not_the_other_way_round() -> None:
    cut, whole = video(3, "beg", 0, complete=False), video(3, "begun", SECOND)
    assert adopt(Model(), [cut, whole]) == [Verdict.NEW, Verdict.BETTER]
    assert adopt(Model(), [whole, cut]) == [Verdict.NEW, Verdict.KNOWN]


def test_the_same_bytes_long_after_are_another_group_in_another_epoch() -> None:
    history = [video(0, "same", 0), video(0, "other", MINUTE), video(0, "same", MINUTE + 2 * NEAR)]
    assert epochs_of(*history) == [1, 2, 3]
