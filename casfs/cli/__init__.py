"""The command line: one file a command, help beside the code."""

from __future__ import annotations

import sys

# Not from typing: whoever interrupts us before `main` sees a traceback, and that import is slow.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program on ``arguments`` (by default the process's) and exit with its code."""
    try:
        # Importing takes a moment, in which somebody may think better of it.
        from casfs.cli.program import INTERRUPTED
        from casfs.cli.program import main as program
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        program(arguments)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
