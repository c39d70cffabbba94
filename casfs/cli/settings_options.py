"""Flags that the schema of the settings makes, each of the name that it has in the file."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

import click

from casfs.config import Settings
from casfs.config.entries import Entry, entries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

R = TypeVar("R")


def settings_of(table: str) -> Sequence[Entry]:
    """Return the settings of a table, in the order of the schema."""
    return [entry for entry in entries(Settings) if entry.table == table]


def pass_settings(table: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add the options of a table, and give the command what was given as ``given``.

    The mapping has the settings' names, and texts as people wrote them: `casfs.config.load` reads
    them, and says what is wrong with them.
    """

    def add(command: Callable[..., R]) -> Callable[..., R]:
        chosen = settings_of(table)
        members = {entry.member: entry.name for entry in chosen}

        @functools.wraps(command)
        def wrapped(*arguments: object, **options: object) -> R:
            given = {name: options.pop(member) for member, name in members.items()}
            return command(*arguments, given=given, **options)

        optioned: Callable[..., R] = wrapped
        for entry in reversed(chosen):
            optioned = _option(entry)(optioned)
        return optioned

    return add


def _option(entry: Entry) -> Callable[[Callable[..., R]], Callable[..., R]]:
    text = entry.description
    if shown_default(entry):
        text += f"  [default: {shown_default(entry)}]"
    if entry.plain is bool:
        return click.option(entry.flag, entry.member, is_flag=True, help=text)
    return click.option(
        entry.flag, entry.member, multiple=entry.repeats, metavar=entry.metavar, help=text
    )


def shown_default(entry: Entry) -> str:
    """Return a setting's default as one writes it; empty if there is none."""
    default = entry.default
    if default is None or default is False or default in ((), {}):
        return ""
    return written(default)


def written(value: object) -> str:
    """Return a value as the file and the flags have it."""
    from casfs.config.schema import Seconds
    from casfs.quantities import Room

    if isinstance(value, Seconds):
        for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
            if value and value % seconds == 0:
                return f"{value / seconds:.0f}{unit}"
        return f"{value:g}s"
    if isinstance(value, Room) and value > 1:
        for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("K", 10**3)):
            if value % size == 0:
                return f"{value / size:.0f}{unit}"
    return str(value)
