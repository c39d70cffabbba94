"""A recorder for tests that end it: commits groups and prints each acknowledgement at once.

``python -m tests.fakes.record_groups CAS MANIFESTS FIRST COUNT [--retry] [--careless]``: the groups
FIRST to FIRST + COUNT - 1, a batch each, on two tracks in turn; every third has the bytes of the
one before it. Lines on stdout: ``recording``, ``kept SEQUENCE``, ``failed MESSAGE``, ``stopped``.
Ends with the exit code of the error that it could not go on after. ``--careless`` lies about every
sync: a test that such a writer passes proves nothing.
"""

from __future__ import annotations

import os
import sys

from casfs.archive import Archive
from casfs.errors import CasfsError, StorageError
from casfs.roots import Roots
from tests.fakes.store import group

TRACKS = ("video0.m4s", "audio0.m4s")
_TRIES = 5


def payload(sequence: int) -> bytes:
    """Return the bytes of a group, the same in every run."""
    return f"group {sequence - (sequence % 3 == 2)} ".encode() * 700


def say(text: str) -> None:
    print(text, flush=True)


def record(archive: Archive, first: int, count: int, *, retry: bool) -> None:
    mirror = archive.mirror()
    with archive.writer("news") as writer:
        say("recording")
        for sequence in range(first, first + count):
            item = group(sequence, payload(sequence), track=TRACKS[sequence % 2])
            for tried in range(_TRIES):
                try:
                    writer.commit([item])
                except StorageError as error:
                    say(f"failed {error}")
                    if not retry or tried == _TRIES - 1:
                        raise
                else:
                    say(f"kept {sequence}")
                    break
            mirror.step(writer.places)
    mirror.close()
    say("stopped")


def _lie(_: object) -> None:
    pass


def main() -> int:
    cas, manifests, first, count, *rest = sys.argv[1:]
    if "--careless" in rest:
        setattr(os, "fsync", _lie)  # noqa: B010  a type checker knows what os has
        setattr(os, "fdatasync", _lie)  # noqa: B010
    try:
        record(Archive(Roots.of(cas, manifests)), int(first), int(count), retry="--retry" in rest)
    except CasfsError as error:
        say(f"failed {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
