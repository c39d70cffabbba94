"""How commands speak: tables and progress for people (progress on stderr), JSON for machines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console

if TYPE_CHECKING:
    from msgspec import Struct

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def print_json(value: Struct | dict[str, object]) -> None:
    """Print one JSON object on one line of stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def say(text: str = "") -> None:
    """Print one line for people on stdout."""
    print(text)


def progress_console() -> Console:
    """Return the console for progress: stderr, plain when that is no terminal."""
    return Console(stderr=True, highlight=False)


def format_bytes(count: float) -> str:
    """Return ``count`` bytes in a unit that reads well, powers of 1000."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
