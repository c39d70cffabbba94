"""``casfs init``: make an archive."""

from __future__ import annotations

import os

import click

from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.output import print_json, say, warn_of_inodes
from casfs.errors import ConfigError, UsageError
from casfs.filesystems import IN_MEMORY, NETWORK, filesystem_of
from casfs.first_run import Begun, begin
from casfs.roots import create
from casfs.verify import default_directory


@click.command("init")
@click.option(
    "--on-network-filesystem",
    is_flag=True,
    help="Make it even on NFS, SMB and the like. See docs/operations.md first.",
)
@click.option(
    "--first-run",
    is_flag=True,
    help="Only if this machine keeps no archive yet; then succeed if it is the one that it keeps.",
)
@click.option(
    "--state-dir",
    metavar="DIR",
    help="Where --first-run remembers that.  [default: $STATE_DIRECTORY, else casfs below"
    " $XDG_STATE_HOME or ~/.local/state]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def init_command(
    flags: RootFlags,
    *,
    on_network_filesystem: bool,
    first_run: bool,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Make an archive in two empty or new directories.

    Nothing else ever creates a root: a directory that holds no archive is refused by every other
    command, so that a disk which is not mounted is never taken for an empty archive. Of each path
    only the last part is created.

    With --first-run, for services: the first time, two empty directories become an archive, and its
    id is remembered in a state directory. From then on empty directories are a disk that is not
    mounted, and refused, also where both lie on it. If the archive is there, nothing is done.

    \b
    Example:
      casfs init --cas-root /pool/cas --manifest-root /fast/manifests
      casfs init --first-run --state-dir /var/lib/casfs-state
    """
    roots = flags.settings().roots()
    if state_dir is not None and not first_run:
        raise UsageError("--state-dir is for --first-run alone")

    def check() -> None:
        for root in (roots.cas, roots.manifests):
            _check_filesystem(root, allowed=on_network_filesystem)

    if first_run:
        begun = begin(roots, state_dir or default_directory(os.environ), check)
    else:
        check()
        begun = Begun(create(roots).store, created=True)
    warn_of_inodes(roots)
    if as_json:
        print_json(
            {
                "store": begun.store,
                "cas_root": roots.cas,
                "manifest_root": roots.manifests,
                "created": begun.created,
            }
        )
        return
    say(f"archive {begun.store} is {'ready' if begun.created else 'there'}")
    say(f"  objects    {roots.cas}")
    say(f"  manifests  {roots.manifests}")


def _check_filesystem(root: str, *, allowed: bool) -> None:
    kind = filesystem_of(root)
    if kind in NETWORK and not allowed:
        raise ConfigError(
            f"{root} lies on a network filesystem ({kind}), where locks and syncs cannot be relied"
            " on",
            advice="choose a local disk, or give --on-network-filesystem and know why",
        )
    if kind in NETWORK | IN_MEMORY:
        why = "nothing there survives a power cut" if kind in IN_MEMORY else "it is not tested"
        click.echo(f"casfs: warning: {root} lies on {kind}: {why}", err=True)
