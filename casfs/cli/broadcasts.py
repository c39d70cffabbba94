"""``casfs broadcasts``: what a relay announces."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from casfs.cli.output import print_json, printable, say
from casfs.cli.relay_options import RelayFlags, pass_relay, url_option
from casfs.timestamps import format_time

if TYPE_CHECKING:
    from ingest.discovery import Change


@click.command("broadcasts")
@url_option
@click.option("--prefix", default="", help="Only names below this, in whole segments.")
@click.option("--follow", is_flag=True, help="Go on, and tell what comes and goes.")
@pass_relay
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each.")
def broadcasts_command(
    *, relay: RelayFlags, url: str, prefix: str, follow: bool, as_json: bool
) -> None:
    """List the broadcasts that a relay announces.

    Relays do not say when they have told everything: the list is printed when nothing has come for
    one second, at most ten seconds after asking. Broadcasts that a relay does not announce can be
    recorded all the same, by name.

    With --follow each line begins with + or -, broadcasts that are there come first, and it goes on
    until Ctrl-C or SIGTERM, connecting again after any loss. What ended while there was no
    connection is told after the next.

    \b
    Example:
      casfs broadcasts --url https://relay.example/anon
      casfs broadcasts --url https://relay.example/anon --prefix demo --follow --json
    """
    import trio

    from ingest.discovery import DiscoverOptions, follow_in_foreground, list_broadcasts

    options = DiscoverOptions(
        url=url,
        credentials=relay.credentials(),
        prefix=prefix,
        tls=relay.tls(),
        session=relay.session(),
    )
    if follow:
        follow_in_foreground(options, _tell_json if as_json else _tell)
        return
    for change in trio.run(list_broadcasts, options):
        if as_json:
            _tell_json(change)
        else:
            say(printable(change.broadcast))


def _tell(change: Change) -> None:
    say(f"{'+' if change.announced else '-'} {printable(change.broadcast)}")
    sys.stdout.flush()


def _tell_json(change: Change) -> None:
    print_json(
        {
            "event": "announced" if change.announced else "ended",
            "broadcast": change.broadcast,
            "time": format_time(change.time),
        }
    )
