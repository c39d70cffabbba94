"""Let ``casfs auto-archive`` live through everything at once, and check what it kept.

    python -m tools.supervision [--broadcasts 20] [--seconds 300] [--bitrate 200000]
    python -m tools.supervision --seconds 3000 --pace 10     a soak
    python -m tools.supervision --calm --bitrate 4000000     what twenty recordings cost
    python -m tools.supervision --numbers                    what polling, a start, idleness cost

Broadcasts play on a real relay while their directory adds, removes, flaps, stalls, fails and lies,
workers are killed at random, and the supervisor is killed and started again. In the end every byte
that was published must be in the archive (or on record as a gap, if the machine was so busy that no
recorder could run for the minute that a relay remembers), every killed session on record, no
process left over, and memory, processes, descriptors and threads flat: the most of the last quarter
is compared with that of the second. Prints one JSON object; exits with 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from tools.demo.steps import Interrupted, end_on_signals
from tools.supervision.numbers import as_text, measure
from tools.supervision.scenario import Options, Outcome, live_through


def main() -> int:
    """Run the scenario and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.supervision", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--broadcasts", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to go on")
    parser.add_argument(
        "--bitrate", type=int, default=200_000, help="of each broadcast, bits a second"
    )
    parser.add_argument(
        "--pace", type=float, default=1.0, help="seconds between two things that go wrong"
    )
    parser.add_argument("--calm", action="store_true", help="nothing goes wrong: for measuring")
    parser.add_argument("--numbers", action="store_true", help="only measure the parts")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary one by default")
    parser.add_argument("--keep", type=Path, help="where to put archive and log if all is not well")
    arguments = parser.parse_args()
    end_on_signals()
    options = Options(
        arguments.broadcasts,
        arguments.seconds,
        arguments.bitrate,
        calm=arguments.calm,
        pace=arguments.pace,
    )
    try:
        with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="supervision-") as path:
            if arguments.numbers:
                print(as_text(measure(Path(path))))
                return 0
            outcome: Outcome = live_through(Path(path), options)
            if outcome.amiss and arguments.keep is not None:
                shutil.copytree(path, arguments.keep, dirs_exist_ok=True)
    except Interrupted as interrupted:
        return interrupted.exit_code
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(outcome)).decode() + "\n")
    return 1 if outcome.amiss else 0


if __name__ == "__main__":
    sys.exit(main())
