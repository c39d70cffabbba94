"""The command line: one file a command, help beside the code."""

from casfs.cli.program import main

__all__ = ["main"]
