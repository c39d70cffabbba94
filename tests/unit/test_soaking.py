"""A soak is judged: what grows is found, what only trembles is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tools.supervision.processes import children, footprint, runs
from tools.supervision.soaking import Sample, judge, look

NAME = "worker: own MB"


def samples(*values: float, name: str = NAME) -> list[Sample]:
    return [Sample(100.0 * at, {name: value}) for at, value in enumerate(values)]


def test_what_grows_from_the_second_quarter_to_the_last_is_not_flat() -> None:
    assert not judge(samples(*(40 + number for number in range(16))))[NAME].flat


def test_what_is_filled_in_the_first_quarter_is_flat() -> None:
    values = [10, 20, 30, 40, 45, 44, 45, 45, 45, 46, 45, 45, 45, 46, 46, 45, 45]
    found = judge(samples(*values))[NAME]
    assert found.flat
    assert (found.early, found.late) == (45, 46)


@pytest.mark.parametrize(("more", "flat"), [(3, True), (4, False)])
def test_processes_may_be_replaced_and_must_not_become_more(more: int, flat: bool) -> None:
    name = "all: processes"
    values = [41.0] * 12 + [41.0 + more] * 4
    assert judge(samples(*values, name=name))[name].flat is flat


def test_too_short_a_soak_is_not_judged() -> None:
    assert judge([]) == {}
    assert judge(samples(1, 2, 3)) == {}


def test_a_look_finds_all_that_a_process_has_started() -> None:
    script = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'input()'],"
        " stdin=subprocess.PIPE); print(child.pid, flush=True); input()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        assert worker.pid in children(os.getpid())
        assert children(worker.pid) == [child]
        held = footprint(child)
        assert held is not None
        assert 0 < held.proportional <= held.resident
        figures = look(worker.pid).figures
        assert figures["all: processes"] == 2
        assert figures["worker: threads"] == 1
        worker.communicate(b"\n")
    assert not runs(worker.pid)
    assert footprint(worker.pid) is None
