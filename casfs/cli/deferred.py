"""Commands whose modules are imported when they are run, and not before.

To list the commands, or to run one of them, need not cost the memory and the time of all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator


class DeferredCommand(click.Command):
    """Stands for a command in the lists of its group; whoever makes a context gets the real one.

    ``place``: module and name of the real command, as ``casfs.cli.ls:ls_command``. ``summary``:
    the first sentence of its help, for the list of commands.
    """

    def __init__(self, name: str, place: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._place = place

    def real(self) -> click.Command:
        """Return the command itself; imports its module."""
        module, _, attribute = self._place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: object,
    ) -> click.Context:
        """Return a context of the real command, which is invoked from there."""
        return self.real().make_context(info_name, args, parent, **extra)


def real_command(command: click.Command) -> click.Command:
    """Return what a command stands for: itself, unless it is deferred."""
    return command.real() if isinstance(command, DeferredCommand) else command


def real_commands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Yield the commands of a group by name, in the order of its help; imports them all."""
    for name in group.list_commands(click.Context(group)):
        yield name, real_command(group.commands[name])
