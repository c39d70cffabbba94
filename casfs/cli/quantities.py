"""Quantities as people write them on a command line: sizes, shares, whatever else is parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import click

from casfs.quantities import parse_share, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

N = TypeVar("N", int, float)


class Quantity(click.ParamType[N], Generic[N]):
    """A number that is written in some way; a default that is one already stays as it is."""

    kind: type[N]
    read: Callable[[str], N]
    """Raises ValueError, which says what is wrong with the text."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> N:
        """Return the number that ``value`` says."""
        if isinstance(value, self.kind):
            return value
        try:
            return self.read(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Size(Quantity[float]):
    """A number of bytes: ``65536``, ``500K``, ``50M``, ``2G`` (powers of 1000)."""

    name = "size"
    kind = float
    read = staticmethod(parse_size)


class Share(Quantity[float]):
    """A part of a whole: ``5%`` or ``0.05``; gives a number above 0 and at most 1."""

    name = "share"
    kind = float
    read = staticmethod(parse_share)
