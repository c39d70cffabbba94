"""Let a hostile relay say anything, and see that nothing but our own errors comes of it.

    tools/fuzz --seconds 300

feeds MoQ sessions of every protocol, and whole connections with every QUIC library that is
installed, in turns, with what real relays said and with what is made of it by chance. Memory must
stay within the limits, and nothing may be raised but errors of casfs. What breaks that is made as
small as it goes, printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import traceback

from tools.fuzzing.campaign import targets


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(prog="tools/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, help="begin with this one (default: by the time)")
    arguments = parser.parse_args()
    seed = time.time_ns() % 2**32 if arguments.seed is None else arguments.seed
    deadline = time.monotonic() + arguments.seconds
    everything = targets()
    examples = dict.fromkeys(everything, 0)
    for round_, (name, target) in enumerate(itertools.cycle(everything.items())):
        if time.monotonic() >= deadline:
            break
        try:
            examples[name] += target(seed + round_)
        except Exception:  # noqa: BLE001  whatever it is, it was found
            traceback.print_exc()
            print(f"{name} fails with --seed {seed + round_}")
            return 1
    for name, count in examples.items():
        print(f"{name:32} {count:8} examples")
    print(f"nothing was found in {sum(examples.values())} examples, seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
