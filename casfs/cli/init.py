"""``casfs init``: make an archive."""

from __future__ import annotations

import click

from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.output import print_json, say, warn_of_inodes
from casfs.roots import create


@click.command("init")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def init_command(flags: RootFlags, *, as_json: bool) -> None:
    """Make an archive in two empty or new directories.

    Nothing else ever creates a root: a directory that holds no archive is refused by every other
    command, so that a disk which is not mounted is never taken for an empty archive. Of each path
    only the last part is created.

    \b
    Example:
      casfs init --cas-root /pool/cas --manifest-root /fast/manifests
    """
    roots = flags.settings().roots()
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
