"""What an import has done so far, and what it found; counts alone, so that it stays small."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from casfs.adopt.source import Problem


class Totals(Struct):
    """Counts of an import; grows while it runs, and may be read from another thread."""

    lines: int = 0
    """Manifest lines that were read, or files."""
    other_lines: int = 0
    """Lines about something else than a group."""
    groups: int = 0
    """Groups that were put in (in a dry run: that would be)."""
    bytes: int = 0
    """Their payloads."""
    known: int = 0
    """Groups that the archive holds already."""
    new_objects: int = 0
    """Objects that the archive did not hold; 0 in a dry run."""
    new_bytes: int = 0
    epochs: int = 0
    """Epochs that were opened because a sequence came again with other bytes."""
    problems: int = 0


Tell = Callable[[Problem], None]
"""Is told each problem as it is found."""
