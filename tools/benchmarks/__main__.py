"""tools/bench: how fast casfs is, beside its peers or the limits of this machine.

Each comparison runs both sides in turns, in one run, on one filesystem, each in a process of its
own; what is told is the ratio of the other's time to that of casfs: above 1, casfs is faster.
Times of different runs or machines say nothing.

Peers that are missing (Debian packages b3sum, bindfs, borgbackup, python3-pyfuse3 for borg mount,
restic) are installed; where that cannot be done their rows are skipped and say why.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from tools.benchmarks import (
    durable_put,
    index_lookup,
    index_rebuild,
    ingesting,
    mount_backups,
    mount_listing,
    mount_playing,
    mount_reading,
    mount_watching,
    small_groups,
    verification,
)
from tools.benchmarks.bench import Bench
from tools.benchmarks.measuring import BenchError
from tools.benchmarks.peers import Peers
from tools.benchmarks.reporting import (
    Results,
    as_json,
    as_table,
    described,
    this_machine,
    update_document,
)
from tools.demo.steps import Interrupted, end_on_signals
from tools.loopback.process import LoopbackError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.benchmarks.reporting import Row

SUITES: dict[str, dict[str, Callable[[Bench], Iterator[Row]]]] = {
    "store": {
        "put": durable_put.against_system_calls,
        "put-backups": durable_put.against_backups,
        "small-groups": small_groups.against_one_object_each,
        "verify": verification.against_hashing,
        "verify-backups": verification.against_backups,
        "rebuild": index_rebuild.against_inserting,
        "lookup": index_lookup.against_a_small_index,
    },
    "mount": {
        "cold": mount_reading.cold,
        "warm": mount_reading.warm,
        "recording": mount_playing.playing,
        "ls": mount_listing.long_listing,
        "find": mount_listing.finding,
        "start": mount_listing.starting,
        "watching": mount_watching.watching,
        "mount-backups": mount_backups.against_backups,
    },
    "ingest": {
        "receive": ingesting.receiving_against_moq_rs,
        "record": ingesting.recording_against_receiving,
        "live": ingesting.live_against_real_time,
        "loss": ingesting.loss_against_none,
        "memory": ingesting.open_groups_against_a_bound,
    },
    "soak": {"soak": ingesting.memory_late_against_early},
}
"""Suite -> its comparisons by name."""

_MOST_SCALE = 4.0


class Arguments(Struct, frozen=True):
    """What the user asked for."""

    suite: str
    only: list[str] | None
    scale: float
    rounds: int | None
    seconds: float | None
    directory: Path | None
    json: bool
    update: Path | None
    install: bool


def main() -> int:
    """Run a suite, print what was found and return the exit code."""
    arguments = parse_arguments()
    end_on_signals()
    base = arguments.directory or default_directory()
    try:
        base.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
        try:
            results = run(arguments, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        if arguments.update is not None:
            update_document(arguments.update, arguments.suite, results)
    except (BenchError, LoopbackError, OSError) as error:
        print(f"bench: failed: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        print("bench: interrupted; what it made is removed", file=sys.stderr)
        return interrupted.exit_code
    if arguments.json:
        sys.stdout.write(as_json(results).decode() + "\n")
    else:
        print(f"{described(results.machine)}; scale {results.scale:g}\n")
        print(as_table(results))
    return 0


def run(arguments: Arguments, directory: Path) -> Results:
    """Run the comparisons that were asked for below ``directory``."""
    machine = this_machine(directory)
    if machine.filesystem in ("tmpfs", "ramfs"):
        _say(f"{directory} is in memory: nothing is durable there; name a disk by --directory")
    peers = Peers(install=arguments.install)
    rows: list[Row] = []
    for name, compare in SUITES[arguments.suite].items():
        if arguments.only is None or name in arguments.only:
            _say(name)
            own = directory / name
            own.mkdir()
            rows += compare(
                Bench(
                    *(own, peers),
                    scale=arguments.scale,
                    rounds=arguments.rounds,
                    seconds=arguments.seconds,
                )
            )
            shutil.rmtree(own)
    return Results(scale=arguments.scale, machine=machine, rows=tuple(rows))


def parse_arguments() -> Arguments:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", choices=SUITES, help="what to compare")
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted({name for suite in SUITES.values() for name in suite}),
        help="only this comparison; may be given again",
    )
    parser.add_argument(
        "--scale",
        type=_scale,
        default=1.0,
        metavar="X",
        help=f"X times as much of everything, up to {_MOST_SCALE:g} (1)",
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="repeat each N times (3 to 7, by how long it takes)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="go on for S seconds with what is live (60; a soak: 1800)",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="work below DIR, on the disk that is to be measured (default: the user's cache)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--update", type=Path, metavar="FILE", help="put the table into this Markdown file too"
    )
    parser.add_argument(
        "--no-install", dest="install", action="store_false", help="install no packages"
    )
    return Arguments(**vars(parser.parse_args()))


def default_directory() -> Path:
    """Return where to work unless the user says otherwise (XDG base directories)."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "casfs" / "bench"


def _scale(text: str) -> float:
    scale = float(text)
    if not 0 < scale <= _MOST_SCALE:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {_MOST_SCALE:g}")
    return scale


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
