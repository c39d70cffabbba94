"""tools/bench runs from end to end at a tiny size and says what it must. No time is judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingest.backends.choice import available_backends
from tools.benchmarks.measuring import BenchError, Measurement, run_command, run_task
from tools.benchmarks.reporting import (
    Results,
    Row,
    as_table,
    ratio_of,
    this_machine,
    update_document,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]

ROWS = [
    ("durable put", "fsync, rename, fsync directory in 16 threads"),
    ("durable put", "restic backup"),
    ("durable put", "borg create"),
    *[
        (f"16 x 47 groups/s of 400 B, 2 s: {name}", "one object")
        for name in ("files", "disk", "CPU")
    ],
    ("full verify", "b3sum --num-threads 2"),
    ("full verify", "restic check --read-data"),
    ("full verify", "borg check --verify-data"),
    ("index rebuild", "executemany of the same rows, held in memory"),
    ("index rebuild", "the same of"),
    ("lookup by time", "the same in"),
    ("lookup by sequence", "the same in"),
]
"""What is compared, and the beginning of what it is held against."""

MOUNT_ROWS = [
    *["cold read of 10 group files"] * 2,
    *["read again, warm, 10 group files"] * 2,
    *[
        f"{what} cut to 86 s{said}"
        for what in ("an hour", "a day")
        for said in (" put", " read through", " opened", " sought in", ": bytes read at open")
    ],
    "ls -l, 100 files",
    "ls -l, 100 files",
    *["find . -type f, 1000 files"] * 2,
    "mount and first ls of an hour, 10000 groups",
    "the same: peak memory, 10000 groups",
    "8 real-time readers during ingest",
    "8 real-time readers during ingest",
]
"""What the mount is compared in."""


def bench(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        [sys.executable, "-m", "tools.benchmarks", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )


def measured(seconds: float, peak_bytes: int = 1_000_000) -> Measurement:
    return Measurement(seconds, peak_bytes)


def row(**members: object) -> Row:
    return Row(
        **{"what": "put", "subject": "casfs", "against": "bare", "aim": 0.8, **members},  # type: ignore[arg-type]  # the members differ in type
    )


def results(*rows: Row) -> Results:
    return Results(scale=1.0, machine=this_machine(Path("/")), rows=rows)


def test_every_row_is_measured_or_says_why_not(tmp_path: Path) -> None:
    done = bench(
        *("store", "--scale", "0.001", "--rounds", "1", "--json", "--no-install"),
        *("--directory", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == len(ROWS)
    for found, (what, against) in zip(rows, ROWS, strict=True):
        assert found["what"].startswith(what)
        assert found["against"].startswith(against)
        assert is_measured(found) or "is not installed" in found["skipped"]
    assert not list(tmp_path.iterdir())  # all that it made is gone


def test_every_row_of_the_mount_is_measured_or_says_why_not(tmp_path: Path) -> None:
    names = ("cold", "warm", "recording", "ls", "find", "start", "watching")
    only = (f"--only={name}" for name in names)
    done = bench(
        *("mount", *only, "--scale", "0.001", "--rounds", "1", "--json", "--no-install"),
        *("--directory", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == len(MOUNT_ROWS)
    for found, what in zip(rows, MOUNT_ROWS, strict=True):
        assert found["what"].startswith(what)
        assert is_measured(found) or found["skipped"]
    assert not list(tmp_path.iterdir())


INGEST_ROWS = [
    ("receive 1 MB groups, aioquic", "moq-rs"),
    ("receive 1 MB groups, qh3", "moq-rs"),
    ("receive 10 kB groups, aioquic", "moq-rs"),
    ("receive 10 kB groups, qh3", "moq-rs"),
    ("record 1 MB groups", "receive only"),
    ("record 1 MB groups", "receive, hash, write, fsync"),
    *(("20 live tracks of 20 Mbit/s", "one core") for _ in available_backends()),
    ("recorder with 64 groups of 1 MB open", "the bound"),
]


def test_the_rows_of_the_network_are_measured_or_say_why_not(tmp_path: Path) -> None:
    done = bench(
        *("ingest", "--scale", "0.01", "--rounds", "1", "--seconds", "2", "--json"),
        *("--only", "receive", "--only", "record", "--only", "live", "--only", "memory"),
        *("--directory", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    for found, (what, against) in zip(rows, INGEST_ROWS, strict=True):
        assert found["what"].startswith(what)
        assert found["against"].startswith(against)
        assert found["ratio"] is not None or "is not installed" in found["skipped"]
    assert not list(tmp_path.iterdir())


def test_a_soak_can_be_short(tmp_path: Path) -> None:
    done = bench("soak", "--seconds", "4", "--json", "--directory", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["ratio"]["middle"] > 0


def is_measured(found: Mapping[str, object]) -> bool:
    ratio, runs = found["ratio"], found["subject_runs"]
    if ratio is None:
        return False
    assert isinstance(ratio, dict)
    assert isinstance(runs, list)
    return ratio["middle"] > 0 and all(run["peak_bytes"] > 0 for run in runs)


def test_a_missing_peer_leaves_its_rows_out_and_the_others_in(tmp_path: Path) -> None:
    done = bench(
        *("store", "--only", "put", "--only", "put-backups", "--scale", "0.001", "--rounds", "1"),
        *("--no-install", "--directory", str(tmp_path)),
        path=str(tmp_path),  # where no peer is
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| durable put")]
    assert len(lines) == 3
    assert "skipped" not in lines[0]
    assert "skipped: restic is not installed" in lines[1]
    assert "skipped: borg is not installed" in lines[2]


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "1000", "much"])
def test_a_scale_that_cannot_be_is_refused(scale: str) -> None:
    done = bench("store", "--scale", scale)
    assert done.returncode == 2
    assert "--scale" in done.stderr


def test_a_rate_stands_where_bytes_are_known() -> None:
    found = row(subject_runs=(measured(0.5),), against_runs=(measured(1.0),), megabytes=100.0)
    assert "| 200 MB/s | bare    | 100 MB/s" in as_table(results(found))


def test_a_ratio_above_one_says_that_casfs_is_faster() -> None:
    ratio = ratio_of(
        row(
            subject_runs=(measured(1.0), measured(2.0), measured(1.0)),
            against_runs=(measured(3.0), measured(3.0), measured(4.0)),
        )
    )
    assert ratio is not None
    assert (ratio.middle, ratio.lowest, ratio.highest) == (3.0, 1.5, 4.0)


def test_memory_is_compared_where_a_row_says_so() -> None:
    ratio = ratio_of(
        row(
            subject_runs=(measured(1.0, 100),),
            against_runs=(measured(9.0, 50),),
            quantity="peak_bytes",
        )
    )
    assert ratio is not None
    assert ratio.middle == 0.5


def test_the_table_says_which_aims_are_met() -> None:
    slow = row(subject_runs=(measured(2.0),), against_runs=(measured(1.0),))
    fast = row(subject_runs=(measured(1.0),), against_runs=(measured(1.0),))
    lost = row(subject_runs=fast.subject_runs, against_runs=fast.against_runs, failed=True)
    table = as_table(results(slow, fast, row(skipped="no such peer"), lost)).splitlines()
    assert ">= 0.8 MISSED" in table[2]
    assert ">= 0.8 met" in table[3]
    assert "skipped: no such peer" in table[4]
    assert ">= 0.8 MISSED" in table[5]
    assert len({len(line) for line in table}) == 1


def test_a_document_keeps_all_but_its_table(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(
        "before\n<!-- begin: tools/bench store -->\nold\n<!-- end: tools/bench store -->\nafter\n"
    )
    found = results(row(subject_runs=(measured(1.0),), against_runs=(measured(1.0),)))
    for _ in range(2):
        update_document(document, "store", found)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count(as_table(found)) == 1


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "other.md"
    document.write_text("text\n")
    with pytest.raises(BenchError, match="does not have the lines"):
        update_document(document, "store", results())
    assert document.read_text() == "text\n"


def no_seconds() -> float:
    return 0.0


def test_the_peak_is_that_of_the_measured_process_alone() -> None:
    ours = b"x" * (256 << 20)
    assert 0 < run_command(["sleep", "0.1"]).peak_bytes < len(ours) // 4
    assert 0 < run_task(no_seconds).peak_bytes < len(ours) // 2


def test_a_program_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(BenchError, match="code 3: alas"):
        run_command(["sh", "-c", "echo alas >&2; exit 3"])
