"""tools/crash: end writers in every way that can be had, and check what they promised.

  power   cut the power of ext4 and XFS (loop images) at random instants; every acknowledged group
          must be there byte for byte, verify sound, and the writer go on
  kill    SIGKILL at each system call of a commit
  errors  EIO and ENOSPC at each system call of a commit that can fail for the disk's sake
  upkeep  SIGKILL, and a power cut on ext4 and XFS, at each step of quarantine, expire, collect,
          deletion and restore
  broken  the power campaign over writers that are broken on purpose: each must be caught

All that is left of a round that went wrong is kept in a directory that is named. A round that could
not finish in time is told apart from a broken promise: it proves nothing, and has to be run again.

Exit codes: 0 every promise was kept (broken: every writer was caught) · 1 not so, or it could not
run · 2 wrong usage · 130 interrupted. Nothing stays mounted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from casfs.objects.syncing import STRATEGIES, StrategyName
from tools.crashes.disk import FILESYSTEMS, UnavailableError
from tools.crashes.evidence import Evidence
from tools.crashes.keeper import ACTIONS
from tools.crashes.keeping import upkeep
from tools.crashes.power import VARIANTS, broken, power
from tools.crashes.results import as_json, as_table, say
from tools.crashes.sabotage import BROKEN
from tools.crashes.traced import errors, kill
from tools.demo.steps import Interrupted, end_on_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.crashes.results import Row

_ROUNDS = {"power": 20, "kill": 2, "errors": 2, "upkeep": 2, "broken": 60}


class Arguments(Struct, frozen=True):
    """What the user asked for."""

    campaign: str
    rounds: int | None
    filesystem: str
    variant: list[str] | None
    writer: list[str] | None
    action: list[str] | None
    sync_strategy: StrategyName
    seed: int
    evidence: Path | None
    json: bool


def main() -> int:
    """Run a campaign, print what was found and return the exit code."""
    arguments = parse_arguments()
    end_on_signals()
    rows: list[Row] = []
    code = 0
    try:
        for row in run(arguments):
            rows.append(row)
            for item in () if row.passed else row.found:
                say(f"{row.subject}, round {item.round}: {item.promise}: {item.what}")
    except UnavailableError as error:
        say(f"cannot run here: {error}")
        code = 1
    except (OSError, subprocess.SubprocessError) as error:
        say(f"failed: {error}")
        code = 1
    except Interrupted as interrupted:
        say("interrupted; what it mounted is gone")
        code = interrupted.exit_code
    if arguments.json:
        sys.stdout.write(as_json(rows).decode() + "\n")
    elif rows:
        print(as_table(rows))
    return code or (0 if all(row.passed for row in rows) else 1)


def run(arguments: Arguments) -> Iterator[Row]:
    """Run what was asked for."""
    rounds = arguments.rounds or _ROUNDS[arguments.campaign]
    filesystems = FILESYSTEMS if arguments.filesystem == "both" else (arguments.filesystem,)
    evidence = Evidence(arguments.evidence)
    chosen = [one for one in VARIANTS if one.name in (arguments.variant or ())] or None
    match arguments.campaign:
        case "power":
            return power(
                filesystems,
                rounds,
                arguments.seed,
                chosen or VARIANTS,
                arguments.sync_strategy,
                evidence,
            )
        case "broken":
            writers = arguments.writer or list(BROKEN)
            return broken(filesystems, rounds, arguments.seed, writers, chosen)
        case "kill":
            return kill(rounds, strategy=arguments.sync_strategy, evidence=evidence)
        case "upkeep":
            return upkeep(filesystems, rounds, arguments.action or (), evidence=evidence)
        case _:
            return errors(rounds, strategy=arguments.sync_strategy, evidence=evidence)


def parse_arguments() -> Arguments:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tools/crash",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("campaign", choices=_ROUNDS)
    parser.add_argument(
        "--rounds",
        type=_positive,
        metavar="N",
        help="power: cuts of each variant on each filesystem (20); kill, errors: passes over all "
        "system calls of a commit, the first commit of a process and later ones in turn (2); "
        "upkeep: 1 without the cuts that write the journal last (2); broken: the most cuts of each "
        "writer (60)",
    )
    parser.add_argument(
        "--filesystem", choices=[*FILESYSTEMS, "both"], default="both", help="power, broken (both)"
    )
    parser.add_argument(
        "--variant",
        action="append",
        choices=[variant.name for variant in VARIANTS],
        help="power, broken: only this one; may be given again",
    )
    parser.add_argument(
        "--writer",
        action="append",
        choices=BROKEN,
        help="broken: only this writer; may be given again",
    )
    parser.add_argument(
        "--action",
        action="append",
        choices=ACTIONS,
        help="upkeep: only this action; may be given again",
    )
    parser.add_argument(
        "--sync-strategy",
        choices=STRATEGIES,
        default="auto",
        help="power, kill, errors: how objects are made durable (auto)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=time.time_ns() % 1_000_000,
        metavar="N",
        help="the same seed draws the same instants (but the machine's timing is its own)",
    )
    parser.add_argument(
        "--evidence",
        type=Path,
        metavar="DIR",
        help="where a directory is made for all that is left of a round that went wrong (TMPDIR)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return Arguments(**vars(parser.parse_args()))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
