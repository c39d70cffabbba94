"""``casfs status``: what the recorders do."""

from __future__ import annotations

import click

from casfs.cli.options import RootFlags, pass_roots


@click.command("status")
@click.option("--watch", is_flag=True, help="Go on, and show it anew every two seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_roots
def status_command(flags: RootFlags, *, watch: bool, as_json: bool) -> None:
    """Show what every recorder of the archive last reported, and how long the disks will last.

    A report whose recorder is gone (nobody holds the broadcast's lock) is shown as such.

    \b
    Example:
      casfs status
      casfs status --json | jq '.recorders[] | {broadcast, bitrate, gaps}'
    """
