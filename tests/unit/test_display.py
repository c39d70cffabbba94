"""What a user sees of a recorder, and that nothing depends on being seen."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import trio
from rich.console import Console

from ingest.display import render, show_recorder, summary_line, troubles
from ingest.rates import Rates
from ingest.state import RecorderState

if TYPE_CHECKING:
    import pytest
    from trio.testing import MockClock


def recording() -> RecorderState:
    state = RecorderState(
        broadcast="demo/tv",
        status="recording",
        relay="https://relay.example:443",
        protocol="moq-lite-05",
        connections=1,
        new_bytes=1_500_000,
    )
    track = state.track("video0.m4s")
    track.status, track.groups, track.bytes, track.gaps = "subscribed", 12, 3_000_000, 1
    state.track("audio0.m4s").status = "refused"
    return state


class Torn(io.StringIO):
    """A stderr that nobody reads any more."""

    def write(self, _text: str, /) -> int:
        raise BrokenPipeError


def picture(state: RecorderState) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(render(state, Rates(lambda: 0.0)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_one_line_says_it_all() -> None:
    state = recording()
    assert summary_line(state) == "12 groups, 3.0 MB on disk, 1.5 MB new, dedup 2.00x, 1 gap"
    state.epoch, state.connections, state.pending_groups = 2, 3, 4
    assert summary_line(state).endswith("epoch 2, reconnected 2x, 4 groups not on disk yet")


def test_every_trouble_is_said() -> None:
    state = recording()
    assert troubles(state) == []
    state.trouble, state.relay_trouble, state.index_trouble = "full", "gone", "locked"
    assert [line.split(":")[0] for line in troubles(state)] == [
        *("relay", "disk", "index behind, commits go on"),
    ]
    assert any("disk: full" in line for line in picture(state))


def test_the_table_tells_what_each_track_does() -> None:
    lines = picture(recording())
    assert lines[0].startswith("demo/tv: recording  https://relay.example:443 moq-lite-05")
    video = next(line for line in lines if line.startswith("video0.m4s"))
    assert video.split() == ["video0.m4s", "recording", "12", "3.0", "MB", "0.00", "1", "0", "0"]
    assert any(line.split()[:2] == ["audio0.m4s", "refused"] for line in lines)


def test_names_do_not_steer_the_terminal() -> None:
    state = RecorderState(broadcast="\x1b[2Jdemo")
    state.track("\x1b]0;owned\x07")
    assert not any("\x1b" in line or "\x07" in line for line in picture(state))


def test_rates_are_those_of_the_last_seconds() -> None:
    now = iter([*range(20), 60])
    rates = Rates(lambda: next(now))
    shown = [rates.of("video", second * 1_000_000) for second in range(20)]
    assert shown == [0.0, *[1_000_000.0] * 19]
    assert rates.of("video", 19_000_000) == 0


async def test_without_a_terminal_there_is_a_line_for_each_change_and_one_now_and_then(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    state = recording()
    state.status = "connecting"
    with trio.move_on_after(35):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show_recorder, state)
            await trio.sleep(1)
            state.status = "recording"
            await trio.sleep_forever()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2] for line in lines] == ["connecting", *["recording"] * 4]
    assert all(line.startswith("casfs: demo/tv: ") for line in lines)


async def test_a_display_that_nobody_sees_ends_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Torn())
    await show_recorder(recording())
