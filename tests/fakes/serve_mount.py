"""Mounts a `DiskArchive`, in a process of its own that a test can signal and kill.

Arguments: the archive's directory, the mount point, and options of `MountOptions` that are true or,
as ``name=number``, that number; ``never`` verifies nothing.
Prints ``ready`` once the mount is there; a MountPointError goes to stderr and ends it with 2.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

import msgspec
import trio

from casfs.errors import MountPointError
from casfs.mount import ArchiveView, MountOptions, Verification, serve
from casfs.objects.local import LocalStore
from tests.fakes.archive import FileLookup

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse_options(options: Sequence[str]) -> MountOptions:
    values: dict[str, object] = {}
    for option in options:
        name, _, number = option.partition("=")
        values[name] = int(number) if number else True
    if values.pop("never", False):
        values["verification"] = Verification.NEVER.value
    return msgspec.convert(values, MountOptions)


async def main(*arguments: str) -> int:
    directory, mountpoint, *options = arguments
    view = ArchiveView(
        lookup=FileLookup(os.path.join(directory, "content.json")),
        objects=LocalStore(os.path.join(directory, "cas")),
        archive="0123456789abcdef",
    )
    try:
        await serve(
            view,
            mountpoint,
            parse_options(options),
            on_mounted=lambda path: print(f"ready {path}", flush=True),
        )
    except MountPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    sys.exit(trio.run(main, *sys.argv[1:]))
