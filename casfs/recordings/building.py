"""The process that puts a recording together for another: see `casfs.recordings.apart`.

It gets one `BuildRequest` as a line of JSON on stdin and says `RecordingSizes` on stdout. It ends
with its stdin, so that it never outlives whoever waits for it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from typing import Final

import msgspec

from casfs.archive import Archive
from casfs.recordings.opening import open_recordings
from casfs.recordings.request import BuildRequest
from casfs.roots import Roots

_COLLECTION_THRESHOLD: Final = 50_000
_NICENESS: Final = 5


def main() -> int:
    """Do what the line says."""
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=BuildRequest)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    # There are no cycles to be found among so many tables.
    gc.freeze()
    gc.set_threshold(_COLLECTION_THRESHOLD)
    os.nice(_NICENESS)
    archive = Archive(Roots.of(request.cas, request.manifests), index_path=request.index_path)
    with contextlib.closing(open_recordings(archive, request.spool)) as recordings:
        sizes = recordings.build_here(request.span)
    sys.stdout.buffer.write(msgspec.json.encode(sizes))
    return 0


def _end_with_stdin() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
