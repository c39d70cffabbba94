"""Quantities as people write them on a command line: sizes and shares."""

from __future__ import annotations

import click

_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Size(click.ParamType[float]):
    """A number of bytes: ``65536``, ``500K``, ``50M``, ``2G`` (powers of 1000)."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the bytes that ``value`` says."""
        if isinstance(value, float):
            return value
        text = str(value).strip().upper().removesuffix("B")
        unit = text[-1:] if text[-1:].isalpha() else ""
        try:
            size = float(text.removesuffix(unit)) * _SIZES[unit]
        except (ValueError, KeyError):
            self.fail(f"{value!r} is no size such as 65536, 500K or 50M", param, ctx)
        if not 1 <= size < 1e18:
            self.fail(f"{value!r} is not a positive size", param, ctx)
        return size


class Share(click.ParamType[float]):
    """A part of a whole: ``5%`` or ``0.05``; gives a number above 0 and at most 1."""

    name = "share"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the share that ``value`` says."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{text!r} is no share such as 5% or 0.05", param, ctx)
        if not 0 < share <= 1:
            self.fail(f"{text!r} is not above 0 and at most 100%", param, ctx)
        return share
