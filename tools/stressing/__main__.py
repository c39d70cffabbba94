"""tools/stress: set everything upon one archive at once, and check that nothing is lost.

  index   twenty writers, readers, rebuilds and deletions share one index: nobody is locked out,
          its log stays small, and commits are compared with those of the same writers without it
  live    two recorders of a real relay, a verifier, an expirer with a collector, and readers, also
          through a mount: every group is there byte for byte

Exit codes: 0 all is well · 1 not so, or it could not run · 2 wrong usage · 130 interrupted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import msgspec

from tools.demo.steps import Interrupted, end_on_signals
from tools.loopback.process import LoopbackError
from tools.stressing.living import Living, live
from tools.stressing.sharing import Sharing, share_index


def main() -> int:
    """Run what was asked for and print what was found as one JSON object."""
    parser = argparse.ArgumentParser(
        prog="tools/stress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["index", "live"])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60); index: thrice")
    parser.add_argument("--writers", type=int, default=20, help="index only (20)")
    parser.add_argument("--no-mount", action="store_true", help="live: read without a mount")
    arguments = parser.parse_args()
    end_on_signals()
    found: Sharing | Living
    try:
        if arguments.what == "index":
            found = share_index(arguments.writers, arguments.seconds)
        else:
            found = live(arguments.seconds, mount=not arguments.no_mount)
    except (LoopbackError, OSError, subprocess.SubprocessError) as error:
        print(f"stress: failed: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return interrupted.exit_code
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    print(f"stress: {'all is well' if found.passed else 'NOT WELL'}", file=sys.stderr)
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
