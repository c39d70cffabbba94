"""What a soak misses is forgiven only if it is on record and nobody could have had it."""

from __future__ import annotations

import math

import pytest

from casfs.manifests.record import GapRecord, LostSessionRecord, StartRecord, StopRecord
from casfs.timestamps import NANOSECONDS, format_time
from tools.supervision.missing import Missing, Session, judge_missing, sessions_of

BEGAN = 1_700_000_000.0
TV = "demo/tv"


def time(seconds: float) -> str:
    return format_time(int((BEGAN + seconds) * NANOSECONDS))


def gap(first: int | None, last: int | None, start: float = 0, end: float = 0) -> GapRecord:
    names = [None if number is None else str(number) for number in (first, last)]
    return GapRecord(
        broadcast=TV,
        number=1,
        n=1,
        track="video",
        time=time(end),
        epoch=0,
        first=names[0],
        last=names[1],
        start=time(start),
        end=time(end),
        reason="lost",
        recorder="r",
    )


def ran(start: float, end: float = math.inf) -> Session:
    return Session(BEGAN + start, BEGAN + end)


def judged(sent: dict[int, float], gaps: list[GapRecord], *sessions: Session) -> Missing:
    return judge_missing({n: BEGAN + at for n, at in sent.items()}, gaps, sessions)


def test_what_is_missing_without_a_word_is_amiss_even_if_nobody_was_there() -> None:
    found = judged({7: 100, 8: 101}, [gap(7, 7)])
    assert found == Missing([8], [], [7])
    assert found.amiss


@pytest.mark.parametrize(
    ("start", "end", "excused"),
    [
        (0, 101, True),  # killed before it could acknowledge what had just come
        (0, 130, False),
        (120, 130, True),  # killed before it could ask
        (120, 150, False),
        (150, math.inf, True),  # the relay had it for ten seconds more
        (140, math.inf, False),
        (300, math.inf, True),
    ],
)
def test_a_gap_is_excused_if_no_recorder_ran_while_the_relay_remembered(
    start: float, end: float, *, excused: bool
) -> None:
    found = judged({7: 100}, [gap(7, 9)], ran(start, end))
    assert found == (Missing([], [], [7]) if excused else Missing([], [7], []))
    assert found.amiss is not excused


def test_a_gap_without_bounds_speaks_only_of_its_time() -> None:
    found = judged({7: 99, 8: 101, 9: 201}, [gap(None, None, 100, 200)])
    assert found == Missing([7, 9], [], [8])
    assert judged({7: 150, 8: 150}, [gap(8, None, 100, 200)]) == Missing([7], [], [8])


def test_of_what_was_sent_before_the_beginning_the_archive_cannot_know() -> None:
    sent = {number: BEGAN + at for number, at in ((0, 10), (1, 40), (2, 11), (7, 60))}
    found = judge_missing(sent, [], [ran(58)], lowest=2)
    assert found == Missing([2, 7], [1], [0])


def test_a_lost_session_lasted_until_its_recorder_was_killed() -> None:
    starts = [
        StartRecord(
            broadcast=TV,
            number=1,
            n=1,
            track=None,
            time=time(at),
            recorder=name,
            writer="w",
            relay="r",
            host="h",
        )
        for at, name in ((0, "a"), (20, "b"), (40, "c"))
    ]
    lost = LostSessionRecord(
        broadcast=TV, number=1, n=1, track=None, time=time(20), lost="a", last=time(9), recorder="b"
    )
    stop = StopRecord(
        broadcast=TV, number=1, n=1, track=None, time=time(30), recorder="b", reason="SIGTERM"
    )
    kills = [BEGAN - 5, BEGAN + 12, BEGAN + 35]
    assert sessions_of([*starts, stop, lost], kills) == [ran(0, 12), ran(20, 30), ran(40)]
    assert sessions_of([*starts, stop, lost], [])[0] == ran(0, 9)
