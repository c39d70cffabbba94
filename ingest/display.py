"""Shows on stderr what a recorder does: a live table on a terminal, else a line now and then."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from ingest.state import RecorderState

_TERMINAL_SECONDS = 0.5
_LINE_SECONDS = 10.0


async def show_recorder(state: RecorderState) -> None:
    """Show ``state`` until cancelled."""
    console = Console(stderr=True, highlight=False, markup=False)
    if console.is_terminal:
        await _show_table(state, console)
    else:
        await _show_lines(state)


def summary_line(state: RecorderState) -> str:
    """Return one line that says it all."""
    parts = [
        f"{state.status}: {state.groups} groups, {_megabytes(state.bytes)}",
        f"{state.gaps} gaps",
        f"dedup {state.dedup_ratio:.2f}x",
        f"epoch {state.epoch}",
    ]
    if state.pending_groups:
        parts.append(f"{state.pending_groups} groups not on disk yet")
    if state.trouble:
        parts.append(state.trouble)
    if state.index_trouble:
        parts.append(f"index behind ({state.index_trouble})")
    return ", ".join(parts)


async def _show_table(state: RecorderState, console: Console) -> None:
    rates = _Rates()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_table(state, rates), refresh=True)
            await trio.sleep(_TERMINAL_SECONDS)


async def _show_lines(state: RecorderState) -> None:
    shown = ""
    next_line = trio.current_time() + _LINE_SECONDS
    while True:
        changed = f"{state.status} {state.trouble}"
        if changed != shown or trio.current_time() >= next_line:
            print(f"casfs: {state.broadcast}: {summary_line(state)}", file=sys.stderr, flush=True)
            shown = changed
            next_line = trio.current_time() + _LINE_SECONDS
        await trio.sleep(_TERMINAL_SECONDS)


def _table(state: RecorderState, rates: _Rates) -> Table:
    title = f"{state.broadcast}  {state.relay} {state.protocol}"
    table = Table(title=title, caption=summary_line(state), box=None, title_justify="left")
    table.caption_justify = "left"
    table.add_column("track")
    for name in ("state", "groups", "size", "Mbit/s", "gaps", "incomplete", "redelivered"):
        table.add_column(name, justify="right")
    for name, track in state.tracks.items():
        table.add_row(
            name,
            track.status,
            str(track.groups),
            _megabytes(track.bytes),
            f"{rates.of(name, track.bytes):.2f}",
            str(track.gaps),
            str(track.incomplete),
            str(track.redelivered),
        )
    return table


class _Rates:
    """Bit rates over the last ten seconds or so."""

    def __init__(self) -> None:
        self._before: dict[str, list[tuple[float, int]]] = {}

    def of(self, name: str, count: int) -> float:
        """Return Mbit/s of a counter of bytes."""
        now = trio.current_time()
        points = self._before.setdefault(name, [])
        points.append((now, count))
        while now - points[0][0] > _LINE_SECONDS:
            del points[0]
        elapsed = now - points[0][0]
        return 8e-6 * (count - points[0][1]) / elapsed if elapsed else 0.0


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
