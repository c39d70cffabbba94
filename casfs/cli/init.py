"""``casfs init``: make an archive."""

from __future__ import annotations

import click

from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.output import print_json, say, warn_of_inodes
from casfs.errors import ConfigError
from casfs.filesystems import IN_MEMORY, NETWORK, filesystem_of
from casfs.roots import create


@click.command("init")
@click.option(
    "--on-network-filesystem",
    is_flag=True,
    help="Make it even on NFS, SMB and the like. See docs/operations.md first.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def init_command(flags: RootFlags, *, on_network_filesystem: bool, as_json: bool) -> None:
    """Make an archive in two empty or new directories.

    Nothing else ever creates a root: a directory that holds no archive is refused by every other
    command, so that a disk which is not mounted is never taken for an empty archive. Of each path
    only the last part is created.

    \b
    Example:
      casfs init --cas-root /pool/cas --manifest-root /fast/manifests
    """
    roots = flags.settings().roots()
    for root in (roots.cas, roots.manifests):
        _check_filesystem(root, allowed=on_network_filesystem)
    described = create(roots)
    warn_of_inodes(roots)
    if as_json:
        print_json(
            {"store": described.store, "cas_root": roots.cas, "manifest_root": roots.manifests}
        )
        return
    say(f"archive {described.store} is ready")
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
