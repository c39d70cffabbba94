"""``casfs archive``: record one broadcast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from casfs.cli.logs import LogFormat, log_as
from casfs.cli.options import Duration, RootFlags, pass_roots, sync_strategy_option
from casfs.cli.output import print_json, printable, say, warn_of_inodes
from casfs.cli.relay_options import RelayFlags, pass_relay, url_option
from casfs.errors import UsageError
from casfs.quantities import format_bytes

if TYPE_CHECKING:
    from ingest.state import RecorderState, TrackState


@click.command("archive")
@url_option
@click.option("--name", "broadcast", required=True, help="The broadcast, below the URL's path.")
@click.option(
    "--track",
    "tracks",
    multiple=True,
    help="A track to record, and no other; may be given often.  [default: catalog.json, init.mp4,"
    " video0.m4s, audio0.m4s, and all that the catalog names]",
)
@click.option(
    "--include-track",
    "include",
    metavar="GLOB",
    multiple=True,
    help="Of the tracks that are found, record only those that match, catalogs and init.mp4; may"
    " be given often.",
)
@click.option(
    "--exclude-track",
    "exclude",
    metavar="GLOB",
    multiple=True,
    help="Of the tracks that are found, do not record those that match; wins over --include-track;"
    " may be given often.",
)
@click.option("--duration", type=Duration(), help="End after this time (90s, 15m, 2h).")
@click.option(
    "--coalesce",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="Keep the small groups of a fast track (one audio frame a group) some seconds at a time in"
    " one object; or each group in its own.",
)
@click.option(
    "--wait-for-lock",
    type=Duration(),
    default=0.0,
    help="Wait so long for another recorder of the broadcast to end.",
)
@click.option(
    "--stop-with-stdin",
    is_flag=True,
    help="End in good order when standard input is closed, as it is when the program at its other"
    " end is gone.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="Log on stderr, the state once a minute, instead of showing it.",
)
@pass_relay
@sync_strategy_option
@click.option("--json", "as_json", is_flag=True, help="Print a summary as one JSON object.")
@pass_roots
def archive_command(
    flags: RootFlags,
    *,
    relay: RelayFlags,
    url: str,
    broadcast: str,
    tracks: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    duration: float | None,
    coalesce: str,
    wait_for_lock: float,
    stop_with_stdin: bool,
    log_format: LogFormat | None,
    sync_strategy: str | None,
    as_json: bool,
) -> None:
    """Record a broadcast from a MoQ relay until it is told to stop.

    Waits for the broadcast if it is not there yet, and reconnects for ever after any loss. Ends in
    good order on Ctrl-C, SIGTERM or after --duration: then everything that was received is on disk.

    \b
    Example:
      casfs archive --url https://relay.example/anon --name demo/tv
      casfs archive --url https://localhost:4443 --name demo/tv --duration 1h --tls-ca ca.pem
    """
    from ingest.foreground import ForegroundOptions, record_in_foreground
    from ingest.recorder import RecordOptions

    if tracks and (include or exclude):
        raise UsageError(
            "--track names all that is recorded; --include-track and --exclude-track have no say",
            advice="give either the one or the others",
        )

    options = RecordOptions(
        url=url,
        broadcast=broadcast,
        tracks=tuple(dict.fromkeys(tracks)),
        include=include,
        exclude=exclude,
        credentials=relay.credentials(),
        tls=relay.tls(),
        session=relay.session(),
        coalesce=coalesce == "auto",
    )
    if log_format is not None:
        log_as(log_format, broadcast)
    archive = flags.archive(sync_strategy=sync_strategy)
    warn_of_inodes(archive.roots, log=log_format is not None)
    run = ForegroundOptions(
        duration=duration,
        wait_for_lock=wait_for_lock,
        stop_with_stdin=stop_with_stdin,
        log_state=log_format is not None,
    )
    _summarise(record_in_foreground(archive, options, run), as_json=as_json)


def _summarise(state: RecorderState, *, as_json: bool) -> None:
    tracks = {
        name: {
            "groups": track.groups,
            "bytes": track.bytes,
            "incomplete": track.incomplete,
            "redelivered": track.redelivered,
            "gaps": track.gaps,
            "status": track.status,
        }
        for name, track in state.tracks.items()
    }
    if as_json:
        print_json(
            {
                "broadcast": state.broadcast,
                "relay": state.relay,
                "protocol": state.protocol,
                "connections": state.connections,
                "epoch": state.epoch,
                "groups": state.groups,
                "bytes": state.bytes,
                "new_bytes": state.new_bytes,
                "dedup_ratio": round(state.dedup_ratio, 4),
                "gaps": state.gaps,
                "tracks": tracks,
            }
        )
        return
    width = max(map(len, map(printable, state.tracks)), default=0)
    for name, track in state.tracks.items():
        say(f"{printable(name):{width}}  {_describe(track)}")
    say(
        f"{state.groups} groups, {format_bytes(state.bytes)} of {printable(state.broadcast)} are "
        f"kept ({format_bytes(state.new_bytes)} new, dedup {state.dedup_ratio:.2f}x)"
    )


def _describe(track: TrackState) -> str:
    if not track.groups:
        came = f"{track.redelivered} groups that were there" if track.redelivered else "nothing"
        refused = ": the relay refuses this track" if track.status == "refused" else ""
        return f"{came} came{refused}"
    notes = [
        f"{count} {name}"
        for count, name in (
            (track.gaps, "gap" if track.gaps == 1 else "gaps"),
            (track.incomplete, "incomplete"),
            (track.redelivered, "redelivered"),
        )
        if count
    ]
    line = f"{track.groups:6} groups  {format_bytes(track.bytes):>9}  {', '.join(notes)}"
    return line.rstrip()
