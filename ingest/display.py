"""Shows on stderr what a recorder does: a live table on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import trio

from casfs.quantities import format_bytes
from ingest.quic import printable
from ingest.rates import Rates

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.text import Text

    from ingest.state import RecorderState, TrackState

_TERMINAL_SECONDS = 0.5
_LINE_SECONDS = 10.0


async def show_recorder(state: RecorderState) -> None:
    """Show ``state`` until cancelled. When nobody can see it any more, that ends no recorder."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            # What draws is imported where somebody looks, by no recorder that runs unseen.
            from rich.console import Console

            console = Console(stderr=True, highlight=False, markup=False, emoji=False)
            await _show_table(state, console)
        else:
            await _show_lines(state)


def summary_line(state: RecorderState) -> str:
    """Return one line that says it all."""
    parts = [f"{state.groups} groups, {format_bytes(state.bytes)} on disk"]
    if state.groups:
        parts.append(f"{format_bytes(state.new_bytes)} new, dedup {state.dedup_ratio:.2f}x")
    parts.append(f"{state.gaps} {'gap' if state.gaps == 1 else 'gaps'}")
    if state.epoch > 1:
        parts.append(f"epoch {state.epoch}")
    if state.connections > 1:
        parts.append(f"reconnected {state.connections - 1}x")
    if state.pending_groups:
        parts.append(f"{state.pending_groups} groups not on disk yet")
    return ", ".join(parts)


def troubles(state: RecorderState) -> list[str]:
    """Return what does not go as it should, each on a line."""
    found = []
    if state.relay_trouble:
        found.append(f"relay: {state.relay_trouble}")
    if state.trouble:
        found.append(f"disk: {state.trouble}")
    if state.index_trouble:
        found.append(f"index behind, commits go on: {state.index_trouble}")
    return found


async def _show_table(state: RecorderState, console: Console) -> None:
    from rich.live import Live

    rates = Rates(trio.current_time)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(render(state, rates), refresh=True)
            await trio.sleep(_TERMINAL_SECONDS)


async def _show_lines(state: RecorderState) -> None:
    shown = ""
    next_line = trio.current_time() + _LINE_SECONDS
    while True:
        # What is wrong with the relay or the disk has been logged when it began.
        changed = f"{state.status} {state.trouble}"
        if changed != shown or trio.current_time() >= next_line:
            name = printable(state.broadcast)
            line = f"casfs: {name}: {state.status}: {summary_line(state)}"
            print(line, file=sys.stderr, flush=True)
            shown = changed
            next_line = trio.current_time() + _LINE_SECONDS
        await trio.sleep(_TERMINAL_SECONDS)


def render(state: RecorderState, rates: Rates) -> Group:
    """Return the live picture of a recorder."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{printable(state.broadcast)}: {state.status}", style="bold")
    title.append(f"  {state.relay} {state.protocol}".rstrip(), style="dim")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("track")
    for name in ("", "groups", "size", "Mbit/s", "gaps", "incomplete", "redelivered"):
        table.add_column(name, justify="right")
    for name, track in state.tracks.items():
        table.add_row(
            Text(printable(name)),
            _activity(track),
            str(track.groups),
            format_bytes(track.bytes),
            f"{8e-6 * rates.of(name, track.bytes):.2f}",
            _notable(track.gaps),
            _notable(track.incomplete),
            str(track.redelivered),
        )
    lines: list[RenderableType] = [title, table, Text(summary_line(state))]
    lines += [Text(trouble, style="red") for trouble in troubles(state)]
    return Group(*lines, Text("Ctrl-C ends it; everything that came is kept", style="dim"))


def _activity(track: TrackState) -> str:
    came = track.groups or track.redelivered
    return "recording" if track.status == "subscribed" and came else track.status


def _notable(count: int) -> Text:
    from rich.text import Text

    return Text(str(count), style="yellow" if count else "")
