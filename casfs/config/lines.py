"""On which line of a TOML text a setting stands, for messages. Pure.

Knows tables, keys, dotted keys and quotes as people write them in configuration files. In what is
odder (inline tables, keys inside texts of several lines) it may name the table's line instead.
"""

from __future__ import annotations

import re

_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def line_of(text: str, name: str) -> int:
    """Return the line, from 1, of the setting or table ``name``; 0 if it is not found.

    What is not found itself is looked for by its table.
    """
    table = ""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header is not None:
            table = _dotted(header[1])
            found.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key is not None:
            found.setdefault(f"{table}.{_dotted(key[1])}".strip("."), number)
    while name and name not in found:
        name = name.rpartition(".")[0]
    return found.get(name, 0)


def _dotted(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
