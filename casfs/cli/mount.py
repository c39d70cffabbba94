"""``casfs mount``: the archive as a filesystem."""

from __future__ import annotations

import contextlib
import sys

import click
import trio

from casfs.cli.options import RootFlags, pass_roots
from casfs.mount import ArchiveView, MountOptions, is_hidden, serve
from casfs.systemd import notify


@click.command("mount")
@click.argument("mountpoint", type=click.Path())
@click.option("--allow-other", is_flag=True, help="Let other users read the mount, too.")
@click.option("--allow-nonempty", is_flag=True, help="Mount over a directory that holds files.")
@pass_roots
def mount_command(
    flags: RootFlags, mountpoint: str, *, allow_other: bool, allow_nonempty: bool
) -> None:
    """Show the archive at MOUNTPOINT, read-only and live, until it is unmounted.

    Stays in the foreground; ends on Ctrl-C, SIGTERM and `umount`. What a first read returns was
    checked against its hash; a damaged object reads as an I/O error.

    \b
    Example:
      casfs mount /mnt/tv &
      ls /mnt/tv/broadcasts
      umount /mnt/tv
    """
    archive = flags.archive()
    with contextlib.closing(archive.reader()) as reader:
        view = ArchiveView(lookup=reader, objects=archive.objects, archive=archive.store_id)
        options = MountOptions(allow_other=allow_other, allow_nonempty=allow_nonempty)
        trio.run(lambda: serve(view, mountpoint, options, on_mounted=_announce))


def _announce(path: str) -> None:
    print(f"casfs: mounted at {path}; end with Ctrl-C or umount", file=sys.stderr, flush=True)
    if is_hidden(path):
        print(
            f"casfs: warning: {path} is mounted in a namespace of its own, where hardly anyone sees"
            " it; a service that mounts may set neither ProtectSystem= nor PrivateTmp= or the like",
            file=sys.stderr,
            flush=True,
        )
    notify("READY=1", f"STATUS=mounted at {path}")
