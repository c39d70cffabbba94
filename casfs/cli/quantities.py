"""Quantities as people write them on a command line: sizes and shares."""

from __future__ import annotations

import click

from casfs.quantities import parse_share, parse_size


class Size(click.ParamType[float]):
    """A number of bytes: ``65536``, ``500K``, ``50M``, ``2G`` (powers of 1000)."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the bytes that ``value`` says."""
        if isinstance(value, float):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Share(click.ParamType[float]):
    """A part of a whole: ``5%`` or ``0.05``; gives a number above 0 and at most 1."""

    name = "share"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the share that ``value`` says."""
        if isinstance(value, float):
            return value
        try:
            return parse_share(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
