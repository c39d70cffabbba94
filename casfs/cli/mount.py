"""``casfs mount``: the archive as a filesystem."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click
import trio

from casfs.cli import daemon
from casfs.cli.options import RootFlags, pass_roots
from casfs.mount import ArchiveView, MountOptions, Verification, serve
from casfs.recordings.opening import open_recordings

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_ID = 2**32 - 2
_MOST_UMASK = 0o777


class _Octal(click.ParamType[int]):
    """A umask, as chmod(1) and fusermount3(1) write it."""

    name = "octal"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            mask = int(value, 8)
        except ValueError:
            mask = -1
        if not 0 <= mask <= _MOST_UMASK:
            self.fail(f"{value!r} is no umask: up to three octal digits, such as 027", param, ctx)
        return mask


@click.command("mount")
@click.argument("mountpoint", type=click.Path())
@click.option("--allow-other", is_flag=True, help="Let other users read the mount, too.")
@click.option("--allow-nonempty", is_flag=True, help="Mount over a directory that holds files.")
@click.option(
    "--uid", type=click.IntRange(0, _MOST_ID), help="Whom all files belong to (default: you)."
)
@click.option(
    "--gid", type=click.IntRange(0, _MOST_ID), help="Which group they belong to (default: yours)."
)
@click.option(
    "--umask", type=_Octal(), default="0", metavar="OCTAL", help="Permissions to take away, as 027."
)
@click.option(
    "--verify",
    type=click.Choice([mode.value for mode in Verification]),
    default=Verification.OPEN.value,
    show_default=True,
    help="Check what is read against its hash before it is given out, or never.",
)
@click.option(
    "--daemon",
    "in_background",
    is_flag=True,
    help="Return once the archive is mounted, and serve it in the background.",
)
@pass_roots
def mount_command(
    flags: RootFlags,
    mountpoint: str,
    *,
    allow_other: bool,
    allow_nonempty: bool,
    uid: int | None,
    gid: int | None,
    umask: int,
    verify: str,
    in_background: bool,
) -> None:
    """Show the archive at MOUNTPOINT, read-only and live, until it is unmounted.

    Stays in the foreground unless --daemon is given; ends on Ctrl-C, SIGTERM, SIGHUP and `umount`.
    What a first read returns was checked against its hash; a damaged object reads as an I/O error.

    \b
    Example:
      casfs mount --daemon /mnt/tv
      ls /mnt/tv/broadcasts
      umount /mnt/tv
    """
    flags.archive()  # what is wrong with the roots is told before anything is started
    announce = _detached(daemon.detach()) if in_background else _announce
    archive = flags.archive()
    with (
        contextlib.closing(archive.reader()) as reader,
        contextlib.closing(open_recordings(archive)) as recordings,
    ):
        view = ArchiveView(
            lookup=reader,
            objects=archive.objects,
            archive=archive.store_id,
            recordings=recordings,
        )
        options = MountOptions(
            allow_other=allow_other,
            allow_nonempty=allow_nonempty,
            uid=uid,
            gid=gid,
            umask=umask,
            verification=Verification(verify),
        )
        trio.run(lambda: serve(view, mountpoint, options, on_mounted=announce))


def _detached(begun: Callable[[], None]) -> Callable[[str], None]:
    return lambda _path: begun()


def _announce(path: str) -> None:
    print(f"casfs: mounted at {path}; end with Ctrl-C or umount", file=sys.stderr, flush=True)
