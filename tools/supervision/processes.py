"""What processes hold of the machine, as /proc says."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

_KIBIBYTE = 1024


class Footprint(Struct, frozen=True):
    """What one process holds."""

    resident: int
    """Bytes of memory, those included that it shares with others (RSS)."""
    proportional: int
    """Bytes of memory, of shared ones its share (PSS): over all processes they add up."""
    descriptors: int
    threads: int


def footprint(pid: int) -> Footprint | None:
    """Return what a process holds; None if it is gone."""
    try:
        memory = _fields(f"/proc/{pid}/smaps_rollup")
        threads = _fields(f"/proc/{pid}/status")["Threads"]
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, KeyError):
        return None
    return Footprint(
        memory.get("Rss", 0) * _KIBIBYTE,
        memory.get("Pss", 0) * _KIBIBYTE,
        descriptors,
        threads,
    )


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that are not gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file,
            ):
                found += map(int, file.read().split())
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process since its start; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def runs(pid: int) -> bool:
    """Say whether a process is there and has not ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _fields(path: str) -> dict[str, int]:
    """Return the numbers of a file of lines such as ``Rss:  1234 kB``."""
    with open(path, encoding="ascii", errors="replace") as file:
        return dict(_numbers(file))


def _numbers(lines: Iterator[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            yield name, int(words[0])
