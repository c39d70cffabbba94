"""``casfs auto-archive``: record whatever directories and relays list."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from casfs.cli.logs import log_as
from casfs.cli.options import RootFlags, pass_roots
from casfs.cli.settings_options import pass_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from casfs.config import Loaded


@click.command("auto-archive")
@pass_settings("auto-archive")
@pass_roots
def auto_archive_command(flags: RootFlags, *, given: Mapping[str, object]) -> None:
    """Record every broadcast that a directory lists, for as long as it is on air.

    Each broadcast is recorded by a process of its own, which is casfs archive. It starts within a
    poll of the broadcast's appearance, is started again when it dies, and ends with this process. A
    directory that fails or empties ends no recording that still receives data.

    All options may stand in the configuration file, in the table [auto-archive]. SIGHUP reads that
    file again: what it says holds for directories, limits and recordings that begin later;
    recordings that run go on as they are. SIGTERM and Ctrl-C end all of them in good order.

    \b
    Example:
      casfs auto-archive --directory https://tv.example/api/public-streams
      casfs auto-archive --directory https://relay.example/announced/anon --include 'news/*'
      casfs auto-archive --relay-url https://relay.example/anon --broadcast demo/tv
    """
    from ingest.supervisor import supervise

    log_as(flags.load(os.environ, given).settings.auto_archive.log_format)

    def load() -> Loaded:
        return flags.load(os.environ, given)

    supervise(load)
