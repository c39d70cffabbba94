"""What a campaign found, as a table for people and as JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from tools.crashes.promises import UNFINISHED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tools.crashes.promises import Violation


class Found(Struct, frozen=True):
    """A broken promise, and when it showed."""

    round: int
    """From 1."""
    promise: str
    what: str


class Row(Struct, frozen=True, kw_only=True):
    """One line of a campaign."""

    campaign: str
    subject: str
    rounds: int
    """Rounds that were run."""
    events: int
    """Cuts, kills, or errors that were met."""
    kept: int
    """Acknowledged groups that were looked for."""
    found: tuple[Found, ...]
    """Every broken promise; the first five of each round."""
    passed: bool
    """Nothing was broken; for a broken writer: it was caught."""
    verdict: str
    seconds: float


_MOST = 5


def found_in(number: int, broken: Sequence[Violation]) -> list[Found]:
    """Return what a round found, the first few."""
    return [Found(number, item.promise, item.what) for item in broken[:_MOST]]


def judged(found: Sequence[Found], otherwise: str) -> str:
    """Return the verdict on what was found, ``otherwise`` on nothing.

    What could not be finished in time is told apart: it broke no promise, nor kept one.
    """
    late = sum(item.promise == UNFINISHED for item in found)
    told = [f"{len(found) - late} promises broken"] if len(found) > late else []
    told += [f"{late} could not finish in time"] if late else []
    return ", ".join(told) or otherwise


def say(text: str) -> None:
    """Show progress."""
    print(f"crash: {text}", file=sys.stderr, flush=True)


def as_json(rows: Sequence[Row]) -> bytes:
    """Return all rows as one JSON object."""
    whole = {"passed": all(row.passed for row in rows), "rows": rows}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2)


def as_table(rows: Sequence[Row]) -> str:
    """Return a table that reads well both as text and as Markdown."""
    cells = [
        ("campaign", "what", "rounds", "events", "acknowledged", "result"),
        *(
            (
                row.campaign,
                row.subject,
                str(row.rounds),
                str(row.events),
                str(row.kept),
                row.verdict if row.passed else f"{row.verdict} (FAILED)",
            )
            for row in rows
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        _line(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    ]
    lines.insert(1, _line("-" * width for width in widths))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
