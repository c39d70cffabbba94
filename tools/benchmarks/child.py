"""The process of one task: ``python -m tools.benchmarks.child MODULE FUNCTION ARGUMENTS``."""

from __future__ import annotations

import importlib
import json
import sys

import msgspec

from tools.benchmarks.measuring import Measurement, own_peak_bytes


def main() -> None:
    """Call the function with the arguments (JSON) and print the measurement."""
    module, name, arguments = sys.argv[1:]
    task = getattr(importlib.import_module(module), name)
    seconds = task(*json.loads(arguments))
    sys.stdout.buffer.write(msgspec.json.encode(Measurement(seconds, own_peak_bytes())))


if __name__ == "__main__":
    main()
