"""``casfs status``: what the recorders do."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.output import print_json, printable
from casfs.outlook import look
from casfs.quantities import format_bytes
from casfs.timestamps import NANOSECONDS, parse_time

if TYPE_CHECKING:
    from casfs.outlook import Outlook, RecorderOutlook

_EVERY = 2.0
_WIDE = 10_000
_UNREPORTED = {"recording": "its recorder starts", "stopping": "its recorder ends"}
"""Why a broadcast that waits for nothing is not among those that report."""


@click.command("status")
@click.option("--watch", is_flag=True, help="Go on, and show it anew every two seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def status_command(flags: RootFlags, *, watch: bool, as_json: bool) -> None:
    """Show what every recorder of the archive last reported, and how long the disks will last.

    A report whose recorder is gone (nobody holds the broadcast's lock) is shown as such. How long
    the disk lasts is reckoned from what the last minute brought.

    \b
    Example:
      casfs status
      casfs status --json | jq '.recorders[] | {broadcast, bitrate, gaps}'
    """
    roots = flags.archive().roots
    if as_json:
        print_json(plain(look(roots)))
        while watch:
            time.sleep(_EVERY)
            print_json(plain(look(roots)))
        return
    # A terminal folds what does not fit; a pipe gets each recorder on one line.
    width = None if sys.stdout.isatty() else _WIDE
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    if not watch:
        console.print(render(look(roots), time.time_ns()))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(render(look(roots), time.time_ns()), refresh=True)
            time.sleep(_EVERY)


def plain(outlook: Outlook) -> dict[str, object]:
    """Return what ``--json`` prints."""
    return {
        "recorders": [
            {
                **msgspec.to_builtins(item.report),
                "running": item.running,
                "late": round(item.late, 1),
                "restarts": item.restarts,
            }
            for item in outlook.recorders
        ],
        "waiting": [
            {"broadcast": item.broadcast, "restarts": item.restarts, "for": item.waiting_for}
            for item in outlook.waiting
        ],
        "supervisor": (
            None
            if outlook.supervisor is None
            else {
                "running": outlook.supervised,
                **{
                    name: value
                    for name, value in msgspec.to_builtins(outlook.supervisor).items()
                    if name != "broadcasts"
                },
            }
        ),
        "bitrate": round(outlook.bitrate, 1),
        "disks": [
            {
                "root": disk.root,
                "path": disk.path,
                "total": disk.total,
                "free": disk.free,
                "days_left": None if disk.days_left is None else round(disk.days_left, 2),
            }
            for disk in outlook.disks
        ],
    }


def render(outlook: Outlook, now: int) -> Group:
    """Return the picture; ``now``: nanoseconds UTC."""
    parts: list[RenderableType] = []
    if outlook.recorders:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("broadcast", overflow="fold")
        table.add_column("state")
        for name in ("since", "last group", "Mbit/s", "groups", "gaps", "restarts"):
            table.add_column(name, justify="right", no_wrap=True)
        for item in outlook.recorders:
            _add_row(table, item, now)
        parts.append(table)
    else:
        parts.append(Text("nothing is being recorded"))
    if outlook.waiting:
        parts.append(Text(f"\nnot recorded: {len(outlook.waiting)}"))
        for one in outlook.waiting[:20]:
            why = one.waiting_for or _UNREPORTED.get(one.phase, "")
            parts.append(Text(f"  {printable(one.broadcast)}: {why}"))
    parts.append(Text())
    parts += [Text(line, style="red") for line in _alerts(outlook)]
    for disk in outlook.disks:
        left = "" if disk.days_left is None else f", full in {_days(disk.days_left)}"
        share = disk.free / disk.total if disk.total else 0.0
        parts.append(
            Text(f"{disk.root:9}  {format_bytes(disk.free)} free ({share:.0%}){left}  {disk.path}")
        )
    return Group(*parts)


def _add_row(table: Table, item: RecorderOutlook, now: int) -> None:
    report = item.report
    state, style = report.status, ""
    if not item.running:
        state, style = "gone", "red"
    elif item.late:
        state, style = f"hangs ({report.status})", "red"
    elif report.relay_trouble or report.disk_trouble:
        style = "yellow"
    table.add_row(
        printable(report.broadcast),
        Text(state, style=style),
        _ago(report.since, now),
        "" if report.last_group is None else _ago(report.last_group, now),
        f"{report.bitrate / 1e6:.2f}" if item.running else "",
        str(report.groups),
        Text(str(report.gaps), style="yellow" if report.gaps else ""),
        "" if item.restarts is None else str(item.restarts),
    )


def _alerts(outlook: Outlook) -> list[str]:
    """Return what does not go as it should, each on a line."""
    found = []
    for item in outlook.recorders:
        name = printable(item.report.broadcast)
        if not item.running:
            found.append(f"{name}: its recorder {item.report.pid} is gone")
            continue
        troubles = (
            ("relay", item.report.relay_trouble),
            ("disk", item.report.disk_trouble),
            ("index", item.report.index_trouble),
        )
        found += [f"{name}: {what}: {printable(text)}" for what, text in troubles if text]
    if outlook.supervisor is not None:
        if not outlook.supervised:
            found.append(f"the supervisor {outlook.supervisor.pid} is gone")
        elif outlook.supervisor.room != "ample":
            least = format_bytes(outlook.supervisor.min_free)
            found.append(f"disk space is {outlook.supervisor.room}: {least} are to be free")
        found += [
            f"{source.source}: {printable(source.trouble)}"
            for source in outlook.supervisor.sources
            if source.trouble
        ]
    return found


def _ago(instant: str, now: int) -> str:
    seconds = max(0, now - parse_time(instant)) / NANOSECONDS
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def _days(days: float) -> str:
    return f"{days:.1f} days" if days < 1000 else "years"
