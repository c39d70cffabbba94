"""What a comparison found, as a table for people and as JSON."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from tools.benchmarks.measuring import BenchError, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


class Row(Struct, frozen=True, kw_only=True):
    """One comparison: the subject is casfs, the other is what it is held against."""

    what: str
    subject: str
    against: str
    aim: float | None = None
    """The ratio that we want at least; None where none was set."""
    subject_runs: tuple[Measurement, ...] = ()
    """One for each round, in order."""
    against_runs: tuple[Measurement, ...] = ()
    quantity: Literal["seconds", "peak_bytes", "files", "disk_bytes"] = "seconds"
    """What the ratio compares."""
    megabytes: float = 0.0
    """What each run moved, where the figure is to be a rate."""
    failed: bool = False
    """Whether the subject did not do what it was to do: no ratio meets the aim then."""
    skipped: str = ""
    """Why there are no runs."""


class Ratio(Struct, frozen=True):
    """The other's quantity divided by that of casfs: above 1, casfs is faster or smaller."""

    middle: float
    """Of the medians."""
    lowest: float
    """Of one round."""
    highest: float


class Machine(Struct, frozen=True):
    """Where it ran, as far as figures depend on it."""

    cores: int
    memory_bytes: int
    kernel: str
    filesystem: str
    python: str


class Results(Struct, frozen=True):
    """A whole run."""

    scale: float
    machine: Machine
    rows: tuple[Row, ...]


def ratio_of(row: Row) -> Ratio | None:
    """Return how casfs compares; None if the row was skipped."""
    if not row.subject_runs:
        return None
    ours = [float(getattr(run, row.quantity)) for run in row.subject_runs]
    theirs = [float(getattr(run, row.quantity)) for run in row.against_runs]
    rounds = [their / our for our, their in zip(ours, theirs, strict=True)]
    return Ratio(median(theirs) / median(ours), min(rounds), max(rounds))


def this_machine(directory: Path) -> Machine:
    """Describe the machine and the filesystem of ``directory``."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=platform.release().split("-")[0],
        filesystem=filesystem_of(directory),
        python=platform.python_version(),
    )


def filesystem_of(directory: Path) -> str:
    """Return the type of the filesystem that holds ``directory``, ``ext4``."""
    status = directory.stat()
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[2] == device:
                return fields[fields.index("-") + 1]
    return "unknown"


def as_json(results: Results) -> bytes:
    """Return the results, with the ratios, as one JSON object."""
    rows = [
        {**msgspec.to_builtins(row), "ratio": msgspec.to_builtins(ratio_of(row))}
        for row in results.rows
    ]
    return msgspec.json.format(
        msgspec.json.encode({**msgspec.to_builtins(results), "rows": rows}), indent=2
    )


def as_table(results: Results) -> str:
    """Return the results as a table that reads well both as text and as Markdown."""
    heading = (
        *("comparison", "casfs", "against", "its figure"),
        *("ratio (rounds)", "aim", "peak memory"),
    )
    return _table([heading, *map(_cells, results.rows)])


def described(machine: Machine) -> str:
    """Return the machine in a few neutral words."""
    return (
        f"{machine.cores} cores, {machine.memory_bytes >> 30} GiB of memory, Linux "
        f"{machine.kernel}, {machine.filesystem}, Python {machine.python}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    aim = "" if row.aim is None else f">= {row.aim:g}"
    ratio = ratio_of(row)
    if ratio is None:
        return (row.what, "", row.against, "", f"skipped: {row.skipped}", aim, "")
    verdict = (
        ""
        if row.aim is None
        else " met"
        if ratio.middle >= row.aim and not row.failed
        else " MISSED"
    )
    return (
        row.what,
        _figure(row, row.subject_runs),
        row.against,
        _figure(row, row.against_runs),
        f"{ratio.middle:.2f} ({ratio.lowest:.2f}-{ratio.highest:.2f})",
        aim + verdict,
        f"{_megabytes(row.subject_runs)} / {_megabytes(row.against_runs)}",
    )


def _figure(row: Row, runs: Sequence[Measurement]) -> str:
    if row.quantity == "peak_bytes":
        return _megabytes(runs)
    if row.quantity == "files":
        return f"{median(run.files for run in runs):.0f}"
    if row.quantity == "disk_bytes":
        return f"{median(run.disk_bytes for run in runs) / 1e6:.2f} MB"
    seconds = median(run.seconds for run in runs)
    if row.megabytes:
        return f"{row.megabytes / seconds:.0f} MB/s"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _megabytes(runs: Sequence[Measurement]) -> str:
    return f"{max(run.peak_bytes for run in runs) / 1e6:.0f} MB"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        _line(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    ]
    lines.insert(1, _line("-" * width for width in widths))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def update_document(path: Path, suite: str, results: Results) -> None:
    """Replace what stands in a Markdown file between the two marks of ``suite``.

    Raises:
        BenchError: the file has no such marks.
    """
    begin, end = f"<!-- begin: tools/bench {suite} -->\n", f"<!-- end: tools/bench {suite} -->\n"
    text = path.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise BenchError(f"{path} does not have the lines {begin.strip()} and {end.strip()}")
    date = datetime.now(UTC).date().isoformat()
    machine = f"{date}, {described(results.machine)}, scale {results.scale:g}:"
    path.write_text(
        f"{before}{begin}\n{machine}\n\n{as_table(results)}\n\n{end}{after}", encoding="utf-8"
    )
