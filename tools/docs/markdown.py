"""What our documentation is made of, read back: code blocks, tables, headings, links. Pure.

Reads the Markdown that we write, not all there is: fences of three backquotes at the beginning of a
line, tables of one line a row, headings with ``#``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

_FENCE = "```"
_HEADING = re.compile(r"(#+) (.*)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NO_ANCHOR = re.compile(r"[^\w\- ]")


class Block(Struct, frozen=True):
    """A fenced code block."""

    language: str
    """What stands behind the opening fence; empty if nothing does."""
    text: str
    """Every line with its newline."""
    section: str
    """The heading that it stands under."""
    line: int
    """Where its fence stands, from 1."""


class Table(Struct, frozen=True):
    """A table."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    section: str
    """The heading that it stands under."""


class Page(Struct, frozen=True):
    """A page taken apart."""

    blocks: tuple[Block, ...]
    tables: tuple[Table, ...]
    headings: tuple[str, ...]
    links: tuple[str, ...]

    @property
    def anchors(self) -> frozenset[str]:
        """What a link to a part of this page may name, as GitHub makes it of the headings."""
        return frozenset(anchor_of(heading) for heading in self.headings)

    def tables_in(self, section: str) -> list[Table]:
        """Return the tables right under this heading."""
        return [table for table in self.tables if table.section == section]


def anchor_of(heading: str) -> str:
    """Return the anchor of a heading."""
    return _NO_ANCHOR.sub("", heading.lower()).replace(" ", "-")


def read_page(text: str) -> Page:
    """Take a page apart."""
    blocks: list[Block] = []
    tables: list[Table] = []
    headings = [""]
    links: list[str] = []
    lines = iter(enumerate(text.splitlines(keepends=True), start=1))
    rows: list[tuple[str, ...]] = []
    for number, line in lines:
        if line.startswith("|"):
            rows.append(_cells(line))
        elif rows:
            tables.append(_table(rows, headings[-1]))
            rows = []
        if line.startswith(_FENCE):
            language = line.removeprefix(_FENCE).strip()
            blocks.append(Block(language, _fenced(lines), headings[-1], number))
            continue
        if heading := _HEADING.match(line):
            headings.append(heading[2].strip())
        links += _LINK.findall(line)
    if rows:
        tables.append(_table(rows, headings[-1]))
    return Page(tuple(blocks), tuple(tables), tuple(headings[1:]), tuple(links))


def _fenced(lines: Iterator[tuple[int, str]]) -> str:
    text = ""
    for _, line in lines:
        if line.startswith(_FENCE):
            return text
        text += line
    raise ValueError("a code block has no end")


def _cells(line: str) -> tuple[str, ...]:
    return tuple(
        cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")
    )


def _table(rows: list[tuple[str, ...]], section: str) -> Table:
    return Table(rows[0], tuple(rows[2:]), section)
